"""Reading what may have to be made first: by content whose bytes come from other content."""

from collections.abc import Awaitable, Callable

from cafs.fetch.interfaces import Content, Patience
from cafs.metrics import Metrics
from cafs.model.span import Span
from cafs.store.streams.streams import Streams

Local = Callable[[Span], Awaitable[bytes | None]]
"""Reads a span of the store; None when any byte of it is absent."""


async def read_or_make(
    content: Content,
    local: Local,
    offset: int,
    length: int,
    patience: Patience,
    *,
    streams: Streams,
    metrics: Metrics,
) -> bytes:
    """Read from the store; make what is absent there, and read again.

    Raises:
        CafsError: as ``content.ensure``.

    Cancellation: what has been made stays.
    """
    span = Span(offset, offset + length).clamp(content.size)
    if not span.length:
        return b""
    data = await local(span)
    metrics.add("fetch.misses" if data is None else "fetch.hits")
    if data is not None:
        return data
    async with streams.hold(content.key, span):  # until it is read
        while data is None:
            await content.ensure(span, patience)
            data = await local(span)
    return data
