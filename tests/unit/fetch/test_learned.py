"""Content without a pin: its digest is recorded when it was whole, and another one reported."""

import logging

import pytest

from cafs.model.digest import digest_of
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import Rig, read_all, until


@pytest.mark.parametrize("size", [1000, 600_000])
async def test_that_a_url_has_other_content_than_before_is_reported(
    rig: Rig, origin: Origin, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    caplog.set_level(logging.INFO)
    old, new = b"1" * size, b"2" * size
    for data in (old, new):
        url = origin.put("/data", data)
        content = await rig.located(url)
        assert await read_all(content) == data
        expected = digest_of(data)

        def recorded(url: str = url, expected: object = expected) -> bool:
            document = rig.store.documents.load(url)
            return document is not None and document.digest == expected

        await until(recorded)
        assert ("transport.content.changed" in caplog.text) is (data == new)
    assert f"it was {digest_of(old)}, and is {digest_of(new)} now" in caplog.text
