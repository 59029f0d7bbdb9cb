"""Trying one place after another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from cafs.errors import MENDABLE, CafsError
from cafs.model.pacing import HASTE_S

P = TypeVar("P")
T = TypeVar("T")


async def first_answer(places: Sequence[P], ask: Callable[[P, int | None], Awaitable[T]]) -> T:
    """What the first place answers that can; the places are tried in their order.

    Args:
        places: where to ask.
        ask: asks a place, at most so many times; None is as often as is usual. All but the last
            are asked once, and for a few seconds: to retry a dead one, or to wait for it, would use
            up the time that the others need. Those that only were slow are asked again at the end.

    Raises:
        CafsError: what the first one failed with, when all failed. Failures that another place
            could not mend (no room, nothing that could be shown) are raised at once.

    Cancellation: as ``ask``.
    """
    failures: dict[int, CafsError] = {}
    last = len(places) - 1
    hung: list[int] = []
    for number, place in enumerate(places):
        try:
            if number == last:
                return await ask(place, None)
            with trio.move_on_after(HASTE_S):
                return await ask(place, 1)
            hung.append(number)
        except MENDABLE as error:
            failures[number] = error
    for number in hung:
        try:
            return await ask(places[number], None)
        except MENDABLE as error:
            failures[number] = error
    raise failures[min(failures)]
