import pytest

from cafs.errors import UnreachableError, UnsupportedError
from cafs.metrics import Metrics
from cafs.transport.choosing import Choosing
from cafs.transport.interfaces import Request
from cafs.transport.metering import Metering
from tests.unit.transport.scripted import Scripted


async def test_the_scheme_chooses_in_any_case() -> None:
    web, disk = Scripted([None]), Scripted([None])
    choosing = Choosing({"http": web, "https": web, "file": disk})
    for url in ("http://a/", "HTTPS://a/", "file:///a"):
        async with await choosing.open(Request(url)):
            pass
    assert len(web.requests) == 2
    assert len(disk.requests) == 1
    await choosing.aclose()
    assert (web.closed, disk.closed) == (1, 1)


@pytest.mark.parametrize("url", ["ftp://a/secret?x", "nothing", ""])
async def test_y2_a_scheme_without_transport_is_named(url: str) -> None:
    with pytest.raises(UnsupportedError, match="no transport") as caught:
        await Choosing({"http": Scripted([None])}).open(Request(url))
    assert caught.value.hint.startswith("there are http")
    assert ("[plugins.ftp]" in caught.value.hint) is url.startswith("ftp:")


async def test_requests_and_bytes_are_counted() -> None:
    metrics = Metrics()
    metering = Metering(Scripted([None], body=b"12345"), metrics)
    async with await metering.open(Request("http://a/")) as response:
        assert response.head.status == 200
        while await response.receive():
            pass
    await metering.aclose()
    failing = Metering(Scripted([UnreachableError("x")]), metrics)
    with pytest.raises(UnreachableError):
        await failing.open(Request("http://a/"))
    assert metrics["fetch.requests"] == 2
    assert metrics["fetch.bytes"] == 5
