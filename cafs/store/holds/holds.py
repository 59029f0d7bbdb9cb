"""Holds: which items, or which parts of them, somebody is using now; they are not let go of.

A byte of one file stands for each MiB of each item, at a place that the item's key names. Who uses
it locks the byte, shared; who removes it locks it alone, for that moment. So a hold ends with its
process, however that ends, and nobody has to be asked whether he lives. Two items that share bytes,
two in 2^41, protect each other.

Bytes behind all those are for names: who gives a blob's file its name and records it, or forgets
the blob and removes the file, has one of them alone until both are done.

Source: fcntl_locking(2), "Open file description locks".
"""

import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import trio

from cafs.model.digest import Digest
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.disk import locking
from cafs.store.disk.files import storage_error

GRAIN: Final = 1 << 20
"""Bytes of an item that are held together."""
_PLACES: Final = 1 << 20
"""Bytes of the file for one item; what lies beyond a TiB shares the last."""
_NAMES: Final = 1 << 62
"""The first byte behind those of all items."""


class Holds:
    """The holds of one process, and what can be learned of others'.

    Concurrency: any number of tasks and threads, as each method says.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, made if need be. Blocks.

        Raises:
            StorageError: it cannot be made.
        """
        self._path = path
        self._closed = False
        # One descriptor: its locks are as one, so what overlaps among them is known only here.
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, f"{path}: cannot be opened") from error
        self._lock = threading.RLock()  # the collector may end a hold while this thread has it
        self._held: dict[int, list[Span]] = {}

    def close(self) -> None:
        """Let go of everything. Nothing may be called afterwards."""
        with self._lock:
            os.close(self._descriptor)
            self._closed = True

    @asynccontextmanager
    async def hold(self, item: Item, span: Span | None = None) -> AsyncIterator[None]:
        """Keep an item, or what lies around a span of it, from being let go of.

        It need not be there yet. A trio task calls it. Where it is being removed at this moment,
        this waits until that is done, for milliseconds.

        Args:
            item: what is used.
            span: what of it; None for all.

        Raises:
            OSError: the file has gone.

        Cancellation: it is not held.
        """
        place = _place(item, span)
        if not self._enter(place):
            await trio.to_thread.run_sync(self._wait, place)
        try:
            yield
        finally:
            self._leave(place)

    @contextmanager
    def hold_here(self, item: Item, span: Span | None = None) -> Iterator[None]:
        """``hold`` for code in worker threads; it ends with the block."""
        place = _place(item, span)
        if not self._enter(place):
            self._wait(place)
        try:
            yield
        finally:
            self._leave(place)

    def held(self, item: Item, span: Span | None = None) -> bool:
        """Whether anybody, this process included, holds any of an item, or of a span of it."""
        place = _place(item, span)
        with self._lock:
            if any(place.overlaps(each) for each in self._held.get(_number(place), ())):
                return True
        return locking.is_locked(self._descriptor, place)

    @contextmanager
    def claim(self, wanted: Sequence[tuple[Item, Span | None]]) -> Iterator[list[bool]]:
        """Keep everybody from holding what is to be removed; say of each whether that was possible.

        It was not for what somebody holds. Blocks nobody but who begins to hold it, and belongs in
        a worker thread.

        Raises:
            OSError: the file has gone.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield [locking.try_range(descriptor, _place(*each), alone=True) for each in wanted]
        finally:
            os.close(descriptor)

    @contextmanager
    def naming(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Be the only one, of all threads and processes, that names or removes files of blobs.

        For who removes one whatever others do, and for who names one; those hold it too, which is
        what ``claim`` finds. Blocks for as long as somebody else does so with the same blob, a sync
        of it included; belongs in a worker thread.

        Args:
            digests: canonical ones; all of them at once, so that nobody waits in a circle.

        Raises:
            OSError: the file has gone, and cannot be made.
        """
        places = sorted({_NAMES + _number(_place(Item.blob(each), None)) for each in digests})
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for place in places:
                locking.hold_range(descriptor, Span(place, place + 1), alone=True)
            yield
        finally:
            os.close(descriptor)

    def _enter(self, place: Span) -> bool:
        with self._lock:
            if not locking.try_range(self._descriptor, place, alone=False):
                return False
            self._held.setdefault(_number(place), []).append(place)
            return True

    def _wait(self, place: Span) -> None:
        # Noted first: so that nobody here unlocks what another has just locked for him too.
        with self._lock:
            self._held.setdefault(_number(place), []).append(place)
        try:
            locking.hold_range(self._descriptor, place)
        except BaseException:
            self._leave(place)
            raise

    def _leave(self, place: Span) -> None:
        with self._lock:
            others = self._held[_number(place)]
            others.remove(place)
            if not others:
                del self._held[_number(place)]
            # An upload that nobody closed may outlive the store: its hold went with the descriptor.
            for gap in () if self._closed else SpanSet(others).missing(place):
                locking.let_go(self._descriptor, gap)


def _number(place: Span) -> int:
    return place.start // _PLACES


def _place(item: Item, span: Span | None) -> Span:
    """The bytes of the file that stand for a span of an item."""
    number = int.from_bytes(item.key[1:9], "big") >> 22 & ~1 | (item.digest is None)
    first = number * _PLACES
    if span is None:
        return Span(first, first + _PLACES)
    last = min(max(span.start, span.stop - 1) // GRAIN, _PLACES - 1)
    return Span(first + min(span.start // GRAIN, last), first + last + 1)
