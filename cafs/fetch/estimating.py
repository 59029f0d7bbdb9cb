"""Estimating: what reading some of a tree would cost, by the rules by which it is fetched.

Nothing is fetched. It is the cost for a reader who reads no more than that, and before anything is
known of the source: what is read ahead, and gaps that pay, come on top.
"""

from collections.abc import Iterable, Sequence

import msgspec

from cafs.fetch.content.zipped import input_of
from cafs.fetch.flights import planning
from cafs.fetch.interfaces import Content
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.span import Span, SpanSet
from cafs.store.store import Store

_NOTHING = SpanSet()


class Cost(msgspec.Struct, frozen=True):
    """What a read takes: bytes that are fetched, and requests for them."""

    fetched: int = 0
    requests: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.fetched + other.fetched, self.requests + other.requests)


class Estimate(msgspec.Struct, frozen=True):
    """What a read takes from an empty store, and from this one.

    ``segments`` is how many it touches, ``packed`` their bytes in the archive: 0 of what has none.
    """

    empty: Cost = Cost()
    here: Cost = Cost()
    segments: int = 0
    packed: int = 0

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.empty + other.empty,
            self.here + other.here,
            self.segments + other.segments,
            self.packed + other.packed,
        )


class Laid(msgspec.Struct, frozen=True):
    """One stream, and what says where its bytes are.

    ``segmented`` is the tree that has its segments, and the number of the stream there. ``raw`` is
    what it is decoded from, and ``by_range`` whether that can be read before all of it was checked.
    ``own`` says that this store alone knows where its bytes are: an empty one reads all of ``raw``.
    """

    what: TreeStream
    segmented: tuple[TreeRecord, int]
    raw: Content
    by_range: bool
    own: bool = False


def estimate(store: Store, laid: Laid, wanted: SpanSet) -> Estimate:
    """What reading these bytes of a stream takes. Blocks, as reading the records does."""
    if not wanted:
        return Estimate()
    what, stream = laid.what, store.streams.find(laid.what.key)
    present = _NOTHING if stream is None else stream.present()
    if not what.rules:
        return _raw(store, laid, wanted)
    if what.rules == "tar":
        whole = [Span(0, laid.raw.size)]
        needed = whole if any(present.missing(span) for span in wanted) else []
        return Estimate(_cost(laid, whole, _NOTHING), _kept(store, laid, needed))
    segments = _touched(store, laid, wanted)
    lacking = [each for each in segments if not _covers(present, each, wanted)]
    inputs = [_input(what, each) for each in segments]
    needed = [_input(what, each) for each in lacking]
    if not laid.by_range:
        inputs = [Span(0, laid.raw.size)]
        needed = inputs if lacking else []
    if laid.own:
        inputs = [Span(0, laid.raw.size)]
    return Estimate(
        _cost(laid, inputs, _NOTHING),
        _kept(store, laid, needed),
        len(segments),
        sum(each.input_length for each in segments),
    )


def _raw(store: Store, laid: Laid, wanted: SpanSet) -> Estimate:
    """Of bytes that lie in the raw content as they are."""
    spans: Iterable[Span] = wanted if laid.by_range else [Span(0, laid.raw.size)]
    empty = [Span(0, laid.raw.size)] if laid.own else spans
    return Estimate(_cost(laid, empty, _NOTHING), _kept(store, laid, spans))


def _touched(store: Store, laid: Laid, wanted: SpanSet) -> Sequence[Segment]:
    tree, number = laid.segmented
    found = {
        each.start: each
        for span in wanted
        for each in store.trees.segments(tree.number, number, span)
    }
    return [found[start] for start in sorted(found)]


def _covers(present: SpanSet, segment: Segment, wanted: SpanSet) -> bool:
    """Whether what is wanted of a segment is decoded already."""
    span = Span(segment.start, segment.start + segment.length)
    return all(present.covers(each) for each in wanted.intersection(span))


def _input(what: TreeStream, segment: Segment) -> Span:
    if what.rules == "zip":
        return input_of(segment)
    return Span(segment.input_start, segment.input_start + segment.input_length)


def _kept(store: Store, laid: Laid, spans: Iterable[Span]) -> Cost:
    """The cost, with what is here of the raw content."""
    if laid.raw.digest() is not None:
        return Cost()
    stream = store.streams.find(laid.raw.key)
    return _cost(laid, spans, _NOTHING if stream is None else stream.present())


def _cost(laid: Laid, spans: Iterable[Span], present: SpanSet) -> Cost:
    size = laid.raw.size
    granules = {"": planning.GRANULE, "segments": planning.BESIDE}
    granule = granules.get(laid.what.rules, planning.FINE)
    asked: list[Span] = []
    for span in planning.joined((each.clamp(size) for each in spans), 0):
        asked += planning.requests(span, present, asked, size, granule)
    return Cost(sum(each.length for each in asked), len(asked))
