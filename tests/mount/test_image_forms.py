"""An image in its three forms, made by the real tools, mounted from a real registry.

As ``scripts/bench image`` and ``scripts/soak image`` do it, of a small root file system.
"""

import os
import random
from pathlib import Path

import pytest

from cafs.testing.archives import directory, file, hard_link, script, symlink, write_tar
from cafs.testing.command import Cafs
from cafs.testing.daemons import find_program
from cafs.testing.debian import FORMS, DebianImage
from cafs.testing.imaging import copy_lock, toml_of
from cafs.testing.sameness import compare_forms
from cafs.testing.touching import touched
from tests.conftest import lacking

pytestmark = pytest.mark.fuse

_ESTARGZ = all(map(find_program, ("containerd", "ctr", "ctr-remote")))
_MADE = [form for form in FORMS if form != "estargz" or _ESTARGZ]
"""Not every machine has what makes eStargz; what reads it is tested without that too."""
_MIB = 1 << 20
_BYTES = random.Random(1).randbytes(3 * _MIB)
_READ = 64 << 10
_BESIDE = 256 << 10
"""The manifest, a table of contents, and what ranges are rounded to."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> DebianImage:
    """The forms of a small root file system."""
    made = DebianImage(tmp_path_factory.mktemp("image"))
    items = [
        directory("bin"),
        script("bin/run", "#!/bin/sh\necho ran\n"),
        directory("lib"),
        *(file(f"lib/{number}", _BYTES[number:]) for number in range(4)),
        hard_link("lib/again", "lib/1"),
        symlink("lib/link", "../bin/run"),
        file("empty"),
    ]
    write_tar(made.tar, items)
    if os.geteuid():
        lacking("root")
    made.make(_MADE)
    return made


def test_each_form_is_what_tar_unpacks(fuse: None, cafs: Cafs, image: DebianImage) -> None:
    found = list(compare_forms(image.directory, readers=2, forms=_MADE, worlds=cafs.beside))
    assert [outcome.form for outcome in found] == _MADE
    for outcome in found:
        assert outcome.well, str(outcome)
        assert outcome.entries == 10
        assert outcome.bytes >= 5 * len(_BYTES) - 7


@pytest.mark.parametrize("form", _MADE)
def test_what_was_read_lies_in_segments_and_hardly_more_is_fetched(
    fuse: None, cafs: Cafs, image: DebianImage, form: str, tmp_path: Path
) -> None:
    with image.registry() as registry:
        text = toml_of(image.reference(registry, form))
        if form == "plain":
            locking = cafs.beside(tmp_path / "locking")
            locking.project(text)
            locking.run("lock")
            copy_lock(locking.directory, cafs.directory)
        before = len(registry.requests())
        with cafs.mount(text) as mount:
            with (mount.ref("debian") / "lib" / "2").open("rb", buffering=0) as file:
                file.seek(_MIB)
                assert file.read(_READ) == _BYTES[2 + _MIB :][:_READ]
            sent = sum(one.bytes_sent for one in registry.requests()[before:])
            found = touched(cafs.store, mount.ref("debian"))
    assert _READ <= found.read < len(_BYTES) - 2
    assert found.segments >= 1
    assert found.read <= found.decoded
    assert sent <= 1.3 * found.packed + _BESIDE
