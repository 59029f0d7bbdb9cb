"""One place after another: whose turn it is, for how long, and what is told when none can."""

import pytest
import trio
from trio.testing import MockClock

from cafs.distribution.trying import first_answer
from cafs.errors import BudgetError, CafsError, NotFoundError, UnreachableError, UnsupportedError
from cafs.model.pacing import HASTE_S


class Places:
    """Places that answer after some seconds, fail, or hang."""

    def __init__(self, **answers: float | CafsError) -> None:
        self._answers = answers
        self.asked: list[tuple[str, int | None]] = []

    async def ask(self, place: str, attempts: int | None) -> str:
        self.asked.append((place, attempts))
        answer = self._answers[place]
        if isinstance(answer, CafsError):
            raise answer
        await trio.sleep(answer)
        return place

    async def first(self) -> str:
        return await first_answer(list(self._answers), self.ask)


async def test_the_first_that_can_answers_and_nobody_else_is_asked() -> None:
    places = Places(a=NotFoundError("a"), b=0, c=0)
    assert await places.first() == "b"
    assert places.asked == [("a", 1), ("b", 1)]


async def test_one_that_hangs_costs_a_few_seconds(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert await Places(a=1000, b=1).first() == "b"
    assert trio.current_time() - began == pytest.approx(HASTE_S + 1)


async def test_one_that_is_only_slow_has_its_time_when_the_others_failed(
    autojump_clock: MockClock,
) -> None:
    places = Places(a=10, b=UnreachableError("b"))
    assert await places.first() == "a"
    assert places.asked == [("a", 1), ("b", None), ("a", None)]


async def test_the_last_is_not_hurried(autojump_clock: MockClock) -> None:
    assert await Places(a=NotFoundError("a"), b=25).first() == "b"


async def test_what_the_first_failed_with_is_told(autojump_clock: MockClock) -> None:
    with pytest.raises(NotFoundError, match="a"):
        await Places(a=NotFoundError("a"), b=UnreachableError("b")).first()


async def test_a_place_that_nothing_here_can_ask_is_passed_over() -> None:
    assert await Places(a=UnsupportedError("S3 is not installed"), b=0).first() == "b"
    with pytest.raises(UnsupportedError, match="S3"):
        await Places(a=UnsupportedError("S3 is not installed"), b=NotFoundError("b")).first()


async def test_what_no_other_place_could_mend_is_told_at_once() -> None:
    places = Places(a=BudgetError("spent"), b=0)
    with pytest.raises(BudgetError):
        await places.first()
    assert places.asked == [("a", 1)]
