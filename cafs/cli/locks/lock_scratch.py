"""What locking asks of the store: a place where indexes are made, and room for large ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cafs.assemble.system import System
    from cafs.model.digest import Digest
    from cafs.store.store import Store

_MEDIA_TYPE: Final = "application/vnd.cafs.index"
_PIECE: Final = 1 << 20


@asynccontextmanager
async def scratch_of(system: "System") -> AsyncIterator[Path]:
    """A directory of the store for the indexes that are made in the block.

    Raises:
        StorageError: it cannot be made.
    """
    import trio

    from cafs.store.disk.scratch import scratch

    made = scratch(system.store.path)
    folder = await trio.to_thread.run_sync(made.__enter__)
    try:
        yield folder
    finally:
        with trio.CancelScope(shield=True):  # as long as it takes to remove files
            await trio.to_thread.run_sync(made.__exit__, None, None, None)


async def put(store: "Store", digest: "Digest", path: Path) -> None:
    """Put the file of an index into the store, piece by piece.

    Cancellation: all or nothing.
    """
    import trio

    if store.blobs.stat(digest) is not None:
        return
    writer = await store.blobs.create(_MEDIA_TYPE)
    try:
        async with await trio.open_file(path, "rb") as file:
            while data := await file.read(_PIECE):
                await writer.write(data)
        await writer.commit(digest, None)
    finally:
        await writer.cancel()
