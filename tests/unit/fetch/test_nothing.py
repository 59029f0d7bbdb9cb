"""Content of no bytes has the digest of no bytes; who says so of another digest is wrong."""

import pytest

from cafs.errors import DigestMismatchError
from cafs.model.digest import SIZES, digest_of
from cafs.model.spec import Verify
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig


@pytest.mark.parametrize("algorithm", sorted(SIZES))
@pytest.mark.parametrize("verify", ["block", "provisional"])
async def test_no_bytes_are_not_handed_out_for_the_digest_of_some(
    rig: Rig, origin: Origin, algorithm: str, verify: Verify
) -> None:
    """Whoever asks for a size reads nothing then: so it is refused before there is one."""
    url = origin.put("/some", b"some")
    with pytest.raises(DigestMismatchError, match="/some"):
        await rig.pinned(digest_of(b"some", algorithm), 0, url, verify=verify)
    assert not origin.requests_for("/some")


@pytest.mark.parametrize("algorithm", sorted(SIZES))
async def test_no_bytes_are_what_the_digest_of_none_means(
    rig: Rig, origin: Origin, algorithm: str
) -> None:
    url = origin.put("/none", b"")
    content = await rig.pinned(digest_of(b"", algorithm), 0, url)
    assert content.size == 0
    assert await content.read(0, 10, USUAL) == b""


async def test_a_source_that_has_nothing_has_not_what_is_pinned(rig: Rig, origin: Origin) -> None:
    """As where nobody knows the size, and a source says that it is 0."""
    url = origin.put("/none", b"")
    for _ in range(2):
        with pytest.raises(DigestMismatchError, match="/none"):
            await rig.pinned(digest_of(b"some"), None, url)


@pytest.mark.expects_log("fetch.mirror.wrong")
async def test_another_source_is_asked_where_one_has_nothing(rig: Rig, origin: Origin) -> None:
    urls = [origin.put("/none", b""), origin.put("/some", b"some")]
    content = await rig.pinned(digest_of(b"some"), None, *urls)
    assert (content.size, await content.read(0, 10, USUAL)) == (4, b"some")
