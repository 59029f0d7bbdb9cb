"""Measuring and dropping: what each ref has, alone or with others, and how it is let go of."""

import pytest

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, image_tree, located_stream
from cafs.model.item import Item
from cafs.model.record import TreeStream
from cafs.store.space.measuring import Owner
from cafs.store.store import Store
from cafs.store.tables.records import hashed
from cafs.store.trees.mounts import new_key
from tests.unit.store.keeping_world import (
    KIB,
    archive_ref,
    blob,
    body,
    everything,
    file_ref,
    meaning,
    part,
    planted,
    stream,
    tree,
)


def owner(store: Store, source: str) -> Owner:
    return Owner(source, hashed(source), store.references.latest(source))


def sizes(store: Store, *sources: str) -> dict[str, tuple[int, int, int]]:
    found = store.measurer.measure([owner(store, source) for source in sources])
    return {each.owner.name: (each.total, each.shared, each.unique) for each in found.refs}


async def image_ref(store: Store, source: str, *layers: bytes) -> None:
    """A ref to an image whose layers were read whole, with what each was decoded to."""
    streams: list[TreeStream] = []
    for number, layer in enumerate(layers):
        await blob(store, layer)
        key = located_stream(part(layer))
        decoded = StreamKey(digest_of(layer + b"decoded").hex)
        await stream(store, decoded, body(f"decoded {layer[:5]!r}"), 10 * KIB)
        streams.append(TreeStream(key=decoded, size=10 * KIB, raw=key, part=number, rules="tar"))
    tree(store, image_tree([each.raw for each in streams]), tuple(streams))
    await store.references.record(source, meaning(*map(part, layers)))


async def test_a_ref_has_its_bytes_and_what_they_decode_to(store: Store) -> None:
    await file_ref(store, "file", body("file", 100 * KIB))
    await archive_ref(store, "archive", body("raw", 9 * KIB), body("decoded", 50 * KIB))
    assert sizes(store, "file", "archive", "unknown") == {
        "file": (100 * KIB, 0, 100 * KIB),
        "archive": (62 * KIB, 0, 62 * KIB),  # a blob fills blocks of 4 KiB
        "unknown": (0, 0, 0),
    }


async def test_layers_count_for_each_image_and_once_in_all(store: Store) -> None:
    base, own, other = body("base", 8 * KIB), body("own", 4 * KIB), body("other", 12 * KIB)
    await image_ref(store, "one", base, own)
    await image_ref(store, "two", base, other)
    assert sizes(store, "one", "two") == {
        "one": (32 * KIB, 18 * KIB, 14 * KIB),
        "two": (40 * KIB, 18 * KIB, 22 * KIB),
    }
    assert sizes(store, "one") == {"one": (32 * KIB, 18 * KIB, 14 * KIB)}
    found = store.measurer.measure([owner(store, "one"), owner(store, "two")])
    assert (found.listed, found.total, found.other) == (54 * KIB, 54 * KIB, 0)


async def test_the_total_is_what_the_quota_is_held_against(store: Store) -> None:
    await file_ref(store, "ref", body("a"))
    await blob(store, body("b", 5 * KIB))
    await stream(store, StreamKey("ab" * 32), b"x" * 700, 10_000)
    found = store.measurer.measure([owner(store, "ref")])
    assert found.total == store.room.usage().total == 12 * KIB + 8 * KIB + 700
    assert found.other == 8 * KIB + 700
    assert {each.source for each in store.measurer.known()} == {hashed("ref")}


async def test_a_dropped_ref_leaves_nothing(store: Store) -> None:
    kept = await archive_ref(store, "kept", body("kept"), body("kept decoded"))
    before = everything(store)
    record = await archive_ref(store, "ref", body("old"), body("old decoded"))
    await archive_ref(store, "ref", body("new"), body("new decoded"))
    dropped = store.dropper.drop([owner(store, "ref")], [], force=False)  # 2 blobs of 12 KiB
    assert (dropped.freed, dropped.shared, dropped.pinned, dropped.busy) == (44 * KIB, 0, 0, 0)
    assert everything(store) == before
    assert store.references.history("ref") == []
    assert [each.identity for each in store.trees.all()] == [kept.identity]
    assert store.trees.left() == []
    with pytest.raises(KeyError):
        store.trees.entry(record.number, 1)


async def test_what_other_refs_have_stays_unless_it_is_forced(store: Store) -> None:
    base, own = body("base", 8 * KIB), body("own", 4 * KIB)
    await image_ref(store, "one", base, own)
    await image_ref(store, "two", base)
    dropped = store.dropper.drop([owner(store, "one")], [], force=False)
    assert (dropped.freed, dropped.shared) == (14 * KIB, 18 * KIB)
    assert store.blobs.stat(digest_of(base)) is not None
    assert [tree.count for tree in store.trees.all()] == [2]
    assert sizes(store, "two") == {"two": (18 * KIB, 0, 18 * KIB)}
    await image_ref(store, "one", base, own)
    dropped = store.dropper.drop([owner(store, "one")], [], force=True)
    assert (dropped.freed, dropped.shared) == (32 * KIB, 0)
    assert everything(store) == {}
    assert store.references.latest("two") is not None


async def test_what_is_pinned_or_held_stays_even_when_forced_and_the_ref_is_known(
    store: Store,
) -> None:
    await archive_ref(store, "ref", body("raw"), body("decoded"))
    raw = Item.blob(digest_of(body("raw")))
    await store.pins.pin(raw, "raw")
    dropped = store.dropper.drop([owner(store, "ref")], [], force=True)
    assert (dropped.freed, dropped.pinned, dropped.busy) == (10 * KIB, 12 * KIB, 0)
    assert store.references.latest("ref") is not None
    await store.pins.unpin(raw)
    async with store.holds.hold(raw):
        dropped = store.dropper.drop([owner(store, "ref")], [], force=True)
        assert (dropped.freed, dropped.busy) == (0, 12 * KIB)
        assert store.blobs.stat(digest_of(body("raw"))) is not None
    assert store.dropper.drop([owner(store, "ref")], [], force=False).freed == 12 * KIB
    assert store.references.latest("ref") is None


async def test_what_a_mount_shows_can_be_dropped_and_its_tree_stays(store: Store) -> None:
    record = await archive_ref(store, "ref", body("raw"), body("decoded"))
    mount = await store.mounts.open(new_key(), "test")
    await store.attachments.attach(mount, "ref/a/", count=2, tree=record.number)
    dropped = store.dropper.drop([owner(store, "ref")], [], force=False)
    assert dropped.freed == 22 * KIB
    assert store.trees.entry(record.number, 1).name == b"a"
    assert store.trees.find(record.identity) == record


async def test_a_blob_is_dropped_alone_unless_refs_have_it(store: Store) -> None:
    lone = Item.blob(await blob(store, body("lone")))
    had = Item.blob(await file_ref(store, "ref", body("had")))
    assert store.dropper.drop([], [lone], force=False).freed == 12 * KIB
    dropped = store.dropper.drop([], [had], force=False)
    assert (dropped.freed, dropped.shared) == (0, 12 * KIB)
    assert store.dropper.drop([], [had], force=True).freed == 12 * KIB
    assert everything(store) == {}


async def test_a_drop_that_was_killed_half_way_is_finished_by_the_next(store: Store) -> None:
    record = await archive_ref(store, "ref", body("raw"), body("decoded"))
    await planted(store, StreamKey("ab" * 32), body("of another"))
    store.remover.remove([Item.stream(record.streams[0].key)])
    assert store.dropper.drop([owner(store, "ref")], [], force=False).freed == 12 * KIB
    assert store.references.latest("ref") is None
    assert [each.streams[0].raw for each in store.trees.all()] == ["ab" * 32]
