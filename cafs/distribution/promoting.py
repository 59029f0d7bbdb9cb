"""Promoting: what somebody vouched for becomes verified, or is thrown away.

When all of the raw content of such a tree is here and was checked, a pass is made over it in the
background, and what it finds is held against what the index, or the table of contents, has said.
If that is right its bytes are as good as checked, and its files have digests. If not, it is a lie:
nothing of it is read any more under this mount, and the next one shows what is in the bytes.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
import trio

from cafs.distribution.agreeing import Chunk, DisagreementError, against_index, against_table
from cafs.distribution.stronger import agree
from cafs.distribution.vouching import by_index, voucher_of
from cafs.errors import (
    CafsError,
    DigestMismatchError,
    MalformedError,
    StorageError,
    UnsupportedError,
)
from cafs.fetch.content.watched import LOOK_S, WatchedContent
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Content, Patience, Priority
from cafs.fetch.passes.first_pass import complete_tree
from cafs.fetch.passes.making import Making
from cafs.model.digest import Digest
from cafs.model.identity import TreeIdentity
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.store.store import Store
from cafs.store.tables.records import Incarnation

_PIECE: Final = 1 << 20
_BATCH: Final = 512
_NOWHERE: Final = Incarnation(b"", 0)
_LOG: Final = logging.getLogger("cafs.distribution")


class Source(msgspec.Struct, frozen=True):
    """A part, and its raw content; ``pins`` are what else its whole must be."""

    part: Part
    raw: Content
    pins: tuple[Digest, ...] = ()


class _Vouched(msgspec.Struct, frozen=True):
    """A stream that somebody vouches for, in a tree that is mounted."""

    shown: TreeRecord
    number: int
    source: Source
    making: Making

    @property
    def what(self) -> TreeStream:
        """The stream."""
        return self.shown.streams[self.number]

    @property
    def who(self) -> str:
        """What vouched for it, for people."""
        return voucher_of(self.source.part, self.what).name


class Promoting:
    """Holds what was vouched for against the bytes, one tree at a time.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, store: Store, fetcher: Fetcher, limits: Limits) -> None:
        self._store = store
        self._fetcher = fetcher
        self._limits = limits
        self._turn = trio.CapacityLimiter(1)
        self._done: set[str] = set()

    def watched(
        self, shown: TreeRecord, number: int, source: Source, making: Making, content: Content
    ) -> Content:
        """The content of a stream that somebody vouches for, which is promoted in its time.

        Args:
            shown: the tree that is mounted.
            number: of the stream.
            source: the part that it is decoded from, and its content.
            making: what a pass makes of that.
            content: of the stream.
        """
        what = shown.streams[number]

        def begin(one: WatchedContent) -> None:
            if what.key not in self._done:
                run = partial(self._run, _Vouched(shown, number, source, making), one)
                self._fetcher.behind(("promote", what.key), run)

        def later(one: WatchedContent) -> None:
            self._fetcher.behind(("look", what.key), partial(_look_again, one))

        watched = WatchedContent(content, source.raw, self._fetcher.exposures, begin, later)
        watched.look()
        return watched

    async def _run(self, one: _Vouched, content: WatchedContent, work: Work[None]) -> None:
        what, raw, shown = one.what, one.source.raw, one.shown
        vouched = shown
        if what.planted:
            planted = self._store.trees.find(TreeIdentity(what.planted))
            if planted is None:
                return
            vouched = planted
        if what.key in self._done:
            return
        digest = await _checked(raw, work.patience())
        if digest is None:
            return
        async with self._turn:
            self._done.add(what.key)
            if not one.making.opaque and not self._fits(what, raw.name):
                return
            try:
                await self._hold_against(vouched, one, work.patience())
            except DisagreementError as error:
                await self._lose(vouched, one, str(error))
                return
            except CafsError as error:
                _LOG.warning("promote.failed: %s", error.line)
                return
            await trio.to_thread.run_sync(self._confirm, what, digest)
            if one.making.opaque:
                await self._forget_pieces(what)
            now = self._store.trees.numbered(shown.number)
            if now is not None:
                content.confirm(self._fetcher.decoded(now, one.number, raw, one.making))
            _LOG.info("promote.verified: %s: %s is right", raw.name, one.who)

    def _fits(self, what: TreeStream, name: str) -> bool:
        """Whether what a pass decodes has room beside what is here."""
        usage = self._store.room.usage()
        if usage.quota is None or usage.total + what.size <= usage.quota:
            return True
        _LOG.info("promote.skipped: %s: %d bytes more have no room", name, what.size)
        return False

    async def _hold_against(self, vouched: TreeRecord, one: _Vouched, patience: Patience) -> None:
        """Make a pass, and compare.

        Raises:
            DisagreementError: it finds something else, or a pin means other bytes.
            CafsError: it cannot be made now, or nobody can say what a pin means.
        """
        await self._hold_against_pins(one)
        raw, making = one.source.raw, one.making
        patience = patience.at(Priority.PREFETCH)
        before = complete_tree(self._store, making.identity(raw.key))
        try:
            own = await self._fetcher.plant(
                raw,
                name=raw.name,
                media_type="",
                patience=patience,
                limits=self._limits,
                making=making,
            )
        except (MalformedError, UnsupportedError) as error:
            raise DisagreementError(error.line) from error
        try:
            compare = against_index if by_index(one.source.part, one.what) else against_table
            left = compare(self._store.trees, own, vouched)
            content = self._fetcher.decoded(own, 0, raw, making)
            while chunks := await trio.to_thread.run_sync(_some, left):
                for chunk in chunks:
                    await _check(content, chunk, patience)
        finally:
            if before is None:
                with trio.CancelScope(shield=True):
                    await self._forget(own)

    async def _hold_against_pins(self, one: _Vouched) -> None:
        pins, raw = one.source.pins, one.source.raw
        digest = raw.digest()
        if not pins or digest is None:
            return
        try:
            if not await agree(self._store, pins, digest, raw.name):
                raise StorageError(
                    f"{raw.name}: its bytes went before they were held against a pin"
                )
        except DigestMismatchError as error:
            raise DisagreementError(error.what) from error

    async def _forget(self, own: TreeRecord) -> None:
        """Let go of what the pass has decoded, where it can be decoded again piece by piece."""
        for each in own.streams:
            stream = self._store.streams.find(each.key)
            if each.rules in {"segments", "zip"} and stream is not None:
                await stream.discard()

    async def _forget_pieces(self, what: TreeStream) -> None:
        """Let go of the pieces of a file: they are in the file, which is here."""
        stream = self._store.streams.find(what.key)
        if stream is not None:
            await stream.discard()

    def _confirm(self, what: TreeStream, digest: Digest) -> None:
        """Say of every tree of that stream that it is verified. In a thread."""
        stream = self._store.streams.find(what.key)
        if stream is not None:
            # If a byte may be of another process, it is not said; then it is decoded anew.
            stream.confirm_sync(digest)
        self._store.trees.amend(partial(_verified, what, digest))

    async def _lose(self, vouched: TreeRecord, one: _Vouched, difference: str) -> None:
        """Let nothing be read any more of what was vouched for."""
        exposures, what, name = self._fetcher.exposures, one.what, one.source.raw.name
        await exposures.expose(what.key, name, _NOWHERE)
        await exposures.disown(what.key, f"{name}: {one.who} is wrong: {difference}", sure=True)
        await trio.to_thread.run_sync(self._store.trees.withdraw, vouched)
        stream = self._store.streams.find(what.key)
        if stream is not None:
            await stream.discard()


def _verified(what: TreeStream, digest: Digest, record: TreeRecord) -> TreeRecord:
    """A tree, if that stream is one of its own, with nobody but us to vouch for it."""
    if not any(one.key == what.key and one.vouched for one in record.streams):
        return record
    streams = tuple(
        replace(one, vouched=False) if one.key == what.key else one for one in record.streams
    )
    base = len(streams) == 1 and not streams[0].planted
    return replace(record, streams=streams, digest=digest if base else record.digest)


async def _look_again(content: WatchedContent, work: Work[None]) -> None:
    """Look once more, since nobody may come to read again."""
    del work  # nothing is fetched
    await trio.sleep(LOOK_S)
    content.look_again()


async def _checked(raw: Content, patience: Patience) -> Digest | None:
    """The digest of what is all here, once it has passed its gate; None where that fails."""
    if raw.digest() is None and raw.present() >= raw.size:
        try:
            await raw.ensure(Span(0, raw.size), patience.at(Priority.PREFETCH))
        except CafsError as error:
            _LOG.info("promote.unchecked: %s", error.line)
    return raw.digest()


def _some(left: Iterator[Chunk]) -> list[Chunk]:
    """The next chunks that are to be hashed. In a thread."""
    return [chunk for _, chunk in zip(range(_BATCH), left, strict=False)]


async def _check(content: Content, chunk: Chunk, patience: Patience) -> None:
    hasher, zeros = hashlib.sha256(), True
    for start in range(chunk.start, chunk.start + chunk.length, _PIECE):
        length = min(_PIECE, chunk.start + chunk.length - start)
        data = await content.read(start, length, patience)
        await trio.to_thread.run_sync(hasher.update, data)
        zeros = zeros and not any(data)
    if hasher.digest() != chunk.sha256 if chunk.sha256 else not zeros:
        where = chunk.path or f"bytes {chunk.start}-{chunk.start + chunk.length - 1}"
        raise DisagreementError(f"{where!r} has other content")
