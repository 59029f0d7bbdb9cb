"""Prefetching: brings all of several contents, side by side, and says how far it is."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

import trio

from cafs.errors import CafsError, StorageFullError
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.progress import Progress, Tally
from cafs.model.span import Span
from cafs.store.store import Store

AT_ONCE: Final = 8
"""Contents of one call that are brought at once: enough for small ones to use many connections
between them. Large ones share the slots in their order."""


async def bring_all(
    store: Store, contents: Sequence[Content], progress: Progress, patience: Patience
) -> None:
    """Bring all of several contents. One that fails does not stop the others; a full disk does.

    What it brings is held until it ends, so that the last does not drive out the first. More than
    the store may have is an error.

    Raises:
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
            present = content.present()
            progress.add(present)
            tally = replace(patience, pulse=Tally(progress))
            try:
                if present < content.size:
                    store.evictor.check_room(content.name)
                await held.enter_async_context(store.streams.hold(content.key))
                await content.ensure(Span(0, content.size), tally)
                brought += 1
            except CafsError as error:
                failed[number] = error
                if isinstance(error, StorageFullError):
                    rest.cancel()

    try:
        async with AsyncExitStack() as held:
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
