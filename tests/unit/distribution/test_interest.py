"""A question to a source ends with the last who asked: the origin sees its connection closed."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs.distribution.platforms import own_platform
from cafs.testing.faults import HangBeforeHead, RequireBearer, Stall
from cafs.testing.images import Image
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, World
from tests.unit.distribution.test_images import BASE, TOP, Served

SOON_S = 30.0
"""Usually a few milliseconds; the machine may be busy. Who asks is patient for longer."""
DATA = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Question:
    """Something that is asked of the origin: the path of the request, and what asks."""

    path: str
    ask: Callable[[], Awaitable[object]]


def unpinned(world: World, origin: Origin, scratch: Path) -> Question:
    spec = world.spec(f"blob+{origin.put('/file', DATA)}")
    return Question("/file", lambda: world.resolver.file(spec, USUAL))


def pinned(world: World, origin: Origin, scratch: Path) -> Question:
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    spec = world.spec(f"blob+{origin.put('/file', DATA)}", integrity=digest)
    return Question("/file", lambda: world.resolver.file(spec, USUAL))


def mirrored(world: World, origin: Origin, scratch: Path) -> Question:
    mirror = origin.put("/mirror/file", DATA)
    spec = world.spec(f"blob+{origin.url('/missing')}", mirrors=(mirror,))
    return Question("/mirror/file", lambda: world.resolver.file(spec, USUAL))


def image(world: World, path: str, served: Served, platform: str = "") -> Question:
    spec = world.spec(served.ref, platform=platform)
    return Question(path, lambda: world.resolver.tree(spec, USUAL))


def tag(world: World, origin: Origin, scratch: Path) -> Question:
    return image(world, "/v2/app/manifests/latest", Served(origin, scratch, Image((BASE,))))


def manifest(world: World, origin: Origin, scratch: Path) -> Question:
    served = Served(origin, scratch, Image((BASE,)), Image((TOP,)))
    (first, *_) = served.manifest()["manifests"]
    return image(world, f"/v2/app/manifests/{first['digest']}", served)


def configuration(world: World, origin: Origin, scratch: Path) -> Question:
    served = Served(origin, scratch, Image((BASE,)))
    config: object = served.manifest()["config"]
    assert isinstance(config, dict)
    return image(world, f"/v2/app/blobs/{config['digest']}", served, str(own_platform()))


def token(world: World, origin: Origin, scratch: Path) -> Question:
    served = Served(origin, scratch, Image((BASE,)))
    origin.fault("/v2/*", RequireBearer(scope="repository:app:pull"))
    return image(world, "/token", served)


Make = Callable[[World, Origin, Path], Question]
EACH = pytest.mark.parametrize(
    "make", [unpinned, pinned, mirrored, tag, manifest, configuration, token]
)


def waiting(origin: Origin, path: str) -> int:
    return sum(not one.ended for one in origin.requests_for(path))


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - the origin's thread cannot set a trio event
            await trio.sleep(0.003)


@EACH
async def test_the_last_who_asked_takes_the_question_with_him(
    world: World, origin: Origin, tmp_path: Path, make: Make
) -> None:
    question = make(world, origin, tmp_path)
    origin.fault(question.path, HangBeforeHead())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(question.ask)
        await until(lambda: waiting(origin, question.path) == 1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(lambda: not waiting(origin, question.path), SOON_S)
    assert origin.requests_for(question.path)[-1].aborted
    origin.heal(question.path)
    # Nobody is told of a failure that was none.
    await question.ask()


@EACH
async def test_another_who_asked_the_same_gets_the_answer(
    world: World, origin: Origin, tmp_path: Path, make: Make
) -> None:
    question = make(world, origin, tmp_path)
    origin.fault(question.path, HangBeforeHead(times=1))
    answers: list[object] = []
    killed = trio.CancelScope()

    async def first() -> None:
        with killed:
            await question.ask()

    async def second() -> None:
        answers.append(await question.ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await until(lambda: waiting(origin, question.path) == 1)
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        killed.cancel()
    assert len(answers) == 1


@pytest.mark.parametrize("make", [tag, manifest, token])
async def test_an_answer_that_stalls_half_way_is_given_up_too(
    world: World, origin: Origin, tmp_path: Path, make: Make
) -> None:
    question = make(world, origin, tmp_path)
    origin.fault(question.path, Stall(after_bytes=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(question.ask)
        await until(lambda: sum(one.bytes_sent for one in origin.requests_for(question.path)) == 10)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(lambda: not waiting(origin, question.path), SOON_S)
    assert origin.requests_for(question.path)[-1].aborted
