"""Migrating: a store that an older cafs has written gets the layout of this one, step by step.

Only who is alone with the store migrates it, and only its index: a copy of that is made first, and
kept (R-26). From then on the file ``migrating`` says which copy it is, and ``VERSION`` already has
the new version, so that an older cafs keeps off. The last thing is to remove that file. Whoever
finds it was preceded by one that died: he puts the copy back in place, and begins again.

Everything here blocks.
"""

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import StorageError
from cafs.model.span import SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, BrokenEnvironmentError
from cafs.store.disk.files import storage_error, sync_directory
from cafs.store.disk.layout import VERSION, Layout, write_new
from cafs.store.tables import spans, sums

_LOG: Final = logging.getLogger("cafs.store")
KEPT: Final = 5
"""Copies of indexes that are kept, the newest ones."""
_OURS: Final = re.compile(r"index-[0-9]+-([0-9]+)")
"""What a copy is called: the version that it has, and when it was made, in ns since the epoch."""
_FICLONE: Final = 0x40049409
_OWNER: Final = 40
_BATCH: Final = 256
"""Streams that are looked at in one transaction."""
Step = Callable[[Layout], None]
"""Brings the index from one version to the next."""


class _Mark(msgspec.Struct):
    """What ``migrating`` says: which version the store had, and where the copy of its index is."""

    version: int
    backup: str


def migrate(layout: Layout, steps: Mapping[int, Step] | None = None) -> None:
    """Bring a store to the present layout; nothing happens when it has that.

    Args:
        layout: of a store that this process is alone with.
        steps: by the version that they begin with; None for those of this cafs.

    Raises:
        StorageError: it cannot be migrated; it is as it was, or will be migrated the next time.
        StorageFullError: there is no room for the copy.
    """
    steps = STEPS if steps is None else steps
    try:
        mark = _unfinished(layout)
        known = layout.version()
        if mark is not None:
            _put_back(layout, mark)
        elif known is not None and known < VERSION:
            mark = _begin(layout, known)
        else:
            return
        for version in range(mark.version, VERSION):
            _LOG.info("store.migrating path=%s version=%d", layout.root, version)
            try:
                steps[version](layout)
            except BrokenEnvironmentError as error:
                # Who opens it next makes it anew, and that is in the present layout.
                _LOG.warning("store.migration.broken error=%s", error.line)
                break
        _sync_tree(layout.index)
        (layout.root / "migrating").unlink()
        sync_directory(layout.root)
        _prune(layout)
    except OSError as error:
        raise storage_error(error, f"{layout.root}: cannot be migrated") from error


def _unfinished(layout: Layout) -> _Mark | None:
    path = layout.root / "migrating"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Mark)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"{path} is damaged", hint="with nothing mounted, remove the store"
        ) from error


def _begin(layout: Layout, version: int) -> _Mark:
    """Copy the index, and say that its migration has begun."""
    backups = layout.root / "backups"
    backups.mkdir(mode=0o700, exist_ok=True)
    for left in backups.glob("index-*.part"):
        if _OURS.fullmatch(left.name.removesuffix(".part")):
            shutil.rmtree(left)
    name = f"index-{version}-{time.time_ns()}"
    _copy(layout.index, backups / f"{name}.part")
    (backups / f"{name}.part").rename(backups / name)
    sync_directory(backups)
    mark = _Mark(version, name)
    write_new(layout.root / "migrating", msgspec.json.encode(mark))
    layout.set_version()
    return mark


def _put_back(layout: Layout, mark: _Mark) -> None:
    """Begin again with the index as it was."""
    source = layout.root / "backups" / mark.backup
    if not source.is_dir():
        raise StorageError(
            f"{layout.root}: a migration has stopped half way, and {source} is gone",
            hint="with nothing mounted, remove the store",
        )
    _LOG.warning("store.migration.again path=%s version=%d", layout.root, mark.version)
    part = layout.root / "index.part"
    if part.exists():
        shutil.rmtree(part)
    _copy(source, part)
    if layout.index.exists():
        shutil.rmtree(layout.index)
    part.rename(layout.index)
    layout.set_version()


def _copy(source: Path, target: Path) -> None:
    """Copy an index that nobody writes into; without copying bytes where the disk can do that."""
    target.mkdir(mode=0o700)
    for name in ("data.mdb", "broken"):
        with suppress(FileNotFoundError), (source / name).open("rb") as old:
            with (target / name).open("xb") as new:
                try:
                    fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
                except OSError:
                    shutil.copyfileobj(old, new, 1 << 20)
                new.flush()
                os.fsync(new.fileno())
            (target / name).chmod(0o600)
    sync_directory(target)


def _sync_tree(path: Path) -> None:
    with (path / "data.mdb").open("rb") as file:
        os.fsync(file.fileno())
    sync_directory(path)


def _prune(layout: Layout) -> None:
    """Remove all but the newest copies. What somebody else has put there stays."""
    ours: list[tuple[int, Path]] = []
    foreign: list[str] = []
    for path in (layout.root / "backups").iterdir():
        named = _OURS.fullmatch(path.name)
        if named is not None and path.is_dir():
            ours.append((int(named[1]), path))
        else:
            foreign.append(path.name)
    for _, old in sorted(ours, reverse=True)[KEPT:]:
        shutil.rmtree(old)
    if foreign:
        _LOG.info("store.migration.foreign path=%s names=%s", layout.root / "backups", foreign)


def _only_with_sums(layout: Layout) -> None:
    """1 to 2: every byte on record has a sum. What has none in a stream is fetched again.

    A blob keeps its bytes, whose digest is known; ``cafs verify`` gives them sums.
    """
    index = Environment(layout.index, {"spans": 1, "sums": 1}, synced=True, make_room=lambda: False)
    try:
        start = b""
        while owners := _owners(index, start):
            index.apply(partial(_drop_unsummed, index, owners))
            start = owners[-1] + b"\xff" * 9
    finally:
        index.close()


def _owners(index: Environment, start: bytes) -> list[bytes]:
    """Some streams that have spans, ascending."""
    table = index.table("spans")
    found: list[bytes] = []
    with index.read() as snapshot:
        while len(found) < _BATCH:
            record = next(snapshot.scan(table, start, b"\xff" * 64), None)
            if record is None:
                break
            found.append(record[0][:_OWNER])
            start = found[-1] + b"\xff" * 9
    return found


def _drop_unsummed(index: Environment, owners: list[bytes], batch: Batch) -> None:
    table = index.table("spans")
    for owner in owners:
        known = SpanSet(each.span for each in sums.recorded(batch, index.table("sums"), owner))
        for span in list(spans.recorded(batch, table, owner)):
            for gap in known.missing(span):
                spans.remove(batch, table, owner, gap)


STEPS: Final[Mapping[int, Step]] = {1: _only_with_sums}
"""By the version that each begins with. One step for each version that there ever was."""
