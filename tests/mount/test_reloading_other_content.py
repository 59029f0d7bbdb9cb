"""A reload with settings that say something else of a name: nothing old is taken for it."""

import errno
import os
import time
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.mount.kept_world import wait_for

pytestmark = pytest.mark.fuse
TOP = '[mount]\npath="cafs"\n'
SIZE = 300_000
FILE = (0o644, b"text")
SOON_S = 30.0


def settings(tree: str, model: str) -> str:
    return f'{TOP}[ref.tree]\nfrom="{tree}"\n[ref.model]\nfrom="{model}"\n'


def bytes_of(path: Path) -> bytes:
    """What a path shows; nothing when it is just being taken from the old meaning to the new."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in {errno.ESTALE, errno.ENOENT}:
            raise
        return b""


def test_a_name_shows_what_the_new_settings_say_and_nothing_of_the_old(
    cafs: Cafs, origin: Origin
) -> None:
    # Same names, same sizes, same times: only the bytes differ.
    trees = [
        origin.put(f"/{number}.tar", tar_bytes({"cc": (0o755, b"%d" % number * SIZE), name: FILE}))
        for number, name in ((1, "only"), (2, "late"))
    ]
    models = [origin.put(f"/model{number}", b"%d" % number * SIZE) for number in (1, 2)]
    old, new = b"1" * SIZE, b"2" * SIZE
    with cafs.mount(settings(trees[0], models[0])) as mounted:
        tree, model = mounted.ref("tree"), mounted.ref("model")
        assert set(os.listdir(tree)) == {"cc", "only"}
        assert (tree / "cc").read_bytes() == model.read_bytes() == old
        cafs.project(settings(trees[1], models[1]))
        cafs.run("reload")
        # The kernel believes a name for a second. No read mixes the two.
        limit = time.monotonic() + SOON_S
        seen: set[bytes] = set()
        while {bytes_of(tree / "cc"), bytes_of(model)} != {new}:
            seen |= {bytes_of(tree / "cc"), bytes_of(model)}
            assert time.monotonic() < limit
        assert seen <= {b"", old, new}
        wait_for(lambda: set(os.listdir(tree)) == {"cc", "late"})
        assert not (tree / "only").exists()
