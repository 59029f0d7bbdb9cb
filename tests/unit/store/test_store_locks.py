"""Locks between tasks and processes: held on files that may be replaced under them (R-37)."""

import os
import subprocess
import sys
from pathlib import Path

import trio

from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk import locking
from cafs.store.store import Store

KEY = StreamKey("ab" * 32)
DATA = b"0123456789" * 10
HOLDER = """
import sys, time
from pathlib import Path
from cafs.model.span import Span
from cafs.store.disk import locking
lock = locking.try_lock(Path(sys.argv[1]), Span(10, 20))
print("held" if lock is not None else "busy", flush=True)
sys.stdin.read()
"""


async def test_r37_a_lock_excludes_other_processes_and_goes_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    child = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert (await child.stdout.receive_some()).strip() == b"held"
        assert locking.try_lock(path, Span(19, 30)) is None
        with path.open("r+b") as file:
            assert locking.is_locked(file.fileno(), Span(0, 11))
            assert not locking.is_locked(file.fileno(), Span(20, 30))
        beside = locking.try_lock(path, Span(20, 30))
        assert beside is not None
        beside.release()
        child.kill()
        await child.wait()
        lock = locking.try_lock(path, Span(10, 20))
        assert lock is not None
        lock.release()
    finally:
        child.kill()
        await child.wait()


async def test_what_a_lock_has_passed_by_is_free(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    lock = locking.try_lock(path, Span(10, 20))
    assert lock is not None
    for position, free in ((5, []), (10, []), (14, [Span(10, 14)]), (12, [Span(10, 14)])):
        lock.pass_by(position)
        for span in free:
            beside = locking.try_lock(path, span)
            assert beside is not None
            beside.release()
        assert locking.try_lock(path, Span(13, 15)) is None
    lock.pass_by(25)
    beside = locking.try_lock(path, Span(10, 20))
    assert beside is not None
    beside.release()
    lock.release()


async def test_what_a_lock_leaves_to_others_is_free(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    lock = locking.try_lock(path, Span(10, 20))
    assert lock is not None
    lock.end_at(25)
    assert locking.try_lock(path, Span(19, 21)) is None
    lock.end_at(15)
    beside = locking.try_lock(path, Span(15, 20))
    assert beside is not None
    assert locking.try_lock(path, Span(14, 15)) is None
    lock.pass_by(12)
    lock.end_at(9)
    rest = locking.try_lock(path, Span(10, 15))
    assert rest is not None
    for each in (lock, beside, rest):
        each.release()


async def test_r37_who_waited_for_a_file_that_was_replaced_starts_over_with_the_new_one(
    store: Store,
) -> None:
    """The lock that came was one on a file that has no name any more."""
    stream = await store.streams.open(KEY, len(DATA))
    await stream.write(0, b"old bytes")
    [old] = store.path.glob("streams/*/*")
    descriptor = os.open(old, os.O_RDWR)
    locking.hold_gate(descriptor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, 0, DATA)
        with trio.fail_after(30):
            while not await trio.to_thread.run_sync(_somebody_waits, old):
                pass
        await stream.discard()
        other = await store.streams.open(KEY, len(DATA))
        assert not other.present()
        os.close(descriptor)
    assert other.present() == SpanSet([Span(0, len(DATA))])
    assert await stream.read(0, len(DATA)) == DATA
    [new] = store.path.glob("streams/*/*")
    assert new != old


def _somebody_waits(path: Path) -> bool:
    """Whether anybody waits for a lock on a file, as the kernel tells."""
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and inode in line for line in lines)


async def test_r37_locks_leave_no_files_that_would_have_to_be_swept(store: Store) -> None:
    before = {path.name for path in (store.path / "leases").iterdir()}
    for number in range(20):
        writer = await store.blobs.create()
        await writer.write(b"%d" % number)
        await writer.commit(None, None)
        lock = store.streams.try_lock_new(StreamKey(f"{number:064x}"))
        assert lock is not None
        lock.release()
    after = {path.name for path in (store.path / "leases").iterdir()}
    assert after - before == {"uploads", "arrivals"}
