"""Decodes one segment of a stream, from where ``codec/pointing.py`` says that it can begin."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from cafs.codec.bzip2_points import Bzip2Blocks
from cafs.codec.restart import members, resumed
from cafs.codec.xz_points import XzBlocks
from cafs.codec.zstd import zstd_pieces
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.record import Segment

Input = Callable[[int, int], bytes]
"""Returns ``length`` raw bytes at ``offset``; fewer only at the end of the raw stream."""

_PIECE: Final = 1 << 20


def decode(segment: Segment, read: Input, window: bytes, *, name: str) -> Iterator[bytes]:
    """What a segment decodes to, in pieces of at most 1 MiB; exactly ``segment.length`` bytes.

    Nothing is compared with the segment's digest: that is the caller's part.

    Args:
        segment: says where its input lies.
        read: the raw stream; asked for bytes of the segment's input only, forward.
        window: what its codec must have before it, at most 32 KiB; empty where it needs nothing.
        name: what errors call it.

    Raises:
        MalformedError: damaged, or it decodes to less than it must.
        UnsupportedError: a codec that is not known, or more memory than we give.
        CafsError: as ``read``.
    """
    left, skip = segment.length, segment.skip
    if not left:
        return
    for piece in _decoded(segment, _forward(segment, read), window, name):
        part = piece[skip : skip + left]
        skip -= min(skip, len(piece))
        left -= len(part)
        if part:
            yield part
        if not left:
            return
    raise MalformedError(f"{name}: {left} of {segment.length} bytes are missing")


def _forward(segment: Segment, read: Input) -> Callable[[int], bytes]:
    """The segment's input as a stream."""
    at, stop = segment.input_start, segment.input_start + segment.input_length

    def more(size: int) -> bytes:
        nonlocal at
        data = read(at, min(size, stop - at)) if at < stop else b""
        at += len(data)
        return data

    return more


def _decoded(
    segment: Segment, read: Callable[[int], bytes], window: bytes, name: str
) -> Iterator[bytes]:
    if segment.codec == "gzip":
        return members(read, name=name)
    if segment.codec == "deflate":
        return resumed(read, bits=segment.state, window=window, name=name)
    if segment.codec == "zstd":
        return zstd_pieces(read, name)
    if segment.codec == "xz":
        return XzBlocks(read, name).resumed(segment.state)
    if segment.codec == "bzip2":
        return Bzip2Blocks(read, name).resumed(segment.state)
    if segment.codec == "store":
        return iter(partial(read, _PIECE), b"")
    raise UnsupportedError(f"{name}: {segment.codec!r} is not known to this version")
