"""Layers: what a container engine would unpack, from hand-made members.

Every case goes the whole way: members are recorded, replayed, applied, published, and read back.
"""

import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from typing_extensions import override

from cafs.distribution import layers, recording
from cafs.distribution.layers import LayerPlanter
from cafs.distribution.recording import LayerRecorder, replay
from cafs.errors import MalformedError
from cafs.model.identity import TreeIdentity
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind, Member
from cafs.model.record import TreeRecord
from cafs.store.store import Store, open_store
from cafs.store.trees.tree_writing import TreeWriter
from cafs.store.trees.trees import Trees

Layer = Sequence[Member]
Children = Callable[[TreeWriter, int], Iterator[tuple[bytes, int]]]


def file(path: str, version: int = 0) -> Member:
    return Member(path=path.encode(), kind=Kind.FILE, mode=0o644, size=1, offset=version)


def directory(path: str, mode: int = 0o755, mtime_ns: int = 7) -> Member:
    return Member(path=path.encode(), kind=Kind.DIRECTORY, mode=mode, mtime_ns=mtime_ns)


def symlink(path: str, target: str) -> Member:
    return Member(path=path.encode(), kind=Kind.SYMLINK, mode=0o777, target=target.encode())


def hard_link(path: str, target: str) -> Member:
    return Member(path=path.encode(), kind=Kind.HARD_LINK, mode=0o644, target=target.encode())


def whiteout(path: str) -> Member:
    head, slash, name = path.rpartition("/")
    return file(f"{head}{slash}.wh.{name}")


def opaque(path: str) -> Member:
    return file(f"{path}/.wh..wh..opq")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store") as store:
        yield store


def record(trees: Trees, layer: Layer, number: int) -> TreeRecord:
    with trees.writer(TreeIdentity(f"{number + 1:064x}")) as writer:
        recorder = LayerRecorder(writer, name=f"layer {number}", limits=Limits())
        for member in layer:
            recorder.plant(member)
        recorder.finish()
        return writer.publish((), None)


class Forgetful(LayerRecorder):
    """Looks at each path anew, however it is spelled."""

    @override
    def plant(self, member: Member, sha256: bytes = b"") -> int:
        self._spelled.clear()
        return super().plant(member, sha256)


def merge(trees: Trees, layers: Sequence[Layer], limits: Limits) -> TreeRecord:
    records = [record(trees, layer, number) for number, layer in enumerate(layers)]
    with trees.writer(TreeIdentity("0" * 64)) as writer:
        planter = LayerPlanter(writer, limits=limits)
        for number, each in enumerate(records):
            planter.begin(number, name=f"layer {number}")
            for member in replay(trees, each):
                planter.plant(member)
        planter.finish()
        return writer.publish((), None)


def listing(trees: Trees, tree: int) -> dict[str, str]:
    """Every path, and what it is: ``d755``, ``layer:version``, ``-> target``; links if many."""
    found: dict[str, str] = {}

    def show(number: int, entry: Entry) -> str:
        match entry.kind:
            case Kind.DIRECTORY:
                return f"d{entry.mode:o}"
            case Kind.SYMLINK:
                return f"-> {(entry.target or b'').decode()}"
            case Kind.HARD_LINK:
                return f"={show(entry.link, trees.entry(tree, entry.link))}"
            case _:
                links = f" x{entry.links}" if entry.links > 1 else ""
                return f"{entry.stream}:{entry.offset}{links}"

    def walk(parent: int, path: str) -> None:
        for number, entry in trees.children(tree, parent, None, 1000):
            below = f"{path}{entry.name.decode()}"
            found[below] = show(number, entry)
            if entry.kind is Kind.DIRECTORY:
                assert entry.parent == parent
                walk(number, f"{below}/")

    walk(ROOT, "")
    return found


async def merged(store: Store, *layers: Layer, limits: Limits | None = None) -> dict[str, str]:
    build = partial(merge, store.trees, layers, limits or Limits())
    tree = await trio.to_thread.run_sync(build)
    return listing(store.trees, tree.number)


CASES: dict[str, tuple[tuple[Layer, ...], dict[str, str]]] = {
    "no layers make an empty tree": ((), {}),
    "a later layer replaces a file, and adds beside it": (
        ([directory("d"), file("d/a", 1), file("d/b", 2)], [file("d/a", 3), file("d/c", 4)]),
        {"d": "d755", "d/a": "1:3", "d/b": "0:2", "d/c": "1:4"},
    ),
    "a directory stated again keeps its children and takes the new metadata": (
        ([directory("d", 0o755), file("d/a", 1)], [directory("d", 0o700)]),
        {"d": "d700", "d/a": "0:1"},
    ),
    "a directory that a path only passes through keeps its metadata": (
        ([directory("d", 0o700)], [file("d/a", 1)]),
        {"d": "d700", "d/a": "1:1"},
    ),
    "missing parents are made": (
        ([file("a/b/c", 1)],),
        {"a": "d755", "a/b": "d755", "a/b/c": "0:1"},
    ),
    "a file over a directory removes its subtree": (
        ([file("d/e/f", 1), file("g", 2)], [file("d", 3)]),
        {"d": "1:3", "g": "0:2"},
    ),
    "a directory over a file replaces it": (
        ([file("d", 1)], [directory("d"), file("d/a", 2)]),
        {"d": "d755", "d/a": "1:2"},
    ),
    "a directory over a symlink replaces it, and what it led to stays": (
        (
            [directory("usr/lib"), file("usr/lib/x", 1), symlink("lib", "usr/lib")],
            [directory("lib", 0o711), file("lib/y", 2)],
        ),
        {
            "lib": "d711",
            "lib/y": "1:2",
            "usr": "d755",
            "usr/lib": "d755",
            "usr/lib/x": "0:1",
        },
    ),
    "an entry below a lower layer's symlink lands where it leads": (
        (
            [directory("usr/lib", 0o711), symlink("lib", "usr/lib")],
            [file("lib/x", 1), file("lib/deep/y", 2)],
        ),
        {
            "lib": "-> usr/lib",
            "usr": "d755",
            "usr/lib": "d711",
            "usr/lib/deep": "d755",
            "usr/lib/deep/y": "1:2",
            "usr/lib/x": "1:1",
        },
    ),
    "a whiteout below a lower layer's symlink removes where it leads": (
        ([file("usr/lib/x", 1), symlink("lib", "/usr/lib")], [whiteout("lib/x")]),
        {"lib": "-> /usr/lib", "usr": "d755", "usr/lib": "d755"},
    ),
    "a symlink's dots stay inside the root": (
        ([symlink("out", "../../../../inner")], [file("out/x", 1)]),
        {"inner": "d755", "inner/x": "1:1", "out": "-> ../../../../inner"},
    ),
    "a member below a symlink, once a directory has replaced that, lands in the directory": (
        (
            [symlink("lib", "usr/lib"), file("lib/a", 1)],
            [file("lib/b", 2), directory("lib"), file("lib/c", 3)],
        ),
        {
            "lib": "d755",
            "lib/c": "1:3",
            "usr": "d755",
            "usr/lib": "d755",
            "usr/lib/a": "0:1",
            "usr/lib/b": "1:2",
        },
    ),
    "a whiteout removes a lower file, through three layers": (
        ([file("a", 1), file("b", 2)], [whiteout("a")], [file("c", 3)]),
        {"b": "0:2", "c": "2:3"},
    ),
    "what a whiteout removed can come back above": (
        ([file("d/a", 1)], [whiteout("d")], [file("d/b", 2)]),
        {"d": "d755", "d/b": "2:2"},
    ),
    "a whiteout removes a lower directory with all in it": (
        ([file("d/e/f", 1), file("g", 1)], [file("d/h", 2)], [whiteout("d")]),
        {"g": "0:1"},
    ),
    "a whiteout of nothing that is there changes nothing": (
        ([file("a", 1)], [whiteout("b"), whiteout("c/d")]),
        {"a": "0:1", "c": "d755"},
    ),
    "a whiteout of a name of its own layer alone leaves it": (
        ([file("z", 1)], [file("a", 2), whiteout("a"), directory("d"), whiteout("d")]),
        {"a": "1:2", "d": "d755", "z": "0:1"},
    ),
    "a whiteout spares what its own layer brought, whichever comes first": (
        (
            [file("d/old", 1), file("e/old", 2)],
            [whiteout("d"), file("d/new", 3), file("e/new", 4), whiteout("e")],
        ),
        {"d": "d755", "d/new": "1:3", "e": "d755", "e/new": "1:4"},
    ),
    "a file replaced in the layer of its whiteout stays": (
        ([file("a", 1), file("b", 1)], [file("a", 2), whiteout("a"), whiteout("b"), file("b", 3)]),
        {"a": "1:2", "b": "1:3"},
    ),
    "an opaque mark hides what lower layers have in the directory, and nothing else": (
        (
            [directory("d", 0o700), file("d/a", 1), file("d/e/f", 2), file("g", 3)],
            [opaque("d"), file("d/b", 4)],
        ),
        {"d": "d700", "d/b": "1:4", "g": "0:3"},
    ),
    "an opaque mark at the end of its layer hides the same": (
        (
            [file("d/a", 1), file("d/e/f", 2), file("d/k/l", 3)],
            [file("d/b", 4), file("d/e/new", 5), opaque("d")],
        ),
        {"d": "d755", "d/b": "1:4", "d/e": "d755", "d/e/new": "1:5"},
    ),
    "an opaque mark hides what two lower layers have": (
        ([file("d/a", 1)], [file("d/b", 2), file("d/e/f", 3)], [opaque("d"), file("d/e/g", 4)]),
        {"d": "d755", "d/e": "d755", "d/e/g": "2:4"},
    ),
    "an opaque root hides everything lower": (
        ([file("a", 1), file("d/b", 2)], [file(".wh..wh..opq"), file("c", 3)]),
        {"c": "1:3"},
    ),
    "an opaque mark spares a directory that its layer states without content": (
        ([file("d/e/f", 1)], [directory("d/e", 0o711), opaque("d")]),
        {"d": "d755", "d/e": "d711"},
    ),
    "an opaque mark of one layer does not reach what comes above": (
        ([file("d/a", 1)], [opaque("d")], [file("d/b", 2)], [file("d/c", 3)]),
        {"d": "d755", "d/b": "2:2", "d/c": "3:3"},
    ),
    "a hard link reaches into a lower layer": (
        ([directory("bin"), file("bin/a", 1)], [], [hard_link("bin/b", "bin/a")]),
        {"bin": "d755", "bin/a": "0:1 x2", "bin/b": "=0:1 x2"},
    ),
    "a hard link follows a lower layer's symlinked parent": (
        ([file("usr/bin/a", 1), symlink("bin", "usr/bin")], [hard_link("bin/b", "bin/a")]),
        {
            "bin": "-> usr/bin",
            "usr": "d755",
            "usr/bin": "d755",
            "usr/bin/a": "0:1 x2",
            "usr/bin/b": "=0:1 x2",
        },
    ),
    "a file lives on by a hard link when a whiteout takes its first name": (
        ([file("a", 1)], [hard_link("b", "a")], [whiteout("a")]),
        {"b": "=0:1"},
    ),
    "a hard link to a hard link is one to the file": (
        ([file("a", 1), hard_link("b", "a")], [hard_link("c", "b")]),
        {"a": "0:1 x3", "b": "=0:1 x3", "c": "=0:1 x3"},
    ),
    "a hard link whose directory goes is counted off": (
        ([file("a", 1), directory("d"), hard_link("d/b", "a")], [whiteout("d")]),
        {"a": "0:1"},
    ),
    "replacing one name of a file leaves the other": (
        ([file("a", 1), hard_link("b", "a")], [file("a", 2)]),
        {"a": "1:2", "b": "=0:1"},
    ),
    "a hard link to a symlink is that symlink": (
        ([symlink("a", "x")], [hard_link("b", "a")]),
        {"a": "-> x", "b": "=-> x"},
    ),
    "what aufs left is not shown, and its links still lead somewhere": (
        (
            [
                directory(".wh..wh.plnk"),
                file(".wh..wh.plnk/12.34", 5),
                file(".wh..wh.aufs", 0),
                directory(".wh..wh.orph"),
                file(".wh..wh.orph/x", 0),
                hard_link("a", ".wh..wh.plnk/12.34"),
                hard_link("b", ".wh..wh.plnk/12.34"),
            ],
        ),
        {"a": "=0:5 x3", "b": "=0:5 x3"},
    ),
    "a name that only resembles a whiteout is a name": (
        ([file("x.wh.a", 1), file(".whale", 2), file("d.wh./a", 3)],),
        {".whale": "0:2", "d.wh.": "d755", "d.wh./a": "0:3", "x.wh.a": "0:1"},
    ),
    "leading dots and slashes mean the root": (
        ([file("./a", 1), file("/b", 2), file("d//./c", 3)], [whiteout("./a"), whiteout("/b")]),
        {"d": "d755", "d/c": "0:3"},
    ),
    "the last of two members of one name counts": (
        ([file("a", 1), file("a", 2), directory("b"), file("b", 3)],),
        {"a": "0:2", "b": "0:3"},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_layers_are_applied_as_an_engine_unpacks_them(store: Store, case: str) -> None:
    layers, expected = CASES[case]
    assert await merged(store, *layers) == expected


async def test_the_root_takes_the_metadata_of_the_last_layer_that_states_it(store: Store) -> None:
    layers = ([directory("./", 0o700)], [directory(".", 0o711)], [file("a")])
    build = partial(merge, store.trees, layers, Limits())
    tree = await trio.to_thread.run_sync(build)
    assert store.trees.entry(tree.number, ROOT).mode == 0o711


async def test_all_that_a_member_says_reaches_the_tree(store: Store) -> None:
    member = Member(
        path=b"d/odd \xff\n",
        kind=Kind.CHARACTER_DEVICE,
        mode=0o4755,
        uid=7,
        gid=8,
        mtime_ns=-5,
        size=9,
        offset=10,
        device=(1 << 8) | 3,
        xattrs=((b"user.a", b"b"),),
    )
    build = partial(merge, store.trees, ([], [member]), Limits())
    tree = await trio.to_thread.run_sync(build)
    parent = store.trees.child(tree.number, ROOT, b"d")
    assert parent is not None
    ((_, entry),) = store.trees.children(tree.number, parent, None, 10)
    assert entry == Entry(
        name=b"odd \xff\n",
        parent=parent,
        kind=Kind.CHARACTER_DEVICE,
        mode=0o4755,
        uid=7,
        gid=8,
        mtime_ns=-5,
        size=9,
        stream=1,
        offset=10,
        device=(1 << 8) | 3,
        xattrs=((b"user.a", b"b"),),
    )


@pytest.mark.parametrize(
    "layers",
    [
        ([file("../a")],),
        ([file("d/../../a")],),
        ([whiteout("d/..")],),
        ([file("d/.wh.")],),
        ([file(".wh...")],),
        ([file("a")], [file("a/b")]),
        ([symlink("a", "b"), symlink("b", "a"), file("a/c")],),
        ([file("a")], [whiteout("a"), hard_link("b", "a")]),
        ([hard_link("b", "missing")],),
        ([hard_link("b", "missing/a")],),
        ([hard_link("b", "")],),
        ([directory("d")], [hard_link("b", "d")]),
        ([hard_link("b", ".wh..wh.plnk/1")],),
        ([file("/".join("d" * 300))],),
        ([file("n" * 256)],),
        ([file("a\0b")],),
        ([file("./")],),
    ],
)
async def test_hostile_members_are_malformed_and_named(
    store: Store, layers: tuple[Layer, ...]
) -> None:
    with pytest.raises(MalformedError, match=r"layer [01]"):
        await merged(store, *layers)
    assert store.trees.find(TreeIdentity("0" * 64)) is None


async def test_a_directory_that_is_emptied_again_and_again_is_listed_once_a_layer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is spared would be looked at anew each time: a product of two large numbers."""
    below = [directory(f"d/{number}") for number in range(50)]
    again = [opaque("d"), whiteout("d"), opaque("d/7")] * 50
    listed: list[int] = []

    def listing(
        self: TreeWriter, parent: int, children: Children = TreeWriter.children
    ) -> Iterator[tuple[bytes, int]]:
        listed.append(parent)
        return children(self, parent)

    monkeypatch.setattr(TreeWriter, "children", listing)
    assert len(await merged(store, below, [*below, *again], [*below, *again])) == 51
    assert len(listed) == 2 * 51


async def test_what_a_layer_states_and_empties_costs_a_few_bytes_each(store: Store) -> None:
    """There may be a million of them."""
    names = [f"d{number}" for number in range(4096)]

    def traced() -> int:
        with store.trees.writer(TreeIdentity("0" * 64)) as writer:
            planter = LayerPlanter(writer, limits=Limits())
            planter.begin(0, name="lower")
            for name in names:
                planter.plant(directory(name))
            tracemalloc.start()
            try:
                planter.begin(1, name="upper")
                for name in names:
                    planter.plant(directory(name))
                    planter.plant(opaque(name))
                own = tracemalloc.Filter(inclusive=True, filename_pattern=layers.__file__)
                found = tracemalloc.take_snapshot().filter_traces([own])
                return sum(trace.size for trace in found.traces)
            finally:
                tracemalloc.stop()

    assert await trio.to_thread.run_sync(traced) < 8 * len(names)


async def test_no_more_members_than_twice_the_limit_though_they_add_no_entry(store: Store) -> None:
    limits = Limits(members=10)
    layer = [directory("d"), whiteout("d/a"), opaque("d"), directory("d")]
    assert len(await merged(store, *[layer] * 5, limits=limits)) == 1
    with pytest.raises(MalformedError, match="layer 5: more than 20 members with the layers below"):
        await merged(store, *[layer] * 6, limits=limits)


async def test_no_more_entries_than_the_limit(store: Store) -> None:
    layers = [[file(f"{layer}-{number}") for number in range(4)] for layer in range(3)]
    assert len(await merged(store, *layers, limits=Limits(members=13))) == 12
    with pytest.raises(MalformedError, match="more than 12"):
        await merged(store, *layers, limits=Limits(members=12))


@pytest.mark.parametrize("remembered", [1, 3, 4096])
async def test_what_is_known_of_a_path_by_its_spelling_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """An index has the numbers of the entries: they are a function of the layer alone."""
    monkeypatch.setattr(recording, "_REMEMBERED", remembered)
    dice = random.Random(remembered)
    parts = ["a", "b", "c", ".", ""]
    paths = ["/".join(dice.choices(parts, k=dice.randrange(1, 6))) for _ in range(2000)]

    def recorded(kind: type[LayerRecorder], number: int) -> list[tuple[Entry, bool]]:
        with store.trees.writer(TreeIdentity(f"{number:064x}")) as writer:
            recorder = kind(writer, name="layer", limits=Limits())
            for version, path in enumerate(paths):
                recorder.plant(file(path, version) if path.strip("./") else directory(path))
            recorder.finish()
            return list(store.trees.rows(writer.publish((), None).number))

    assert await trio.to_thread.run_sync(recorded, LayerRecorder, 1) == (
        await trio.to_thread.run_sync(recorded, Forgetful, 2)
    )


@pytest.mark.parametrize("wrong", ["d/..", "d/a\0b", f"d/{'x' * 256}", f"d/{'x/' * 2048}y"])
async def test_a_wrong_name_below_a_known_path_is_refused(store: Store, wrong: str) -> None:
    with pytest.raises(MalformedError):
        await trio.to_thread.run_sync(record, store.trees, [file("d/a"), file(wrong)], 0)


async def test_what_lies_too_deep_or_is_one_too_many_is_refused_below_a_known_path(
    store: Store,
) -> None:
    def recorded(paths: Sequence[str], limits: Limits) -> None:
        with store.trees.writer(TreeIdentity("0" * 64)) as writer:
            recorder = LayerRecorder(writer, name="layer", limits=limits)
            for path in paths:
                recorder.plant(file(path))

    await trio.to_thread.run_sync(recorded, ["a/b/c", "a/b/d"], Limits(depth=3, members=5))
    for limits in (Limits(depth=2), Limits(members=4), Limits(path_bytes=5)):
        with pytest.raises(MalformedError):
            await trio.to_thread.run_sync(recorded, ["a/b/c", "a/b/dd"], limits)
