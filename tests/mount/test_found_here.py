"""Through a mount: what another store has, and what lies inside archives, by digest."""

import errno
import gzip
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from cafs.testing.archives import file, hard_link, tar
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MEMBER = os.urandom(300_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_an_oci_layout_has_is_mounted_without_a_source(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    data = gzip.compress(tar([file("bin/cc", "compiler")]), mtime=0)
    layout = tmp_path / "layout" / "blobs" / "sha256"
    layout.mkdir(parents=True)
    (layout / sha(data)).write_bytes(data)
    (layout / sha(MEMBER)).write_bytes(MEMBER)
    url = origin.put("/x.tar.gz", data)
    toml = f'[mount]\npath="cafs"\n[ref.x]\nfrom="{url}"\nintegrity="sha256:{sha(data)}"\n'
    with cafs.mount(toml, "--look-in", tmp_path / "layout") as mount:
        assert (mount.path / "ref/x/bin/cc").read_bytes() == b"compiler"
        assert (mount.path / "digest/sha256" / sha(MEMBER)).read_bytes() == MEMBER
        assert (mount.path / "tree/sha256" / sha(data) / "bin/cc").read_bytes() == b"compiler"
        status = json.loads((mount.path / ".cafs/status.json").read_bytes())
        assert status["found"] == len(data) + len(MEMBER)
        assert status["fetched"] == 0
        assert "in other stores on this machine" in cafs.run("status").stdout
    assert origin.requests == ()


def test_a_file_inside_an_archive_is_found_by_its_digest_and_says_what_it_is(
    cafs: Cafs, origin: Origin
) -> None:
    data = gzip.compress(
        tar([file("a", MEMBER), hard_link("b", "a"), file("c", b"short")]), mtime=0
    )
    url = origin.put("/x.tar.gz", data)
    toml = f'[mount]\npath="cafs"\n[ref.x]\nfrom="{url}"\nintegrity="sha256:{sha(data)}"\n'
    with cafs.mount(toml) as mount:
        path = mount.path / "digest/sha256" / sha(MEMBER)
        with pytest.raises(FileNotFoundError):
            path.stat()
        for name in ("a", "b"):
            at = mount.path / "ref/x" / name
            assert at.read_bytes() == MEMBER
            assert os.getxattr(at, "user.checksum.sha256").hex() == sha(MEMBER)
            assert os.getxattr(at, "user.cafs.trust") == b"verified"
        wait_until_found(path)
        assert path.read_bytes() == MEMBER
        with path.open("rb") as opened:
            assert os.pread(opened.fileno(), 1000, 200_000) == MEMBER[200_000:][:1000]
        assert path.stat().st_size == len(MEMBER)
        assert os.getxattr(path, "user.cafs.trust") == b"verified"
        assert os.getxattr(path, "user.checksum.sha256").hex() == sha(MEMBER)
        assert os.getxattr(path, "user.cafs.present") == b"300000/300000"
        with pytest.raises(OSError, match="No such file") as missing:
            (mount.path / "digest/sha256" / sha(b"nowhere")).read_bytes()
        assert missing.value.errno == errno.ENOENT
    assert len(origin.requests_for("/x.tar.gz")) <= 2


def wait_until_found(path: Path) -> None:
    """A kernel may remember for a second that there was no such name."""
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
