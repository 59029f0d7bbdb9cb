"""What tests of workers share: a world."""

import os
from collections.abc import Iterator

import pytest

from tests.cli.worker_world import World
from tests.conftest import Cafs, Origin


@pytest.fixture
def world(cafs: Cafs, origin: Origin) -> World:
    """A project with one ref, which nobody serves yet."""
    made = World(cafs, origin)
    made.project()
    return made


@pytest.fixture
def lease(world: World) -> Iterator[list[int]]:
    """The lease of the world's mount as a keeper holds it, once a test has put it here."""
    held: list[int] = []
    yield held
    for each in held:
        os.close(each)
