"""Resolving: what a ref means is settled once per mount, and everything is opened by that.

The first question in a mount asks by the ref's pull policy; the answer is kept for the life of the
mount, so a build never sees two versions. Every answer is recorded too, for the next mount.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

import trio
from cachetools import LRUCache

from cafs.concurrency import Flights
from cafs.distribution.asking import Questions
from cafs.distribution.failures import Failures
from cafs.distribution.interfaces import Handler, OpenTree
from cafs.distribution.meanings import Meanings
from cafs.distribution.naming import shape_of, title
from cafs.errors import (
    CafsError,
    ContentError,
    CrowdedError,
    DeadlineError,
    UnreachableError,
    UnsupportedError,
)
from cafs.fetch.interfaces import Content, Inflight, Patience
from cafs.model.ref import DockerRef, Ref
from cafs.model.resolved import Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.store.store import Store

T = TypeVar("T")
_TREES: Final = 64
"""Open trees kept at hand; opening one again costs a few lookups in the store."""
_FILES: Final = 1024
_REASONS: Final = 1024
"""Refs of which it is known why resolving them takes so long."""
_AGAIN_S: Final = 1.0
"""Between tries for a reader that waits as long as it lives; what is below has retried already."""


class Resolver:
    """Resolves and opens refs for one mount.

    Args:
        handlers: who knows which class of ref.
        store: where answers, trees and bytes are kept.
        mount: the mount's number in the store.
        offline: nobody may be asked anything.

    Concurrency: any number of tasks; those that ask the same share one answer, and a failure for
    1 s (30 s for wrong content).
    """

    def __init__(
        self,
        *,
        handlers: Mapping[type[Ref], Handler],
        store: Store,
        mount: int,
        offline: bool = False,
    ) -> None:
        self._handlers = dict(handlers)
        self._store = store
        self._mount = mount
        self._meanings = Meanings(self._handler, store, offline=offline)
        self._resolving: Flights[Resolved] = Flights()
        self._questions = Questions()
        self._failures = Failures()
        self._reasons: LRUCache[str, CafsError] = LRUCache(_REASONS)
        self._trees: LRUCache[str, OpenTree] = LRUCache(_TREES)
        self._files: LRUCache[str, Content] = LRUCache(_FILES)

    def shape(self, spec: RefSpec) -> Shape:
        """Whether the ref is a file or a tree, from the ref alone."""
        return shape_of(spec.ref)

    def peek(self, spec: RefSpec) -> Resolved | None:
        """What the ref means in this mount, when that is settled; asks nobody."""
        return self._store.mounts.resolved(self._mount, spec.source)

    def error(self, spec: RefSpec) -> str | None:
        """The last failure to resolve or open the ref, one line, until that succeeds."""
        return self._failures.line(spec.key)

    async def resolve(self, spec: RefSpec, patience: Patience) -> Resolved:
        """What the ref means in this mount; asked for by ``spec.pull`` when it is not settled.

        Raises:
            NotFoundError: no such name, tag, or platform.
            OfflineError: nobody may be asked, and the store does not know.
            CrowdedError: too many wait for it already.
            DeadlineError: no answer within the patience.
            CancelledError: a person ended the question.
            UnsupportedError: nothing here knows such refs.
            CafsError: as the source failed.

        Cancellation: no effect; another caller that waits for the same asks instead.
        """
        settled = self.peek(spec)
        if settled is not None:
            return settled
        patience.begin()
        return await self._remembering(spec, patience, lambda: self._in_time(spec, patience))

    def inflight(self) -> list[Inflight]:
        """The questions under way what refs mean; of no bytes."""
        return self._questions.inflight()

    def cancel(self, id_: str | None = None) -> list[str]:
        """End a question for everybody who waits, by ``Inflight.id``, or all; their refs' names."""
        return self._questions.cancel(id_)

    async def tree(self, spec: RefSpec, patience: Patience) -> OpenTree:
        """The ref's tree.

        Raises:
            CafsError: as ``resolve``, and as ``Handler.open_tree``.

        Cancellation: what has been fetched stays.
        """
        known = self._trees.get(spec.key)
        if known is None or not self._store.trees.has(known.record.number):
            resolved = await self.resolve(spec, patience)
            handler = self._handler(spec)
            known = await self._remembering(
                spec, patience, lambda: handler.open_tree(spec, resolved, patience)
            )
            self._trees[spec.key] = known
        return known

    async def file(self, spec: RefSpec, patience: Patience) -> Content:
        """The ref's bytes as they are at the source: the blob, or the archive as a file.

        Of what a lock has an index of they are checked piece by piece; ``part`` has them whole.

        Raises:
            CafsError: as ``resolve``, and as ``Handler.open_shown``.

        Cancellation: what has been fetched stays.
        """
        known = self._files.get(spec.key)
        if known is None:
            resolved = await self.resolve(spec, patience)
            handler = self._handler(spec)
            known = await self._remembering(
                spec, patience, lambda: handler.open_shown(spec, resolved, patience)
            )
            self._files[spec.key] = known
        return known

    async def part(self, spec: RefSpec, number: int, patience: Patience) -> Content:
        """The bytes of one of the ref's parts, by its number in ``Resolved.parts``.

        Raises:
            CafsError: as ``file``.

        Cancellation: what has been fetched stays.
        """
        resolved = await self.resolve(spec, patience)
        return await self._handler(spec).open_file(spec, resolved, patience, part=number)

    async def reopen(
        self, spec: RefSpec, resolved: Resolved, number: int, patience: Patience
    ) -> Content:
        """The bytes of a part of what the ref meant once; what it means now is not asked.

        Raises:
            CafsError: as ``file``.

        Cancellation: as ``file``.
        """
        return await self._handler(spec).open_file(spec, resolved, patience, part=number)

    async def reopen_shown(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> Content:
        """The file that a mount showed of what the ref meant once, by its pieces if need be.

        Raises:
            CafsError: as ``file``.

        Cancellation: as ``file``.
        """
        return await self._handler(spec).open_shown(spec, resolved, patience)

    async def reopen_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        """The tree of what the ref meant once.

        Raises:
            CafsError: as ``tree``.

        Cancellation: as ``tree``.
        """
        return await self._handler(spec).open_tree(spec, resolved, patience)

    async def ask_again(self, spec: RefSpec, resolved: Resolved) -> None:
        """Have the documents again that said what the ref meant once: an image's manifests.

        Raises:
            CafsError: as ``resolve``.

        Cancellation: as ``resolve``.
        """
        ref = spec.ref
        if isinstance(ref, DockerRef):
            # It may name the index by its digest, and of that nothing is missing.
            ref = replace(ref, tag=None, digest=None)
        pinned = replace(
            spec,
            name=title(spec),  # as it is written, without a tag that nobody wrote
            ref=ref,
            integrity=resolved.digest,
            pull="update",
            locked=None,
        )
        await self._handler(spec).resolve(pinned, resolved, lambda _: None)

    async def doubt(self, spec: RefSpec) -> None:
        """What came is not what the ref's digest says: ``Meanings.doubt``.

        Cancellation: all or nothing.
        """
        await self._meanings.doubt(spec)

    def _handler(self, spec: RefSpec) -> Handler:
        handler = self._handlers.get(type(spec.ref))
        if handler is None:
            raise UnsupportedError(f"{title(spec)}: this version cannot open such refs")
        return handler

    async def _remembering(
        self, spec: RefSpec, patience: Patience, ask: Callable[[], Awaitable[T]]
    ) -> T:
        """Ask, unless that failed a moment ago; keep the failure, or forget the last one.

        Who waits without end is not told of what may still come right.
        """
        self._failures.check(spec.key, transient=patience.deadline_s is not None)
        try:
            answer = await ask()
        except CrowdedError:
            raise  # of this caller, not of the ref
        except CafsError as error:
            self._failures.remember(spec.key, error)
            if isinstance(error, ContentError):
                await self.doubt(spec)
            raise
        self._failures.forget(spec.key)
        return answer

    async def _in_time(self, spec: RefSpec, patience: Patience) -> Resolved:
        """Resolve within the waiter's own deadline; without one, for as long as it lives."""
        with self._questions.waiting(spec.source, title(spec), patience.urgency):
            if patience.deadline_s is None:
                return await self._patiently(spec)
            with trio.move_on_after(patience.deadline_s):
                return await self._flight(spec)
        reason = self._reasons.get(spec.source)
        what = f"{title(spec)}: not resolved within {patience.deadline_s:g} s"
        if isinstance(reason, UnreachableError):
            raise UnreachableError(what) from reason
        hint = "is the source reachable?" if reason is None else ""
        raise DeadlineError(what, hint=hint) from reason

    async def _patiently(self, spec: RefSpec) -> Resolved:
        while True:
            try:
                return await self._flight(spec)
            except CafsError as error:
                if not error.transient:
                    raise
                self._failures.remember(spec.key, error)
            await trio.sleep(_AGAIN_S)

    async def _flight(self, spec: RefSpec) -> Resolved:
        return await self._resolving.run(spec.source, lambda: self._settle(spec))

    async def _settle(self, spec: RefSpec) -> Resolved:
        settled = self.peek(spec)
        if settled is not None:
            return settled
        # Whoever waited for a caller that failed asks again, unless that is of no use.
        self._failures.check(spec.key, transient=False)
        self._reasons.pop(spec.source, None)

        def note(error: CafsError) -> None:
            self._reasons[spec.source] = error

        resolved = await self._meanings.find(spec, note)
        return await self._store.mounts.resolve(self._mount, spec.source, resolved)
