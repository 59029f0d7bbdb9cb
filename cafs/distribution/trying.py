"""Trying one place after another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cafs.errors import AccessError, CafsError, ContentError, NotFoundError, SourceError

P = TypeVar("P")
T = TypeVar("T")


async def first_answer(places: Sequence[P], ask: Callable[[P, int | None], Awaitable[T]]) -> T:
    """What the first place answers that can; the places are tried in their order.

    Args:
        places: where to ask.
        ask: asks a place, at most so many times; None is as often as is usual. All but the last
            are asked once: retrying a dead one would use up the time that the others need.

    Raises:
        CafsError: what the first one failed with, when all failed. Failures that another place
            could not mend (no room, nothing that could be shown) are raised at once.

    Cancellation: as ``ask``.
    """
    failures: list[CafsError] = []
    for number, place in enumerate(places, 1):
        try:
            return await ask(place, 1 if number < len(places) else None)
        except (NotFoundError, AccessError, ContentError, SourceError) as error:
            failures.append(error)
    raise failures[0]
