"""Pacing: how much is asked at once, how fast, and how long an answer may take."""

from typing import Final

import msgspec

HASTE_S: Final = 3.0
"""How long a place may take to answer while there are others to ask, seconds: one that hangs must
not use up the deadline of those who wait. When all have failed, each has its whole time."""


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that bound requests.

    ``connections`` are used at once in all, of these ``per_host`` to one host for what is read, and
    up to ``prefetch_connections`` to one host by prefetches. ``prefetch_rate`` bounds what
    prefetches receive, in bytes per second; None is no bound.

    ``connect_s`` bounds making a connection, ``first_byte_s`` the wait for an answer's head. The
    wait between bytes of a body is bounded by what the host's own past says, at least
    ``stall_floor_s`` and at most ``stall_s``.
    """

    connections: int = 64
    per_host: int = 8
    prefetch_connections: int = 32
    prefetch_rate: int | None = None
    connect_s: float = 10.0
    first_byte_s: float = 30.0
    stall_s: float = 20.0
    stall_floor_s: float = 2.0


USUAL: Final = Pacing()
"""What is done when nothing else is said."""
