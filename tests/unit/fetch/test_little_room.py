"""First passes on a disk that has room for an archive, and not for what it decodes to as well."""

import random
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageFullError
from cafs.fetch.interfaces import Patience, Priority
from cafs.model.digest import digest_of
from cafs.model.span import Span
from cafs.testing.origin import Origin
from tests.small_disk import TOLD_IN_TIME, disk_of, free
from tests.unit.fetch.conftest import USUAL, open_rig, until
from tests.unit.fetch.test_first_pass import compress, tar_of, tree_files

pytestmark = TOLD_IN_TIME

MIB = 1 << 20


def halves(count: int) -> dict[str, bytes]:
    """Files of a MiB, of which half can be compressed."""
    source = random.Random(5)
    return {f"f{number}": source.randbytes(MIB // 2) + bytes(MIB // 2) for number in range(count)}


@pytest.mark.parametrize("pinned", [False, True])
async def test_what_does_not_fit_beside_its_archive_is_decoded_again_where_it_is_read(
    origin: Origin, tmp_path: Path, *, pinned: bool
) -> None:
    contents = halves(36)
    body = compress("gz", tar_of(contents))
    url = origin.put("/x.tar.gz", body)
    with disk_of(tmp_path / "disk", 48) as disk:
        async with open_rig(origin, disk / "store") as rig:
            raw = await rig.pinned(digest_of(body), len(body), url) if pinned else None
            raw = raw or await rig.located(url)
            record = await rig.plant(raw)
            assert record.digest == digest_of(body)
            assert free(disk) > 16 * MIB
            assert await tree_files(rig, record, raw) == contents
            assert rig.metrics["fetch.bytes"] <= len(body) + 1
            assert raw.digest() == digest_of(body)


async def test_a_reader_who_joins_a_prefetch_that_waits_for_room_does_without_it(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evicting, go = trio.Event(), trio.Event()

    async def in_vain(_: int) -> bool:
        evicting.set()
        await go.wait()
        return False

    contents = halves(36)
    url = origin.put("/x.tar.gz", compress("gz", tar_of(contents)))
    with disk_of(tmp_path / "disk", 48) as disk:
        async with open_rig(origin, disk / "store") as rig:
            monkeypatch.setattr(rig.fetcher._means.shortage, "_make_room", in_vain)
            raw = await rig.located(url)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.plant, raw, Patience(60.0, Priority.PREFETCH))
                await evicting.wait()
                joined = rig.metrics["fetch.joined"]
                nursery.start_soon(rig.plant, raw)
                await until(lambda: rig.metrics["fetch.joined"] > joined)
                go.set()
            assert await tree_files(rig, await rig.plant(raw), raw) == contents


async def test_what_can_only_be_decoded_whole_says_how_much_it_lacks(
    origin: Origin, tmp_path: Path
) -> None:
    body = compress("xz", tar_of(halves(36)))
    url = origin.put("/x.tar.xz", body)
    with disk_of(tmp_path / "disk", 48) as disk:
        async with open_rig(origin, disk / "store") as rig:
            raw = await rig.located(url)
            with pytest.raises(StorageFullError, match=r"decodes to 36\.\d MiB: .* MiB free"):
                await rig.plant(raw)
            await raw.ensure(Span(0, len(body)), USUAL)  # what has come stays
            assert rig.metrics["fetch.bytes"] <= len(body) + 1


@pytest.mark.parametrize("kind", ["tar", "gz"])
async def test_an_archive_without_a_pin_that_does_not_fit_itself_is_read_from_memory(
    origin: Origin, tmp_path: Path, kind: str
) -> None:
    contents = halves(50)
    body = compress(kind, tar_of(contents))
    url = origin.put(f"/x.tar.{kind}", body)
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            raw = await rig.located(url)
            assert await tree_files(rig, await rig.plant(raw), raw) == contents


@pytest.mark.parametrize("kind", ["tar", "gz"])
async def test_one_with_a_pin_that_does_not_fit_itself_says_what_it_has_and_what_is_free(
    origin: Origin, tmp_path: Path, kind: str
) -> None:
    body = compress(kind, tar_of(halves(80)))
    url = origin.put(f"/x.tar.{kind}", body)
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            raw = await rig.pinned(digest_of(body), len(body), url)
            with pytest.raises(StorageFullError, match=r"no space to open it: .* MiB free"):
                await rig.plant(raw)
