"""A disk changes bytes of what an archive was decoded to: the tree that is mounted stays itself."""

from pathlib import Path
from random import Random

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

CONTENT = Random(7).randbytes(300_000)


def streams(cafs: Cafs) -> list[Path]:
    """The files of streams that have a byte; the others are only locked."""
    files = [path for path in (cafs.store / "streams").rglob("*") if path.is_file()]
    return [path for path in files if path.stat().st_size]


def flip(cafs: Cafs) -> None:
    """Change a byte in the middle of the one stream that is in the store."""
    (path,) = streams(cafs)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_decoded_stream_that_lost_a_bit_is_decoded_again_for_the_tree_that_is_mounted(
    cafs: Cafs, origin: Origin, compression: str
) -> None:
    archive = tar_bytes({"bin/tool": (0o755, CONTENT)}, compression=compression)
    url = origin.put(f"/tool.tar.{compression}", archive)
    toml = f'[mount]\npath = "cafs"\n[ref.tool]\nfrom = "{url}"\n'
    cafs.project(toml)
    cafs.run("prefetch", "-q")
    flip(cafs)
    origin.forget()
    cafs.expect_log("store.stream.damaged")
    with cafs.mount(toml) as mounted:
        file = mounted.ref("tool") / "bin" / "tool"
        before = file.stat()
        assert file.read_bytes() == CONTENT
        assert file.stat().st_ino == before.st_ino
    assert origin.bytes_sent() == 0
    # One copy: what was decoded to before is not left behind beside it.
    assert len(streams(cafs)) == 1
