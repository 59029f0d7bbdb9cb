"""Content that another store on this machine has is copied and checked, and not fetched."""

import errno
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageFullError
from cafs.fetch.flights import finding as finding_module
from cafs.fetch.opening import open_fetcher
from cafs.fetch.progress import Progress
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest, digest_of
from cafs.store.blobs import neighbours as neighbours_module
from cafs.store.blobs.neighbours import Copied, Neighbours
from cafs.store.store import open_store
from cafs.testing import archives
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import Rig, open_rig, read_all

MIB = 1 << 20


async def fill(path: Path, data: bytes) -> Digest:
    """Make a store of cafs that has content."""
    async with open_store(path) as store:
        writer = await store.blobs.create()
        await writer.write(data)
        return (await writer.commit(None, None)).digest


def lay_out(path: Path, data: bytes, digest: Digest | None = None) -> Digest:
    """Make an OCI layout that has content, under that digest or its own."""
    digest = digest or digest_of(data)
    folder = path / "blobs" / digest.algorithm
    folder.mkdir(parents=True, exist_ok=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / digest.hex).write_bytes(data)
    return digest


def blob_of(path: Path, digest: Digest) -> Path:
    return path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


async def read_pinned(rig: Rig, digest: Digest, size: int | None, *urls: str) -> bytes:
    return await read_all(await rig.pinned(digest, size, *urls))


def skips(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "neighbour" in each.getMessage()]


async def test_what_another_store_has_is_copied_and_no_source_is_asked(
    origin: Origin, tmp_path: Path
) -> None:
    data = os.urandom(3 * MIB + 17)
    url = origin.put("/data", data)
    digest = await fill(tmp_path / "other", data)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "other"]) as rig:
        assert await read_pinned(rig, digest, len(data), url) == data
        assert rig.metrics["fetch.found"] == len(data)
        assert rig.metrics["fetch.bytes"] == rig.metrics["fetch.requests"] == 0
    assert origin.requests == ()
    ours, theirs = (blob_of(tmp_path / each, digest).stat() for each in ("store", "other"))
    assert ours.st_ino != theirs.st_ino  # never a hard link: they could change our bytes
    assert ours.st_nlink == theirs.st_nlink == 1


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_what_an_oci_layout_has_is_found_by_its_algorithm(
    origin: Origin, tmp_path: Path, algorithm: str
) -> None:
    data = b"layer" * 1000
    digest = lay_out(tmp_path / "layout", data, digest_of(data, algorithm))
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await read_pinned(rig, digest, None) == data
        found = rig.store.blobs.stat(digest)
        assert found is not None
        assert found.digest == digest_of(data)  # B-5: the alias names the canonical one


@pytest.mark.expects_log("store.blob.damaged")
async def test_what_was_found_is_read_after_the_neighbour_has_gone_and_checked_like_all(
    origin: Origin, tmp_path: Path
) -> None:
    data = os.urandom(MIB)
    digest = lay_out(tmp_path / "layout", data)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await read_pinned(rig, digest, len(data)) == data
    (tmp_path / "layout" / "blobs" / "sha256" / digest.hex).unlink()
    url = origin.put("/data", data)
    async with open_rig(origin, tmp_path / "store") as rig:
        path = blob_of(tmp_path / "store", digest)
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(70_000)
            file.write(bytes([data[70_000] ^ 1]))
        assert await read_pinned(rig, digest, len(data), url) == data  # its sums were recorded
        assert rig.metrics["fetch.bytes"] == 64 << 10


@pytest.mark.expects_log("store.neighbour.wrong")
async def test_a_neighbour_that_lies_is_named_and_the_next_one_asked(
    origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(2 * MIB)
    digest = lay_out(tmp_path / "liar", bytes(2 * MIB), digest_of(data))
    lay_out(tmp_path / "honest", data)
    folders = [tmp_path / "liar", tmp_path / "honest"]
    async with open_rig(origin, tmp_path / "store", look_in=folders) as rig:
        assert await read_pinned(rig, digest, len(data)) == data
        assert rig.metrics["fetch.found"] == len(data)
    assert [str(tmp_path / "liar") in line for line in skips(caplog)] == [True]
    assert not list((tmp_path / "store" / "streams").glob("*/*"))


@pytest.mark.expects_log("store.neighbour.wrong")
@pytest.mark.parametrize("wrong", ["short", "long", "empty", "pipe", "folder"])
async def test_what_is_not_the_content_is_fetched(
    origin: Origin, tmp_path: Path, wrong: str
) -> None:
    data = os.urandom(MIB)
    url = origin.put("/data", data)
    digest = digest_of(data)
    other = {"short": data[:-1], "long": data + b"x"}.get(wrong, b"")
    lay_out(tmp_path / "layout", other, digest)
    path = tmp_path / "layout" / "blobs" / "sha256" / digest.hex
    if wrong in {"pipe", "folder"}:
        path.unlink()
        os.mkfifo(path) if wrong == "pipe" else path.mkdir()
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        with trio.fail_after(60):
            assert await read_pinned(rig, digest, len(data), url) == data
        assert rig.metrics["fetch.found"] == 0
        assert rig.metrics["fetch.bytes"] == len(data)


async def test_a_newer_and_a_damaged_store_are_looked_into_by_what_they_have(
    origin: Origin, tmp_path: Path
) -> None:
    data = os.urandom(MIB)
    digest = await fill(tmp_path / "other", data)
    (tmp_path / "other" / "VERSION").write_text("4711\n")
    for file in (tmp_path / "other" / "index").iterdir():
        file.write_bytes(b"damaged")
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "other"]) as rig:
        assert await read_pinned(rig, digest, len(data)) == data


@pytest.mark.expects_log("store.neighbour.wrong")
async def test_what_is_removed_while_it_is_copied_is_right_or_fetched(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(4 * MIB)
    url = origin.put("/data", data)
    digest = lay_out(tmp_path / "layout", data)
    path = tmp_path / "layout" / "blobs" / "sha256" / digest.hex
    read = neighbours_module._read

    def cutting(descriptor: int, offset: int) -> bytes:
        if offset >= MIB and path.exists():
            os.truncate(path, 2 * MIB)
            path.unlink()
        return read(descriptor, offset)

    monkeypatch.setattr(neighbours_module, "_read", cutting)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await read_pinned(rig, digest, len(data), url) == data
        assert not path.exists()
        assert rig.metrics["fetch.found"] == 0


async def test_a_store_of_another_user_is_skipped_with_one_line(
    origin: Origin, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    first = await fill(tmp_path / "other", b"one" * 9)
    second = await fill(tmp_path / "other", b"two" * 9)
    script = (
        "import sys, trio, logging; from pathlib import Path\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "from cafs.fetch.opening import open_fetcher\n"
        "from cafs.metrics import Metrics\n"
        "from cafs.model.digest import Digest\n"
        "from cafs.store.store import open_store\n"
        "async def main():\n"
        "    async with open_store(Path(sys.argv[1])) as store:\n"
        "        async with open_fetcher(store, Metrics(), look_in=[Path(sys.argv[2])]) as one:\n"
        "            print([await one.find(Digest.parse(each)) for each in sys.argv[3:]])\n"
        "trio.run(main)\n"
    )
    home = Path(tempfile.gettempdir()) / f"found-{os.getpid()}"
    home.mkdir(mode=0o755)
    try:
        theirs = home / "theirs"
        (tmp_path / "other").rename(theirs)
        mine = home / "mine"
        mine.mkdir()
        os.chown(mine, 65534, 65534)
        done = await trio.run_process(
            [sys.executable, "-c", script, str(mine), str(theirs), str(first), str(second)],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_stdout=True,
            cwd=Path(__file__).parents[3],
        )
    finally:
        await trio.to_thread.run_sync(shutil.rmtree, home)
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "[None, None]"
    assert [each for each in lines if "neighbour" in each] == lines[:-1]
    assert len(lines) == 2
    assert os.strerror(errno.EACCES) in lines[0]


@pytest.mark.expects_log("fetch.neighbour.skipped")
async def test_what_is_not_there_is_said_once_and_our_own_store_never(
    origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [tmp_path / "nowhere", tmp_path / "store"]
    async with open_rig(origin, tmp_path / "store", look_in=folders) as rig:
        for each in (b"1", b"2"):
            assert await rig.fetcher.find(digest_of(each)) is None
    assert [str(tmp_path / "nowhere") in line for line in skips(caplog)] == [True]


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
async def test_what_only_a_weak_digest_names_is_not_looked_for(
    origin: Origin, tmp_path: Path, algorithm: str
) -> None:
    data = b"collides" * 100
    digest = lay_out(tmp_path / "layout", data, digest_of(data, algorithm))
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await rig.fetcher.find(digest) is None


async def test_readers_of_one_content_share_one_copy_which_counts_as_progress(
    origin: Origin, tmp_path: Path
) -> None:
    data = os.urandom(8 * MIB)
    digest = lay_out(tmp_path / "layout", data)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        told: list[tuple[int, int]] = []
        content = await rig.pinned(digest, len(data))
        async with trio.open_nursery() as nursery:
            progress = Progress(lambda done, total: told.append((done, total)), 0.0)
            nursery.start_soon(rig.fetcher.prefetch, [content], progress)
            for _ in range(4):
                nursery.start_soon(read_all, content)
        assert rig.metrics["fetch.found"] == len(data)
        assert told[0] == (0, len(data))
        assert told[-1] == (len(data), len(data))
        assert len({done for done, _ in told}) > 4


@pytest.mark.expects_log("fetch.neighbour.skipped")
async def test_a_neighbour_that_does_not_answer_holds_nobody_up(
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = os.urandom(2 * MIB)
    url = origin.put("/data", data)
    digest = lay_out(tmp_path / "layout", data)
    hanging = threading.Event()
    read = neighbours_module._read

    def hang(descriptor: int, offset: int) -> bytes:
        if offset:
            hanging.wait(30)
        return read(descriptor, offset)

    monkeypatch.setattr(neighbours_module, "_read", hang)
    monkeypatch.setattr(finding_module, "SILENCE_S", 0.3)
    try:
        async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
            with trio.fail_after(20):
                assert await read_pinned(rig, digest, len(data), url) == data
                assert await rig.fetcher.find(digest_of(b"else")) is None
            assert rig.metrics["fetch.bytes"] == len(data)
            hanging.set()
            with trio.fail_after(60):
                while list((tmp_path / "store" / "streams").glob("*/*")):  # noqa: ASYNC110
                    await trio.sleep(0.01)
    finally:
        hanging.set()
    assert ["no answer" in line for line in skips(caplog)] == [True]


async def test_to_wait_for_a_thread_is_no_silence_of_the_neighbour(
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bodies = [os.urandom(8 * MIB) for _ in range(2)]
    digests = [lay_out(tmp_path / "layout", data) for data in bodies]
    read = neighbours_module._read

    def slow(descriptor: int, offset: int) -> bytes:
        time.sleep(0.1)
        return read(descriptor, offset)

    monkeypatch.setattr(neighbours_module, "_read", slow)
    monkeypatch.setattr(finding_module, "SILENCE_S", 0.4)
    monkeypatch.setattr(finding_module, "_THREADS", 1)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                for digest in digests:
                    nursery.start_soon(rig.fetcher.find, digest)
        assert rig.metrics["fetch.found"] == 16 * MIB
    assert skips(caplog) == []


@pytest.mark.expects_log("path=.*/dead error=no answer")
async def test_where_all_threads_hang_the_next_is_tried_and_nobody_else_is_blamed(
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = os.urandom(MIB)
    dead = lay_out(tmp_path / "dead", b"x" * 100)
    digest = lay_out(tmp_path / "layout", data)
    url = origin.put("/data", data)
    hanging, hung = threading.Event(), threading.Event()
    read = neighbours_module._read

    def hang(descriptor: int, offset: int) -> bytes:
        hung.set()
        hanging.wait(30)
        return read(descriptor, offset)

    monkeypatch.setattr(neighbours_module, "_read", hang)
    monkeypatch.setattr(finding_module, "SILENCE_S", 0.4)
    monkeypatch.setattr(finding_module, "_THREADS", 1)
    folders = [tmp_path / "dead", tmp_path / "layout"]
    caplog.set_level(logging.WARNING)
    try:
        async with open_rig(origin, tmp_path / "store", look_in=folders) as rig:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.fetcher.find, dead)
                await trio.to_thread.run_sync(hung.wait)
                with trio.fail_after(20):
                    assert await read_pinned(rig, digest, len(data), url) == data
            hanging.set()
            assert rig.metrics["fetch.bytes"] == len(data)
    finally:
        hanging.set()
    assert [str(tmp_path / "layout") in line for line in skips(caplog)] == [False]


async def test_a_copy_that_is_cancelled_before_it_is_taken_leaves_no_file(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = lay_out(tmp_path / "layout", os.urandom(2 * MIB))
    scope = trio.CancelScope()
    admit = finding_module.Finding._admit

    async def cancelling(self: finding_module.Finding, folder: Path, copied: Copied) -> None:
        assert copied.path.exists()
        scope.cancel()
        await admit(self, folder, copied)

    monkeypatch.setattr(finding_module.Finding, "_admit", cancelling)
    async with open_store(tmp_path / "store") as store:
        with scope:
            async with open_fetcher(store, Metrics(), look_in=[tmp_path / "layout"]) as fetcher:
                await fetcher.find(digest)
        assert scope.cancelled_caught
        assert not list((tmp_path / "store" / "streams").glob("*/*"))
        assert store.blobs.stat(digest) is None


@pytest.mark.expects_log("fetch.found.failed")
async def test_a_full_disk_leaves_it_to_the_sources(
    origin: Origin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    data = os.urandom(2 * MIB)
    url = origin.put("/data", data)
    digest = lay_out(tmp_path / "layout", data)

    def full(descriptor: int, offset: int, view: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(neighbours_module, "write_whole", full)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await read_pinned(rig, digest, len(data), url) == data
        assert rig.metrics["fetch.found"] == 0
    assert not list((tmp_path / "store" / "streams").glob("*/*"))
    assert any("fetch.found.failed" in each.getMessage() for each in caplog.records)


@pytest.mark.expects_log("fetch.found.failed")
async def test_a_copy_that_cannot_be_recorded_leaves_nothing(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(MIB)
    digest = lay_out(tmp_path / "layout", data)

    def full(self: Neighbours, copied: Copied) -> Descriptor:
        raise StorageFullError("the index: no space")

    monkeypatch.setattr(Neighbours, "_record", full)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await rig.fetcher.find(digest) is None
        assert not blob_of(tmp_path / "store", digest).exists()
        assert not list((tmp_path / "store" / "streams").glob("*/*"))
        assert list(rig.store.beginning("sha256", digest.hex[:4])) == []
        monkeypatch.undo()
        assert await read_pinned(rig, digest, len(data)) == data


async def test_an_archive_is_opened_from_a_neighbour_without_a_source(
    origin: Origin, tmp_path: Path
) -> None:
    data = archives.tar((archives.file("a/b", "content"),))
    digest = lay_out(tmp_path / "layout", data)
    async with open_rig(
        origin, tmp_path / "store", look_in=[tmp_path / "layout"], offline=True
    ) as rig:
        record = await rig.plant(await rig.pinned(digest, len(data)))
        assert record.count == 3
        assert rig.metrics["fetch.found"] == len(data)


async def test_a_stream_that_was_begun_gives_way_to_what_is_found(
    origin: Origin, tmp_path: Path
) -> None:
    body = Generated(3 * MIB, seed=5)
    url = origin.put("/data", body)
    data = origin.expected("/data")
    digest = digest_of(data)
    async with open_rig(origin, tmp_path / "store") as rig:
        content = await rig.pinned(digest, len(data), url)
        stream = await rig.store.streams.open(content.key, len(data))
        await stream.write(0, data[:MIB])
    lay_out(tmp_path / "layout", data)
    async with open_rig(origin, tmp_path / "store", look_in=[tmp_path / "layout"]) as rig:
        assert await read_pinned(rig, digest, len(data), url) == data
        assert rig.metrics["fetch.found"] == len(data)
    assert not list((tmp_path / "store" / "streams").glob("*/*"))


async def test_two_stores_on_one_file_system_share_extents_where_it_can(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(MIB))
    with source.open("rb") as one, target.open("w+b") as other:
        cloned = neighbours_module._clone(one.fileno(), other.fileno())
        other.seek(0)
        # Where it cannot, nothing has happened, and the bytes are copied.
        assert other.read() == (source.read_bytes() if cloned else b"")
