"""Blobs and archives at URLs: resolving, policies, pins, mirrors, strip and subdir."""

import gzip
import io
import logging
import random
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cafs import reporting
from cafs.errors import (
    CafsError,
    DeadlineError,
    DigestMismatchError,
    MalformedError,
    NotFoundError,
    OfflineError,
    UnreachableError,
    UnsupportedError,
)
from cafs.fetch.interfaces import Patience
from cafs.model.digest import digest_of
from cafs.model.member import Kind
from cafs.model.resolved import Shape
from cafs.model.spec import Pull
from cafs.testing import archives
from cafs.testing.archives import Item
from cafs.testing.faults import (
    Drop,
    Fault,
    HangBeforeHead,
    IgnoreRange,
    NoLength,
    NoValidators,
    SlowHeaders,
    Status,
)
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, OpenWorld, World

DATA = b"0123456789" * 500
ITEMS = (
    archives.directory("gcc-13"),
    archives.directory("gcc-13/bin"),
    archives.script("gcc-13/bin/gcc", "#!/bin/sh\n"),
    archives.hard_link("gcc-13/bin/cc", "gcc-13/bin/gcc"),
    archives.symlink("gcc-13/lib64", "lib"),
    archives.file("gcc-13/lib/libc.a", "library"),
    archives.file("README", "read me"),
)
PLAIN = {
    "README": "read me",
    "gcc-13": "/",
    "gcc-13/bin": "/",
    "gcc-13/bin/cc": "#!/bin/sh\n",
    "gcc-13/bin/gcc": "#!/bin/sh\n",
    "gcc-13/lib": "/",
    "gcc-13/lib/libc.a": "library",
    "gcc-13/lib64": "-> lib",
}
STRIPPED = {
    path.removeprefix("gcc-13/"): what for path, what in PLAIN.items() if path.startswith("gcc-13/")
}


def tar_gz(items: tuple[Item, ...] = ITEMS) -> bytes:
    return gzip.compress(archives.tar(items), mtime=0)


def zip_of(names: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return held.getvalue()


# --- blobs


async def test_a_blob_is_located_with_one_request_and_read_with_the_right_size(
    world: World, origin: Origin
) -> None:
    spec = world.spec(origin.put("/data.bin", DATA))
    content = await world.resolver.file(spec, USUAL)
    assert content.size == len(DATA)
    assert len(origin.requests) == 1
    assert await world.read(content) == DATA
    assert world.resolver.shape(spec) is Shape.FILE


@pytest.mark.parametrize("claim", [str(digest_of(DATA)), digest_of(DATA, "sha512").integrity])
async def test_a_pin_is_checked_and_remounts_ask_nobody(
    mounted: OpenWorld, origin: Origin, claim: str
) -> None:
    url = origin.put("/data.bin", DATA)
    async with mounted() as world:
        assert await world.file(world.spec(url, integrity=claim)) == DATA
    origin.forget()
    async with mounted() as world:
        assert await world.file(world.spec(url, integrity=claim)) == DATA
    assert origin.requests == ()


async def test_the_size_of_a_pinned_blob_is_asked_for_once_per_store(
    mounted: OpenWorld, origin: Origin
) -> None:
    url, claim = origin.put("/data.bin", DATA), str(digest_of(DATA))
    for _ in range(2):
        async with mounted() as world:
            content = await world.resolver.file(world.spec(url, integrity=claim), USUAL)
            assert content.size == len(DATA)
    assert len(origin.requests) == 1


async def test_wrong_bytes_for_a_pin_are_refused_and_told(world: World, origin: Origin) -> None:
    claim = str(digest_of(b"other"))
    spec = world.spec(origin.put("/data.bin", DATA), integrity=claim)
    content = await world.resolver.file(spec, USUAL)
    with pytest.raises(DigestMismatchError):
        await world.read(content)


@pytest.mark.parametrize("path", ["blob", "archive"])
async def test_a_source_that_says_0_bytes_is_not_believed_where_a_pin_is_of_some(
    world: World, origin: Origin, path: str
) -> None:
    """Nothing would ever be missing of it: neither is it empty, nor is it waited for."""
    url = origin.put("/none", b"")
    spec = world.spec(f"{path}+{url}", integrity=str(digest_of(DATA)))
    with trio.fail_after(60):
        for _ in range(2):
            with pytest.raises(DigestMismatchError):
                await (world.file(spec) if path == "blob" else world.tree(spec))


async def test_a_size_of_0_that_is_on_record_is_asked_for_again(
    mounted: OpenWorld, origin: Origin
) -> None:
    url, claim = origin.put("/data.bin", DATA), str(digest_of(DATA))
    async with mounted() as world:
        spec = world.spec(url, integrity=claim)
        resolved = await world.resolver.resolve(spec, USUAL)
        parts = (replace(resolved.parts[0], size=0),)
        await world.store.references.record(spec.source, replace(resolved, parts=parts))
    async with mounted() as world:
        assert await world.file(world.spec(url, integrity=claim)) == DATA


@pytest.mark.expects_log("fetch.mirror.wrong")
async def test_a_mirror_has_what_the_first_source_says_to_be_empty(
    world: World, origin: Origin
) -> None:
    urls = origin.put("/none", b""), origin.put("/data.bin", DATA)
    spec = world.spec(urls[0], integrity=str(digest_of(DATA)), mirrors=urls[1:])
    assert await world.file(spec) == DATA


async def test_r5_a_pinned_blob_leaves_no_cache_document(world: World, origin: Origin) -> None:
    url = origin.put("/data.bin", DATA)
    await world.file(world.spec(url, integrity=str(digest_of(DATA))))
    assert world.store.documents.load(url) is None
    await world.file(world.spec(origin.put("/other.bin", DATA[1:])))
    assert world.store.documents.load(origin.url("/other.bin")) is not None


async def test_mirrors_are_tried_in_order_for_a_pinned_blob(world: World, origin: Origin) -> None:
    missing, broken = origin.url("/missing"), origin.put("/broken", DATA)
    origin.fault("/broken", Status(503))
    good = origin.put("/good", DATA)
    spec = world.spec(missing, integrity=str(digest_of(DATA)), mirrors=(broken, good))
    assert await world.file(spec) == DATA
    resolved = world.resolver.peek(spec)
    assert resolved is not None
    assert resolved.parts[0].urls == (good, missing, broken)


async def test_refs_to_one_url_are_of_one_version_in_a_mount(world: World, origin: Origin) -> None:
    whole, inner = [
        archives.tar([archives.file("top/name", version)]) for version in ("old", "new")
    ]
    url = origin.put("/x.tar", whole)
    assert await world.tree(world.spec(url)) == {"top": "/", "top/name": "old"}
    origin.put("/x.tar", inner)
    assert await world.tree(world.spec(url, strip=1)) == {"name": "old"}
    assert await world.tree(world.spec(url, subdir="top")) == {"name": "old"}


async def test_a_dead_source_does_not_use_up_the_time_of_its_mirrors(
    world: World, origin: Origin
) -> None:
    dead, good = origin.put("/dead", DATA), origin.put("/good", DATA)
    origin.fault("/dead", Status(503))
    assert await world.file(world.spec(dead, integrity=str(digest_of(DATA)), mirrors=(good,)))
    assert len(origin.requests_for("/dead")) == 1


@pytest.mark.parametrize("name", ["x.tar.gz", "x.bin"])
async def test_a_query_is_in_no_error_log_or_status(
    world: World, origin: Origin, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG, "cafs")
    url = f"{origin.put(f'/{name}', DATA)}?sig=hunter2"
    spec = world.spec(url, integrity=str(digest_of(b"other")))
    opening = world.tree(spec) if name.endswith("gz") else world.file(spec)
    origin.fault(f"/{name}", Drop(after_bytes=100, skip=1, times=1))
    with pytest.raises(CafsError) as caught:
        await opening
    peeked, error = world.resolver.peek(spec), world.resolver.error(spec)
    status = reporting.ref_status(world.store, spec, peeked, error)
    assert f"/{name}?…" in status.ref
    assert status.sources == (f"{origin.url(f'/{name}')}?…",)
    assert "fetch.try.failed" in caplog.text
    assert "hunter2" not in f"{caught.value.line} {caplog.text} {status}"


async def test_the_last_source_is_asked_as_often_as_a_single_one(
    world: World, origin: Origin
) -> None:
    late = origin.put("/late", DATA)
    origin.fault("/late", Status(503, times=2))
    spec = world.spec(origin.url("/missing"), integrity=str(digest_of(DATA)), mirrors=(late,))
    assert await world.file(spec) == DATA


async def test_a_mirror_that_the_settings_name_no_more_is_not_asked(
    mounted: OpenWorld, origin: Origin
) -> None:
    main, old, new = origin.url("/main"), origin.put("/old", DATA), origin.put("/new", DATA)
    claim = str(digest_of(DATA))
    async with mounted() as world:
        spec = world.spec(main, integrity=claim, mirrors=(old,))
        assert (await world.resolver.resolve(spec, USUAL)).parts[0].urls == (old, main)
    origin.forget()
    async with mounted() as world:
        assert await world.file(world.spec(main, integrity=claim, mirrors=(new,))) == DATA
    assert {one.path for one in origin.requests} == {"/main", "/new"}


async def test_content_located_at_a_mirror_that_is_gone_is_located_again(
    mounted: OpenWorld, origin: Origin
) -> None:
    main, old = origin.url("/main"), origin.put("/old", DATA)
    async with mounted() as world:
        assert await world.file(world.spec(main, mirrors=(old,))) == DATA
    origin.put("/main", DATA[1:])
    origin.forget()
    async with mounted() as world:
        assert await world.file(world.spec(main, pull="new")) == DATA[1:]
    assert origin.requests_for("/old") == ()


async def test_the_first_error_is_told_when_no_mirror_answers(world: World, origin: Origin) -> None:
    spec = world.spec(
        origin.url("/missing"), integrity=str(digest_of(DATA)), mirrors=(origin.url("/too"),)
    )
    with pytest.raises(NotFoundError, match="/missing"):
        await world.file(spec)
    assert "/missing" in (world.resolver.error(spec) or "")


async def test_a_digest_alone_is_read_from_the_store_or_from_its_mirrors(
    world: World, origin: Origin
) -> None:
    text = str(digest_of(DATA))
    with pytest.raises(NotFoundError, match="no URL is known"):
        await world.file(world.spec(text))
    url = origin.put("/data.bin", DATA)
    assert await world.file(world.spec(text, name="other", subdir="", mirrors=(url,), strip=1))
    assert await world.file(world.spec(text, name="third", strip=2)) == DATA


@pytest.mark.parametrize("fault", [IgnoreRange(), NoLength()])
async def test_a_source_without_ranges_sends_its_body_once(
    world: World, origin: Origin, fault: IgnoreRange | NoLength
) -> None:
    spec = world.spec(origin.put("/data.bin", DATA))
    origin.fault("/data.bin", fault, NoValidators(), IgnoreRange())
    assert await world.file(spec) == DATA
    assert len(origin.requests) == 1


async def test_what_no_validator_tells_is_read_anew_by_the_next_mount(
    mounted: OpenWorld, origin: Origin
) -> None:
    url = origin.put("/data.bin", DATA)
    origin.fault("/data.bin", NoValidators())
    async with mounted() as world:
        spec = world.spec(url)
        assert await world.file(spec) == DATA
        origin.put("/data.bin", DATA[::-1])
        assert await world.file(spec) == DATA
    async with mounted() as world:
        assert await world.file(world.spec(url)) == DATA[::-1]
    origin.stop()
    async with mounted(offline=True) as world:
        assert await world.file(world.spec(url)) == DATA[::-1]


async def test_a_source_that_is_down_is_told_within_the_deadline(
    world: World, origin: Origin
) -> None:
    spec = world.spec(origin.put("/data.bin", DATA), name="data")
    origin.stop()
    with pytest.raises(UnreachableError) as caught:
        await world.resolver.file(spec, Patience(0.5))
    assert "data" in caught.value.line


async def test_a_file_url_is_a_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    assert await world.file(world.spec(path.as_uri())) == DATA


async def test_a_blob_is_no_tree(world: World, origin: Origin) -> None:
    spec = world.spec(origin.put("/data.bin", DATA))
    with pytest.raises(UnsupportedError, match="not an archive") as caught:
        await world.tree(spec)
    assert "archive+http" in caught.value.line


# --- pull policies


@pytest.mark.parametrize(
    ("pull", "requests"), [("lock", 1), ("update", 1), ("new", 0), ("never", 0)]
)
async def test_r24_an_unchanged_blob_costs_a_remount_as_much_as_its_policy_says(
    mounted: OpenWorld, origin: Origin, pull: Pull, requests: int
) -> None:
    url = origin.put("/data.bin", DATA)
    async with mounted() as world:
        assert await world.file(world.spec(url)) == DATA
    origin.forget()
    async with mounted() as world:
        assert await world.file(world.spec(url, pull=pull)) == DATA
    assert len(origin.requests) == requests
    assert all(one.status in {304, 206} for one in origin.requests)


@pytest.mark.parametrize("pull", ["lock", "update"])
async def test_r24_a_changed_blob_is_seen_by_the_next_mount_only(
    mounted: OpenWorld, origin: Origin, pull: Pull
) -> None:
    url = origin.put("/data.bin", DATA)
    async with mounted() as world:
        spec = world.spec(url, pull=pull)
        assert await world.file(spec) == DATA
        origin.put("/data.bin", DATA[::-1])
        assert await world.file(spec) == DATA
        assert len(world.store.references.history(spec.source)) == 1
    async with mounted() as world:
        assert await world.file(spec) == DATA[::-1]
        assert len(world.store.references.history(spec.source)) == 2


@pytest.mark.parametrize("pull", ["new", "never"])
async def test_r24_new_and_never_keep_what_the_store_has(
    mounted: OpenWorld, origin: Origin, pull: Pull
) -> None:
    url = origin.put("/data.bin", DATA)
    async with mounted() as world:
        assert await world.file(world.spec(url)) == DATA
    origin.put("/data.bin", DATA[::-1])
    async with mounted() as world:
        assert await world.file(world.spec(url, pull=pull)) == DATA


async def test_r24_new_asks_when_the_store_has_only_a_part(
    mounted: OpenWorld, origin: Origin
) -> None:
    url = origin.put("/data.bin", DATA)
    async with mounted() as world:
        await world.resolver.resolve(world.spec(url, pull="new"), USUAL)
    origin.put("/data.bin", DATA[::-1])
    async with mounted() as world:
        assert await world.file(world.spec(url, pull="new")) == DATA[::-1]


async def test_r24_never_asks_nobody(world: World, origin: Origin) -> None:
    url = origin.put("/data.bin", DATA)
    for claim in (None, str(digest_of(DATA))):
        with pytest.raises(OfflineError, match="never resolved here"):
            await world.file(world.spec(url, pull="never", integrity=claim))
    assert origin.requests == ()


async def test_offline_reads_what_is_here_and_says_what_is_not(
    mounted: OpenWorld, origin: Origin
) -> None:
    blob = origin.put("/data.bin", DATA)
    archive = origin.put("/gcc.tar.gz", tar_gz())
    async with mounted() as world:
        assert await world.file(world.spec(blob)) == DATA
        assert await world.tree(world.spec(archive)) == PLAIN
    origin.forget()
    async with mounted(offline=True) as world:
        assert await world.file(world.spec(blob)) == DATA
        assert await world.tree(world.spec(archive)) == PLAIN
        unknown = world.spec(origin.put("/unknown.tar.gz", tar_gz()))
        with pytest.raises(OfflineError) as caught:
            await world.tree(unknown)
        assert "mount once without --offline" in caught.value.line
        assert "unknown.tar.gz" in (world.resolver.error(unknown) or "")
    assert origin.requests == ()


# --- archives


@pytest.mark.parametrize("pinned", [False, True])
async def test_an_archive_is_a_tree_and_a_remount_plants_nothing(
    mounted: OpenWorld, origin: Origin, *, pinned: bool
) -> None:
    data = tar_gz()
    url = origin.put("/gcc.tar.gz", data)
    claim = digest_of(data, "sha512").integrity if pinned else None
    numbers = []
    for _ in range(3):
        async with mounted() as world:
            opened = await world.resolver.tree(world.spec(url, integrity=claim), USUAL)
            assert await world.paths(opened) == PLAIN
            numbers.append(opened.record.number)
    assert len(set(numbers)) == 1
    # All of it is sent once; a version without a pin is asked for again, a byte each time.
    assert origin.bytes_sent() <= len(data) + 3


async def test_strip_removes_leading_components_and_what_has_no_more(
    world: World, origin: Origin
) -> None:
    spec = world.spec(origin.put("/gcc.tar.gz", tar_gz()), strip=1)
    assert await world.tree(spec) == STRIPPED


@pytest.mark.parametrize("strip", [1, 2, 3])
async def test_strip_gives_what_gnu_tar_gives(
    world: World, origin: Origin, tmp_path: Path, strip: int
) -> None:
    archives.write_tar(tmp_path / "x.tar", ITEMS)
    out = tmp_path / "out"
    out.mkdir()
    command = ["tar", "-xf", "x.tar", "-C", "out", f"--strip-components={strip}"]
    await trio.run_process(command, cwd=tmp_path, check=True)
    expected = {}
    for path in out.rglob("*"):
        word = "/" if path.is_dir() and not path.is_symlink() else None
        target = f"-> {path.readlink()}" if path.is_symlink() else None
        expected[str(path.relative_to(out))] = word or target or path.read_text()
    url = origin.put("/x.tar", tmp_path / "x.tar")
    assert await world.tree(world.spec(url, strip=strip)) == expected


async def test_strip_merges_directories_and_the_later_file_wins(
    world: World, origin: Origin
) -> None:
    items = (
        archives.file("a/d/one", "1"),
        archives.file("b/d/two", "2"),
        archives.file("a/both", "first"),
        archives.file("b/both", "second"),
        archives.directory("b/d", 0o700),
        archives.file("c/d", "last of that name"),
        archives.file("top", "linked"),
        archives.hard_link("a/kept", "top"),
        archives.hard_link("b/kept-too", "top"),
    )
    spec = world.spec(origin.put("/x.tar", archives.tar(items)), strip=1)
    assert await world.tree(spec) == {
        "both": "second",
        "d": "last of that name",
        "kept": "linked",
        "kept-too": "linked",
    }
    two = world.spec(origin.url("/x.tar"), strip=2)
    assert await world.tree(two) == {"one": "1", "two": "2"}
    assert await world.tree(world.spec(origin.url("/x.tar"), strip=9)) == {}


async def test_a_link_that_strip_puts_on_its_own_file_is_that_file(
    world: World, origin: Origin
) -> None:
    items = [archives.file("a/name", "once"), archives.hard_link("b/name", "a/name")]
    spec = world.spec(origin.put("/x.tar", archives.tar(items)), strip=1)
    opened = await world.resolver.tree(spec, USUAL)
    assert await world.paths(opened) == {"name": "once"}
    trees, tree = world.store.trees, opened.record.number
    ((_, entry),) = trees.children(tree, opened.root, None, 9)
    assert (entry.kind, entry.links) == (Kind.FILE, 1)


async def test_subdir_is_the_root_after_strip(world: World, origin: Origin) -> None:
    url = origin.put("/gcc.tar.gz", tar_gz())
    assert await world.tree(world.spec(url, subdir="gcc-13/lib")) == {"libc.a": "library"}
    assert await world.tree(world.spec(url, strip=1, subdir="lib")) == {"libc.a": "library"}
    through_a_symlink = world.spec(url, strip=1, subdir="/lib64/./")
    assert await world.tree(through_a_symlink) == {"libc.a": "library"}


@pytest.mark.parametrize("subdir", ["nowhere", "gcc-13/bin/gcc", "gcc-13/bin/gcc/x", "gcc-13/nope"])
async def test_a_missing_subdir_is_named(world: World, origin: Origin, subdir: str) -> None:
    spec = world.spec(origin.put("/gcc.tar.gz", tar_gz()), name="gcc", subdir=subdir)
    with pytest.raises(NotFoundError) as caught:
        await world.tree(spec)
    assert f"gcc: {'no member ' if 'no' in subdir else ''}{subdir!r}" in caught.value.line


async def test_a_zip_is_opened_without_reading_it_all(world: World, origin: Origin) -> None:
    names = {f"pkg/{number}.txt": b"%d" % number * 50_000 for number in range(40)}
    names["pkg/big"] = bytes(range(256)) * 8192
    data = zip_of({**names, "pkg/noise": random.Random(1).randbytes(16 << 20)})
    spec = world.spec(origin.put("/pkg.whl", data), strip=1)
    opened = await world.resolver.tree(spec, USUAL)
    number = world.store.trees.child(opened.record.number, opened.root, b"7.txt")
    assert number is not None
    entry = world.store.trees.entry(opened.record.number, number)
    content = opened.contents[entry.stream]
    assert await content.read(entry.offset, entry.size, USUAL) == b"7" * 50_000
    assert origin.bytes_sent() < len(data) // 4


async def test_an_archive_is_a_file_too(world: World, origin: Origin) -> None:
    data = tar_gz()
    assert await world.file(world.spec(origin.put("/gcc.tar.gz", data))) == data


async def test_bytes_that_contradict_the_name_are_malformed(world: World, origin: Origin) -> None:
    spec = world.spec(origin.put("/gcc.tar.gz", zip_of({"a": b"b"})), name="gcc")
    with pytest.raises(MalformedError, match="named like gzip"):
        await world.tree(spec)


async def test_a_hostile_archive_names_its_member(world: World, origin: Origin) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    spec = world.spec(origin.put("/x.tar", held.getvalue()))
    with pytest.raises(MalformedError, match="evil"):
        await world.tree(spec)


@pytest.mark.parametrize("fault", [HangBeforeHead(), SlowHeaders(1.0)], ids=["silent", "drips"])
async def test_of_a_source_that_is_there_and_does_not_answer_that_is_told(
    world: World, origin: Origin, mock_clock: MockClock, fault: Fault
) -> None:
    mock_clock.rate = 1.0
    url = origin.put("/x", DATA)
    origin.fault("/x", fault)

    async def jump() -> None:
        while not origin.requests:  # noqa: ASYNC110 - the origin's thread cannot set a trio event
            await trio.sleep(0.003)
        await wait_all_tasks_blocked(0.05)  # it has been told that all was sent
        mock_clock.jump(15.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(jump)
        with pytest.raises(DeadlineError, match="not resolved within 15 s") as caught:
            await world.resolver.resolve(world.spec(url), Patience(15.0))
    origin.release()
    assert "it took the request, and did not answer to the end" in caught.value.line
    assert "reachable" not in caught.value.line
