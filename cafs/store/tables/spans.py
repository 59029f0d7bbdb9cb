"""Spans as records: sorted, disjoint, merged with their neighbours, under a prefix of one file.

The key is the prefix and the start, the value is the stop, so that a look-up, an insertion and a
removal each touch only the spans around them.
"""

import struct
from typing import Final

from cafs.model.span import Span, SpanSet
from cafs.store.db.transactions import Batch, Snapshot, Table, after

_EDGE: Final = struct.Struct(">Q")


def touching(snapshot: Snapshot, table: Table, prefix: bytes, span: Span) -> list[Span]:
    """The recorded spans that share a byte with ``span`` or lie against it, ascending."""
    found: list[Span] = []
    first = prefix + _EDGE.pack(span.start)
    before = snapshot.floor(table, first)
    if before is not None and before[0].startswith(prefix) and before[0] != first:
        each = _span(before)
        if each.stop >= span.start:
            found.append(each)
    found += map(_span, snapshot.scan(table, first, prefix + _EDGE.pack(span.stop + 1)))
    return found


def covers(snapshot: Snapshot, table: Table, prefix: bytes, span: Span) -> bool:
    """Whether one recorded span has all of ``span``: one look-up, where ``touching`` takes two."""
    found = snapshot.floor(table, prefix + _EDGE.pack(span.start))
    return found is not None and found[0].startswith(prefix) and _span(found).stop >= span.stop


def recorded(snapshot: Snapshot, table: Table, prefix: bytes) -> SpanSet:
    """All spans under the prefix."""
    return SpanSet(map(_span, snapshot.scan(table, prefix, after(prefix))))


def add(batch: Batch, table: Table, prefix: bytes, span: Span) -> int:
    """Record a span, merged with those that it touches; how many bytes of it are new."""
    start, stop, known = span.start, span.stop, 0
    for each in touching(batch, table, prefix, span):
        batch.delete(table, prefix + _EDGE.pack(each.start))
        start, stop = min(start, each.start), max(stop, each.stop)
        known += each.length
    batch.put(table, prefix + _EDGE.pack(start), _EDGE.pack(stop))
    return stop - start - known


def remove(batch: Batch, table: Table, prefix: bytes, span: Span) -> int:
    """Take a span out, splitting what it lies in; how many bytes of it there were."""
    count = 0
    for each in touching(batch, table, prefix, span):
        batch.delete(table, prefix + _EDGE.pack(each.start))
        count += each.length
        for rest in SpanSet([each]).remove(span):
            batch.put(table, prefix + _EDGE.pack(rest.start), _EDGE.pack(rest.stop))
            count -= rest.length
    return count


def clear(batch: Batch, table: Table, prefix: bytes) -> int:
    """Forget all spans under the prefix; how many bytes they had."""
    count = recorded(batch, table, prefix).total
    batch.clear(table, prefix, after(prefix), limit=1 << 62)
    return count


def total(snapshot: Snapshot, table: Table) -> int:
    """The bytes of all spans of the table."""
    return sum(_span(record).length for record in snapshot.scan(table, b"", b"\xff" * 256))


def by_prefix(snapshot: Snapshot, table: Table, length: int) -> dict[bytes, SpanSet]:
    """All spans of the table by their prefixes, which are ``length`` bytes long."""
    spans: dict[bytes, list[Span]] = {}
    for record in snapshot.scan(table, b"", b"\xff" * 256):
        spans.setdefault(record[0][:length], []).append(_span(record))
    return {prefix: SpanSet(each) for prefix, each in spans.items()}


def _span(record: tuple[bytes, bytes]) -> Span:
    key, value = record
    return Span(_EDGE.unpack(key[-8:])[0], _EDGE.unpack(value)[0])
