"""What somebody said of a size outlives him; it must not be in the way of those who know better."""

from pathlib import Path

import pytest
import trio

from cafs.errors import SizeMismatchError, StorageError
from cafs.fetch.interfaces import Patience, Priority
from cafs.model.digest import digest_of
from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig


@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("priority", [Priority.DEMAND, Priority.PREFETCH])
async def test_a_size_that_was_wrong_is_no_full_disk_for_the_next(
    origin: Origin, tmp_path: Path, size: int, off: int, priority: Priority
) -> None:
    url = origin.put("/file", Generated(size, seed=1))
    digest = digest_of(origin.expected("/file"))
    async with open_rig(origin, tmp_path / "store") as rig:
        with pytest.raises(SizeMismatchError, match="/file"):
            await (await rig.pinned(digest, size + off, url)).read(0, 1, USUAL)
    with trio.fail_after(60):
        async with open_rig(origin, tmp_path / "store") as rig:
            content = await rig.pinned(digest, size, url)
            await content.ensure(Span(0, size), Patience(5.0, priority))
            assert content.digest() == digest


async def test_a_size_that_no_file_can_have_is_told_with_the_name_of_what_has_it(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/endless", b"short")
    content = await rig.pinned(digest_of(b"short"), (1 << 63) - 1, url)
    with pytest.raises(StorageError, match=r"/endless: opening stream .*: File too large"):
        await content.read(0, 1, USUAL)
