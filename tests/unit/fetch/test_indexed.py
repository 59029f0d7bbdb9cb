"""What a pass made in one store is read in another by its index alone: the right bytes, and few."""

import io
import random
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from cafs.errors import UnsupportedError
from cafs.fetch.interfaces import Content
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import archive_tree, indexed_tree
from cafs.model.member import ROOT, Kind
from cafs.model.record import TreeRecord
from cafs.store.trees.index_export import export_index
from cafs.store.trees.index_import import import_index
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all
from tests.unit.fetch.test_first_pass import compress, tar_of, tree_files, zip_of

MIB = 1 << 20


def texts(count: int, size: int) -> dict[str, bytes]:
    """Files that pack, and refer to each other."""
    source = random.Random(5)
    words = [source.randbytes(source.randrange(3, 12)).hex().encode() for _ in range(500)]
    return {
        f"dir{number % 5}/text{number}": b" ".join(source.choices(words, k=size // 16))
        for number in range(count)
    }


@dataclass(frozen=True)
class Lent:
    """An index, and what it is of."""

    index: bytes
    name: Digest
    body: bytes

    async def borrow(self, rig: Rig, raw: Content) -> TreeRecord:
        """The tree that the index says, in another store."""
        blob = digest_of(self.body)

        def work() -> TreeRecord:
            return import_index(
                rig.store.trees,
                indexed_tree(archive_tree(raw.key), self.name),
                self.index,
                raw=raw.key,
                expected=self.name,
                digest=blob,
                size=len(self.body),
                mark="",
            )

        return await trio.to_thread.run_sync(work)


async def lend(rig: Rig, record: TreeRecord, body: bytes) -> Lent:
    """Write the index of a tree that a pass made."""
    out = io.BytesIO()

    def work() -> Digest:
        return export_index(
            rig.store.trees, record, out, digest=digest_of(body), size=len(body), mark=""
        )

    name = await trio.to_thread.run_sync(work)
    return Lent(out.getvalue(), name, body)


async def content_of(rig: Rig, record: TreeRecord, raw: Content, *names: bytes) -> bytes:
    """What one file has."""
    at: int | None = ROOT
    for name in names:
        assert at is not None
        at = rig.store.trees.child(record.number, at, name)
    assert at is not None
    entry = rig.store.trees.entry(record.number, at)
    assert entry.kind is Kind.FILE
    return await rig.fetcher.decoded(record, 0, raw).read(entry.offset, entry.size, USUAL)


@pytest.mark.parametrize("kind", ["tar", "gz", "zst", "xz", "bz2"])
async def test_a_tar_is_read_elsewhere_by_its_index(
    origin: Origin, tmp_path: Path, kind: str
) -> None:
    contents = texts(40, 300_000)
    body = compress(kind, tar_of(contents))
    path = "/x.tar" if kind == "tar" else f"/x.tar.{kind}"
    url = origin.put(path, body)
    async with open_rig(origin, tmp_path / "first") as rig:
        raw = await rig.pinned(digest_of(body), len(body), url)
        lent = await lend(rig, await rig.plant(raw), body)
    async with open_rig(origin, tmp_path / "second") as rig:
        raw = await rig.pinned(digest_of(body), len(body), url)
        record = await lent.borrow(rig, raw)
        found = await content_of(rig, record, raw, b"dir1", b"text21")
        assert found == contents["dir1/text21"]
        if kind == "gz":
            assert rig.metrics["fetch.bytes"] < len(body) // 2
        assert await tree_files(rig, record, raw) == contents
        with pytest.raises(UnsupportedError, match="not of a pass"):
            await lend(rig, record, body)


@pytest.mark.parametrize("more", [0, 10_240, 3 * MIB])
async def test_what_lies_behind_the_end_of_a_plain_tar_is_of_no_segment(
    rig: Rig, origin: Origin, more: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    body = out.getvalue() + bytes(more)
    raw = await rig.pinned(digest_of(body), len(body), origin.put("/x.tar", body))
    lent = await lend(rig, await rig.plant(raw), body)
    record = await lent.borrow(rig, raw)
    assert await tree_files(rig, record, raw) == {"a": b"abc"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
async def test_a_zip_is_read_elsewhere_by_its_index_once_all_of_it_was_read(
    origin: Origin, tmp_path: Path, method: int
) -> None:
    contents = texts(20, 50_000) | {"empty": b""}
    body = zip_of(contents, method)
    url = origin.put("/x.zip", body)
    async with open_rig(origin, tmp_path / "first") as rig:
        raw = await rig.pinned(digest_of(body), len(body), url)
        record = await rig.plant(raw)
        with pytest.raises(UnsupportedError, match="nobody knows the digest"):
            await lend(rig, record, body)
        await read_all(raw)
        assert await tree_files(rig, record, raw) == contents
        await rig.store.members.flush()
        lent = await lend(rig, record, body)
    async with open_rig(origin, tmp_path / "second") as rig:
        raw = await rig.pinned(digest_of(body), len(body), url)
        record = await lent.borrow(rig, raw)
        found = await content_of(rig, record, raw, b"dir1", b"text11")
        assert found == contents["dir1/text11"]
        assert await tree_files(rig, record, raw) == contents
