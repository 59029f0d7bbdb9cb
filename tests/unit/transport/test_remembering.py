"""Documents that sources want to be told again are kept, whenever they are said."""

import pytest
from typing_extensions import override

from cafs.metrics import Metrics
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import digest_of
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.revalidating import Locator
from tests.unit.transport.test_revalidating import Kept

DESCRIPTOR = Descriptor(OCTETS, digest_of(b"xxx"), 3)


class Telling(Response):
    """Three pieces; the document is there from the given one on (0: at once, 3: with the end)."""

    def __init__(self, head: Head, since: int, document: str) -> None:
        self._head = head
        self._since = since
        self._document = document
        self._received = 0

    @property
    @override
    def head(self) -> Head:
        return self._head

    @property
    @override
    def document(self) -> str:
        return self._document if self._received >= self._since else ""

    @override
    async def receive(self) -> bytes:
        self._received += 1
        return b"x" if self._received <= 3 else b""

    @override
    async def aclose(self) -> None:
        """Nothing is open."""


class Teller(Transport):
    """Answers with everything, or that nothing has changed when there was a document."""

    def __init__(self, since: int) -> None:
        self._since = since
        self.told: list[str] = []

    @override
    async def open(self, request: Request) -> Response:
        self.told.append(request.document)
        if request.document:
            return Telling(Head(request.url, 304, unchanged=True), 0, '{"n":2}')
        return Telling(Head(request.url, 200, total=3), self._since, '{"n":1}')

    @override
    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("since", [0, 1, 2, 3, 4])
async def test_r3_a_document_is_kept_whenever_it_comes(since: int) -> None:
    kept, teller = Kept(), Teller(since)
    locator = Locator(teller, kept, Metrics())
    located = await locator.locate("x:a", pull="update")
    assert located.head_response is not None
    async with located.head_response as response:
        while await response.receive():
            pass
    assert kept.documents["x:a"].plugin == '{"n":1}'
    # It is told again only when there is content that it is about.
    await locator.locate("x:a", pull="update")
    assert teller.told == ["", ""]


async def test_r3_what_was_said_is_told_when_its_content_is_at_hand() -> None:
    kept, teller = Kept(), Teller(0)
    locator = Locator(teller, kept, Metrics())
    located = await locator.locate("x:a", pull="update")
    assert located.head_response is not None
    await located.head_response.aclose()
    await locator.learned("x:a", DESCRIPTOR)
    located = await locator.locate("x:a", pull="update")
    assert located.head_response is None
    assert located.part.digest == DESCRIPTOR.digest
    assert teller.told == ["", '{"n":1}']
    assert kept.documents["x:a"].plugin == '{"n":2}'
