"""Where an index is had: beside the lock, in the store, by URL; and what is said when it is not."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cafs.distribution import lock_indexes
from cafs.distribution.lock_indexes import LockIndexes, Subject
from cafs.errors import DigestMismatchError, MalformedError
from cafs.fetch.interfaces import Patience
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.digest import Digest, digest_of
from cafs.model.resolved import Part
from cafs.store.store import Store, open_store
from cafs.testing.faults import Corrupt, Rate, Status
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.retrying import RetryPolicy

INDEX = b"index" * 1000
DIGEST = digest_of(INDEX)
USUAL = Patience(60.0)
WARNED = "tree: index sha256"
Make = Callable[..., LockIndexes]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def make(store: Store, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes sources over the test's store, with a folder beside a lock."""
    (tmp_path / "lock.d").mkdir()
    transport = HttpTransport(limits=HttpLimits(connect_s=2.0, head_s=5.0, stall_s=5.0))
    policy = RetryPolicy(retries=1, initial_s=0.01, cap_s=0.02, jitter=False)
    async with open_fetcher(store, Metrics(), policy=policy) as fetcher:

        def making(*urls: str, size: int | None = len(INDEX)) -> LockIndexes:
            return LockIndexes(
                tmp_path / "lock.d",
                lambda digest: [url.replace("{hex}", digest.hex) for url in urls],
                {DIGEST: Subject("tree", size)},
                store=store,
                fetcher=fetcher,
                transport=transport,
            )

        yield making
    await transport.aclose()


def beside(tmp_path: Path, digest: Digest = DIGEST) -> Path:
    return tmp_path / "lock.d" / f"{digest.hex}.idx"


async def test_a_file_beside_the_lock_is_taken_when_it_is_right(make: Make, tmp_path: Path) -> None:
    beside(tmp_path).write_bytes(INDEX)
    source = make()
    assert await source.get(DIGEST, USUAL) == beside(tmp_path)
    assert source.notes() == ()


@pytest.mark.expects_log(WARNED)
async def test_a_wrong_file_is_named_with_both_digests_until_it_is_right(
    make: Make, tmp_path: Path
) -> None:
    wrong = INDEX[:-1] + b"!"
    beside(tmp_path).write_bytes(wrong)
    source = make()
    assert await source.get(DIGEST, USUAL) is None
    (note,) = source.notes()
    lock = f"of {tmp_path / 'lock'}: "
    for word in (str(beside(tmp_path)), str(DIGEST), str(digest_of(wrong)), lock, "cafs lock tree"):
        assert word in note
    beside(tmp_path).write_bytes(INDEX)
    assert await source.get(DIGEST, USUAL) == beside(tmp_path)
    assert source.notes() == ()


@pytest.mark.expects_log(WARNED)
@pytest.mark.parametrize("kind", ["pipe", "device", "long", "outside"])
async def test_what_is_no_index_file_is_neither_waited_for_nor_read(
    make: Make, tmp_path: Path, kind: str
) -> None:
    place = beside(tmp_path)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(INDEX)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "long":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    else:
        place.symlink_to("/dev/zero" if kind == "device" else outside)
    source = make()
    with trio.fail_after(60):
        assert await source.get(DIGEST, USUAL) is None
    assert str(place) in source.notes()[0]


@pytest.mark.parametrize("size", [len(INDEX), None])
async def test_a_link_inside_the_project_may_lead_to_the_file(
    make: Make, tmp_path: Path, size: int | None
) -> None:
    (tmp_path / "elsewhere").write_bytes(INDEX)
    beside(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert await make(size=size).get(DIGEST, USUAL) == beside(tmp_path)


@pytest.mark.expects_log(WARNED)
async def test_a_directory_in_its_place_is_an_error_and_no_end(make: Make, tmp_path: Path) -> None:
    beside(tmp_path).mkdir()
    source = make()
    assert await source.get(DIGEST, USUAL) is None
    assert str(beside(tmp_path)) in source.notes()[0]


async def test_a_blob_of_the_store_is_taken(make: Make, store: Store) -> None:
    await store.blobs.put("x/y", INDEX)
    path = await make("http://127.0.0.1:9/{hex}").get(DIGEST, USUAL)
    assert path is not None
    assert path.read_bytes() == INDEX


async def test_what_is_fetched_is_fetched_once(make: Make, origin: Origin) -> None:
    url = origin.put(f"/{DIGEST.hex}", INDEX).replace(DIGEST.hex, "{hex}")
    for source in (make(origin.url("/none/{hex}"), url), make(url)):
        path = await source.get(DIGEST, USUAL)
        assert path is not None
        assert path.read_bytes() == INDEX
        assert source.notes() == ()
    assert origin.bytes_sent(f"/{DIGEST.hex}") == len(INDEX)


@pytest.mark.expects_log(WARNED)
async def test_a_wrong_file_does_not_keep_the_right_one_away(
    make: Make, origin: Origin, tmp_path: Path
) -> None:
    beside(tmp_path).write_bytes(b"wrong")
    source = make(origin.put(f"/{DIGEST.hex}", INDEX))
    assert await source.get(DIGEST, USUAL) is not None
    assert str(beside(tmp_path)) in source.notes()[0]


@pytest.mark.expects_log(f"{WARNED}|mirror|fetch")
@pytest.mark.parametrize("wrong", [True, False])
async def test_what_a_url_has_is_checked(make: Make, origin: Origin, wrong: bool) -> None:
    url = origin.put("/idx", INDEX)
    origin.fault("/idx", Corrupt() if wrong else Status(404))
    source = make(url)
    assert await source.get(DIGEST, USUAL) is None
    assert "/idx" in source.notes()[0]


@pytest.mark.expects_log(WARNED)
async def test_more_bytes_than_the_lock_says_are_not_taken(make: Make, origin: Origin) -> None:
    source = make(origin.put("/idx", INDEX), size=len(INDEX) - 1)
    assert await source.get(DIGEST, USUAL) is None
    assert source.notes()


@pytest.mark.expects_log(WARNED)
async def test_what_comes_by_the_byte_is_not_waited_for(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something always comes, so that no deadline without progress ends it."""
    monkeypatch.setattr(lock_indexes, "_WAIT_S", 0.5)
    url = origin.put("/idx", INDEX)
    origin.fault("/idx", Rate(bytes_per_s=100))
    source = make(url)
    with trio.fail_after(20):
        assert await source.get(DIGEST, USUAL) is None
    assert "bytes a second" in source.notes()[0]


@pytest.mark.expects_log(WARNED)
async def test_where_nobody_has_it_that_is_said(make: Make) -> None:
    source = make()
    assert await source.get(DIGEST, USUAL) is None
    assert "no lock.index-url is set" in source.notes()[0]


@pytest.mark.expects_log(WARNED)
async def test_what_is_found_wrong_as_it_is_read_is_told_of_the_parts_that_it_is_for(
    make: Make, tmp_path: Path
) -> None:
    """It has its digest, and so was handed out; but it is of something else."""
    beside(tmp_path).write_bytes(INDEX)
    source = make()
    part = Part(media_type="a/b", size=3, digest=digest_of(b"raw"), urls=(), index=DIGEST)
    assert await source.get(DIGEST, USUAL)
    assert source.told([part]) is None
    source.wrong(DIGEST, MalformedError(f"index {DIGEST}: it is of another", hint="look"))
    line = f"tree: index {DIGEST} of {tmp_path / 'lock'}: it is of another: cafs lock tree makes"
    assert (source.told([part]) or "").startswith(line)
    others = [replace(part, index=digest_of(b"another")), replace(part, index=None)]
    assert source.told(others) is None
    assert source.notes() == (source.told([part]),)


@pytest.mark.expects_log(WARNED)
async def test_an_index_of_no_use_is_told_once_and_one_that_only_moved_until_it_is_had(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside(tmp_path).write_bytes(INDEX)
    source = make()
    moved = DigestMismatchError(f"index {DIGEST}", expected=DIGEST, actual=digest_of(b"moved"))
    source.wrong(DIGEST, moved)
    assert await source.get(DIGEST, USUAL)
    assert source.notes() == ()
    caplog.clear()
    for _ in range(3):
        assert await source.get(DIGEST, USUAL)
        source.wrong(DIGEST, MalformedError(f"index {DIGEST}: it is of another", hint="look"))
    assert await source.get(DIGEST, USUAL)
    [note] = source.notes()
    assert "it is of another" in note
    assert len([each for each in caplog.records if "it is of another" in each.getMessage()]) == 1
