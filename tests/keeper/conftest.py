"""Fixtures: the keeper between a kernel and workers that the test plays."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper, find_keeper
from tests.conftest import lacking


@pytest.fixture(scope="session")
def program() -> Path:
    """The keeper's program."""
    found = find_keeper()
    if found is None:
        lacking("cafs-keeper")
        raise AssertionError
    return found


@pytest.fixture
def keeper(program: Path, tmp_path: Path) -> Iterator[RunningKeeper]:
    """A keeper that has read nothing yet."""
    with RunningKeeper(program, tmp_path) as running:
        yield running


@pytest.fixture
def worker(keeper: RunningKeeper) -> HandWorker:
    """The keeper's first worker, which serves."""
    return keeper.begin()
