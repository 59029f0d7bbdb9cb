"""Readers whose requests stall: they can be killed, and what is told of caches waits for nobody."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.fuse_world import BIG, SLOW, STALLED
from tests.mount.kept_world import Kept, keeping, wait_for

pytestmark = pytest.mark.fuse
GONE_S = 5.0
"""How long a killed reader may take to be gone: a second, and what a busy machine needs; a worker
that owes an answer is left alone for ten."""
LOOKS_S = 1.5
"""In which the keeper looks for readers that have gone."""


class Readers(ExitStack):
    """Programs that read from a mount whose worker stalls; killed at the end."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = kept
        self.stalled = kept.path / "ref" / "file-stalled"

    def read(self, offset: int = 0) -> "subprocess.Popen[bytes]":
        """One whose read stalls."""
        fd = f"os.open({str(self.stalled)!r}, os.O_RDONLY)"
        return self._start("python3", "-c", f"import os; os.pread({fd}, 4096, {offset})")

    def look(self) -> "subprocess.Popen[bytes]":
        """One whose lookup stalls."""
        return self._start("stat", str(self._kept.gcc / os.fsdecode(STALLED + b"bin")))

    def _start(self, *command: str) -> "subprocess.Popen[bytes]":
        reader = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.callback(reader.wait)
        self.callback(reader.kill)
        return reader


@pytest.fixture
def kept(tmp_path: Path, fuse: None) -> Iterator[Kept]:
    with keeping(tmp_path) as found:
        found.levers.stall()
        yield found


@pytest.fixture
def readers(kept: Kept) -> Iterator[Readers]:
    with Readers(kept) as found:
        yield found


def stall(kept: Kept, count: int) -> None:
    wait_for(lambda: kept.counters()["stalled"] == count)


@pytest.mark.parametrize("asks", ["read", "lookup"])
def test_a_killed_reader_is_gone_and_its_request_is_dropped(
    kept: Kept, readers: Readers, asks: str
) -> None:
    reader = readers.read() if asks == "read" else readers.look()
    stall(kept, 1)
    killed = time.monotonic()
    reader.kill()
    assert reader.wait() == -signal.SIGKILL
    assert time.monotonic() - killed < GONE_S
    stall(kept, 0)
    assert kept.status().interrupted == 1
    assert kept.status().workers == 1


def test_a_reader_is_not_killed_for_another(kept: Kept, readers: Readers) -> None:
    # One page is one request, however many wait for it; two ranges are two.
    dying, living = readers.read(), readers.read(offset=256 << 10)
    stall(kept, 2)
    dying.kill()
    assert dying.wait() == -signal.SIGKILL
    stall(kept, 1)
    kept.levers.go_on()
    assert living.wait() == 0
    assert readers.stalled.read_bytes() == SLOW


def test_who_gets_signals_reads_on(kept: Kept, readers: Readers) -> None:
    reader = readers.read()
    stall(kept, 1)
    for _ in range(1000):
        reader.send_signal(signal.SIGURG)
    time.sleep(LOOKS_S)
    assert reader.poll() is None
    kept.levers.go_on()
    assert reader.wait() == 0
    assert kept.status().interrupted == 0


def test_invalidations_freeze_nothing_while_requests_stall(kept: Kept, readers: Readers) -> None:
    assert (kept.gcc / "big").read_bytes() == BIG
    gcc, big = (os.stat(path).st_ino for path in (kept.gcc, kept.gcc / "big"))
    stalled = os.stat(readers.stalled).st_ino
    waiting = [readers.read(), readers.look()]
    stall(kept, 2)
    before = kept.counters()
    for words in (
        ("invalidate-entry", str(gcc), "stalled-bin"),
        ("invalidate-entry", str(gcc), "bin"),
        ("invalidate-inode", str(stalled)),
        ("invalidate-inode", str(stalled), "attributes"),
        ("invalidate-inode", str(big)),
    ):
        assert kept.levers.tell(*words) == "done"
    started = time.monotonic()
    assert set(os.listdir(kept.path)) == {"digest", "ref", "tree"}
    assert (kept.path / "ref" / "broken").is_dir()
    assert kept.status().state == "serving"
    assert time.monotonic() - started < GONE_S
    kept.levers.go_on()
    assert [reader.wait() for reader in waiting] == [0, 0]
    # What was invalidated is asked for again.
    assert (kept.gcc / "big").read_bytes() == BIG
    assert kept.counters()["reads"] > before["reads"] + 1
    assert kept.status().notices == 5
    assert kept.status().notices_dropped == 0
    assert kept.status().workers == 1


def test_attributes_do_not_wait_for_pages_that_are_being_read(kept: Kept, readers: Readers) -> None:
    stalled = os.stat(readers.stalled).st_ino
    waiting = readers.read()
    stall(kept, 1)
    with (kept.gcc / "big").open("rb") as big:

        def asked() -> int:
            """How often the worker was asked, by somebody who asks for attributes now."""
            os.fstat(big.fileno())
            return kept.counters()["fuse.getattr"]

        before = asked()
        assert asked() == before
        assert kept.levers.tell("invalidate-inode", str(stalled)) == "done"
        inode = str(os.fstat(big.fileno()).st_ino)
        assert kept.levers.tell("invalidate-inode", inode, "attributes") == "done"
        wait_for(lambda: asked() > before, GONE_S)
    assert waiting.poll() is None
    kept.levers.go_on()
    assert waiting.wait() == 0
