"""Tables of contents: trees of layers out of what their manifests pin, a few requests each.

Nothing in a table is believed before all of it has the digest that the manifest names. It is hashed
again while it is read, since what was fetched may be fetched anew in between. The tree becomes
visible last, whole, and is never taken for one that a pass has made.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import trio

from cafs.codec import estargz, zstd_chunked
from cafs.distribution.pinned_table import PinnedTable, Wrong
from cafs.errors import (
    MalformedError,
    StorageFullError,
    UnsupportedError,
)
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Ranges
from cafs.fetch.passes.making import Making, MemberPlanter
from cafs.model.identity import TreeIdentity, indexed_stream
from cafs.model.limits import Limits
from cafs.model.member import Member
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.resolved import Contents
from cafs.model.span import Span
from cafs.store.store import Store
from cafs.store.trees.tree_writing import TreeWriter

_TAIL: Final = 64 << 10
"""Bytes at the end of an eStargz layer that are asked for first: the footer, and much of the table,
all of it where the layer has a few hundred files."""
_LARGE: Final = 16 << 20
"""A table of more bytes is looked at before it is fetched: of more than 200,000 files."""
_GZIP: Final = b"\x1f\x8b\x08"
_READERS: Final = 2
"""Tables that are read at once: each is a thread that writes to the store."""
_LOG: Final = logging.getLogger("cafs.distribution")


class Subject(msgspec.Struct, frozen=True):
    """What a tree is wanted of: raw bytes, what is made of their members, what errors call them."""

    raw: Content
    making: Making
    name: str


class Tables:
    """Makes trees out of tables of contents.

    Concurrency: any number of tasks.
    """

    def __init__(self, store: Store, fetcher: Fetcher, limits: Limits) -> None:
        self._store = store
        self._fetcher = fetcher
        self._limits = limits
        self._threads = trio.CapacityLimiter(_READERS)

    async def tree(
        self,
        identity: TreeIdentity,
        contents: Contents,
        subject: Subject,
        patience: Patience,
    ) -> TreeRecord | None:
        """The tree that a table says a layer is; None where it does not do, which is logged.

        Args:
            identity: what the tree is to be called.
            contents: where the table is, and what it must be.
            subject: the layer.
            patience: bounds the time in which nothing comes.

        Raises:
            DigestMismatchError: it is another table, also when it is asked for once more.
            CafsError: as ``Content.ensure``; the store cannot be written.

        Cancellation: nothing is published.
        """
        known = self._store.trees.find(identity)
        if known is not None:
            return known
        ranges = self._fetcher.ranges(subject.raw)
        if ranges is None:
            _LOG.info("lazy.no: %s: it is small, or comes only all at once", subject.name)
            return None
        make = partial(self._make, identity, contents, subject, ranges, patience)
        try:
            try:
                return await make()
            except Wrong as wrong:
                if not await ranges.reject(wrong.span):
                    raise wrong.error from wrong.__cause__
                _LOG.info("contents.again: %s", wrong.error.line)
            try:
                return await make()
            except Wrong as wrong:
                await ranges.reject(wrong.span)
                raise wrong.error from wrong.__cause__
        except (MalformedError, UnsupportedError) as error:
            _LOG.warning("lazy.no: %s", error.line)
            return None

    async def _make(
        self,
        identity: TreeIdentity,
        contents: Contents,
        subject: Subject,
        ranges: Ranges,
        patience: Patience,
    ) -> TreeRecord:
        span = await _find(contents, ranges, patience, subject.name)
        await _bring(ranges, span, patience)

        async def pull(offset: int, length: int) -> bytes:
            if patience.pulse is not None:
                patience.pulse.beat()
            return await ranges.read(offset, length, patience)

        table = PinnedTable(contents, span, subject.name, self._limits, pull)
        run = partial(self._plant, identity, table, subject)
        return await trio.to_thread.run_sync(run, limiter=self._threads)

    def _plant(self, identity: TreeIdentity, table: PinnedTable, subject: Subject) -> TreeRecord:
        """Check the table, then plant what it says. In a thread."""
        table.check()
        raw = subject.raw.key
        read_table = estargz.read_table
        if table.contents.kind == zstd_chunked.KIND:
            read_table = zstd_chunked.read_table
        limits, name = table.limits, table.name
        with self._store.trees.writer(identity) as writer:
            planter = subject.making.planter(writer, name=name, limits=limits)
            planting = _Planting(writer, planter)
            size = table.use(
                partial(read_table, sink=planting, start=table.span.start, name=name, limits=limits)
            )
            planter.finish()
            stream = TreeStream(
                key=indexed_stream(raw, table.contents.digest),
                size=size,
                raw=raw,
                part=0,
                rules="segments",
                vouched=True,
            )
            # Who was faster, in another process, has mounts that use its numbers.
            return writer.publish((stream,), None, first=True)


class _Planting:
    """Hands members to the planter, and segments to the tree.

    Nobody here has hashed what is in the files: so they have no digests.
    """

    def __init__(self, writer: TreeWriter, planter: MemberPlanter) -> None:
        self._writer = writer
        self._planter = planter

    def member(self, member: Member) -> None:
        """Take a member."""
        self._planter.plant(member)

    def segment(self, segment: Segment) -> None:
        """Take a segment."""
        self._writer.add_segment(0, segment)


async def _bring(ranges: Ranges, span: Span, patience: Patience) -> None:
    """Fetch a span; what has no room, all of it at once, is fetched as it is read."""
    with suppress(StorageFullError), ranges.ahead([span], patience, exact=True):
        await ranges.ensure(span, patience)


async def _find(contents: Contents, ranges: Ranges, patience: Patience, name: str) -> Span:
    """Where the table lies.

    Raises:
        Wrong: the end of the layer does not say.
        UnsupportedError: it cannot lie where the manifest says.
    """
    size = ranges.size
    if contents.kind == zstd_chunked.KIND:
        span = Span(contents.start, contents.start + contents.length)
        if not span.length or span.stop > size:
            raise UnsupportedError(f"{name}: a table of contents behind the end of the layer")
        return span
    if contents.kind != estargz.KIND:
        raise UnsupportedError(f"{name}: a table of contents of kind {contents.kind!r}")
    footer = Span(max(0, size - estargz.FOOTER), size)
    await _bring(ranges, Span(max(0, size - _TAIL), size), patience)
    start = estargz.table_start(await ranges.read(footer.start, footer.length, patience))
    if start is None or not start < footer.start:
        what = f"{name}: no eStargz footer at bytes {footer.start}-{footer.stop - 1}"
        raise Wrong(footer, UnsupportedError(what))
    table = Span(start, footer.start)
    if table.length > _LARGE and await ranges.read(start, len(_GZIP), patience) != _GZIP:
        # Before a layer is fetched for one wrong digit.
        what = f"{name}: no table of contents at byte {start}, where the eStargz footer says"
        raise Wrong(footer, UnsupportedError(what))
    return table
