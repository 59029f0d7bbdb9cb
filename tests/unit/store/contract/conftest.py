"""Every store of blobs, one after the other, for the suite that all of them pass."""

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cafs.store.blobs.memory import MemoryBlobs
from cafs.store.interfaces import BlobStore
from cafs.store.store import open_store

Full = Callable[[], AbstractContextManager[None]]
"""Makes a store have no space for uploads, as long as the context lasts."""


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written into a stream's file: half of a write lies there, then ENOSPC."""

    def failing(descriptor: int, data: memoryview, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, bytes(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        yield


def full_memory(blobs: MemoryBlobs) -> Full:
    @contextmanager
    def full() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blobs, "_limit", blobs.used)
            yield

    return full


@pytest.fixture(params=["disk", "memory"])
async def subject(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[BlobStore, Full]]:
    if request.param == "memory":
        memory = MemoryBlobs()
        yield memory, full_memory(memory)
        return
    async with open_store(
        tmp_path / "store", checkpoint_bytes=1 << 40, checkpoint_s=1e6, boot_id="first"
    ) as store:
        yield store.blobs, full_disk


@pytest.fixture
def blobs(subject: tuple[BlobStore, Full]) -> BlobStore:
    """An empty store of blobs."""
    return subject[0]


@pytest.fixture
def full(subject: tuple[BlobStore, Full]) -> Full:
    """Fills the store of the test."""
    return subject[1]
