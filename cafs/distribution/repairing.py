"""Repairing: what a store has lost is brought again, from whatever is named for it.

The settings name sources, and so does what the store remembers of the refs that were read: where
each part of what they meant could be had. What a pass made of an archive is made again from its
bytes. Of what was there only in part, the lost pieces alone are fetched.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from cafs.distribution.resolver import Resolver
from cafs.errors import CafsError, NotFoundError
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.ref import DockerRef, Ref, parse_ref
from cafs.model.resolved import Resolved, Shape
from cafs.model.span import Span
from cafs.model.spec import RefSpec
from cafs.store.health.checking import Found
from cafs.store.store import Store

_LOG: Final = logging.getLogger(__name__)
_AGAIN: Final = "it is there again"
_LATER: Final = "it was there in part, and is fetched with the rest when it is read"
_WHOLE: Final = "all of the file is there, and is read instead"


class _Way(msgspec.Struct, frozen=True):
    """How a stream may be had again: as a part of what a ref meant, or else from its tree.

    ``number`` is that of the part; None for what a pass makes, and for an image's manifest.
    """

    spec: RefSpec
    resolved: Resolved
    number: int | None


class Repairer:
    """Brings again what was lost.

    Args:
        store: where it was.
        resolver: opens what refs meant.
        specs: the refs that the settings name.
        ad_hoc: the spec of a ref that only the store remembers.

    Concurrency: one task; ``prefer`` from any thread.
    """

    def __init__(
        self,
        store: Store,
        resolver: Resolver,
        specs: Sequence[RefSpec],
        ad_hoc: Callable[[Ref], RefSpec],
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._specs = specs
        self._ad_hoc = ad_hoc
        self._known: dict[StreamKey, list[_Way]] | None = None

    def prefer(self, _digest: Digest, streams: tuple[StreamKey, ...]) -> StreamKey | None:
        """Which of the streams that a blob is somebody can fill again; None when nobody can."""
        ways = self._ways()
        return next((key for key in streams if key in ways), None)

    def _ways(self) -> dict[StreamKey, list[_Way]]:
        """Every stream that something is named for. Looked up when first something is wrong."""
        if self._known is None:
            known: dict[StreamKey, list[_Way]] = {}
            for spec, resolved in self._meanings():
                for key, number in self._streams(resolved):
                    known.setdefault(key, []).append(_Way(spec, resolved, number))
            self._known = known
        return self._known

    def _meanings(self) -> Iterator[tuple[RefSpec, Resolved]]:
        """What refs have meant; those that the settings name, and the latest, come first."""
        for spec in self._specs:
            yield from (
                (spec, each) for each in reversed(self._store.references.history(spec.source))
            )
        for _, resolved in self._store.references.all():
            try:
                yield self._ad_hoc(parse_ref(resolved.ref, schemes=None)), resolved
            except CafsError as error:
                _LOG.info("repair.ref.unknown ref=%s: %s", resolved.ref, error.line)

    def _streams(self, resolved: Resolved) -> Iterator[tuple[StreamKey, int | None]]:
        belongings = self._store.belongings
        for number, part in enumerate(resolved.parts):
            yield from ((key, number) for key in belongings.keys(part))
        for tree in belongings.trees(resolved):
            yield from ((stream.key, None) for stream in tree.streams if stream.rules)
        if resolved.digest is not None and resolved.shape is Shape.TREE:
            yield raw_stream(resolved.digest), None

    async def repair(self, found: Found, patience: Patience) -> str:
        """Bring again what was lost.

        Returns:
            How it is right again, for people.

        Raises:
            NotFoundError: nothing says where it could be had.
            CafsError: as the last that was asked failed.

        Cancellation: what has come stays.
        """
        ways = [way for key in found.streams for way in self._ways().get(key, ())]
        failure: CafsError | None = None
        for way in ways:
            try:
                otherwise = await self._bring(found, way, patience)
            except CafsError as error:
                failure = failure or error
                continue
            if otherwise:
                return otherwise
            if self._there(found):
                await self._tidy(found)
                return _AGAIN
        if failure is not None:
            raise failure
        raise NotFoundError(
            "neither the settings nor what refs meant name a source of it",
            hint="it is fetched when a ref that has it is read",
        )

    async def _decoded(self, way: _Way, patience: Patience) -> tuple[Content, ...]:
        """What the parts of a meaning are decoded to; of a file, what its index says of it."""
        if way.resolved.shape is Shape.FILE:
            return (await self._resolver.reopen_shown(way.spec, way.resolved, patience),)
        tree = await self._resolver.reopen_tree(way.spec, way.resolved, patience)
        return tree.contents

    async def _bring(self, found: Found, way: _Way, patience: Patience) -> str:
        """Bring it one way; how it is right without that, for people, where there is no need."""
        if way.number is not None:
            content = await self._resolver.reopen(way.spec, way.resolved, way.number, patience)
            if not found.whole and isinstance(content, GatedContent) and not content.lazy():
                return _LATER
            await _ensure(content, found, patience)
        elif way.resolved.digest is not None and found.item.digest == way.resolved.digest:
            if isinstance(way.spec.ref, DockerRef):
                await self._resolver.ask_again(way.spec, way.resolved)
        else:
            for content in await self._decoded(way, patience):
                if content.key in found.streams:
                    await _ensure(content, found, patience)
                    if content.digest() is not None and not self._there(found):
                        await self._forget_pieces(content)
                        return _WHOLE
        return ""

    def _there(self, found: Found) -> bool:
        if found.item.digest is not None:
            return self._store.blobs.stat(found.item.digest) is not None
        stream = None if found.key is None else self._store.streams.find(found.key)
        if stream is None or not found.whole:
            return stream is not None and all(
                stream.present(each).covers(each) for each in found.lost
            )
        return stream.present().covers(Span(0, found.size or 0))

    async def _forget_pieces(self, content: Content) -> None:
        """Let go of the pieces of a file that is here as it is: nobody reads them."""
        stream = self._store.streams.find(content.key)
        if stream is not None:
            await stream.discard()

    async def _tidy(self, found: Found) -> None:
        """What is left of a blob that came by another name is of no use."""
        stream = None if found.key is None else self._store.streams.find(found.key)
        if found.item.digest is not None and stream is not None and stream.digest() is None:
            await stream.discard()


async def _ensure(content: Content, found: Found, patience: Patience) -> None:
    """Bring what was lost of a content; all, where all was there: it passes the gate then."""
    if found.whole:
        await content.ensure(Span(0, content.size), patience)
        return
    for span in found.lost:
        await content.ensure(span, patience)
