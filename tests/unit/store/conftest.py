"""Fixtures for the store: an open one, and a copy of one as a power cut would leave it."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cafs.store.store import Store, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A new store, on a boot of its own, that checkpoints only when it is told to."""
    async with open_store(
        tmp_path / "store", checkpoint_bytes=1 << 40, checkpoint_s=1e6, boot_id="first"
    ) as opened:
        yield opened


@pytest.fixture
def frozen(tmp_path: Path) -> Callable[[Store], Path]:
    """Copies a store as it is now: what kill -9 leaves, or with another boot id, a power cut."""
    copies = iter(range(100))

    def freeze(opened: Store) -> Path:
        target = tmp_path / f"frozen-{next(copies)}"
        shutil.copytree(opened.path, target, ignore=shutil.ignore_patterns("ballast", "lock.mdb"))
        return target

    return freeze
