"""What a decoder that tells points must keep to, whatever its input is.

* It tells the same bytes and points however its input is cut.
* What lies between two points decodes to the same by itself, also where damage follows.
* What it takes for whole, and the decoder without points too, is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from cafs.codec import windows
from cafs.codec.decoding import decoder
from cafs.codec.pointing import pointed
from cafs.codec.points import Point
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.record import Segment
from tests.fuzz.fuzzing import LIMITS, Given, content_to_blame

_PIECE = 70_001


@dataclass
class Walk:
    """What a decoder told: ``whole`` if it came to the end, behind ``consumed`` raw bytes."""

    content: bytearray = field(default_factory=bytearray)
    points: list[Point] = field(default_factory=list)
    consumed: int = 0
    whole: bool = False


def check(compression: Compression, data: bytes, *, spacing: int, step: int) -> bool:
    """Decode data that may be damaged, with its points and by its segments; whether it was whole.

    Args:
        compression: that it is to be decoded as.
        data: hostile.
        spacing: bytes between points.
        step: bytes that one read gives.
    """
    seen = walked(compression, data, spacing, step)
    again = walked(compression, data, spacing, 1 << 20)
    assert (seen.whole, seen.consumed) == (again.whole, again.consumed)
    known = min(len(seen.content), len(again.content))
    assert seen.content[:known] == again.content[:known]
    both = min(len(seen.points), len(again.points))
    assert seen.points[:both] == again.points[:both]
    if seen.whole:
        assert (seen.content, seen.points) == (again.content, again.points)
        assert 0 <= seen.consumed <= len(data)
        assert bytes(seen.content) == plain(compression, data, bytes(seen.content))
    for segment, window in segments(seen):
        assert segment.length > 0 or not seen.content
        stop = segment.start + segment.length
        assert decoded(segment, data, window) == seen.content[segment.start : stop]
    return seen.whole


def walked(compression: Compression, data: bytes, spacing: int, step: int) -> Walk:
    """Decode as far as it goes."""
    seen = Walk()
    source = Given(data, step)
    with content_to_blame():
        decoding = pointed(compression, source.read, "x", LIMITS, spacing=spacing)
        while True:
            part = decoding.read(_PIECE)
            told = decoding.points()
            assert all(point.start >= len(seen.content) for point in told)
            seen.points += told
            seen.content += part
            assert len(seen.content) <= LIMITS.size
            if not part:
                break
        seen.whole, seen.consumed = True, decoding.consumed()
    assert [point.start for point in seen.points] == sorted({p.start for p in seen.points})
    assert all(len(point.window) <= 32 << 10 for point in seen.points)
    return seen


def segments(seen: Walk) -> Iterator[tuple[Segment, bytes]]:
    """What lies between two points, as a first pass makes it, with the window as it is stored."""
    ends = [(point.start, point.input_start + (point.state > 0)) for point in seen.points[1:]]
    if seen.whole:
        ends.append((len(seen.content), seen.consumed))
    for point, (stop, raw_stop) in zip(seen.points, ends, strict=False):
        if stop > len(seen.content):
            return
        segment = Segment(
            start=point.start,
            length=stop - point.start,
            input_start=point.input_start,
            input_length=raw_stop - point.input_start,
            codec=point.codec,
            state=point.state,
        )
        yield segment, windows.unpack(windows.pack(point.window))


def decoded(segment: Segment, data: bytes, window: bytes) -> bytes:
    """What a segment decodes to by itself."""
    first, last = segment.input_start, segment.input_start + segment.input_length
    assert 0 <= first <= last <= len(data)

    def read(offset: int, length: int) -> bytes:
        assert first <= offset
        assert offset + length <= last
        return data[offset : offset + length]

    return b"".join(decode(segment, read, window, name="x"))


def plain(compression: Compression, data: bytes, otherwise: bytes) -> bytes:
    """What the decoder without points makes of it; ``otherwise`` where that refuses it."""
    source = decoder(compression, Given(data, 1 << 20).read, "x", LIMITS)
    try:
        parts = []
        while part := source.read(_PIECE):
            parts.append(part)
    except (MalformedError, UnsupportedError):
        return otherwise
    return b"".join(parts)


def anywhere(segment: Segment, data: bytes, window: bytes) -> None:
    """Decode what nobody has checked: a segment as another's index may have it."""
    found = b""
    with content_to_blame():
        for piece in decode(segment, lambda at, size: data[at : at + size], window, name="x"):
            assert 0 < len(piece) <= 16 << 20
            found += piece
            assert len(found) <= segment.length
        assert len(found) == segment.length
        if segment.skip and found:
            more = replace(segment, skip=0, length=segment.skip + segment.length)
            assert decoded(more, data, window)[segment.skip :] == found
