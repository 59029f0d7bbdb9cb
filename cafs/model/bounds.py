"""Bounds: how much a store may have."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a store may have, in bytes.

    ``quota`` bounds its content, None for no bound; ``min_free`` of its disk are left to others.
    """

    quota: int | None = None
    min_free: int = 0


UNBOUNDED: Final = Bounds()
"""Whatever the disk can take."""
