"""Putting a store in order: what a crash left over goes, and a broken index is made anew.

Only for a process that is alone with the store; everything here blocks.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from cafs.errors import InvalidReferenceError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey
from cafs.store.blobs.admission import hash_file
from cafs.store.disk.door import UNREADABLE
from cafs.store.disk.layout import Layout
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.sums import Piece

_LOG: Final = logging.getLogger("cafs.store")
LOSSES: Final = "what refs mean is asked again, pins are lost, trees are made again when read"
"""What is lost with an index, for people."""
_MANY: Final = 1024
"""Pieces that are recorded in one transaction."""


def sweep_streams(layout: Layout, ledger: Ledger) -> None:
    """Remove stream files that no record names: a crash came before or behind their record.

    What the disk does not let go of is logged, and stays until the next time.

    Raises:
        OSError: the directories cannot be read.
    """
    for path in layout.root.glob("streams/*/*"):
        if path.is_dir():
            continue  # none of ours
        key, _, rest = path.name.partition(".")
        try:
            record = ledger.record(StreamKey(key))
        except ValueError:
            record = None
        if record is None or record.digest is not None or record.file.hex() != rest:
            try:
                path.unlink()
                _LOG.info("store.stream.swept path=%s", path)
            except OSError as error:
                _LOG.warning("store.stream.unswept path=%s error=%s", path, error)


def set_aside_index(layout: Layout) -> None:
    """Move a broken index out of the way, and make room for another.

    This boot's records go with it: mounts know trees by numbers, which the other will give anew.

    Raises:
        OSError: the disk failed.
    """
    shutil.rmtree(layout.recent)
    layout.join()
    target = layout.quarantine / f"index-{time.time_ns()}"
    _rebuilding(layout).touch()
    layout.index.rename(target)
    layout.index.mkdir(mode=0o700)
    # It may be the only word that a person gets: who looks later finds nothing wrong.
    _LOG.warning(
        "the store's records were damaged, and are made anew from its blobs: %s (store.index.broken"
        " moved_to=%s)",
        LOSSES,
        target,
    )


def drop_recent(layout: Layout) -> None:
    """Begin this boot's records anew, as after a power cut: what no checkpoint has seen is lost.

    Raises:
        OSError: the disk failed.
    """
    shutil.rmtree(layout.recent)
    layout.join()
    _LOG.warning(
        "what the store noted since the machine was started was damaged: what came in the last"
        " seconds is fetched again (store.recent.broken path=%s)",
        layout.recent,
    )


def unfinished(layout: Layout) -> bool:
    """Whether somebody has died who was making the index anew."""
    return _rebuilding(layout).exists()


def _rebuilding(layout: Layout) -> Path:
    return layout.root / "rebuilding"


def restore_blobs(layout: Layout, records: BlobRecords) -> None:
    """Record the blobs that are there, each after hashing it; what is not its name is quarantined.

    What somebody has recorded who died over it is not hashed again. For worker threads made by
    trio.

    Raises:
        OSError: the disk failed.

    Cancellation: the rest is not recorded, and is fetched again when it is needed.
    """
    for path in lying(layout):
        with suppress(FileNotFoundError):  # it is no file
            restore_blob(layout, records, path)
    _rebuilding(layout).unlink(missing_ok=True)


def lying(layout: Layout) -> Iterator[Path]:
    """What lies where blobs do, and need not be one.

    Raises:
        OSError: the disk failed.
    """
    for folder in sorted(layout.root.glob("blobs/sha256/*")):
        if folder.is_dir() and not folder.is_symlink():
            yield from folder.iterdir()
        else:
            yield folder


def restore_blob(layout: Layout, records: BlobRecords, path: Path) -> bool:
    """Record the blob in a file, after hashing it; whether it is what the file's name says.

    What it is not is quarantined; nothing happens when it is on record. For worker threads made by
    trio.

    Raises:
        FileNotFoundError: it is no file, or not there any more.
        OSError: the disk failed.

    Cancellation: it is not recorded.
    """
    name = named(path)
    if name is not None and records.get(name) is not None:
        return True
    pieces: list[Piece] = []
    try:
        digest = hash_file(path, keep=partial(_keep, records, name, pieces)).digest()
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        digest = None
    if digest is None or digest != name:
        if name is not None:
            records.delete(name)
        path.rename(layout.quarantine / path.name)
        _LOG.warning("store.blob.quarantined path=%s digest=%s", path, digest)
        return False
    records.restore(Descriptor(OCTETS, digest, path.stat().st_size), pieces)
    _LOG.info("store.blob.restored digest=%s", digest)
    return True


def _keep(
    records: BlobRecords, digest: Digest | None, pieces: list[Piece], more: list[Piece]
) -> None:
    """Gather what a file's bytes are, and record it before it is much."""
    pieces += more
    if digest is not None and len(pieces) >= _MANY:
        records.describe(digest, pieces)
        pieces.clear()


def named(path: Path) -> Digest | None:
    """The digest that a blob's file is called by; None when that is no name of a blob."""
    try:
        return Digest.parse(f"{CANONICAL}:{path.name}")
    except InvalidReferenceError:
        return None
