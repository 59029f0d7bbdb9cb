"""Content of a stream that can be decoded from many places, each stretch with a digest of its own.

Of what is read, only the segments that it touches are fetched and decoded. Where a first pass
here has made the segments, what has their digests is what it decoded from the raw content as a
whole, and so has that behind it. Where an index names them, whoever named the index vouches for
them.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import ClassVar, Final

import trio
from typing_extensions import override

from cafs.codec.segments import decode
from cafs.codec.windows import unpack
from cafs.errors import (
    CafsError,
    DigestMismatchError,
    MalformedError,
    SourceChangedError,
    StorageError,
    StorageFullError,
)
from cafs.fetch.content.beside import Files, beside
from cafs.fetch.content.bridging import PIECE, Buffered
from cafs.fetch.content.decoded import AT_ONCE, DecodedContent
from cafs.fetch.content.following import Following
from cafs.fetch.content.segment_jobs import Checks, Job
from cafs.fetch.content.shared_input import sharing, spanning
from cafs.fetch.content.together import together
from cafs.fetch.content.vouching import AN_INDEX, FILE, Voucher, hint, said
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Content, Patience, Ranges
from cafs.model.digest import CANONICAL, Digest, Hasher
from cafs.model.identity import TreeIdentity
from cafs.model.record import Segment, TreeRecord
from cafs.model.span import Span
from cafs.model.trust import ANYTHING, Need
from cafs.store.store import Store

HEALS: Final = 3
"""How often other bytes are asked for after wrong ones, while there is anybody else to ask."""


class SegmentMismatchError(DigestMismatchError):
    """A piece of a stream decodes to something else than it must; what both are, as digests."""

    def __init__(
        self, name: str, *, expected: Digest, actual: Digest, noun: str, voucher: Voucher | None
    ) -> None:
        """``noun`` is what it is a part of, ``voucher`` who says what it must be."""
        super().__init__(name, expected=expected, actual=actual)
        become = "are" if noun == FILE else "decode to"
        self.what = f"{name} {become} {actual} {said(noun, voucher)} {expected}"
        self.hint = hint(noun, voucher)
        self.args = (self.what,)


class SegmentedContent(DecodedContent):
    """Decodes the segments that are read, from their raw ranges.

    A segment that is wrong is fetched again, from another source where there is one. Its arguments
    are those of ``DecodedContent``, and ``ranges``: the raw bytes, which have passed no gate;
    ``noun``: what these are ("archive"); ``voucher``: who says what each segment must be.

    Concurrency: as ``Content``.
    """

    precise: ClassVar[bool] = True
    """Whether the input of a segment lies exactly where it is said to lie."""

    def __init__(
        self,
        store: Store,
        record: TreeRecord,
        number: int,
        raw: Content,
        ranges: Ranges,
        *,
        works: Works[None],
        means: Means,
        noun: str = "archive",
        voucher: Voucher | None = None,
    ) -> None:
        super().__init__(store, record, number, raw, works=works, means=means)
        self._noun = noun
        self._voucher = (voucher or AN_INDEX) if self._what.vouched else None
        planted = self._what.planted
        self._planted: tuple[TreeRecord, int] | None = None if planted else (record, number)
        self._ranges = ranges
        self._following = Following()
        self._files = Files()

    @override
    def lies(self, file: Callable[[], Span]) -> None:
        self._files.note(file())

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        data = await super().read(offset, length, patience)
        self._go_ahead(Span(offset, offset + length).clamp(self.size))
        return data

    def _go_ahead(self, span: Span) -> None:
        """Fetch what a reader who goes forward comes to next; decode what of it is here.

        It is decided by what he reads, not by where the input of that lies: there may be much in
        between that nobody reads.
        """
        file = self._files.around(span)
        ahead = self._following.advise(span, self.size, file=file, limit=self._means.ahead())
        if ahead is None or self._means.shortage.lasting():
            return
        tree, number = self._tree()
        segments = self._store.trees.segments(tree.number, number, ahead)
        self._ranges.follow([self.input(one) for one in segments], exact=self.precise)
        # The next read finds them done; more at once would only compete with it.
        for segment in segments[:AT_ONCE]:
            if self._ranges.here(self.input(segment)):
                self.begin(segment)

    @property
    @override
    def need(self) -> Need:
        if self._what.vouched:
            return ANYTHING
        return Need(verified=self._raw.checked(), source=self._tree()[0].digest)

    @override
    def label(self, segment: Segment) -> str:
        stop = segment.input_start + segment.input_length
        return f"{self.name}: bytes {segment.input_start}-{stop - 1} of the {self._noun}"

    @override
    def segments(self, span: Span) -> Sequence[Segment]:
        tree, number = self._tree()
        found = self._store.trees.segments(tree.number, number, span)
        if found or not self._what.planted:
            return found
        # Another pass may have made the tree anew.
        self._planted = None
        now, number = self._tree()
        if now.digest != tree.digest:
            raise _changed(self.name)
        return self._store.trees.segments(now.number, number, span)

    def _tree(self) -> tuple[TreeRecord, int]:
        """The tree that has the segments, and the number of the stream in it.

        Raises:
            StorageError: it is not in the store any more.
        """
        if self._planted is None:
            found = self._store.trees.find(TreeIdentity(self._what.planted))
            if found is None:
                raise StorageError(
                    f"{self.name}: what says how it is decoded has left the store",
                    hint="mount anew",
                )
            self._planted = (found, 0)
        return self._planted

    @override
    @asynccontextmanager
    async def gathering(
        self, segments: Sequence[Segment], patience: Patience
    ) -> AsyncIterator[None]:
        spans: Sequence[Span] = [self.input(one) for one in segments]
        if self.precise and not self._means.shortage.lasting():
            place = Span(segments[0].start, segments[0].start + segments[0].length)
            tree, number = self._tree()
            find = partial(self._store.trees.segments, tree.number, number)
            file, most = self._files.around(place), self._means.ahead()
            spans = beside(segments, file, find, self._ranges.missing, most)
        with self._ranges.ahead(spans, patience, exact=self.precise):
            yield

    def input(self, segment: Segment) -> Span:
        """Where the segment's input lies in the raw content, and not much more."""
        return Span(segment.input_start, segment.input_start + segment.input_length)

    async def locate(self, segment: Segment, work: Work[None]) -> Span:
        """Where exactly it lies.

        Raises:
            CafsError: as ``Ranges.ensure``; MalformedError: it cannot be told.
        """
        del work  # it is known
        return self.input(segment)

    @override
    async def job(self, segment: Segment, work: Work[None], attempt: int) -> Job:
        if not segment.sha256 and (self._what.vouched or segment.crc32 is None):
            who = self._voucher or AN_INDEX
            raise MalformedError(
                f"{self.label(segment)}: {who.name} does not say what they must be"
            )
        source = await self.locate(segment, work)
        if source.stop > self._ranges.size:
            raise MalformedError(f"{self.label(segment)}: there are only {self._ranges.size}")
        # What has no room, all of it at once, is fetched again as it is decoded.
        whole = False
        with suppress(StorageFullError):
            await self._ranges.ensure(source, work.patience())
            whole = True
        tree, number = self._tree()
        blob = None if self._what.vouched else tree.digest
        window = self._store.trees.window(tree.number, number, segment.start)
        find = partial(self._store.trees.segments, tree.number, number)
        group = () if window else sharing(segment, find, self._present)
        # Of a zip the input is somewhere behind where it is said to be.
        alone = (
            group or not whole or source != self.input(segment) or self._means.shortage.lasting()
        )
        run = () if alone else together(segment, find, self._present, self._ranges.here)
        pull = partial(self._pull, work)
        return Job(segment, source, pull, blob, work, window, group, whole, run)

    async def _pull(self, work: Work[None], offset: int, length: int) -> bytes:
        work.beat()
        return await self._ranges.read(offset, length, work.patience())

    @override
    def pieces(self, job: Job) -> Iterator[bytes]:
        window = unpack(job.window) if job.window else b""

        def read(offset: int, length: int) -> bytes:
            if job.held is not None:
                start, held = job.held
                return held[offset - start : offset - start + length]
            return trio.from_thread.run(job.pull, offset, length)

        buffered = Buffered(read, job.source)
        name = self.label(job.segment)
        segment = spanning(job.group) if job.group else job.segment
        with self.naming(job.segment):
            yield from decode(segment, buffered.read, window, name=name)

    @contextmanager
    def naming(self, segment: Segment) -> Iterator[None]:
        """Let what cannot be decoded say what it should have been."""
        try:
            yield
        except MalformedError as error:
            must = Digest(CANONICAL, segment.sha256) if segment.sha256 else "something else"
            raise MalformedError(
                f"{error.what}; they must decode to {must}", hint=hint(self._noun, self._voucher)
            ) from error

    @override
    def check(self, job: Job, found: Checks) -> None:
        segment = job.segment
        if segment.sha256:
            if found.sha256 != segment.sha256:
                raise SegmentMismatchError(
                    self.label(segment),
                    expected=Digest(CANONICAL, segment.sha256),
                    actual=Digest(CANONICAL, found.sha256),
                    noun=self._noun,
                    voucher=self._voucher,
                )
        elif segment.crc32 != found.crc32:
            raise MalformedError(
                f"{self.label(segment)}: their CRC-32 is {found.crc32:08x}, "
                f"not {segment.crc32:08x}",
            )

    @override
    async def again(self, job: Job, error: CafsError, attempt: int) -> bool:
        if not isinstance(error, MalformedError | DigestMismatchError):
            return False
        span = Span(job.segment.input_start, job.source.stop)
        if await self.rejected(job.segment, span, job.work, attempt) and attempt < HEALS:
            return True
        if not self._what.vouched and not self._raw.checked():
            raise _changed(self.name) from error
        return False

    async def rejected(self, segment: Segment, span: Span, work: Work[None], attempt: int) -> bool:
        """Throw a segment's input away, which is wrong; whether it may be right when it is fetched.

        It stays where the index is more likely wrong. Else it goes also after the last try: whoever
        asks again later gets what is there then.
        """
        if self._what.vouched and self._ranges.here(span):
            hasher = Hasher()
            for offset in range(span.start, span.stop, PIECE):
                length = min(PIECE, span.stop - offset)
                data = await self._ranges.read(offset, length, work.patience())
                await trio.to_thread.run_sync(hasher.update, data)
            digest, doubts = hasher.digest().raw, self._means.doubts
            if doubts.blame(self.key, segment.start, digest, first=not attempt):
                return False
        return await self._ranges.reject(span)


def _changed(name: str) -> SourceChangedError:
    return SourceChangedError(f"{name}: it has other content at its source now", hint="mount anew")
