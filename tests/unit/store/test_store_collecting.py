"""Collecting: what is of no use goes, and nothing else, whatever anybody does meanwhile."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cafs.model.bounds import Bounds
from cafs.model.digest import Digest, digest_of
from cafs.model.document import CacheDocument
from cafs.model.identity import (
    StreamKey,
    TreeIdentity,
    archive_tree,
    decoded_stream,
    derived_tree,
    located_stream,
    raw_stream,
)
from cafs.model.item import Item
from cafs.model.member import ROOT, Entry, Kind as FileKind
from cafs.model.record import TreeStream
from cafs.model.span import Span
from cafs.model.validator import UNKNOWN_VERSION
from cafs.store.disk.files import punch
from cafs.store.space.findings import GRACE_NS, Kind, Terms
from cafs.store.space.purging import Outcome
from cafs.store.store import Store, open_store
from cafs.store.tables.counters import BLOCK
from cafs.store.tables.uses import Rank
from cafs.store.trees.mounts import new_key
from tests.unit.store.keeping_world import (
    HOUR_NS,
    KIB,
    WEEK_NS,
    archive_ref,
    blob,
    body,
    everything,
    file_ref,
    later,
    meaning,
    part,
    planted,
    rest,
    stream,
    tree,
)

KEY = StreamKey("ab" * 32)
RAW = StreamKey("cd" * 32)


def terms(after_ns: int = WEEK_NS + HOUR_NS, *, dry: bool = False, unused: bool = False) -> Terms:
    """Those of a collection so much later than now."""
    return Terms(dry=dry, unused=unused, now_ns=later(after_ns))


async def collect(store: Store, how: Terms) -> list[Outcome]:
    told: list[Outcome] = []
    await store.housekeeping.collect(how, told.extend)
    return told


async def names(store: Store, how: Terms) -> list[tuple[Kind, str]]:
    """What a collection tells of."""
    return [(each.finding.kind, each.finding.name) for each in await collect(store, how)]


async def upload(store: Store, data: bytes) -> str:
    """An upload that was left."""
    writer = await store.blobs.create()
    await writer.write(data)
    await writer.close()
    await rest(store)
    return writer.id


async def test_b24_all_old_uploads_go_with_their_bytes(store: Store) -> None:
    ids = {await upload(store, body(str(number))) for number in range(3)}
    kept = await blob(store, body("kept"))
    told = await collect(store, terms())
    assert {each.finding.name for each in told if each.removed} == ids
    assert {each.finding.size for each in told} == {len(body(""))}
    assert store.uploads.all() == []
    assert list(everything(store)) == [f"blobs/sha256/{kept.hex[:2]}/{kept.hex}"]


async def test_b24_none_that_is_young_goes(store: Store) -> None:
    ids = [await upload(store, body(str(number))) for number in range(3)]
    before = everything(store)
    assert await collect(store, terms(WEEK_NS - HOUR_NS)) == []
    assert [each.id for each in store.uploads.all()] == ids
    assert everything(store) == before


async def test_b24_gather_tells_of_each_upload_once_with_its_size(store: Store) -> None:
    ids = {await upload(store, body(str(size), size)): size for size in (1, 5000, 70_000)}
    told = await collect(store, terms(dry=True))
    assert {each.finding.name: each.finding.size for each in told} == ids
    assert {each.finding.kind for each in told} == {Kind.UPLOAD}
    assert not any(each.removed for each in told)


async def test_b24_some_go_and_some_stay(store: Store) -> None:
    old = await upload(store, b"old")
    how = Terms(age_s=0.2, now_ns=later(250 * 10**6))
    await trio.sleep(0.3)
    young = await upload(store, b"young")
    assert await names(store, how) == [(Kind.UPLOAD, old)]
    assert [each.id for each in store.uploads.all()] == [young]
    writer = await store.blobs.resume(young)
    assert (await writer.commit(None, None)).digest == digest_of(b"young")


async def test_b24_the_age_must_be_exceeded(store: Store) -> None:
    await upload(store, b"x")
    [found] = store.uploads.all()
    use = store.uses.last(Item.stream(found.key))
    assert use is not None
    last = max(found.started_ns, use.last_ns)
    exactly = Terms(age_s=1.0, dry=True, now_ns=last + 10**9)
    assert await collect(store, exactly) == []
    assert len(await collect(store, replace(exactly, now_ns=last + 10**9 + 1))) == 1


async def test_b24_only_uploads_go_not_what_looks_like_one_elsewhere(store: Store) -> None:
    foreign = [
        store.path / "leases" / "0b5c3a1e-0000-4000-8000-000000000000",
        store.path / "streams" / "_uploads" / "notes.txt",
        store.path / "streams" / "ab" / "README",
        store.path / "blobs" / "sha256" / "ab" / "of-mine",
        store.path / "blobs" / "mine" / ("ab" * 32),
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("somebody else's")
    gone = await upload(store, b"x")
    assert await names(store, terms()) == [(Kind.UPLOAD, gone)]
    assert all(path.read_text() == "somebody else's" for path in foreign)


async def test_b24_an_upload_without_a_record_does_not_live_for_ever(store: Store) -> None:
    left = await upload(store, b"its record was lost")
    [found] = store.uploads.all()
    await store.uploads.forget(left)
    assert await names(store, terms(WEEK_NS - HOUR_NS)) == []
    assert await names(store, terms()) == [(Kind.PARTIAL, f"stream:{found.key}")]
    assert everything(store) == {}


@pytest.mark.parametrize("record", [b"", b"\xc1", b"no date", b"\x81\xa2id\xa1x"])
@pytest.mark.expects_log("store.record.unknown")
async def test_b24_an_upload_with_a_record_that_cannot_be_read_goes_and_stops_nothing(
    store: Store, record: bytes
) -> None:
    good = await upload(store, b"good")
    index = store.uploads._index
    index.apply(lambda batch: batch.put(index.table("uploads"), b"\x01" * 32, record))
    told = await collect(store, terms())
    assert {each.finding.name for each in told if each.removed} == {good, "01" * 32}
    assert store.uploads.unreadable() == []


@pytest.mark.parametrize("name", ["", ".", "..", "\n", "é" * 100])
async def test_b24_an_odd_name_is_left_alone_and_stops_nothing(store: Store, name: str) -> None:
    folder = store.path / "streams" / "ab"
    folder.mkdir(exist_ok=True)
    odd = folder / f"{name}.x"
    odd.write_bytes(b"")
    (store.path / "streams" / ".x").write_bytes(b"")
    gone = await upload(store, b"x")
    assert await names(store, terms()) == [(Kind.UPLOAD, gone)]
    assert odd.exists()


async def test_b24_a_dry_run_lists_what_a_run_removes_and_changes_nothing(store: Store) -> None:
    await upload(store, b"left")
    await stream(store, KEY, body("partial"), 1 << 20)
    await archive_ref(store, "ref", body("raw"), body("decoded"))
    stray(store, "streams/ab", "ab" * 32 + "." + "01" * 8)
    (store.path / "quarantine" / "bad").write_bytes(b"bad")
    await rest(store)
    before, how = everything(store), terms(dry=True, unused=True)
    listed = [await names(store, how) for _ in range(2)]
    assert listed[0] == listed[1]
    assert everything(store) == before
    assert {kind for kind, _ in listed[0]} >= set(Kind) - {Kind.DOCUMENT, Kind.EXCESS}
    removed = await collect(store, replace(how, dry=False))
    assert [(each.finding.kind, each.finding.name) for each in removed] == listed[0]
    assert all(each.removed for each in removed)
    assert await collect(store, how) == []
    assert everything(store) == {}


async def test_b24_an_upload_that_is_being_written_stays_however_old(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(b"slowly")
    assert await collect(store, terms(10 * WEEK_NS, unused=True)) == []
    await writer.write(b", but surely")
    assert (await writer.commit(None, None)).digest == digest_of(b"slowly, but surely")


async def test_b24_what_cannot_be_removed_keeps_nothing_else(store: Store) -> None:
    folder = store.path / "quarantine" / "a"
    folder.mkdir()
    (folder / "x").write_bytes(b"x")
    (store.path / "quarantine" / "b").write_bytes(b"b")
    done = await trio.run_process(["chattr", "+i", folder], check=False, capture_stderr=True)
    if done.returncode:
        pytest.skip("this file system has no immutable files")
    try:
        told = await collect(store, terms())
    finally:
        await trio.run_process(["chattr", "-i", folder])
    assert [(each.finding.name, each.removed, bool(each.error)) for each in told] == [
        ("a", False, True),
        ("b", True, False),
    ]


async def test_partials_that_nobody_goes_on_with_go_by_their_last_use(store: Store) -> None:
    await stream(store, KEY, body("partial"), 1 << 20)
    await rest(store)
    assert await collect(store, terms(WEEK_NS - HOUR_NS)) == []
    [told] = await collect(store, terms())
    assert (told.finding.kind, told.finding.size) == (Kind.PARTIAL, len(body("")))
    assert store.streams.find(KEY) is None


async def test_r36_with_an_age_what_nobody_used_for_so_long_goes(store: Store) -> None:
    digest = await file_ref(store, "ref", body("blob"))
    await rest(store)
    assert await collect(store, terms()) == []
    told = await collect(store, terms(unused=True))
    assert [each.finding.kind for each in told] == [Kind.BLOB, Kind.REFERENCE]
    assert store.blobs.stat(digest) is None
    assert everything(store) == {}
    assert store.references.latest("ref") is None


async def test_r36_what_is_in_use_or_pinned_stays_whatever_its_age(store: Store) -> None:
    held, pinned, used, free = [await blob(store, body(name)) for name in "abcd"]
    await rest(store)
    await store.pins.pin(Item.blob(pinned), "it")
    await store.blobs.read(used, 0, 5)
    async with store.holds.hold(Item.blob(held)):
        told = await collect(store, terms(unused=True))
    assert [each.finding.name for each in told] == [str(free)]
    assert [store.blobs.stat(each) is not None for each in (held, pinned, used, free)] == [
        True,
        True,
        True,
        False,
    ]


async def test_r36_what_nothing_knows_a_source_of_goes_too_and_is_told_of(store: Store) -> None:
    item = Item.blob(await blob(store, body("precious")))
    store.uses.rank(item, Rank.PRECIOUS)
    await rest(store)
    [told] = await collect(store, terms(unused=True))
    assert "nothing here knows a source of it" in told.finding.reason
    assert told.removed


async def test_r36_leftovers_of_a_removal_that_was_killed_go_with_the_next(store: Store) -> None:
    digest = await blob(store, body("gone"))
    await rest(store)
    store.blobs._records.delete(digest)
    path = f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"
    assert list(everything(store)) == [path]
    assert await names(store, terms(HOUR_NS // 2)) == []
    assert await names(store, terms(2 * HOUR_NS)) == [(Kind.FILE, path)]
    assert everything(store) == {}


def stray(store: Store, folder: str, name: str) -> Path:
    path = store.path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body("stray"))
    return path


async def test_files_without_records_go_once_nobody_can_be_about_to_record_them(
    store: Store,
) -> None:
    item = await stream(store, KEY, b"recorded", 100)
    digest = await blob(store, body("recorded"))
    names_ = ("ab" * 32 + "." + "01" * 8, "ab" * 32 + "." + "01" * 8 + "." + "02" * 8)
    strays = {stray(store, "streams/ab", name) for name in names_}
    strays.add(stray(store, "blobs/sha256/ef", "ef" * 32))
    assert await collect(store, terms(GRACE_NS - 10**9)) == []
    told = await collect(store, terms(GRACE_NS + 60 * 10**9))
    assert {each.finding.kind for each in told if each.removed} == {Kind.FILE}
    assert len(told) == len(strays)
    assert not any(path.exists() for path in strays)
    assert store.blobs.stat(digest) is not None
    assert store.belongings.present(item)


async def test_of_files_without_records_is_told_what_the_disk_gives_back(store: Store) -> None:
    """Of a file that is mostly a hole, what it has; of another name of what stays, nothing."""
    await stream(store, KEY, b"recorded", 100)
    [recorded] = store.path.glob("streams/*/*")
    hollow = stray(store, "streams/ab", "ef" * 32 + "." + "01" * 8)
    os.truncate(hollow, 1 << 30)
    named = recorded.with_name(f"{recorded.name}.{'02' * 8}")
    named.hardlink_to(recorded)
    told = await collect(store, terms(GRACE_NS + 60 * 10**9))
    sizes = {each.finding.handle: each.finding.size for each in told if each.removed}
    assert sizes == {hollow: 12 * KIB, named: 0}
    assert recorded.exists()


async def test_what_is_told_of_blobs_is_what_counts_against_the_quota(store: Store) -> None:
    for number in range(3):
        await file_ref(store, f"ref {number}", body(f"small {number}", 100))
    await rest(store)
    before = store.room.usage().total
    for dry in (True, False):
        told = await collect(store, terms(unused=True, dry=dry))
        assert sum(each.finding.size for each in told) == before == 3 * BLOCK
    assert store.room.usage().total == 0


async def test_what_a_killed_draft_left_in_a_streams_file_goes_and_what_is_recorded_stays(
    store: Store,
) -> None:
    there = await store.streams.open(KEY, 4096 * KIB)
    data = bytes(range(256)) * 4 * 1024
    await there.write(1000, data)
    [file] = store.path.glob("streams/*/*")

    def drafted() -> None:  # and never kept
        there.draft_sync().write(0, b"x" * 3072 * KIB)

    await trio.to_thread.run_sync(drafted)
    full = file.stat().st_blocks * 512
    assert full >= 3072 * KIB
    assert store.room.usage().streams == 3072 * KIB
    assert await collect(store, terms(GRACE_NS - 10**9)) == []
    dry = await names(store, terms(GRACE_NS + 60 * 10**9, dry=True))
    assert file.stat().st_blocks * 512 == full
    assert dry == [(Kind.FILE, str(file.relative_to(store.path)))]
    [told] = await collect(store, terms(GRACE_NS + 60 * 10**9))
    assert told.removed
    assert full - file.stat().st_blocks * 512 == told.finding.size > 1900 * KIB
    assert store.room.usage().streams == len(data)
    assert store.room.recount() == 0
    assert await there.read(1000, len(data)) == data
    assert await collect(store, terms(GRACE_NS + 60 * 10**9)) == []


async def test_what_is_noted_as_drafted_and_lies_nowhere_counts_no_more_after_gc(
    store: Store,
) -> None:
    """Who gave its space back was killed before he could say so."""
    there = await store.streams.open(KEY, 4096 * KIB)
    draft = await trio.to_thread.run_sync(there.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, b"x" * 1024 * KIB)
    [file] = store.path.glob("streams/*/*")
    with file.open("r+b") as opened:
        punch(opened.fileno(), Span(0, 1024 * KIB))
    assert store.room.usage().streams == 1024 * KIB
    [told] = await collect(store, terms(GRACE_NS + 60 * 10**9))
    assert (told.removed, told.finding.size) == (True, 1024 * KIB)
    assert store.room.usage().streams == 0
    assert store.room.recount() == 0
    assert await collect(store, terms(GRACE_NS + 60 * 10**9)) == []


async def test_what_is_drafted_while_it_is_swept_is_not_kept(store: Store) -> None:
    there = await store.streams.open(KEY, 1024 * KIB)
    draft = await trio.to_thread.run_sync(there.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, b"x" * 1024 * KIB)
    [told] = await collect(store, terms(GRACE_NS + 60 * 10**9))
    assert told.removed
    assert not await trio.to_thread.run_sync(draft.keep)
    assert not there.present()


async def test_quarantine_goes_with_its_notes_when_it_is_old(store: Store) -> None:
    folder = store.path / "quarantine"
    (folder / "index-1").mkdir()
    for name in ("index-1/data.mdb", "wrong.0", "wrong.0.json", "alone.json"):
        (folder / name).write_bytes(b"1234")
    assert await collect(store, terms(WEEK_NS - HOUR_NS)) == []
    told = await collect(store, terms())
    assert {(each.finding.name, each.finding.size) for each in told} == {
        ("index-1", BLOCK),
        ("wrong.0", 2 * BLOCK),
        ("alone.json", BLOCK),
    }
    assert list(folder.iterdir()) == []


async def test_what_a_link_leads_to_is_left_alone(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "below").mkdir(parents=True)
    (theirs / ("ab" * 32)).write_bytes(b"1234")
    for place in ("quarantine/link", "blobs/sha256/zz", "streams/zz"):
        (store.path / place).symlink_to(theirs)
    told = await collect(store, terms())
    assert [each.finding.name for each in told if each.removed] == ["link"]
    assert not (store.path / "quarantine" / "link").is_symlink()
    assert {each.name for each in theirs.iterdir()} == {"below", "ab" * 32}


async def test_b25_a_tree_that_no_ref_means_goes_with_what_was_decoded_for_it(
    store: Store,
) -> None:
    kept = await archive_ref(store, "ref", body("raw"), body("decoded"))
    lost = await planted(store, RAW, body("decoded for nobody"))
    await rest(store)
    told = await collect(store, terms(0))
    assert [each.finding.kind for each in told] == [Kind.TREE, Kind.STREAM]
    assert store.trees.find(lost.identity) is None
    assert store.trees.left() == []
    with pytest.raises(KeyError):
        store.trees.entry(lost.number, 1)
    assert store.streams.find(lost.streams[0].key) is None
    assert store.trees.find(kept.identity) == kept
    assert store.streams.find(kept.streams[0].key) is not None


async def test_b25_what_two_trees_were_decoded_to_stays_with_the_one_that_stays(
    store: Store,
) -> None:
    base = await archive_ref(store, "ref", body("raw"), body("decoded"))
    other = TreeStream(key=RAW, size=1, raw=RAW, part=0, rules="")
    lost = tree(store, TreeIdentity("77" * 32), (*base.streams, other))
    await rest(store)
    assert [each.finding.kind for each in await collect(store, terms(0))] == [Kind.TREE]
    assert store.trees.find(lost.identity) is None
    assert store.streams.find(base.streams[0].key) is not None


async def test_b25_a_tree_stays_while_its_raw_bytes_may_lead_to_it_by_digest(
    store: Store,
) -> None:
    digest = await blob(store, body("raw"))
    found = await planted(store, raw_stream(digest), body("decoded"))
    await rest(store)
    assert await collect(store, terms(0)) == []
    assert store.trees.find(found.identity) == found


async def test_b25_a_meaning_that_has_passed_keeps_its_tree_while_anything_of_it_is_here(
    store: Store,
) -> None:
    old = await archive_ref(store, "ref", body("old"), body("old decoded"))
    await archive_ref(store, "ref", body("new"), body("new decoded"))
    await rest(store)
    assert await collect(store, terms()) == []
    await store.blobs.delete(digest_of(body("old")))
    stream_ = await store.streams.open(old.streams[0].key, None)
    await stream_.discard()
    told = await collect(store, terms())
    assert [each.finding.kind for each in told] == [Kind.REFERENCE, Kind.TREE]
    assert len(store.references.history("ref")) == 1


async def test_what_a_live_mount_shows_stays_with_what_it_was_derived_from(store: Store) -> None:
    base = await planted(store, RAW, body("decoded"))
    shown = tree(store, derived_tree((base.identity,), "strip=1"), base.streams)
    mount = await store.mounts.open(new_key(), "test")
    await store.attachments.attach(mount, "ref/a/", count=2, tree=shown.number)
    await rest(store)
    assert await collect(store, terms()) == []
    assert store.trees.find(base.identity) == base
    await store.mounts.remove(mount)
    kinds = [each.finding.kind for each in await collect(store, terms())]
    assert kinds == [Kind.TREE, Kind.TREE, Kind.STREAM]


async def test_what_a_mount_shows_that_nobody_keeps_any_more_goes(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, boot_id="one") as store:
        lost = await planted(store, RAW, body("decoded"))
        mount = await store.mounts.open(new_key(), "test")
        await store.attachments.attach(mount, "ref/a/", count=2, tree=lost.number)
    async with open_store(tmp_path, boot_id="one") as store:
        dry = await names(store, terms(dry=True))
        assert [kind for kind, _ in dry] == [Kind.TREE, Kind.STREAM]
        assert await names(store, terms()) == dry


async def test_a_tree_that_is_being_written_stays(store: Store) -> None:
    with store.trees.writer(archive_tree(KEY)) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=FileKind.DIRECTORY, mode=0o755))
        writer.add(Entry(name=b"a", parent=ROOT, kind=FileKind.FILE, mode=0o644))
        writer.flush()
        assert await collect(store, terms(10 * WEEK_NS)) == []
        record = writer.publish((), None)
    assert store.trees.entry(record.number, 1).name == b"a"


async def test_a_tree_that_another_has_replaced_goes_unless_it_is_shown(store: Store) -> None:
    numbers = [tree(store, TreeIdentity("77" * 32), ()).number for _ in range(3)]
    mount = await store.mounts.open(new_key(), "test")
    await store.attachments.attach(mount, "ref/a/", count=2, tree=numbers[0])
    assert await names(store, terms(0)) == [(Kind.TREE, f"draft {numbers[1]}")]
    assert store.trees.entry(numbers[0], 1).name == b"a"
    with pytest.raises(KeyError):
        store.trees.entry(numbers[1], 1)


async def test_a_tree_without_streams_is_nobodys_but_stays(store: Store) -> None:
    found = tree(store, TreeIdentity("77" * 32), ())
    assert await collect(store, terms(0)) == []
    assert store.trees.find(found.identity) == found


async def test_refs_of_which_nothing_is_here_are_forgotten_unless_young_or_pinned(
    store: Store,
) -> None:
    for source in ("gone", "pinned"):
        await store.references.record(source, meaning(part(body("never came"))))
    await store.pins.pin_ref("pinned", "pinned")
    await file_ref(store, "here", body("here"))
    await rest(store)
    assert await collect(store, terms(WEEK_NS - HOUR_NS)) == []
    assert [each.finding.kind for each in await collect(store, terms())] == [Kind.REFERENCE]
    assert store.references.latest("gone") is None
    assert store.references.latest("pinned") is not None
    assert store.references.latest("here") is not None


async def test_b_s2_documents_go_with_what_they_are_of_but_those_of_known_refs(
    store: Store,
) -> None:
    digest = await blob(store, body("blob"))
    for url, known in {
        "https://example.com/here": digest,
        "https://example.com/gone": digest_of(b"gone"),
        "https://example.com/unknown": None,
        "https://example.com/named": None,
        "file:/x": digest_of(b"gone too"),
    }.items():
        await store.documents.save(url, document(known))
    named = replace(part(body("named"), "https://example.com/named"), digest=None)
    await stream(store, located_stream(named), b"whole", 5)
    await store.references.record("ref", meaning(named))
    await rest(store)
    told = await collect(store, terms(HOUR_NS))
    assert [each.finding.kind for each in told] == [Kind.DOCUMENT]  # of the file: it has no time
    told = await collect(store, terms())
    assert [each.finding.kind for each in told] == [Kind.DOCUMENT] * 2
    assert store.documents.load("https://example.com/here") is not None
    assert store.documents.load("https://example.com/gone") is None
    assert store.documents.load("https://example.com/unknown") is None


def document(digest: Digest | None) -> CacheDocument:
    return CacheDocument(
        digest=digest,
        validator=UNKNOWN_VERSION,
        fetched_s=time.time(),
        max_age_s=0,
        size=None,
        ranges=True,
        media_type="",
    )


async def test_b_s2_nothing_answers_for_what_has_gone(store: Store) -> None:
    data = body("blob")
    digest = await file_ref(store, "ref", data)
    await rest(store)
    handle = await store.streams.open(raw_stream(digest), len(data))
    assert await handle.read(0, 5) == data[:5]
    await rest(store)
    await collect(store, terms(unused=True))
    assert store.blobs.stat(digest) is None
    assert await handle.read(0, 5) is None
    assert not handle.present()
    assert list(store.blobs.digests()) == []
    assert await blob(store, data) == digest
    assert await store.blobs.read(digest, 0, 5) == data[:5]


async def make_room(store: Store, how: Terms, quota: int, told: int = 0) -> list[Outcome]:
    outcomes: list[Outcome] = []
    bounds = Bounds(quota)
    await store.housekeeping.make_room(how, bounds, outcomes.extend, told=told)
    return outcomes


async def test_what_is_beyond_the_quota_goes_and_a_dry_run_lists_it(store: Store) -> None:
    pinned = await blob(store, body("pinned", 8 * KIB))
    await store.pins.pin(Item.blob(pinned), "it")
    digests = [await blob(store, body(str(number), 8 * KIB)) for number in range(150)]
    await rest(store)
    how = terms(0, dry=True)
    assert await make_room(store, how, 2000 * KIB) == []
    quota = 500 * KIB
    listed = [each.finding.name for each in await make_room(store, how, quota)]
    assert len(listed) * 8 * KIB >= 151 * 8 * KIB - quota
    assert str(pinned) not in listed
    assert len(list(store.blobs.digests())) == 151
    removed = await make_room(store, replace(how, dry=False), quota)
    assert [each.finding.name for each in removed] == listed
    assert {each.finding.kind for each in removed if each.removed} == {Kind.EXCESS}
    left = [str(each) for each in digests if store.blobs.stat(each) is not None]
    assert left == [str(each) for each in digests if str(each) not in listed]
    assert store.room.usage().total <= quota
    assert await make_room(store, how, quota) == []


async def test_a_dry_run_takes_what_is_too_old_for_gone_when_it_looks_at_the_quota(
    store: Store,
) -> None:
    for number in range(10):
        await blob(store, body(str(number), 8 * KIB))
    (store.path / "quarantine" / "bad").write_bytes(bytes(8 * KIB))
    await rest(store)
    how = Terms(age_s=0.0, unused=True, dry=True, now_ns=later(10**6))
    assert await store.housekeeping.collect(how, lambda _: None) == 88 * KIB
    assert await make_room(store, how, 40 * KIB, told=88 * KIB) == []
    assert len(await make_room(store, terms(0, dry=True), 40 * KIB)) >= 5


async def test_only_one_collects_at_a_time(store: Store) -> None:
    async with store.housekeeping.alone() as first, store.housekeeping.alone() as second:
        assert (first, second) == (True, False)
    async with store.housekeeping.alone() as third:
        assert third


async def test_b_s4_what_is_used_between_the_finding_and_its_end_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cafs.store.space.purging.BATCH", 64)
    digests = [await blob(store, body(str(number))) for number in range(70)]
    await rest(store)
    used: list[Digest] = []

    def use_the_rest(outcomes: Sequence[Outcome]) -> None:
        """After the first batch: those of the second were found by then, or will be."""
        if not used:
            left = [each for each in digests if store.blobs.stat(each) is not None]
            used.extend(left)
            for each in left:
                store.uses.touch(Item.blob(each))

    await store.housekeeping.collect(terms(unused=True), use_the_rest)
    assert used
    assert [each for each in digests if store.blobs.stat(each) is not None] == used
    assert await store.blobs.read(used[0], 0, 5)


async def test_of_many_files_one_that_cannot_be_removed_goes_when_the_store_is_opened(
    store: Store, frozen: Callable[[Store], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [await blob(store, body(str(number))) for number in range(40)]
    stubborn, unlink = digests[7].hex, Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == stubborn:
            raise PermissionError(errno.EPERM, "not permitted")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(PermissionError):
            store.remover.remove([Item.blob(each) for each in digests])
    assert not any(map(store.blobs.stat, digests))
    assert stubborn in {path.name for path in store.path.glob("blobs/sha256/*/*")}
    async with open_store(frozen(store), boot_id="first") as after:
        assert list(after.path.glob("blobs/sha256/*/*")) == []
        assert after.room.usage().total == 0


async def test_a_stream_that_was_decoded_long_ago_for_no_tree_goes(store: Store) -> None:
    await stream(store, decoded_stream(RAW, "gzip"), body("decoded"), len(body("")))
    await rest(store)
    assert await collect(store, terms(GRACE_NS // 2)) == []
    assert [each.finding.kind for each in await collect(store, terms(2 * GRACE_NS))] == [
        Kind.STREAM
    ]
