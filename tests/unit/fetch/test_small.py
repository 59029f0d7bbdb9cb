"""Small content: one request, no stream; and where that does not do, what any content gets."""

import pytest

from cafs.errors import DigestMismatchError
from cafs.model.digest import digest_of
from cafs.testing.bodies import Generated
from cafs.testing.faults import Corrupt, Drop, IgnoreRange
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig

SIZE = 20_000


def streams(rig: Rig) -> list[str]:
    return [path.name for path in rig.store.path.glob("streams/*/*")]


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("ranges", [False, True])
async def test_it_comes_by_one_request_and_is_a_blob(
    rig: Rig, origin: Origin, pinned: bool, ranges: bool
) -> None:
    body = Generated(SIZE, seed=1).read(0, SIZE)
    url = origin.put("/small", body)
    if not ranges:
        origin.fault("/small", IgnoreRange())
    content = await (rig.pinned(digest_of(body), SIZE, url) if pinned else rig.located(url))
    origin.forget()
    assert await content.read(0, SIZE, USUAL) == body
    # An answer without ranges to the question what it is has the content already.
    assert len(origin.requests) == (0 if not ranges and not pinned else 1)
    assert content.digest() == digest_of(body)
    assert streams(rig) == []


async def test_a_body_that_breaks_goes_on_where_it_broke(rig: Rig, origin: Origin) -> None:
    body = Generated(SIZE, seed=2).read(0, SIZE)
    url = origin.put("/small", body)
    content = await rig.located(url)
    origin.forget()
    origin.fault("/small", Drop(after_bytes=7000, times=1))
    assert await content.read(0, SIZE, USUAL) == body
    ranges = [dict(request.headers).get("range") for request in origin.requests]
    assert ranges == ["bytes=0-19999", "bytes=7000-19999"]


async def test_one_that_the_digest_refuses_is_put_aside_as_any_other(
    rig: Rig, origin: Origin
) -> None:
    body = Generated(SIZE, seed=3).read(0, SIZE)
    url = origin.put("/small", body)
    origin.fault("/small", Corrupt(at=77))
    content = await rig.pinned(digest_of(body), SIZE, url)
    with pytest.raises(DigestMismatchError):
        await content.read(0, SIZE, USUAL)
    assert len(list(rig.store.path.glob("quarantine/*.json"))) == 1
    assert rig.store.blobs.stat(digest_of(body)) is None
