"""Inspecting: says of a ref how it can be read, and what reading some of it would cost.

Nothing of its content is fetched but what says where things are: an index that a lock names, a
table of contents that a manifest names, the directory of a zip. No pass is made over an archive:
what only that would tell is not known.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Final

import msgspec
import trio

from cafs.distribution import laziness
from cafs.distribution.archive import Archives
from cafs.distribution.indexing import Indexing
from cafs.distribution.interfaces import OpenTree
from cafs.distribution.naming import title
from cafs.distribution.picking import Picker
from cafs.distribution.recording import LAYER
from cafs.distribution.resolver import Resolver
from cafs.errors import CafsError, StorageError, UsageError
from cafs.fetch.estimating import Estimate, Laid, estimate
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import ARCHIVE, FILE
from cafs.model.digest import Digest
from cafs.model.identity import TreeIdentity, indexed_tree, located_stream
from cafs.model.mapping import Route
from cafs.model.record import TreeRecord
from cafs.model.ref import DockerRef
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.span import Span
from cafs.model.spec import RefSpec
from cafs.store.store import Store
from cafs.transport.interfaces import Request, Transport

_LOG: Final = logging.getLogger(__name__)
_PROBE: Final = Span(0, 1)
_PROBE_S: Final = 10.0
"""How long a source is asked whether it gives byte ranges."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Who says what lies where in an archive, and what it comes to.

    ``source`` is "pass" (made here), "lock" or "contents"; ``place`` is where a lock's index is
    ("cafs.lock.d", "store", "index-url"), or the kind of a table of contents. ``segments`` is in
    how many pieces it can be decoded, 0 where it lies as it is, and ``median`` their decoded bytes.
    ``decoded`` is bytes, ``entries`` how many there are, the root included.
    """

    source: str
    place: str
    segments: int
    median: int
    decoded: int
    entries: int


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one part.

    ``present`` is bytes of it that are here, ``ranges`` whether its source gives byte ranges, None
    where nobody could be asked. ``why`` is why nothing of it can be read before all of it has come,
    empty where that is not so. ``index`` is None where nothing says what lies where. ``elsewhere``
    is why a store without the index that a pass made in this one must have all of it; empty where
    an empty store needs no more than this one.
    """

    part: Part
    present: int
    ranges: bool | None
    why: str
    index: Index | None
    elsewhere: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What reading given paths takes: so many files, and bytes in them; paths that are not there.

    ``estimate`` is None where only a pass would tell.
    """

    files: int = 0
    size: int = 0
    estimate: Estimate | None = None
    missing: tuple[str, ...] = ()


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a ref; ``reading`` is None where no paths were asked about."""

    resolved: Resolved
    parts: tuple[Looked, ...]
    reading: Reading | None


class _Known(msgspec.Struct, frozen=True):
    """One part with what is known of it; both None where its size is not told."""

    looked: Looked
    raw: Content | None = None
    record: TreeRecord | None = None


class Inspector:
    """Looks at refs.

    Args:
        store: where everything is kept.
        resolver: says what refs mean, and opens their parts.
        fetcher: knows which content can be had by range.
        archives: knows the trees that passes made of archives.
        indexing: knows all others.
        asking: the transport that questions are asked by.
        route: says which URLs to ask instead of a URL.
        place: says where an index of a lock is.
        offline: nobody may be asked anything.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        *,
        store: Store,
        resolver: Resolver,
        fetcher: Fetcher,
        archives: Archives,
        indexing: Indexing,
        asking: Transport,
        route: Route,
        place: Callable[[Digest], str],
        offline: bool,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._fetcher = fetcher
        self._archives = archives
        self._indexing = indexing
        self._asking = asking
        self._route = route
        self._place = place
        self._offline = offline

    async def inspect(self, spec: RefSpec, paths: Sequence[str], patience: Patience) -> Inspection:
        """Look at a ref.

        Args:
            spec: the ref.
            paths: what would be read, from the root that the ref shows; a directory stands for all
                files below it.
            patience: bounds the time without progress.

        Raises:
            UsageError: paths in what is one file.
            CafsError: as ``Resolver.resolve`` and ``Indexing.tree``.

        Cancellation: what has been fetched stays.
        """
        resolved = await self._resolver.resolve(spec, patience)
        if paths and resolved.shape is Shape.FILE:
            raise UsageError(f"{title(spec)} is one file: there are no paths in it")
        known = [
            await self._known(spec, resolved, number, patience)
            for number in range(len(resolved.parts))
        ]
        reading = await self._reading(spec, known, paths, patience) if paths else None
        return Inspection(
            resolved=resolved, parts=tuple(each.looked for each in known), reading=reading
        )

    async def _known(
        self, spec: RefSpec, resolved: Resolved, number: int, patience: Patience
    ) -> _Known:
        part = resolved.parts[number]
        here = None if part.digest is None else self._store.blobs.stat(part.digest)
        if part.size is None and here is None:
            # To open it would be to fetch it.
            why = "its source tells no size: whoever reads any of it reads all of it"
            return _Known(Looked(part=part, present=0, ranges=None, why=why, index=None))
        raw = await self._resolver.part(spec, number, patience)
        told = await self._ranges(part, raw)
        ranges = self._fetcher.ranges(raw)
        facts = laziness.facts_of(part, raw, ranges)
        if told is not None:
            facts = replace(facts, ranges=told)
        index, elsewhere = None, ""
        if resolved.shape is Shape.FILE:
            facts = replace(facts, kind=None)
        record = await self._record(spec, part, raw, facts, patience)
        if record is not None:
            index = await trio.to_thread.run_sync(partial(self._index, record, part))
            if index.source == "pass" and part.index is None and part.contents is None:
                elsewhere = laziness.reason(facts)
            facts = laziness.facts_with(facts, record, index.segments)
            if facts.kind is None:
                # Where it lies as it is, it has all the same been cut.
                facts = replace(facts, segments=index.segments)
        looked = Looked(
            part=replace(part, size=raw.size),
            present=raw.present(),
            ranges=told,
            why=laziness.reason(facts),
            index=index,
            elsewhere=elsewhere,
        )
        return _Known(looked, raw, record)

    async def _record(
        self, spec: RefSpec, part: Part, raw: Content, facts: laziness.Facts, patience: Patience
    ) -> TreeRecord | None:
        """What says where everything is in a part, if that can be had without a pass."""
        if isinstance(spec.ref, DockerRef):
            return await self._indexing.tree(part, raw, LAYER, patience, name=raw.name)
        if facts.kind is None:
            # Held against another pin it is that, and not what the lock has an index of.
            if part.index is None or raw.key != located_stream(part):
                return None
            made = self._store.trees.find(FILE.identity(raw.key))
            return made or await self._indexing.vouched(part, raw, FILE, patience, name=raw.name)
        record = self._archives.find(part)
        if record is None:
            record = await self._indexing.tree(part, raw, ARCHIVE, patience, name=raw.name)
        if record is None and facts.kind == "zip" and not laziness.reason(facts):
            # A zip has a table of contents of its own, at its end.
            record = await self._archives.plant(raw, part, patience)
        return record

    def _index(self, record: TreeRecord, part: Part) -> Index:
        """What a tree comes to. In a thread."""
        trees, lengths = self._store.trees, []
        for number, stream in enumerate(record.streams):
            if stream.rules or record.identity == FILE.identity(stream.raw):
                found = trees.all_segments(record.number, number)
                # One that was written whole by a pass is one piece, whatever is recorded of it.
                lengths += [each.length for each, _ in found] or [stream.size]
        source, place = self._said(record, part)
        return Index(
            source=source,
            place=place,
            segments=len(lengths),
            median=int(median(lengths)) if lengths else 0,
            decoded=sum(stream.size for stream in record.streams),
            entries=record.count,
        )

    def _said(self, record: TreeRecord, part: Part) -> tuple[str, str]:
        """Who says so, and where that is."""
        if not any(stream.vouched for stream in record.streams):
            return "pass", ""
        if part.index is not None:
            made = [each.identity(record.streams[0].raw) for each in (ARCHIVE, LAYER, FILE)]
            if record.identity in {indexed_tree(each, part.index) for each in made}:
                return "lock", self._place(part.index)
        return "contents", part.contents.kind if part.contents is not None else ""

    async def _ranges(self, part: Part, raw: Content) -> bool | None:
        """Whether the first source of a part gives byte ranges; None where it cannot be asked."""
        if part.validator.text or not part.ranges:
            return part.ranges
        if self._offline or not part.urls or raw.digest() is not None:
            return None
        target = next(iter(self._route(part.urls[0])), part.urls[0])
        try:
            with trio.move_on_after(_PROBE_S):
                response = await self._asking.open(Request(target, span=_PROBE, attempts=1))
                await response.aclose()
                return response.head.ranges
        except CafsError as error:
            _LOG.info("inspect.unasked: %s", error.line)
        return None

    async def _reading(
        self, spec: RefSpec, known: Sequence[_Known], paths: Sequence[str], patience: Patience
    ) -> Reading:
        if any(each.record is None for each in known):
            return Reading()
        tree = await self._resolver.tree(spec, patience)
        run = partial(self._estimated, tree, known, paths)
        return await trio.to_thread.run_sync(run)

    def _estimated(self, tree: OpenTree, known: Sequence[_Known], paths: Sequence[str]) -> Reading:
        """What reading paths takes. In a thread."""
        picker = Picker(self._store.trees, tree.record, tree.root)
        missing = [path for path in paths if not picker.pick(path.encode(errors="surrogateescape"))]
        total = Estimate()
        for number, spans in picker.spans().items():
            total += estimate(self._store, self._laid(tree, known, number), spans)
        return Reading(files=picker.files, size=picker.size, estimate=total, missing=tuple(missing))

    def _laid(self, tree: OpenTree, known: Sequence[_Known], number: int) -> Laid:
        what = tree.record.streams[number]
        raw, record = known[what.part].raw, known[what.part].record
        segmented = (record, number)
        if what.planted:
            segmented = (self._store.trees.find(TreeIdentity(what.planted)), 0)
        if raw is None or segmented[0] is None:
            raise StorageError("what was looked at has left the store", hint="look again")
        by_range = self._fetcher.ranges(raw) is not None
        if what.rules == "segments" or what.vouched:
            by_range = by_range or raw.digest() is not None
        else:
            by_range = by_range and not raw.checked()
        own = bool(known[what.part].looked.elsewhere)
        return Laid(what, (segmented[0], segmented[1]), raw, by_range, own)
