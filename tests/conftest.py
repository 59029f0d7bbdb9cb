"""Fixtures that every test may use. What they start is real, on loopback, and stopped after."""

from collections.abc import Iterator

import pytest

from cafs.testing.origin import Origin, running_origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An HTTP origin with faults, on a free port."""
    with running_origin() as running:
        yield running
