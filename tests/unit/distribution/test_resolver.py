"""Resolving: once per mount, once for all who ask, and a failure is not asked for twice."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from cafs.distribution.interfaces import Handler, Note, OpenTree
from cafs.distribution.resolver import Resolver
from cafs.errors import (
    CafsError,
    CrowdedError,
    DeadlineError,
    MalformedError,
    NotFoundError,
    OfflineError,
    UnreachableError,
    UnsupportedError,
)
from cafs.fetch.interfaces import Content, Patience, Place
from cafs.model.digest import digest_of
from cafs.model.identity import TreeIdentity
from cafs.model.record import TreeRecord
from cafs.model.ref import ArchiveRef, parse_ref
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import Platform, Pull, RefSpec
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key

SPEC = RefSpec(name="gcc", ref=parse_ref("https://example.com/gcc.tar.gz"))
USUAL = Patience(60.0)
FOREVER = Patience(None)


def resolved(word: str, *, pinned: bool = True) -> Resolved:
    part = Part(
        media_type="x/y",
        size=1,
        digest=digest_of(word.encode()) if pinned else None,
        urls=("https://example.com/gcc.tar.gz",),
    )
    return Resolved(
        ref=SPEC.ref.canonical, shape=Shape.TREE, digest=part.digest, parts=(part,), resolved_ns=1
    )


class Answering(Handler):
    """Answers after a while; counts what it was asked, and with which policy."""

    def __init__(self, *answers: Resolved | CafsError, after_s: float = 0) -> None:
        self.answers = list(answers)
        self.after_s = after_s
        self.asked: list[tuple[Pull, Resolved | None]] = []
        self.opened = 0
        self.opening: CafsError | None = None
        self.reason: CafsError | None = None

    @override
    async def resolve(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Resolved:
        self.asked.append((spec.pull, previous))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.reason is not None:
            note(self.reason)
        await trio.sleep(self.after_s)
        if isinstance(answer, CafsError):
            raise answer
        return answer

    @override
    async def open_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        self.opened += 1
        await trio.sleep(self.after_s)
        if self.opening is not None:
            raise self.opening
        record = TreeRecord(
            number=1, identity=TreeIdentity("0" * 64), count=1, streams=(), digest=None
        )
        return OpenTree(record, 0, ())

    @override
    async def open_file(
        self, spec: RefSpec, resolved: Resolved, patience: Patience, *, part: int = 0
    ) -> Content:
        raise UnsupportedError("no bytes here")


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """Time passes when nothing happens; the store's threads get a moment to make it happen."""
    autojump_clock.autojump_threshold = 0.1
    return autojump_clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store") as store:
        yield store


NewMount = Callable[..., Resolver]


@pytest.fixture
async def mount(store: Store) -> NewMount:
    """Makes resolvers, each of a mount of its own unless one is given."""
    numbers = [await store.mounts.open(new_key(), "test") for _ in range(4)]

    def make(handler: Handler, *, number: int | None = None, offline: bool = False) -> Resolver:
        return Resolver(
            handlers={ArchiveRef: handler},
            store=store,
            mount=numbers.pop() if number is None else number,
            offline=offline,
        )

    return make


async def test_a_ref_is_resolved_once_per_mount(store: Store, mount: NewMount) -> None:
    handler = Answering(resolved("a"), resolved("b"))
    one = mount(handler)
    assert one.peek(SPEC) is None
    first = await one.resolve(SPEC, USUAL)
    assert await one.resolve(SPEC, USUAL) == first == one.peek(SPEC)
    assert await mount(handler).resolve(SPEC, USUAL) == resolved("b")
    assert store.references.latest(SPEC.source) == resolved("b")
    assert [each.digest for each in store.references.history(SPEC.source)] == [
        digest_of(b"a"),
        digest_of(b"b"),
    ]


async def test_a_new_worker_of_the_same_mount_gives_the_same_answer(
    store: Store, mount: NewMount
) -> None:
    number = await store.mounts.open(new_key(), "test")
    handler = Answering(resolved("a"), resolved("b"))
    first = await mount(handler, number=number).resolve(SPEC, USUAL)
    assert await mount(handler, number=number).resolve(SPEC, USUAL) == first
    assert len(handler.asked) == 1


async def test_everybody_who_asks_at_once_shares_one_answer(
    mount: NewMount, clock: MockClock
) -> None:
    handler = Answering(resolved("a"), after_s=1)
    resolver = mount(handler)
    answers: list[Resolved] = []

    async def ask() -> None:
        answers.append(await resolver.resolve(SPEC, USUAL))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert answers == [resolved("a")] * 20
    assert len(handler.asked) == 1


async def test_another_part_of_the_same_ref_is_no_other_question(mount: NewMount) -> None:
    handler = Answering(resolved("a"))
    resolver = mount(handler)
    await resolver.resolve(SPEC, USUAL)
    await resolver.resolve(replace(SPEC, strip=1, subdir="usr"), USUAL)
    assert len(handler.asked) == 1


async def test_another_platform_or_pin_is_another_question(mount: NewMount) -> None:
    handler = Answering(resolved("a"))
    resolver = mount(handler)
    await resolver.resolve(SPEC, USUAL)
    await resolver.resolve(replace(SPEC, platform=Platform("linux", "arm64")), USUAL)
    await resolver.resolve(replace(SPEC, integrity=digest_of(b"pin")), USUAL)
    assert len(handler.asked) == 3


async def test_a_failure_is_kept_for_a_second_and_told_until_success(
    mount: NewMount, clock: MockClock
) -> None:
    handler = Answering(NotFoundError("no such tag"), resolved("a"))
    resolver = mount(handler)
    assert resolver.error(SPEC) is None
    for _ in range(3):
        with pytest.raises(NotFoundError, match="no such tag"):
            await resolver.tree(SPEC, USUAL)
    assert len(handler.asked) == 1
    assert resolver.error(SPEC) == "no such tag"
    await trio.sleep(1.01)
    assert resolver.error(SPEC) == "no such tag"
    await resolver.tree(SPEC, USUAL)
    assert len(handler.asked) == 2
    assert resolver.error(SPEC) is None


async def test_wrong_content_is_kept_for_half_a_minute(mount: NewMount, clock: MockClock) -> None:
    handler = Answering(resolved("a"))
    handler.opening = MalformedError("not a tar")
    resolver = mount(handler)
    for pause_s in (0, 1.5, 28):
        await trio.sleep(pause_s)
        with pytest.raises(MalformedError):
            await resolver.tree(SPEC, USUAL)
    assert handler.opened == 1
    await trio.sleep(1)
    with pytest.raises(MalformedError):
        await resolver.tree(SPEC, USUAL)
    assert handler.opened == 2


async def test_waiters_of_a_final_failure_do_not_ask_again(
    mount: NewMount, clock: MockClock
) -> None:
    handler = Answering(NotFoundError("no such tag"), after_s=1)
    resolver = mount(handler)

    async def ask() -> None:
        with pytest.raises(NotFoundError):
            await resolver.resolve(SPEC, USUAL)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert len(handler.asked) == 1


async def test_every_waiter_has_its_own_deadline(mount: NewMount, clock: MockClock) -> None:
    handler = Answering(resolved("a"), after_s=10)
    resolver = mount(handler)
    failed: list[float] = []
    start = trio.current_time()

    async def ask(deadline_s: float) -> None:
        try:
            await resolver.resolve(SPEC, Patience(deadline_s))
        except DeadlineError:
            failed.append(trio.current_time() - start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 2)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, 5)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, 30)
    assert failed == [pytest.approx(2), pytest.approx(5)]
    # The first gave up, the second asked in its place and gave up, the third was answered.
    assert len(handler.asked) == 3
    assert resolver.peek(SPEC) == resolved("a")


@pytest.mark.parametrize("reason", [UnreachableError("refused"), DeadlineError("no head"), None])
async def test_a_deadline_tells_why_it_took_so_long(
    mount: NewMount, clock: MockClock, reason: CafsError | None
) -> None:
    handler = Answering(resolved("a"), after_s=100)
    handler.reason = reason
    kind = UnreachableError if isinstance(reason, UnreachableError) else DeadlineError
    with pytest.raises(kind, match="not resolved within 2 s") as caught:
        await mount(handler).resolve(SPEC, Patience(2))
    assert caught.value.__cause__ is reason
    line = caught.value.line
    assert (reason.what if reason is not None else "gcc") in line
    assert ("is the source reachable?" in line) == (reason is None)


async def test_a_reader_without_a_deadline_waits_for_better_times(
    mount: NewMount, clock: MockClock
) -> None:
    down = UnreachableError("down")
    handler = Answering(down, down, down, resolved("a"))
    resolver = mount(handler)
    assert await resolver.resolve(SPEC, FOREVER) == resolved("a")
    assert len(handler.asked) == 4


async def test_a_reader_without_a_deadline_is_told_what_waiting_cannot_better(
    mount: NewMount, clock: MockClock
) -> None:
    handler = Answering(UnreachableError("down"), NotFoundError("gone"))
    with pytest.raises(NotFoundError):
        await mount(handler).resolve(SPEC, FOREVER)


async def test_a_transient_failure_of_another_is_not_told_to_who_waits_without_end(
    mount: NewMount, clock: MockClock
) -> None:
    handler = Answering(UnreachableError("down"), resolved("a"))
    resolver = mount(handler)
    with pytest.raises(UnreachableError):
        await resolver.resolve(SPEC, USUAL)
    assert await resolver.resolve(SPEC, FOREVER) == resolved("a")


async def test_a_caller_who_leaves_hands_the_question_on(mount: NewMount, clock: MockClock) -> None:
    handler = Answering(resolved("a"), after_s=10)
    resolver = mount(handler)
    answers: list[Resolved] = []

    async def ask() -> None:
        answers.append(await resolver.resolve(SPEC, USUAL))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(ask)
            await resolver.resolve(SPEC, USUAL)
    assert answers == [resolved("a")]


@pytest.mark.parametrize(
    ("pull", "offline", "asked"),
    [
        ("lock", False, ["lock"]),
        ("update", False, ["update"]),
        ("new", False, []),
        ("never", False, []),
        ("update", True, []),
    ],
)
async def test_r24_what_a_policy_asks_of_what_was_resolved_before(
    store: Store, mount: NewMount, pull: Pull, *, offline: bool, asked: list[Pull]
) -> None:
    await store.references.record(SPEC.source, resolved("a"))
    handler = Answering(resolved("b"))
    resolver = mount(handler, offline=offline)
    found = await resolver.resolve(replace(SPEC, pull=pull), USUAL)
    assert [each for each, _ in handler.asked] == asked
    assert found == (resolved("b") if asked else resolved("a"))


async def test_r24_new_asks_again_for_what_is_neither_pinned_nor_here(
    store: Store, mount: NewMount
) -> None:
    await store.references.record(SPEC.source, resolved("a", pinned=False))
    handler = Answering(resolved("b"))
    assert await mount(handler).resolve(replace(SPEC, pull="new"), USUAL) == resolved("b")
    assert handler.asked == [("update", resolved("a", pinned=False))]


@pytest.mark.parametrize(("pull", "offline"), [("never", False), ("lock", True)])
async def test_what_is_not_known_and_may_not_be_asked_is_an_offline_error(
    mount: NewMount, pull: Pull, *, offline: bool
) -> None:
    handler = Answering(OfflineError("not here"))
    with pytest.raises(OfflineError) as caught:
        await mount(handler, offline=offline).resolve(replace(SPEC, pull=pull), USUAL)
    assert caught.value.line.startswith("gcc: never resolved here: not here (")
    assert handler.asked == [("never", None)]


async def test_a_kind_of_ref_without_a_handler_is_unsupported_and_remembered(
    mount: NewMount,
) -> None:
    resolver = mount(Answering(resolved("a")))
    spec = RefSpec(name="", ref=parse_ref("appc:example.com/app"))
    with pytest.raises(UnsupportedError, match=r"example\.com/app"):
        await resolver.tree(spec, USUAL)
    assert "example.com/app" in (resolver.error(spec) or "")


class NoRoom(Place):
    """A place that is not to be had."""

    @override
    def take(self) -> None:
        raise CrowdedError("too many wait")


async def test_who_finds_no_room_to_wait_is_refused_alone(mount: NewMount) -> None:
    handler = Answering(resolved("a"))
    resolver = mount(handler)
    crowded = Patience(60.0, place=NoRoom())
    with pytest.raises(CrowdedError):
        await resolver.resolve(SPEC, crowded)
    assert handler.asked == []
    assert await resolver.resolve(SPEC, USUAL) == resolved("a")
    assert await resolver.resolve(SPEC, crowded) == resolved("a")
    handler.opening = CrowdedError("too many wait")
    with pytest.raises(CrowdedError):
        await resolver.tree(SPEC, USUAL)
    assert resolver.error(SPEC) is None
    handler.opening = None
    await resolver.tree(SPEC, USUAL)


async def test_the_shape_is_known_from_the_ref_alone(mount: NewMount) -> None:
    resolver = mount(Answering(resolved("a")))
    shapes = {
        "https://example.com/a.tar.gz": Shape.TREE,
        "https://example.com/a": Shape.FILE,
        "docker://debian": Shape.TREE,
        "appc:example.com/app": Shape.TREE,
        f"sha256:{'0' * 64}": Shape.FILE,
    }
    for text, shape in shapes.items():
        assert resolver.shape(RefSpec(name="", ref=parse_ref(text))) is shape


@pytest.mark.parametrize("offline", [False, True])
async def test_what_is_locked_is_asked_of_nobody(
    store: Store, mount: NewMount, offline: bool
) -> None:
    handler = Answering(resolved("b"))
    spec = replace(SPEC, locked=replace(resolved("a"), resolved_ns=0))
    answer = await mount(handler, offline=offline).resolve(spec, USUAL)
    assert replace(answer, resolved_ns=1) == resolved("a")
    assert answer.resolved_ns > 1
    assert store.references.latest(spec.source) == answer
    assert handler.asked == []


async def test_a_lock_that_says_something_else_is_another_question(
    store: Store, mount: NewMount
) -> None:
    """A reload with a changed lock: the same mount moves on."""
    number = await store.mounts.open(new_key(), "test")
    handler = Answering(resolved("asked"))
    answers = []
    for locked in (resolved("a"), resolved("b"), None):
        spec = replace(SPEC, locked=locked)
        answer = await mount(handler, number=number).resolve(spec, USUAL)
        answers.append(answer.digest)
    assert answers == [digest_of(b"a"), digest_of(b"b"), digest_of(b"asked")]
