"""Recovering: what a flight does after a try that failed: another source, a pause, or the end."""

import logging
import random
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from cafs.errors import (
    AccessError,
    CafsError,
    ContentError,
    NotFoundError,
    RefusedError,
    SizeMismatchError,
    SourceChangedError,
    SourceError,
    UnreachableError,
    UnsupportedError,
)
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.judging import Terms, wrong_size
from cafs.fetch.sources.rating import Ratings
from cafs.fetch.sources.rotation import Rotation
from cafs.fetch.sources.sources import Sources
from cafs.metrics import Metrics
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.transport.retrying import RetryPolicy

_ELSEWHERE: Final = (
    "say who else has it: for a URL mirrors, for an image [map] in your own settings; "
    "or push it again"
)
_ALONE: Final = 2
"""How often one that is asked alone may fail before another takes its place."""
_LOG = logging.getLogger(__name__)
_REFUSALS: Final = (
    NotFoundError,
    AccessError,
    RefusedError,
    ContentError,
    SourceChangedError,
    UnsupportedError,
)
"""What another source of pinned content may not fail with."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a flight: for what, from which source, and who could be next.

    ``order`` is all sources that may be asked, ``others`` those that have not failed in this round.
    ``patient`` says that all have failed before, so that one that is slow to answer is waited for.
    """

    gap: Span
    number: int
    order: Sequence[int]
    others: Sequence[int]
    patient: bool = True


class Recovery:
    """Says how the flights of one content go on after failures.

    Concurrency: any number of flights of one trio run.
    """

    def __init__(
        self,
        terms: Terms,
        sources: Sources,
        *,
        ratings: Ratings,
        policy: RetryPolicy,
        metrics: Metrics,
    ) -> None:
        self._terms = terms
        self._sources = sources
        self._ratings = ratings
        self._policy = policy
        self._metrics = metrics

    async def recover(
        self, flight: Flight, rotation: Rotation, attempt: Try, error: CafsError
    ) -> None:
        """Get ready for another try: at once with another source, after a pause with the same.

        Raises:
            CafsError: there is no use in that, or nobody wants it.

        Cancellation: no effect.
        """
        if not error.transient:
            self._leave_out(rotation, attempt, error)
            flight.note(error)
            return
        asked_s = error.retry_after_s if isinstance(error, UnreachableError) else None
        if isinstance(error, SourceError):
            host, now = self._sources.host(attempt.number), trio.current_time()
            self._ratings.failed(host, error.line, now, asked_s=asked_s or 0.0)
        flight.note(error)
        if flight.unawaited():
            raise error
        _LOG.info("fetch.try.failed: %s: %s", shown(flight.url), error.line)
        self._metrics.add("fetch.retries")
        if not rotation.failed(attempt.number, attempt.order):
            return
        if rotation.rounds >= _ALONE and self._sources.step_aside(attempt.number):
            return
        if rotation.rounds > self._policy.retries and not flight.endless():
            raise error
        chance = random.random()  # noqa: S311 - jitter, no secret
        most_s = self._policy.delay_s(rotation.rounds - 1, asked_s=asked_s, chance=chance)
        # A source that asked for time gets it; else a new reader does not wait out old failures.
        await flight.pause(most_s if asked_s else min(most_s, self._policy.initial_s), most_s)

    def _leave_out(self, rotation: Rotation, attempt: Try, failure: CafsError) -> None:
        """Go on without a source that refused, or raise when that is the end."""
        number, pinned = attempt.number, self._terms.pinned
        error = self._promised(failure)
        if not pinned or not isinstance(error, _REFUSALS):
            raise error
        self._sources.refuse(number, error)
        if isinstance(error, ContentError) and not isinstance(error, SizeMismatchError):
            self._denounce(number, error)
        if not self._sources.step_aside(number):
            rotation.refused(number, error, attempt.order)

    def _denounce(self, number: int, error: ContentError) -> None:
        """Its bytes contradict what it says of them itself: that is proof enough."""
        if len(self._sources) > 1 and not self._sources.condemned(number):
            _LOG.warning("fetch.mirror.wrong host=%s: %s", self._sources.host(number), error.line)
        self._sources.condemn(number, error.line)

    def _promised(self, error: CafsError) -> CafsError:
        """What a refusal means of something that was located, or that a lock or manifest names.

        It exists: that a source does not have it is no reason to say that there is no such thing.
        And a range outside of the whole means that the whole has another size there.
        """
        terms = self._terms
        better: CafsError | None = None
        if isinstance(error, NotFoundError):
            hint = _ELSEWHERE if terms.pinned else "a new mount asks what is there"
            better = RefusedError(
                f"{terms.name}: it is known to exist, but {error.what}", hint=hint
            )
        elif isinstance(error, RefusedError):
            size, total = terms.size, error.total
            if size is not None and total is not None and total != size:
                better = wrong_size(terms, size, total)
        if better is None:
            return error
        better.__cause__ = error
        return better
