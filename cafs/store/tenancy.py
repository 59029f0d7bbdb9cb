"""How a block of work uses a mount's records: for its own time, beyond it, or as a guest.

Each is a context manager that gives the mount's number.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio

from cafs.store.store import Store
from cafs.store.trees.mounts import new_key

Tenancy: TypeAlias = Callable[[Store], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def passing(
    store: Store, *, description: str, key: str | None = None, view: str = "/"
) -> AsyncIterator[int]:
    """A mount that ends with the block.

    Args:
        store: where it is recorded.
        description: what it is for; a person reads it.
        key: by which others find it meanwhile; None makes one.
        view: what it shows at its root.

    Raises:
        MountError, StorageError: as ``Mounts.open``.

    Cancellation: it is removed.
    """
    mount = await store.mounts.open(key or new_key(), description, view=view)
    try:
        yield mount
    finally:
        with trio.CancelScope(shield=True):
            await store.mounts.remove(mount)


@asynccontextmanager
async def lasting(store: Store, *, description: str, key: str, view: str) -> AsyncIterator[int]:
    """A mount that others may have served before, and others will serve afterwards.

    Args and Raises: as ``passing``.

    Cancellation: it stays.
    """
    yield await store.mounts.open(key, description, view=view)


@asynccontextmanager
async def visiting(store: Store, *, description: str, key: str) -> AsyncIterator[int]:
    """Somebody else's mount, with what its refs mean and what it may spend; ``passing`` without it.

    Raises:
        StorageError: as ``Mounts.open``.

    Cancellation: it stays.
    """
    mount = store.mounts.number(key)
    if mount is not None:
        yield mount
        return
    async with passing(store, description=description) as own:
        yield own
