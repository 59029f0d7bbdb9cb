"""Servers that go wrong in every way in turn: what is read is right, or it is an error."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import trio
from typing_extensions import override

from cafs.errors import CafsError
from cafs.fetch.interfaces import Content
from cafs.fetch.sources import failures
from cafs.testing.answers import Answer, Ask, Resource
from cafs.testing.bodies import Literal
from cafs.testing.faults import (
    Drop,
    Fault,
    IgnoreRange,
    NoLength,
    NoValidators,
    Status,
    Truncate,
    WrongContentRange,
)
from cafs.testing.oddities import (
    Coded,
    Digested,
    LessThanAsked,
    OtherTotal,
    SeveralParts,
    Unsatisfiable,
)
from cafs.testing.origin import Origin
from tests.unit.transport.fetching import HURRY, opened

SIZE: Final = 1_500_000
OLD: Final = random.Random(1).randbytes(SIZE)
NEW: Final = random.Random(2).randbytes(SIZE)
_CHANCES: Final[tuple[Fault, ...]] = (
    Coded(),
    Digested("Content-Digest"),
    Drop(after_bytes=30_000),
    Drop(after_bytes=100, reset=True),
    IgnoreRange(),
    LessThanAsked(70_000),
    LessThanAsked(1),
    NoLength(),
    NoValidators(),
    OtherTotal(),
    SeveralParts(),
    Status(code=503),
    Status(code=404),
    Truncate(to=5000),
    Unsatisfiable(),
    WrongContentRange(),
)


@dataclass(frozen=True, slots=True)
class Storm(Fault):
    """Each request meets a fault by chance, or none; ``turning`` says that versions may, too."""

    dice: random.Random
    chosen: list[Fault]
    turning: bool = False

    @override
    def strikes(self, ask: Ask) -> bool:
        wild = self.dice.random() < 0.85  # else nobody would ever come to the end
        self.chosen[:] = [self.dice.choice(_CHANCES) if wild else Fault()]
        return self.chosen[0].strikes(ask)

    @override
    def hear(self, ask: Ask) -> Ask:
        return self.chosen[0].hear(ask)

    @override
    def hold(self, resource: Resource) -> Resource:
        if self.turning and self.dice.random() < 0.3:
            resource = Resource(Literal(NEW), '"new"', 1_700_000_100, ranges=True)
        return self.chosen[0].hold(resource)

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return self.chosen[0].spoil(ask, answer)


async def storm(content: Content, dice: random.Random, body: bytes) -> int:
    """Read here and there; how often that went well."""
    well = 0
    for _ in range(25):
        start = dice.randrange(SIZE)
        length = dice.choice([1, 5000, 400_000, SIZE])
        try:
            with trio.fail_after(30):
                read = await content.read(start, length, HURRY)
        except CafsError:
            continue
        assert read == body[start : start + length]
        well += 1
    return well


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("turning", [False, True])
async def test_without_a_digest_all_bytes_are_of_the_version_that_was_located(
    origin: Origin, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, turning: bool
) -> None:
    monkeypatch.setattr(failures, "MEMORY_S", 0.0)
    monkeypatch.setattr(failures, "CONTENT_MEMORY_S", 0.0)
    dice = random.Random(seed)
    url = origin.put("/a", OLD, etag='"old"')
    async with opened(tmp_path / "store") as bench:
        content = await bench.located(url, "update")
        origin.fault("/a", Storm(dice, [], turning))
        await storm(content, dice, OLD)
        asked = len(origin.requests)
        origin.heal()
        assert await content.read(0, SIZE, HURRY) == OLD
        assert asked > 1, "there was no storm"


@pytest.mark.expects_log("fetch")
@pytest.mark.parametrize("seed", range(20))
async def test_with_a_digest_any_two_mirrors_give_the_right_bytes(
    origin: Origin, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    urls = [origin.put("/a", OLD), origin.put("/b", OLD)]
    origin.fault("/a", Storm(dice, [], turning=True))
    async with opened(tmp_path / "store") as bench:
        content = await bench.pinned(OLD, *urls)
        assert await storm(content, dice, OLD) == 25


@pytest.mark.expects_log("fetch.mirror.wrong")
async def test_a_wrong_beginning_of_a_mirror_that_then_gives_no_more_is_replaced(
    origin: Origin, tmp_path: Path
) -> None:
    urls = [origin.put("/a", NEW), origin.put("/b", OLD)]
    origin.fault("/a", Drop(after_bytes=30_000, times=1), Status(code=404, skip=1))
    async with opened(tmp_path / "store") as bench:
        content = await bench.pinned(OLD, *urls)
        assert await content.read(0, SIZE, HURRY) == OLD
