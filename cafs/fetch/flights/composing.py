"""Composing: reads what lies partly in the store and partly in memory."""

from cafs.fetch.flights.overflow import Overflow
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.model.trust import ANYTHING, Need
from cafs.store.streams.stream import Stream


async def read_both(
    stream: Stream | None,
    overflow: Overflow,
    key: StreamKey,
    span: Span,
    need: Need = ANYTHING,
) -> bytes | None:
    """Read a span of a stream; None when any byte of it is absent in both.

    Args:
        stream: what the store has, None for nothing.
        overflow: what memory has.
        key: the stream's.
        span: not empty.
        need: what must stand behind what the store has; what memory has was made for the reader.

    Raises:
        StorageError: the disk failed.

    Cancellation: no effect.
    """
    # All of them before the first await, after which they may have made way.
    parts = overflow.parts(key, span)
    if not parts:
        return None if stream is None else await stream.read(span.start, span.length, need)
    data: list[bytes] = []
    position = span.start
    for start, part in [*parts, (span.stop, b"")]:
        if position < start:
            length = start - position
            between = None if stream is None else await stream.read(position, length, need)
            if between is None or len(between) < length:
                return None
            data.append(between)
        data.append(part)
        position = start + len(part)
    return b"".join(data)
