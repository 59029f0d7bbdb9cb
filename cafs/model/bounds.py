"""Bounds: how much a store may have."""

from typing import Final

import msgspec


class Bounds(msgspec.Struct, frozen=True):
    """How much a store may have, in bytes.

    ``quota`` bounds its content, None for no bound; ``min_free`` of its disk are left to others.
    """

    quota: int | None = None
    min_free: int = 0


UNBOUNDED: Final = Bounds()
"""Whatever the disk can take."""
