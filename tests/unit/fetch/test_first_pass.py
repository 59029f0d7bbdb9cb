import bz2
import gzip
import io
import lzma
import random
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import trio
import zstandard

from cafs.errors import (
    CafsError,
    DeadlineError,
    DigestMismatchError,
    MalformedError,
    UnsupportedError,
)
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.first_pass import complete_tree
from cafs.model.digest import digest_of
from cafs.model.identity import archive_tree
from cafs.model.member import ROOT, Kind
from cafs.model.record import TreeRecord
from cafs.model.span import Span
from cafs.testing.faults import Corrupt, Drop, Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, until

MIB = 1 << 20


def files(count: int, size: int, seed: int = 0) -> dict[str, bytes]:
    source = random.Random(seed)
    return {
        f"dir{number % 7}/file{number}": source.randbytes(size + number % 13)
        for number in range(count)
    }


def tar_of(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_of(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out.getvalue()


async def tree_files(rig: Rig, record: TreeRecord, raw: Content) -> dict[str, bytes]:
    """Every file of a tree, read through its content."""
    trees = rig.store.trees
    found: dict[str, bytes] = {}
    todo: list[tuple[str, int]] = [("", ROOT)]
    while todo:
        path, number = todo.pop()
        for child, entry in trees.children(record.number, number, None, 100_000):
            name = f"{path}{entry.name.decode()}"
            if entry.kind is Kind.DIRECTORY:
                todo.append((f"{name}/", child))
                continue
            content = rig.fetcher.decoded(record, entry.stream, raw)
            found[name] = await content.read(entry.offset, entry.size, USUAL)
    return found


def compress(kind: str, data: bytes) -> bytes:
    match kind:
        case "gz":
            return gzip.compress(data, 1, mtime=0)
        case "zst":
            return zstandard.compress(data, 1)
        case "xz":
            return lzma.compress(data, preset=0)
        case "bz2":
            return bz2.compress(data, 1)
        case _:
            return data


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("kind", ["tar", "gz", "zst", "xz", "bz2"])
async def test_a_tar_becomes_a_tree_in_one_download(
    rig: Rig, origin: Origin, kind: str, *, pinned: bool
) -> None:
    contents = files(60, 40_000)
    body = compress(kind, tar_of(contents))
    path = "/x.tar" if kind == "tar" else f"/x.tar.{kind}"
    url = origin.put(path, body)
    raw = await rig.pinned(digest_of(body), len(body), url) if pinned else await rig.located(url)
    record = await rig.plant(raw)
    assert record.digest == digest_of(body)
    assert await tree_files(rig, record, raw) == contents
    assert rig.metrics["fetch.bytes"] <= len(body) + 1
    assert raw.digest() == digest_of(body)


async def test_a_tree_is_there_for_the_next_process_without_a_request(
    origin: Origin, tmp_path: Path
) -> None:
    contents = files(10, 10_000)
    body = compress("gz", tar_of(contents))
    url = origin.put("/x.tar.gz", body)
    async with open_rig(origin, tmp_path / "store") as rig:
        await rig.plant(await rig.pinned(digest_of(body), len(body), url))
    origin.stop()
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await rig.pinned(digest_of(body), len(body), url)
        record = await rig.plant(raw)
        assert await tree_files(rig, record, raw) == contents
    origin.start()


async def test_all_who_ask_share_one_pass(rig: Rig, origin: Origin) -> None:
    body = compress("gz", tar_of(files(100, 20_000)))
    raw = await rig.pinned(digest_of(body), len(body), origin.put("/x.tar.gz", body))
    records: list[TreeRecord] = []

    async def ask() -> None:
        records.append(await rig.plant(raw))

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(ask)
        nursery.start_soon(raw.ensure, Span(0, 1), USUAL)
    assert len(set(records)) == 1
    assert rig.metrics["fetch.bytes"] == len(body)


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_pass_that_was_cut_off_fetches_only_the_rest(
    origin: Origin, tmp_path: Path, *, pinned: bool
) -> None:
    contents = files(400, 60_000)
    body = compress("gz", tar_of(contents))
    url = origin.put("/x.tar.gz", body, cache_control="max-age=600")
    total = 0
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await (rig.pinned(digest_of(body), len(body), url) if pinned else rig.located(url))
        origin.fault("/x.tar.gz", Stall(after_bytes=3 * MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.plant, raw)
            await until(lambda: sum(x.received for x in rig.fetcher.inflight()) > 8 * MIB)
            nursery.cancel_scope.cancel()
        assert rig.store.trees.find(archive_tree(raw.key)) is None
    total += rig.metrics["fetch.bytes"]
    origin.heal()
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await (rig.pinned(digest_of(body), len(body), url) if pinned else rig.located(url))
        record = await rig.plant(raw)
        assert await tree_files(rig, record, raw) == contents
    total += rig.metrics["fetch.bytes"]
    assert total <= 1.05 * len(body)


async def test_a_pass_survives_broken_bodies(rig: Rig, origin: Origin) -> None:
    contents = files(200, 60_000)
    body = compress("gz", tar_of(contents))
    url = origin.put("/x.tar.gz", body)
    raw = await rig.located(url)
    origin.fault("/x.tar.gz", Drop(after_bytes=900_000, times=5))
    record = await rig.plant(raw)
    assert await tree_files(rig, record, raw) == contents
    assert rig.metrics["fetch.bytes"] <= 1.05 * len(body)


async def test_a_pass_goes_on_when_its_waiter_has_gone(rig: Rig, origin: Origin) -> None:
    body = compress("gz", tar_of(files(50, 60_000)))
    raw = await rig.located(origin.put("/x.tar.gz", body))
    origin.fault("/x.tar.gz", Stall(after_bytes=MIB, times=1))
    with pytest.raises(DeadlineError):
        await rig.plant(raw, Patience(0.3))
    origin.release()
    await until(lambda: rig.store.trees.find(archive_tree(raw.key)) is not None)
    assert rig.metrics["fetch.bytes"] <= len(body) + 1


def passes_in_threads() -> int:
    """trio names a thread after the function and the task that it runs for."""
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith("run from") and "_perform" in name for name in names)


async def test_passes_that_wait_for_bytes_leave_threads_for_everybody_else(
    rig: Rig, origin: Origin
) -> None:
    usual = trio.to_thread.current_default_thread_limiter()
    body = compress("gz", tar_of(files(3, 200_000)))
    begun: list[Content] = []
    for number in range(int(usual.total_tokens) + 1):
        raw = await rig.located(origin.put(f"/{number}.tar.gz", body))
        await raw.ensure(Span(0, 1), USUAL)
        begun.append(raw)
        origin.fault(f"/{number}.tar.gz", Stall())
    async with trio.open_nursery() as nursery:
        for raw in begun:
            nursery.start_soon(rig.plant, raw)
        await until(lambda: passes_in_threads() >= usual.total_tokens)
        with trio.fail_after(20):
            assert await trio.to_thread.run_sync(len, b"free") == 4
        nursery.cancel_scope.cancel()


async def test_nothing_of_a_wrong_digest_is_planted(rig: Rig, origin: Origin) -> None:
    body = compress("gz", tar_of(files(20, 60_000)))
    raw = await rig.pinned(digest_of(b"other"), len(body), origin.put("/x.tar.gz", body))
    with pytest.raises(DigestMismatchError):
        await rig.plant(raw)
    assert rig.store.trees.find(archive_tree(raw.key)) is None
    assert raw.present() == 0


async def test_damage_on_the_way_is_told_as_a_wrong_digest(rig: Rig, origin: Origin) -> None:
    body = compress("gz", tar_of(files(20, 60_000)))
    url = origin.put("/x.tar.gz", body)
    origin.fault("/x.tar.gz", Corrupt(at=1000))
    raw = await rig.pinned(digest_of(body), len(body), url)
    with pytest.raises(DigestMismatchError):
        await rig.plant(raw)


async def test_a_damaged_archive_with_its_own_digest_is_malformed(rig: Rig, origin: Origin) -> None:
    body = bytearray(compress("gz", tar_of(files(20, 60_000))))
    body[5000] ^= 0xFF
    damaged = bytes(body)
    raw = await rig.pinned(digest_of(damaged), len(body), origin.put("/x.tar.gz", damaged))
    with pytest.raises(MalformedError, match=r"/x\.tar\.gz"):
        await rig.plant(raw)


async def test_a_truncated_archive_is_malformed(rig: Rig, origin: Origin) -> None:
    body = compress("gz", tar_of(files(20, 60_000)))[:-100_000]
    raw = await rig.located(origin.put("/x.tar.gz", body))
    with pytest.raises(MalformedError):
        await rig.plant(raw)


async def test_what_is_no_archive_is_named(rig: Rig, origin: Origin) -> None:
    raw = await rig.located(origin.put("/download", b"<!DOCTYPE html><html>"))
    with pytest.raises(UnsupportedError, match="DOCTYPE"):
        await rig.plant(raw)


async def test_bytes_that_contradict_the_name_are_an_error(rig: Rig, origin: Origin) -> None:
    raw = await rig.located(origin.put("/x.tar.gz", b"<!DOCTYPE html><html>"))
    with pytest.raises(MalformedError, match="named like gzip"):
        await rig.plant(raw)


async def test_a_name_that_says_nothing_is_decided_by_the_bytes(rig: Rig, origin: Origin) -> None:
    contents = files(3, 100)
    for path, body in (
        ("/a", tar_of(contents)),
        ("/b", compress("zst", tar_of(contents))),
        ("/c", zip_of(contents)),
    ):
        raw = await rig.located(origin.put(path, body))
        assert await tree_files(rig, await rig.plant(raw), raw) == contents


async def test_a_decoded_tar_that_vanished_is_made_again(rig: Rig, origin: Origin) -> None:
    contents = files(20, 10_000)
    body = compress("gz", tar_of(contents))
    raw = await rig.pinned(digest_of(body), len(body), origin.put("/x.tar.gz", body))
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    before = await content.read(0, content.size, USUAL)
    stream = rig.store.streams.find(record.streams[0].key)
    assert stream is not None
    await stream.discard()
    assert complete_tree(rig.store, archive_tree(raw.key)) is None
    assert await content.read(0, content.size, USUAL) == before
    assert await rig.plant(raw) == record
    assert rig.metrics["fetch.bytes"] == len(body)


async def test_a_plain_tar_is_kept_once(rig: Rig, origin: Origin) -> None:
    body = tar_of(files(20, 10_000))
    raw = await rig.located(origin.put("/x.tar", body))
    record = await rig.plant(raw)
    assert [stream.key for stream in record.streams] == [raw.key]
    assert rig.fetcher.decoded(record, 0, raw) is raw


async def test_a_pass_of_content_that_comes_in_one_response(rig: Rig, origin: Origin) -> None:
    contents = files(30, 50_000)
    body = compress("gz", tar_of(contents))
    url = origin.put("/x.tar.gz", body, ranges=False, etag=None, last_modified=None)
    origin.fault("/x.tar.gz", Drop(after_bytes=MIB, times=1))
    raw = await rig.located(url)
    record = await rig.plant(raw)
    assert await tree_files(rig, record, raw) == contents


# -- zip


async def test_a_zip_is_opened_by_its_end_and_read_member_by_member(
    rig: Rig, origin: Origin
) -> None:
    contents = files(64, MIB, seed=3)
    body = zip_of(contents, zipfile.ZIP_STORED)
    raw = await rig.located(origin.put("/x.zip", body))
    record = await rig.plant(raw)
    assert record.digest is None
    assert rig.metrics["fetch.bytes"] < MIB
    content = rig.fetcher.decoded(record, 0, raw)
    first = rig.store.trees.child(record.number, ROOT, b"dir3")
    assert first is not None
    number = rig.store.trees.child(record.number, first, b"file31")
    assert number is not None
    entry = rig.store.trees.entry(record.number, number)
    assert await content.read(entry.offset, entry.size, USUAL) == contents["dir3/file31"]
    assert rig.metrics["fetch.bytes"] < 4 * MIB


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
async def test_every_member_of_a_zip_is_right(
    rig: Rig, origin: Origin, method: int, *, pinned: bool
) -> None:
    large = 9 * MIB if method in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} else MIB
    contents = files(30, 20_000) | {"empty": b"", "large": random.Random(1).randbytes(large)}
    body = zip_of(contents, method)
    url = origin.put("/x.zip", body)
    raw = await (rig.pinned(digest_of(body), len(body), url) if pinned else rig.located(url))
    record = await rig.plant(raw)
    assert await tree_files(rig, record, raw) == contents
    assert rig.metrics["fetch.bytes"] <= len(body) + 1


async def test_readers_of_a_zip_member_decode_it_once(rig: Rig, origin: Origin) -> None:
    contents = {"only": random.Random(1).randbytes(3 * MIB)}
    raw = await rig.located(origin.put("/x.zip", zip_of(contents)))
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    async with trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(content.read, number * 100_000, 100_000, USUAL)
    assert rig.metrics["fetch.verified"] in {3 * MIB, 3 * MIB + raw.size}


@pytest.mark.parametrize("size", [50_000, 9 * MIB])
async def test_a_zip_member_with_a_wrong_crc_hands_out_no_byte(
    rig: Rig, origin: Origin, size: int
) -> None:
    data = random.Random(1).randbytes(size)
    body = bytearray(zip_of({"only": data}, zipfile.ZIP_STORED))
    body[size // 2] ^= 1
    raw = await rig.located(origin.put("/x.zip", bytes(body)))
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    with pytest.raises(MalformedError, match="CRC"):
        await content.read(0, 10, USUAL)
    assert content.present() == 0


async def test_an_encrypted_member_is_listed_and_cannot_be_read(rig: Rig, origin: Origin) -> None:
    body = bytearray(zip_of({"secret": b"x" * 1000}))
    central = body.index(b"PK\1\2")
    body[central + 8] |= 1
    raw = await rig.located(origin.put("/x.zip", bytes(body)))
    record = await rig.plant(raw)
    assert rig.store.trees.child(record.number, ROOT, b"secret") is not None
    with pytest.raises(UnsupportedError, match="encrypted"):
        await rig.fetcher.decoded(record, 0, raw).read(0, 10, USUAL)


async def test_a_damaged_zip_member_fails_alone(rig: Rig, origin: Origin) -> None:
    contents = {"a": b"a" * 5000, "b": b"b" * 5000}
    body = bytearray(zip_of(contents, zipfile.ZIP_STORED))
    body[200] ^= 1
    raw = await rig.located(origin.put("/x.zip", bytes(body)))
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    assert await content.read(5000, 5000, USUAL) == contents["b"]
    with pytest.raises(CafsError):
        await content.read(0, 1, USUAL)


async def test_a_zip_without_its_end_is_malformed(rig: Rig, origin: Origin) -> None:
    body = zip_of({"a": b"inside"})
    raw = await rig.located(origin.put("/x.zip", body[:-5]))
    with pytest.raises(MalformedError, match=r"/x\.zip"):
        await rig.plant(raw)


@pytest.mark.parametrize("path", ["/x.zip", "/x.tar.gz"])
async def test_reads_behind_the_end_of_decoded_content_are_empty(
    rig: Rig, origin: Origin, path: str
) -> None:
    contents = {"a": b"inside"}
    body = zip_of(contents) if path == "/x.zip" else compress("gz", tar_of(contents))
    raw = await rig.located(origin.put(path, body))
    content = rig.fetcher.decoded(await rig.plant(raw), 0, raw)
    assert await content.read(content.size, 5, USUAL) == b""
    assert await content.read(content.size + 9, 5, USUAL) == b""


@pytest.mark.parametrize(
    "body", [zip_of({}), tar_of({}), gzip.compress(tar_of({}))], ids=["zip", "tar", "tar.gz"]
)
async def test_an_archive_without_members_is_an_empty_tree(
    rig: Rig, origin: Origin, body: bytes
) -> None:
    raw = await rig.located(origin.put("/download", body))
    assert await tree_files(rig, await rig.plant(raw), raw) == {}
