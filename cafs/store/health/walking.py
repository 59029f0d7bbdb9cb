"""Walking: whether the records of a store can be read at all, found out before anybody does.

LMDB trusts its file: one flipped bit may kill whoever reads there. So a process of its own walks
the pages (``walker``), of whichever commit is the last one, while others read and write. What is
found to be damaged is marked: nobody opens it any more, and who next has the store alone makes it
anew from the blobs (``recovery``).
"""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs.errors import StorageError
from cafs.store.db.btree import BrokenRecord
from cafs.store.db.transactions import is_marked, mark_broken
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import VERSION, Layout, Usage
from cafs.store.health.opening import INDEX, RECENT, pid_namespace, read_boot_id
from cafs.store.health.walker import Line

_LOG: Final = logging.getLogger("cafs.store")
_PATIENCE_S: Final = 120.0
"""Without a word from the process: a disk that answers has it say something each megabyte."""
_LETHAL: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
)
"""What a process dies of that reads what is not there."""
Progress = Callable[[int, int], None]
"""Told how many pages of how many have been seen."""


class Walked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one environment.

    ``path`` is its directory. ``damage`` says what is wrong with it as a whole; it is empty when
    only the records of ``broken`` are. ``records`` is how many there are.
    """

    path: Path
    damage: str = ""
    broken: tuple[BrokenRecord, ...] = ()
    records: int = 0


async def examine(path: Path, progress: Progress) -> list[Walked]:
    """Walk both environments of a store, and mark what is damaged. The store need not be open.

    Who has the store alone keeps others from entering it for that time.

    Args:
        path: the store's directory, which is there.
        progress: told from time to time, of one environment after the other.

    Raises:
        StorageError: the store cannot be used, or it could not be found out.

    Cancellation: nothing is marked that was not found to be damaged.
    """
    boot_id = await trio.to_thread.run_sync(read_boot_id)
    layout = Layout(path, boot_id)
    usage = await trio.to_thread.run_sync(_enter, layout)
    try:
        # Records of another layout are checked when they have been brought into this one.
        known = layout.version() == VERSION
        return [
            await walk(directory, versions if known else {}, progress)
            for directory, versions in ((layout.index, INDEX), (layout.recent, RECENT))
            if (directory / "data.mdb").exists()
        ]
    finally:
        usage.close()


def _enter(layout: Layout) -> Usage:
    try:
        layout.prepare()
        return Usage(layout, pid_namespace())
    except OSError as error:
        raise storage_error(error, f"{layout.root}: cannot be entered") from error


async def walk(path: Path, versions: Mapping[str, int], progress: Progress) -> Walked:
    """Walk one environment in a process of its own, and mark it if it is damaged.

    Args:
        path: its directory.
        versions: of the records of its tables; of others records are not checked.
        progress: as for ``examine``.

    Raises:
        StorageError: it could not be found out.

    Cancellation: the process is killed.
    """
    if is_marked(path):
        return Walked(path=path, damage="it was found damaged before")
    said = await _ask(path, versions, progress)
    broken = tuple(_broken(each) for each in said.broken)
    walked = Walked(
        path=path, damage=said.damage, broken=broken, records=sum(said.records.values())
    )
    if walked.damage:
        _LOG.warning("store.walk.damaged path=%s: %s", path, walked.damage)
        try:
            await trio.to_thread.run_sync(mark_broken, path)
        except OSError as error:
            raise storage_error(error, f"{path} is damaged, and cannot be marked") from error
    return walked


def _broken(said: "msgspec.Struct") -> BrokenRecord:
    table, low, key, high = msgspec.structs.astuple(said)
    return BrokenRecord(
        table, bytes.fromhex(low), bytes.fromhex(key), None if high is None else bytes.fromhex(high)
    )


async def _ask(path: Path, versions: Mapping[str, int], progress: Progress) -> Line:
    """What the process finds; its death by what it read is damage too."""
    last: list[Line] = []
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-P", "-m", "cafs.store.health.walker", str(path)],
                stdin=msgspec.json.encode(dict(versions)),
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        await _listen(process, path, last, progress)
    if last and last[0].done:
        if last[0].failure:
            raise StorageError(f"{path} cannot be examined: {last[0].failure}")
        return last[0]
    code = process.returncode
    if code is not None and -code in _LETHAL:
        return Line(damage=f"who reads it dies of {signal.Signals(-code).name}")
    raise StorageError(f"{path} cannot be examined: the process for that ended with {code}")


async def _listen(process: trio.Process, path: Path, last: list[Line], progress: Progress) -> None:
    """Hear all that the process says; its last line is put into ``last``.

    Raises:
        StorageError: it has fallen silent.
    """
    if process.stdout is None:
        raise AssertionError
    buffer = b""
    async with process.stdout as said:
        while True:
            with trio.move_on_after(_PATIENCE_S) as silence:
                data = await said.receive_some(1 << 16)
            if silence.cancelled_caught:
                process.kill()
                raise StorageError(
                    f"{path} cannot be examined: nothing was read of it for {_PATIENCE_S:g} s"
                )
            *lines, buffer = (buffer + data).split(b"\n")
            for each in lines:
                line = msgspec.json.decode(each, type=Line)
                last[:] = [line]
                progress(line.pages, line.total)
            if not data:
                return
