"""What the layers above see of fetching: content that makes itself present, and its words."""

import enum
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
import trio

from cafs.fetch.pulse import Pulse
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.streams.witness import Seen
from cafs.store.tables.records import Incarnation
from cafs.transport.interfaces import Transport


class Source(msgspec.Struct, frozen=True):
    """One place that content can be had from."""

    transport: Transport
    url: str


class Place(Protocol):
    """A place among those who wait, where there is not room for all.

    Concurrency: one request, whose tasks may each take it.
    """

    @abstractmethod
    def take(self) -> None:
        """Take it before a wait; it is kept until the request ends.

        Raises:
            CrowdedError: too many wait already.
        """


class Priority(enum.IntEnum):
    """Who is served first: the lower number."""

    DEMAND = 0
    READAHEAD = 1
    PREFETCH = 2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a waiter waits, and how urgent it is.

    ``deadline_s`` bounds the time without progress of what is waited for; None waits as long as the
    waiter lives. ``pulse`` hears of the progress too, for waiters that are waited for themselves.
    ``place`` is taken before a wait by those whose number is limited. ``rising`` says how urgent it
    is by now, where that may change while it waits: others may have come to wait for the same.
    """

    deadline_s: float | None
    priority: Priority = Priority.DEMAND
    pulse: Pulse | None = field(default=None, compare=False)
    place: Place | None = field(default=None, compare=False)
    rising: Callable[[], Priority] | None = field(default=None, compare=False)

    def urgency(self) -> Priority:
        """How urgent it is by now."""
        return self.priority if self.rising is None else self.rising()

    def at(self, priority: Priority) -> "Patience":
        """The same, as urgent as that for good."""
        return replace(self, priority=priority, rising=None)

    def begin(self) -> None:
        """Say that a wait begins.

        Raises:
            CrowdedError: too many wait already.
        """
        if self.place is not None:
            self.place.take()


class Inflight(msgspec.Struct, frozen=True, kw_only=True):
    """A fetch that is under way.

    ``id`` names the content that it is of, in this process: fetches of several spans of it have the
    same, and are cancelled together. ``url`` is where it is fetched from now, ``span`` what of the
    content, ``received`` bytes, ``since`` when it began, in seconds since the epoch.
    """

    id: str
    name: str
    url: str
    span: Span
    received: int
    since: float
    priority: Priority


class Content(Protocol):
    """Bytes that are fetched when they are needed, and then stay.

    ``name`` is for people. ``size`` is bytes. ``key`` names the stream that holds them.

    Concurrency: any number of tasks; those that need the same bytes share one fetch.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes."""

    @property
    @abstractmethod
    def key(self) -> StreamKey:
        """The stream that holds the bytes."""

    @abstractmethod
    def present(self) -> int:
        """Bytes that can be read without fetching any."""

    @abstractmethod
    def digest(self) -> Digest | None:
        """The canonical digest, when all of the bytes have been checked against it."""

    def checked(self) -> bool:
        """Whether no byte of it can be read before the whole has passed its gate."""
        return False

    def lies(self, file: Callable[[], Span]) -> None:
        """Hear of a file of which something is about to be read; called, it says where it lies."""
        del file  # it does not matter here

    @abstractmethod
    async def ensure(self, span: Span, patience: Patience) -> None:
        """Make a span readable without fetching; what lies beyond the end is no part of it.

        Raises:
            CrowdedError: too many wait already.
            DeadlineError: no progress for as long as the waiter waits.
            CancelledError: a person ended the fetch.
            UnreachableError: the same, and the last try did not even reach a source.
            OfflineError: something is missing, and no source may be asked.
            NotFoundError, AccessError, RefusedError: every source refused.
            SourceChangedError: the source has another version than the one that was located.
            ContentError: what came is not what was promised.
            BudgetError, StorageFullError: there is no room for it.

        Cancellation: what has come stays; the fetch ends with its last waiter.
        """

    @abstractmethod
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        """Read, fetching what is missing; short only at the end of the content.

        Raises:
            CafsError: as ``ensure``.

        Cancellation: as ``ensure``.
        """


class Feeder(Protocol):
    """Raw bytes for a first pass, which may not have passed the gate yet.

    What the pass makes of them stays invisible until ``Feed.seal`` has returned.

    Concurrency: one task at a time.
    """

    @abstractmethod
    async def take(self, offset: int, length: int, patience: Patience) -> bytes:
        """Read; short only at the end. A pass goes forward, so what follows is fetched too.

        Raises:
            CafsError: as ``Content.ensure``.

        Cancellation: as ``Content.ensure``.
        """

    def of(self) -> Incarnation | None:
        """What all bytes that were taken are bytes of, in the store; None where that is not known.

        Somebody may throw away what was taken, and get other bytes in its place: then this is
        another one than the stream has by then.
        """
        return None

    @abstractmethod
    def release(self) -> None:
        """Let go of what is fetched ahead."""


class Ranges(Protocol):
    """Raw bytes by range, which may be wrong: for who checks what he makes of them.

    Concurrency: as ``Content``.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of all of it."""

    @abstractmethod
    async def ensure(self, span: Span, patience: Patience) -> None:
        """Make a span readable; as ``Content.ensure``, but nothing is checked.

        Raises:
            CafsError: as ``Content.ensure``, but for ContentError.

        Cancellation: as ``Content.ensure``.
        """

    @abstractmethod
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        """Read, fetching what is missing; short only at the end.

        Raises:
            CafsError: as ``ensure``.

        Cancellation: as ``ensure``.
        """

    def ahead(
        self, spans: Sequence[Span], patience: Patience, *, exact: bool = False
    ) -> AbstractContextManager[None]:
        """Let spans come that will be read next, in few requests, for as long as it is held.

        It neither waits nor fails: who reads them does. With ``exact`` what lies beside them does
        not come, but for gaps that cost less than another request; and all of them come, also when
        he who waits has what he wants before, as what is read ahead does.
        """
        del spans, patience, exact  # nothing is done ahead
        return nullcontext()

    def follow(self, spans: Sequence[Span], *, exact: bool = False) -> None:
        """Let spans come that a reader who goes forward will need, for as long as he does."""
        del spans, exact  # nothing is fetched ahead

    @abstractmethod
    def missing(self, span: Span) -> SpanSet:
        """What of a span cannot be read without fetching it."""

    def here(self, span: Span) -> bool:
        """Whether a span can be read without fetching any of it."""
        return not self.missing(span)

    @abstractmethod
    async def reject(self, span: Span) -> bool:
        """Say that what was read there is not what it must be: it is thrown away.

        Returns:
            whether it may be right when it is asked for again, of another source or of the same.

        Cancellation: all or nothing.
        """


class Feed(Content, Protocol):
    """Content that a first pass can be made over."""

    def ranges(self) -> "Ranges | None":
        """Its bytes before they have passed any gate; None where they come only all at once."""
        return None

    @abstractmethod
    def lazy(self) -> bool:
        """Whether a part of it can be read without fetching all of it."""

    @abstractmethod
    def algorithms(self) -> tuple[str, ...]:
        """The digest algorithms that ``seal`` wants of a hasher that saw every byte."""

    @abstractmethod
    def feed(self) -> Feeder:
        """The raw bytes, from the front."""

    @abstractmethod
    async def seal(self, seen: Seen | None, patience: Patience) -> Digest | None:
        """Let the content pass the gate, now that all of it was read.

        Args:
            seen: hashes of every byte, in order; None to have them read again.
            patience: for what is still missing.

        Returns:
            the canonical digest of what is there; None when it is not whole, and nothing pins it.
            What was seen may have been something else, where nothing pins it.

        Raises:
            DigestMismatchError: what is there is not what it must be, or what was seen is not.
            CafsError: as ``Content.ensure``.

        Cancellation: nothing is visible, or all.
        """

    async def look_around(self, patience: Patience) -> None:
        """Have it copied from elsewhere on this machine, if it is there; else do nothing.

        Raises:
            CrowdedError, DeadlineError: as ``Content.ensure``.

        Cancellation: the copy goes on for a while.
        """
        del patience  # nothing is looked for
        await trio.lowlevel.checkpoint_if_cancelled()

    def hopeful(self) -> bool:
        """Whether it was wrong, and fetching it again may bring, or has brought, the right."""
        return False
