"""What belongs to a ref whose parts are decoded as an index, or a table of contents, says."""

import time
from dataclasses import replace

from cafs.model.digest import Digest, digest_of
from cafs.model.identity import (
    StreamKey,
    TreeIdentity,
    archive_tree,
    decoded_stream,
    indexed_stream,
    indexed_tree,
    layer_record,
    located_stream,
    merged_tree,
    unchecked_stream,
)
from cafs.model.item import Item
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.resolved import Contents, Part
from cafs.store.space.findings import Kind, Terms
from cafs.store.store import Store
from tests.unit.store.keeping_world import (
    HOUR_NS,
    WEEK_NS,
    blob,
    body,
    later,
    meaning,
    part,
    stream,
    tree,
)

INDEX = digest_of(b"an index")


def of(made: TreeIdentity, raw: StreamKey, index: Digest, planted: str = "") -> TreeStream:
    key = indexed_stream(raw, index)
    return TreeStream(
        key=key, size=100, raw=raw, part=0, rules="segments", planted=planted, vouched=True
    )


async def indexed(store: Store, made: TreeIdentity, one: Part, index: Digest) -> TreeRecord:
    """A tree that an index says is ``made``, and a piece of what it decodes to."""
    raw = located_stream(one)
    await stream(store, indexed_stream(raw, index), bytes(10), 100)
    return tree(store, indexed_tree(made, index), (of(made, raw, index),))


def contents(digest: Digest) -> Contents:
    return Contents(kind="estargz", digest=digest)


async def collected(store: Store) -> list[Kind]:
    told: list[Kind] = []
    terms = Terms(dry=False, unused=False, now_ns=later(WEEK_NS + HOUR_NS))
    await store.housekeeping.collect(terms, lambda some: told.extend(x.finding.kind for x in some))
    return told


async def test_what_an_index_says_of_a_part_belongs_to_the_ref_and_so_does_the_index(
    store: Store,
) -> None:
    one = part(body("one"))
    made = archive_tree(located_stream(one))
    record = await indexed(store, made, one, INDEX)
    await blob(store, b"an index")
    item = Item.stream(record.streams[0].key)
    assert item not in store.belongings.items(meaning(one))
    said = meaning(replace(one, index=INDEX))
    assert {item, Item.blob(INDEX)} <= store.belongings.items(said)
    assert record in store.belongings.trees(said)
    assert item not in store.belongings.items(meaning(replace(one, index=digest_of(b"other"))))


async def test_what_was_made_of_a_part_before_it_was_checked_belongs_to_the_ref(
    store: Store,
) -> None:
    one = part(body("one"))
    raw = located_stream(one)
    await stream(store, raw, bytes(10), 100)
    found = store.streams.find(raw)
    of = None if found is None else found.incarnation()
    assert found is not None
    assert of is not None
    key = unchecked_stream(raw, of.file, of.generation)
    what = TreeStream(key=decoded_stream(key, "zip"), size=9, raw=key, part=0, rules="zip")
    record = tree(store, archive_tree(key), (what,))
    assert record in store.belongings.trees(meaning(one))
    # Other bytes of the same name are another.
    await found.discard()
    await stream(store, raw, bytes(10), 100)
    assert record not in store.belongings.trees(meaning(one))


async def test_what_a_table_of_contents_says_of_a_layer_belongs_to_the_image(store: Store) -> None:
    one, two = part(body("one")), part(body("two"), "https://example.com/y")
    first = await indexed(store, layer_record(located_stream(one)), one, INDEX)
    said = meaning(replace(one, contents=contents(INDEX)), two)
    assert Item.stream(first.streams[0].key) in store.belongings.items(said)


async def test_an_images_tree_keeps_the_records_that_have_its_segments(store: Store) -> None:
    one = part(body("one"))
    raw = located_stream(one)
    record = await indexed(store, layer_record(raw), one, INDEX)
    (what,) = record.streams
    shown = tree(store, merged_tree([record.identity]), (replace(what, planted=record.identity),))
    image = replace(meaning(one), resolved_ns=time.time_ns())
    await store.references.record("image", image)
    await store.pins.pin_ref("image", "image")
    assert Kind.TREE not in await collected(store)
    assert store.trees.find(record.identity) == record
    assert store.trees.find(shown.identity) == shown


async def test_a_ref_remembers_by_which_index_it_was_read(store: Store) -> None:
    said = meaning(replace(part(body("one")), index=INDEX, contents=contents(digest_of(b"toc"))))
    await store.references.record("image", said)
    (latest,) = [resolved for _, resolved in store.references.all()]
    assert latest.parts == said.parts
