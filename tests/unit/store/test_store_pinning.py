"""Pins: of items, and of refs with everything that they have, now and later."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.model.digest import digest_of
from cafs.model.identity import decoded_stream, located_stream, raw_stream
from cafs.model.item import Item
from cafs.store.store import Store, open_store
from cafs.store.tables.records import hashed
from tests.unit.store.keeping_world import archive_ref, blob, body, file_ref, meaning, part, stream


async def test_an_item_is_pinned_until_it_is_unpinned(store: Store) -> None:
    item = Item.blob(await blob(store, body("one")))
    other = Item.blob(await blob(store, body("other")))
    assert not store.pins.pinned(item)
    await store.pins.pin(item, "one")
    assert store.pins.pinned(item)
    assert not store.pins.pinned(other)
    assert [pin.record.name for pin in store.pins.all()] == ["one"]
    assert await store.pins.unpin(item)
    assert not await store.pins.unpin(item)
    assert not store.pins.pinned(item)


async def test_y35_a_pinned_ref_pins_all_that_it_has(store: Store) -> None:
    raw = body("archive")
    record = await archive_ref(store, "ref", raw, body("decoded"))
    await file_ref(store, "other", body("other"))
    await store.pins.pin_ref("ref", "ref")
    assert store.pins.has_ref(hashed("ref"))
    assert store.pins.pinned(Item.blob(digest_of(raw)))
    assert store.pins.pinned(Item.stream(record.streams[0].key))
    assert not store.pins.pinned(Item.blob(digest_of(body("other"))))
    assert await store.pins.unpin_ref("ref")
    assert not store.pins.items()


async def test_a_pinned_ref_pins_what_it_gets_later(store: Store) -> None:
    await store.pins.pin_ref("ref", "ref")
    assert not store.pins.items()
    raw = body("late")
    await store.references.record("ref", meaning(part(raw)))
    key = located_stream(part(raw))
    await stream(store, key, raw[:100], len(raw))
    assert store.pins.pinned(Item.stream(key))
    whole = await store.streams.open(key, None)
    await whole.write(100, raw[100:])
    await store.blobs.admit(key, media_type="", name="late")
    assert store.pins.pinned(Item.blob(digest_of(raw)))
    await archive_ref(store, "ref", raw, body("what it decodes to"))
    assert store.pins.pinned(Item.stream(decoded_stream(key, "gzip")))
    newer = body("newer")
    await file_ref(store, "ref", newer)
    assert store.pins.items() >= {Item.blob(digest_of(newer))}
    assert not store.pins.pinned(Item.blob(digest_of(raw)))


async def test_b25_a_pinned_image_pins_its_manifests_through_indexes(store: Store) -> None:
    config, layer = body("config", 100), body("layer")
    manifest = json.dumps({"config": {"digest": str(digest_of(config))}, "layers": []}).encode()
    dangling = str(digest_of(b"nobody has this"))
    listed = [{"digest": str(digest_of(manifest))}, {"digest": dangling}]
    index = json.dumps({"manifests": listed}).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    await blob(store, layer)
    for document in (manifest, index, config):
        await blob(store, document, kind)
    ref = f"cimd:docker:v=0:localhost:5000/app@{digest_of(index)}"
    digest = digest_of(manifest)
    await store.references.record("image", meaning(part(layer), ref=ref, digest=digest))
    await store.pins.pin_ref("image", "image")
    expected = {Item.blob(digest_of(each)) for each in (config, layer, manifest, index)}
    assert store.pins.items() == expected


async def test_an_index_that_the_settings_insist_on_is_pinned_too(store: Store) -> None:
    index = json.dumps({"manifests": []}).encode()
    await blob(store, index, "application/vnd.oci.image.index.v1+json")
    await store.references.record("image", meaning(ref="cimd:docker:v=0:localhost:5000/app:1"))
    await store.pins.pin_ref("image", "image", [digest_of(index)])
    assert store.pins.pinned(Item.blob(digest_of(index)))


@pytest.mark.parametrize("text", [b"{", b"[" * 10_000, b'{"manifests": 5}', b"\xff", b"null"])
async def test_a_manifest_that_is_none_pins_itself_and_nothing_else(
    store: Store, text: bytes
) -> None:
    digest = await blob(store, text, "application/json")
    await store.references.record("image", meaning(digest=digest))
    await store.pins.pin_ref("image", "image")
    assert store.pins.items() == {Item.blob(digest)}


@pytest.mark.expects_log("damaged")
async def test_a_pinned_blob_stays_pinned_when_it_is_a_stream_again(store: Store) -> None:
    data = body("flipped")
    digest = await blob(store, data)
    await store.pins.pin(Item.blob(digest), "it")
    store._layout.blob(digest).chmod(0o600)
    store._layout.blob(digest).write_bytes(b"\0" + data[1:])
    assert await (await store.streams.open(raw_stream(digest), None)).read(0, 5) is None
    assert store.pins.pinned(Item.stream(raw_stream(digest)))


async def test_pins_outlive_the_process_and_a_power_cut(
    store: Store, frozen: Callable[[Store], Path]
) -> None:
    await file_ref(store, "ref", body("kept"))
    await store.pins.pin_ref("ref", "ref")
    async with open_store(frozen(store), boot_id="second") as again:
        assert again.pins.pinned(Item.blob(digest_of(body("kept"))))
