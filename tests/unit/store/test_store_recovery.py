"""What opening a store puts in order: leftovers of a crash, a broken index."""

import errno
import os
from pathlib import Path

import pytest

from cafs.errors import MountError
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, raw_stream
from cafs.store.db.btree_pages import LEAF, Tree, metas, nodes
from cafs.store.db.transactions import BrokenEnvironmentError, is_marked
from cafs.store.disk.layout import Layout, Usage
from cafs.store.holds.leases import Leases
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key

KEY = StreamKey("ab" * 32)
PAGE = 4096
DATA = b"some bytes" * 1000
DIGEST = digest_of(DATA)


def below(path: Path, pattern: str) -> list[Path]:
    return list(path.glob(pattern))


async def admitted(store: Store, data: bytes, key: StreamKey = KEY) -> None:
    stream = await store.streams.open(key, len(data))
    await stream.write(0, data)
    await store.blobs.admit(key, media_type="a/b", name="x")


async def test_stream_files_that_no_record_names_are_swept(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        kept = await store.streams.open(KEY, 10)
        await kept.write(0, b"abc")
    folder = tmp_path / "streams" / "ab"
    (mine,) = folder.iterdir()
    for name in (f"{KEY}.{'00' * 8}", f"{mine.name}.0011223344556677", "nonsense", f"{KEY}."):
        (folder / name).write_bytes(b"left over")
    async with open_store(tmp_path) as store:
        assert list(folder.iterdir()) == [mine]
        found = store.streams.find(KEY)
        assert found is not None
        assert await found.read(0, 3) == b"abc"


@pytest.mark.expects_log("store.stream.unswept")
async def test_a_file_that_cannot_be_swept_keeps_no_store_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path):
        pass
    folder = tmp_path / "streams" / "ab"
    folder.mkdir()
    stuck, other = (folder / f"{KEY}.{number * 8}" for number in ("00", "11"))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == stuck:
            raise PermissionError(errno.EPERM, "not permitted", os.fspath(path))
        unlink(path, missing_ok=missing_ok)

    for path in (stuck, other):
        path.write_bytes(b"left over")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        async with open_store(tmp_path) as store:
            assert store.streams.find(KEY) is None
    assert (stuck.exists(), other.exists()) == (True, False)
    async with open_store(tmp_path):
        assert not stuck.exists()


async def test_directories_that_are_not_the_stores_are_left(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    theirs = tmp_path / "streams" / "theirs" / "below"
    theirs.mkdir(parents=True)
    async with open_store(tmp_path):
        assert theirs.exists()


async def test_nothing_is_swept_while_somebody_else_uses_the_store(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        stream = await store.streams.open(KEY, 10)
        await stream.write(0, b"abc")
        assert await stream.read(0, 3) == b"abc"
        (file,) = below(tmp_path, "streams/*/*")
        assert file.exists()


@pytest.mark.expects_log("store.index.broken")
async def test_a_broken_index_is_made_anew_from_the_blobs(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
        await (await store.streams.open(StreamKey("cd" * 32), 10)).write(0, b"abc")
    (tmp_path / "index" / "data.mdb").write_bytes(b"not LMDB" * 4096)
    async with open_store(tmp_path) as store:
        assert list(store.blobs.digests()) == [DIGEST]
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA
        by_digest = store.streams.find(raw_stream(DIGEST))
        assert by_digest is not None
        assert await by_digest.read(0, 5) == DATA[:5]
        assert store.streams.find(StreamKey("cd" * 32)) is None
        assert below(tmp_path, "streams/*/*") == []
        assert below(tmp_path, "quarantine/index-*/data.mdb")


@pytest.mark.expects_log("store.index.broken")
async def test_an_index_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
    data = tmp_path / "index" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    async with open_store(tmp_path) as store:
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


@pytest.mark.expects_log("store.index.broken")
async def test_an_index_that_was_found_damaged_is_made_anew_by_the_next_alone(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
        data = tmp_path / "index" / "data.mdb"
        content = data.read_bytes()
        # All but the two meta pages and what they lead to at opening is damaged.
        with data.open("r+b") as file:
            file.write(content[: 2 * PAGE] + b"\xff" * (len(content) - 2 * PAGE))
        with pytest.raises(BrokenEnvironmentError):
            store.blobs.stat(DIGEST)
    async with open_store(tmp_path) as store:
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


@pytest.mark.parametrize("what", ["index", "recent-*"])
@pytest.mark.expects_log("store.(index|recent).broken")
async def test_a_mount_that_is_kept_does_not_go_on_with_other_numbers(
    tmp_path: Path, what: str
) -> None:
    key = new_key()
    async with open_store(tmp_path) as store:
        await store.attachments.attach(await store.mounts.open(key, "/mnt"), "ref/a/", tree=1)
    leases = Leases(tmp_path / "leases")
    with leases.deciding():
        kept = leases.take(key)  # as its keeper does
    assert kept is not None
    (data,) = below(tmp_path, f"{what}/data.mdb")
    data.write_bytes(b"not LMDB" * 4096)
    async with open_store(tmp_path) as store:
        with pytest.raises(MountError, match="forgotten"):
            await store.mounts.open(key, "/mnt")
    kept.release()


@pytest.mark.parametrize("damage", [b"not LMDB" * 4096, b""])
@pytest.mark.expects_log("store.recent.broken")
async def test_broken_records_of_this_boot_cost_what_no_checkpoint_has_seen(
    tmp_path: Path, damage: bytes
) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
        kept = await store.streams.open(StreamKey("cd" * 32), 10)
        await kept.write(0, b"abc")
    (data,) = below(tmp_path, "recent-*/data.mdb")
    data.write_bytes(damage)
    async with open_store(tmp_path) as store:
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA
        kept = await store.streams.open(StreamKey("cd" * 32), 10)
        assert await kept.read(0, 3) == b"abc"
        assert await store.mounts.open(new_key(), "works") == 1


@pytest.mark.expects_log("store.(index.broken|blob.quarantined)")
async def test_what_is_not_its_name_is_not_restored(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
    blob = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    blob.chmod(0o600)
    blob.write_bytes(DATA[:-1] + b"!")
    (blob.parent / "nonsense").write_bytes(b"x")
    (tmp_path / "index" / "data.mdb").write_bytes(b"not LMDB" * 4096)
    async with open_store(tmp_path) as store:
        assert list(store.blobs.digests()) == []
        assert store.blobs.stat(DIGEST) is None
        assert sorted(path.name for path in below(tmp_path, "quarantine/[!i]*")) == sorted(
            [DIGEST.hex, "nonsense"]
        )


@pytest.mark.expects_log("store.record.broken")
async def test_a_garbled_record_costs_a_fetch_and_nothing_else(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
        index = store.trees._index
        table = index.table("blobs")
        index.apply(lambda batch: batch._transaction.put(DIGEST.raw, b"garbage", db=table.handle))
        assert store.blobs.stat(DIGEST) is None
        await admitted(store, DATA, StreamKey("cd" * 32))
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


@pytest.mark.expects_log("store.record.unknown")
async def test_a_record_of_another_shape_is_absent(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await admitted(store, DATA)
        index = store.trees._index
        table = index.table("blobs")
        index.apply(lambda batch: batch.put(table, DIGEST.raw, b"\x81\xa1a\x01"))
        assert store.blobs.stat(DIGEST) is None
        index.apply(lambda batch: batch.put(table, DIGEST.raw, b"\xc1"))
        assert store.blobs.stat(DIGEST) is None


def break_root(path: Path, table: str | None) -> None:
    """Make nonsense of the root page of a table of an environment; None: of the list of them."""
    with (path / "data.mdb").open("r+b") as file:
        meta = max(metas(file.fileno()), key=lambda each: each.number)
        root, size = meta.main.root, meta.page_size
        if table is not None:
            page = os.pread(file.fileno(), size, root * size)
            found = {each.key: each.value for each in nodes(page, root, LEAF)}
            root = Tree.parse(found[table.encode()]).root
        os.pwrite(file.fileno(), bytes(6), root * size + 10)  # its kind, and its bounds


@pytest.mark.expects_log("store.(index|recent).broken")
@pytest.mark.parametrize("name", ["index", "recent-boot"])
async def test_who_is_not_alone_and_meets_damage_first_hears_of_it_and_what_to_do(
    tmp_path: Path, name: str
) -> None:
    """As a verb beside a mount; whoever is alone then makes the records anew."""
    async with open_store(tmp_path, boot_id="boot"):
        pass
    break_root(tmp_path / name, None)
    others = Usage(Layout(tmp_path, "boot"), os.readlink("/proc/self/ns/pid"))
    others.share()
    for _ in range(2):
        with pytest.raises(BrokenEnvironmentError, match="records are damaged") as caught:
            async with open_store(tmp_path, boot_id="boot"):
                pass
        assert "cafs status" in caught.value.hint
    others.close()
    async with open_store(tmp_path, boot_id="boot") as store:
        await admitted(store, DATA)


@pytest.mark.expects_log("store.index.broken")
async def test_on_a_full_disk_a_store_that_healed_while_it_was_opened_has_its_ballast(
    tmp_path: Path,
) -> None:
    """What is made anew inherits; what was closed for that does not."""
    async with open_store(tmp_path, boot_id="boot") as store:
        await admitted(store, DATA)
    break_root(tmp_path / "index", "counters")
    async with open_store(tmp_path, boot_id="boot") as store:
        assert len(below(tmp_path, "quarantine/index-*")) == 1
        ballast = store._layout.ballast
        assert len(ballast.heirs) == 2
        ballast.fill()
        assert ballast.drop()


async def test_what_is_damaged_in_one_environment_is_not_blamed_on_the_other(
    tmp_path: Path,
) -> None:
    """Both are read at once: the index is sound, and would lose its pins."""
    async with open_store(tmp_path, boot_id="boot") as store:
        break_root(tmp_path / "recent-boot", "counters")
        with pytest.raises(BrokenEnvironmentError, match="recent-boot: the records are damaged"):
            store.room.usage()
        assert not is_marked(tmp_path / "index")
        assert is_marked(tmp_path / "recent-boot")
