"""Restart points: where in a compressed stream decoding can begin anew.

A first pass decodes a stream once, from its front (``codec/pointing.py`` makes what does), and is
told on the way where a reader may begin later without what comes before. Between two points lies a
segment (``codec/segments.py`` decodes one). A format without points has one, its beginning.

What ``codec`` and ``state`` of a point mean:

=========  =====================================================================================
"store"    the bytes themselves
"gzip"     a gzip member begins there; others may follow it
"deflate"  in the middle of a member, at the first bit of a block: ``state`` is how many low bits of
           the byte at ``input_start`` come before it (0 to 7); ``window`` what was decoded before.
           Behind the member's end others may follow
"zstd"     a frame begins there; others may follow it
"xz"       a block begins there; ``state`` is the id of its check. Others may follow it, and streams
"bzip2"    the magic of a block begins there, ``state`` bits into the byte at ``input_start``.
           Others may follow it, and streams
=========  =====================================================================================
"""

from abc import abstractmethod
from typing import Protocol

import msgspec

from cafs.codec.decoding import Decoder


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A place where decoding can begin.

    ``start`` is in the decoded stream, ``input_start`` in the raw one: the byte that has the first
    bit. ``window`` is what was decoded right before: as much as is referred to, at most 32 KiB, of
    which what nothing refers to may be zeros; empty where nothing is needed.
    """

    start: int
    input_start: int
    codec: str
    state: int = 0
    window: bytes = b""


class PointedDecoder(Decoder, Protocol):
    """A decoder that tells where decoding can begin.

    Concurrency: one caller at a time, in a thread.
    """

    @abstractmethod
    def points(self) -> list[Point]:
        """The points that are new since the last call, ascending; the first is at 0.

        A point is told at the latest with the ``read`` that returns its first byte.
        """

    @abstractmethod
    def consumed(self) -> int:
        """Raw bytes up to the end of what was decoded; to be asked when all was read.

        What follows (padding, garbage that the format's own tool ignores) belongs to no segment.
        """
