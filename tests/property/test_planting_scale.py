"""Hundreds of thousands of members: memory stays flat."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.codec import tar
from cafs.store.trees.planting import Planter
from tests.planted import tree_writer

MEMBERS = 400_000
FLAT = 16 << 20
"""Bytes, which are 42 a member: none may keep so many."""


def headers() -> Iterator[bytes]:
    """A tar of empty files, 100 a directory, in runs of a few hundred KiB."""
    run = bytearray()
    rest = b"0" + bytes(100) + b"ustar\x0000".ljust(255, b"\0")
    rights = b"0000644\0" + b"0000000\0" * 2 + b"00000000000\0" + b"14524720400\0"
    constant = sum(rights) + sum(rest) + 8 * 0x20
    for number in range(MEMBERS):
        path = b"d%d/e%d/file%d" % (number // 10_000, number // 100, number)
        checksum = b"%06o\0 " % (constant + sum(path))
        run += path.ljust(100, b"\0") + rights + checksum + rest
        if len(run) > 1 << 18:
            yield bytes(run)
            run.clear()
    yield bytes(run) + bytes(1024)


class Source:
    """Reads what an iterator makes."""

    def __init__(self, runs: Iterator[bytes]) -> None:
        self._runs = runs
        self._run = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at == len(self._run):
            self._run, self._at = next(self._runs, b""), 0
        piece = self._run[self._at : self._at + size]
        self._at += len(piece)
        return piece


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.slow
def test_400_000_members_are_planted_in_flat_memory(tmp_path: Path) -> None:
    before = anonymous_bytes()
    most = 0
    with tree_writer(tmp_path) as writer:
        planter = Planter(writer, name="test")
        for number, member in enumerate(tar.members(Source(headers()).read, name="test")):
            planter.plant(member)
            if number % 50_000 == 0:
                most = max(most, anonymous_bytes())
        planter.finish()
        assert writer.count == MEMBERS + 1 + MEMBERS // 10_000 + MEMBERS // 100
        directory = writer.child(0, b"d39")
        assert directory is not None
        assert len(list(writer.children(directory))) == 100
    assert most - before < FLAT
