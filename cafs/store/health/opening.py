"""Opening a store: entering its directory, its environments, and putting both in order.

Everything here blocks; it belongs in a thread.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from cafs.errors import StorageError, StorageFullError
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import BrokenEnvironmentError
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import VERSION, Layout, Usage
from cafs.store.health import recovery
from cafs.store.health.migrating import migrate
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.ledger import Ledger
from cafs.store.trees.attachments import Attachments
from cafs.store.trees.trees import Trees

_RESERVE: Final = 1 << 20
"""Bytes in which mounts go on to hand out inodes when the disk is full: thousands."""
_HERITAGE: Final = 1 << 19
"""Bytes of the ballast that become room in an environment when it is let go of."""
INDEX: Final = {
    "ages": 1,
    "aliases": 1,
    "blobs": 1,
    "condemned": 1,
    "contents": 1,
    "counters": 1,
    "documents": 1,
    "drafts": 1,
    "entries": 1,
    "members": 1,
    "names": 1,
    "numbers": 1,
    "pins": 1,
    "references": 1,
    "segments": 1,
    "spans": 1,
    "streams": 1,
    "sums": 1,
    "trees": 1,
    "uploads": 1,
    "uses": 1,
    "windows": 1,
}
"""Tables that outlive a power cut, with the versions of their records."""
RECENT: Final = {
    "attachments": 1,
    "below": 1,
    "counters": 1,
    "drafted": 1,
    "mounts": 1,
    "paths": 1,
    "resolved": 1,
    "settings": 1,
    "snapshots": 1,
    "spans": 1,
    "sums": 1,
}
"""Tables that outlive the process, not the boot."""


def pid_namespace() -> str:
    """The name of the namespace of processes that this one is in."""
    return str(Path("/proc/self/ns/pid").readlink())


def read_boot_id() -> str:
    """The name of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def enter(layout: Layout) -> Usage:
    """Enter a store's directory, which is made if it is missing.

    Raises:
        StorageError: it cannot be used, and why.
    """
    with ExitStack() as undo:
        try:
            layout.prepare()
            usage = Usage(layout, pid_namespace())
            undo.callback(usage.close)
            if usage.alone:
                layout.fill()
                migrate(layout)
            elif layout.version() != VERSION:
                raise StorageError(
                    f"{layout.root}: in use by an older cafs, of layout {layout.version()}",
                    hint="unmount what is mounted with it; the next to open the store migrates it",
                )
            layout.join()
        except OSError as error:
            raise storage_error(error, f"{layout.root}: cannot be entered") from error
        undo.pop_all()
    return usage


def open_environments(
    layout: Layout, usage: Usage, held: ExitStack
) -> tuple[Environment, Environment]:
    """The environments ``index`` and ``recent``, closed with ``held``.

    Who is alone makes anew what is broken.

    Raises:
        BrokenEnvironmentError: one of them is, and others use the store.
        StorageError: one cannot be opened.
    """
    try:
        index = _open_index(layout)
    except BrokenEnvironmentError:
        if not usage.alone:
            raise
        index = _remade_index(layout)
    held.callback(index.close)
    if usage.alone and recovery.unfinished(layout):
        _restore(layout, index)
    try:
        recent = _open_recent(layout)
    except BrokenEnvironmentError:
        if not usage.alone:
            raise
        recent = _remade_recent(layout)
    held.callback(recent.close)
    # Where other programs fill the disk too, what the ballast was is theirs in a moment.
    for environment, table in ((index, "documents"), (recent, "snapshots")):
        layout.ballast.heirs.append(partial(_inherit, environment, table))
    return index, recent


def _inherit(environment: Environment, table: str) -> None:
    with suppress(StorageFullError):  # then it is what there was before
        environment.grow(table, _HERITAGE)


def _open(layout: Layout, path: Path, tables: Mapping[str, int], *, synced: bool) -> Environment:
    """Open an environment, at the price of the ballast if there is no room for a new table."""

    def opened() -> Environment:
        make_room, full = layout.ballast.drop, layout.ballast.full
        return Environment(path, tables, synced=synced, make_room=make_room, full=full)

    try:
        return opened()
    except StorageFullError:
        layout.ballast.drop()  # where it is gone already, another process may have done that since
        return opened()


def _open_recent(layout: Layout) -> Environment:
    recent = _open(layout, layout.recent, RECENT, synced=False)
    try:
        with suppress(StorageFullError):  # then it is too late for that, and what is here is read
            recent.reserve("snapshots", _RESERVE)
    except BaseException:
        recent.close()
        raise
    return recent


def _remade_recent(layout: Layout) -> Environment:
    try:
        recovery.drop_recent(layout)
    except OSError as error:
        raise storage_error(error, f"{layout.recent}: cannot be made anew") from error
    return _open_recent(layout)


def _open_index(layout: Layout) -> Environment:
    return _open(layout, layout.index, INDEX, synced=True)


def _remade_index(layout: Layout) -> Environment:
    try:
        recovery.set_aside_index(layout)
    except OSError as error:
        raise storage_error(error, f"{layout.index}: cannot be made anew") from error
    return _open_index(layout)


def _restore(layout: Layout, index: Environment) -> None:
    try:
        recovery.restore_blobs(layout, BlobRecords(index))
    except OSError as error:
        raise storage_error(error, f"{layout.index}: cannot be made anew") from error


def put_in_order(
    layout: Layout, usage: Usage, ledger: Ledger, trees: Trees, attachments: Attachments
) -> list[int]:
    """Do what only who is alone may do, and let others in.

    Returns:
        The trees that nobody can come to use any more.

    Raises:
        StorageError: the disk failed.
    """
    try:
        recovery.sweep_streams(layout, ledger)
        unused = trees.unpublished()
        if unused:
            # A mount outlives its workers: what it has shown is in use though nobody else is here.
            unused -= attachments.trees()
        usage.share()
    except OSError as error:
        raise storage_error(error, f"{layout.root}: cannot be put in order") from error
    return sorted(unused)
