"""Trying one place after another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cafs.errors import CafsError, CredentialsError, NotFoundError, SourceError

P = TypeVar("P")
T = TypeVar("T")


async def first_answer(places: Sequence[P], ask: Callable[[P], Awaitable[T]]) -> T:
    """What the first place answers that can; the places are tried in their order.

    Raises:
        CafsError: what the first one failed with, when all failed. Failures that another place
            could not mend (wrong content, no room) are raised at once.

    Cancellation: as ``ask``.
    """
    failures: list[CafsError] = []
    for place in places:
        try:
            return await ask(place)
        except (NotFoundError, CredentialsError, SourceError) as error:
            failures.append(error)
    raise failures[0]
