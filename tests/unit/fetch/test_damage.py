"""What a disk has changed is fetched again, no more than that, and readers see right bytes."""

from pathlib import Path

import pytest

from cafs.errors import NotFoundError
from cafs.model.digest import digest_of
from cafs.model.span import Span
from cafs.store.tables.sums import PIECE
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, read_all

pytestmark = pytest.mark.expects_log("store.*damaged")

SIZE = 4 << 20


def flip(path: Path, offset: int) -> None:
    path.chmod(0o600)
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def files(rig: Rig, kind: str) -> list[Path]:
    return [path for path in rig.store.path.glob(f"{kind}/**/*") if path.is_file()]


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_blob_that_the_disk_changed_is_healed_by_one_small_request(
    rig: Rig, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=1).read(0, SIZE)
    url = origin.put("/blob", body)
    digest = digest_of(body)
    content = await (rig.pinned(digest, SIZE, url) if pinned else rig.located(url))
    assert await read_all(content) == body
    await content.ensure(Span(0, SIZE), USUAL)
    [blob] = files(rig, "blobs")
    flip(blob, 3 * PIECE + 5)
    origin.forget()
    assert await read_all(content) == body
    assert len(origin.requests) == 1
    assert origin.bytes_sent() <= 4 * PIECE
    await content.ensure(Span(0, SIZE), USUAL)
    assert content.digest() == digest
    assert files(rig, "streams") == []


async def test_a_partial_that_the_disk_changed_is_fetched_again_where_it_was_changed(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/blob", Generated(16 * SIZE, seed=2))
    content = await rig.located(url)
    expected = Generated(16 * SIZE, seed=2).read(0, 1 << 20)
    assert await content.read(0, 1 << 20, USUAL) == expected
    [partial] = files(rig, "streams")
    flip(partial, 100_000)
    origin.forget()
    assert await content.read(0, 1 << 20, USUAL) == expected
    assert 0 < origin.bytes_sent() <= 4 * PIECE


async def test_what_nobody_can_give_again_is_an_error_and_no_wrong_byte(
    rig: Rig, origin: Origin
) -> None:
    body = Generated(SIZE, seed=3).read(0, SIZE)
    await read_all(await rig.pinned(digest_of(body), SIZE, origin.put("/blob", body)))
    [blob] = files(rig, "blobs")
    flip(blob, SIZE - 1)
    with pytest.raises(NotFoundError, match="disk has changed"):
        await rig.store.blobs.read(digest_of(body), SIZE - 10, 10)
    assert rig.store.blobs.stat(digest_of(body)) is None
