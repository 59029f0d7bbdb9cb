"""What programs see of what somebody vouched for, once all of the bytes are here."""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cafs.testing import tabled
from cafs.testing.command import Cafs, Mount
from cafs.testing.origin import Origin
from tests.mount.test_provisional import error_of
from tests.unit.distribution.test_promoting import rename
from tests.unit.distribution.test_tables import FILLER, ITEMS, TREE, serve

pytestmark = pytest.mark.fuse


def until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    limit = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def project(origin: Origin, **more: Any) -> str:  # noqa: ANN401 - of a maker
    layer = tabled.estargz(ITEMS, chunk=200_000, **more)
    return f'[ref.base]\nfrom = "{serve(origin, layer)}"\n'


def attribute(path: Path, name: str) -> bytes | None:
    with suppress(OSError):  # it has none
        return os.getxattr(path, name)
    return None


def poke(path: Path) -> int | None:
    """Read a byte that the kernel does not have; how that failed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(descriptor, 1, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno
    return None


def test_what_is_vouched_for_becomes_verified_once_all_of_it_is_here(
    cafs: Cafs, origin: Origin
) -> None:
    with cafs.mount(project(origin)) as mounted:
        first, filler = mounted.ref("base") / "usr/first", mounted.ref("base") / "usr/filler"
        assert first.read_text() == TREE["usr/first"]
        assert attribute(first, "user.cafs.trust") == b"vouched"
        assert attribute(first, "user.checksum.sha256") is None
        cafs.run("prefetch", "base")
        until(lambda: poke(filler) is None and "promote.verified" in mounted.log())
        # What another process wrote of it meanwhile is decoded anew when it is read.
        until(lambda: poke(first) is None and attribute(first, "user.cafs.trust") == b"verified")
        assert filler.read_text() == FILLER
        assert attribute(filler, "user.cafs.trust") == b"verified"
        digest = hashlib.sha256(FILLER.encode()).hexdigest()
        assert (mounted.path / "digest/sha256" / digest).read_text() == FILLER


def test_a_table_that_shows_other_files_than_the_layer_shows_nothing_any_more(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.expect_log("fetch.disowned|promote")
    with cafs.mount(project(origin, edit=rename)) as mounted:
        base = mounted.ref("base")
        with (base / "usr/evil").open("rb") as evil:
            assert evil.read() == TREE["usr/first"].encode()
            cafs.run("prefetch", "base")
            until(lambda: poke(base / "usr/filler") == errno.EBADMSG)
            until(lambda: "serving.pages.dropped" in mounted.log())
            until(lambda: error_of(lambda: os.pread(evil.fileno(), 1, 0)) == errno.EBADMSG)
        line = os.getxattr(base, "user.cafs.error").decode()
        assert "the table of contents sha256:" in line
        assert "there is no 'usr/evil' in the layer" in line
        assert failure(mounted) == line
        # What the kernel has a name for can be asked why it is not read.
        assert os.getxattr(base / "usr/evil", "user.cafs.error").decode() == line
        cafs.run("reload")
        until(
            lambda: sorted(os.listdir(base / "usr")) == ["filler", "first", "last", "link", "same"]
        )
        assert (base / "usr/first").read_text() == TREE["usr/first"]
        assert attribute(base / "usr/first", "user.cafs.trust") == b"verified"


def failure(mounted: Mount) -> str | None:
    (found,) = mounted.status()["refs"]
    return found["error"]
