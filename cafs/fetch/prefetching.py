"""Prefetching: brings all of several contents, side by side, and says how far it is.

What one prefetch brings is held until it ends, so that the last does not drive out the first. Room
is made before anything comes: so a prefetch of more than the store may have ends before it has
filled it, and says so.
"""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import trio

from cafs.errors import CafsError, StorageFullError
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.progress import Progress, Tally
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.store import Store

AT_ONCE: Final = 8
"""Contents of one call that are brought at once: enough for small ones to use many connections
between them. Large ones share the slots in their order."""


class Haul:
    """What one prefetch brings: all of it stays while the haul is open. A context manager.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[StreamKey, list[AsyncExitStack]] = {}
        self._coming: list[Content] = []
        self._lock = trio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in list(self._held):
            while key in self._held:
                await self._let_go(key)

    async def bring(
        self, contents: Sequence[Content], progress: Progress, patience: Patience
    ) -> None:
        """Bring all of several contents. One that fails does not stop the others; no room does.

        Raises:
            StorageFullError: there is no room for them, beside what is held.
            CafsError: that of the first that failed, in their order, after all were tried.

        Cancellation: what has come stays.
        """
        progress.start(sum(content.size for content in contents))
        failed: dict[int, CafsError] = {}
        brought = 0
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def bring(number: int, content: Content) -> None:
            nonlocal brought
            async with limiter:
                progress.add(content.present())
                tally = replace(patience, pulse=Tally(progress))
                try:
                    await self._bring(content, tally)
                    brought += 1
                except CafsError as error:
                    failed[number] = error
                    if isinstance(error, StorageFullError):
                        rest.cancel()

        try:
            with trio.CancelScope() as rest:
                if len(contents) == 1:
                    await bring(0, contents[0])
                else:
                    async with trio.open_nursery() as nursery:
                        for number, content in enumerate(contents):
                            nursery.start_soon(bring, number, content)
        finally:
            progress.finish(whole=brought == len(contents))
        if failed:
            raise failed[min(failed)]

    async def keep(self, made: Iterable[Content], *, of: Iterable[Content], name: str) -> None:
        """Hold what was made of contents that were brought, instead of those.

        Args:
            made: may be some of the same.
            of: what was brought.
            name: what it is, for errors.

        Raises:
            StorageFullError: that is more than there is room for.

        Cancellation: some of it is held.
        """
        for content in made:
            await self._hold(content.key)
        for content in of:
            await self._let_go(content.key)
        async with self._lock:
            await self._store.evictor.reserve(self._outstanding(), name)

    async def _bring(self, content: Content, patience: Patience) -> None:
        await self._hold(content.key)
        async with self._lock:
            missing = content.size - content.present()
            if missing:
                await self._store.evictor.reserve(self._outstanding() + missing, content.name)
            self._coming.append(content)
        try:
            await content.ensure(Span(0, content.size), patience)
        finally:
            self._coming.remove(content)

    def _outstanding(self) -> int:
        """Bytes for which room was made, and which have not come yet."""
        return sum(content.size - content.present() for content in self._coming)

    async def _hold(self, key: StreamKey) -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._store.streams.hold(key))
        self._held.setdefault(key, []).append(stack)

    async def _let_go(self, key: StreamKey) -> None:
        stacks = self._held.get(key, [])
        if stacks:
            await stacks.pop().aclose()
        if not stacks:
            self._held.pop(key, None)
