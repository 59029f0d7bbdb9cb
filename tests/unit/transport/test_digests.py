"""Digests in headers: which are read, what they are of, and that a body is held to them."""

import base64
import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given, settings, strategies as st

from cafs.errors import ContentError
from cafs.model.digest import Digest
from cafs.model.span import Span
from cafs.testing.faults import Corrupt, NoLength
from cafs.testing.oddities import Digested
from cafs.testing.origin import Origin
from cafs.transport.digests import Checking, told
from cafs.transport.interfaces import Request, Response
from tests.unit.transport.clients import opened, read

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).digest()
SHA512 = hashlib.sha512(BODY).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("field", ["content-digest", "repr-digest"])
@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"sha-256=:{b64(SHA256)}:", "sha256"),
        (f"sha-512=:{b64(SHA512)}:", "sha512"),
        (f"sha-512=:{b64(SHA512)}:, sha-256=:{b64(SHA256)}:", "sha256"),
        (f"unixsum=:AAA=:,  sha-256=:{b64(SHA256)}:;q=1", "sha256"),
        (f"sha-256=:AAAA:, sha-512=:{b64(SHA512)}:", "sha512"),
        (f"sha-256=:{b64(SHA512)}:", None),
        (f"sha-256={b64(SHA256)}", None),
        (f"SHA-256=:{b64(SHA256)}:", None),
        ("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:", None),
        ("sha-256=::", None),
        ("sha-256=:!!!!:", None),
        ("sha-256", None),
        ("", None),
    ],
)
def test_rfc9530_a_digest_is_read(field: str, text: str, algorithm: str | None) -> None:
    digests = {"sha256": Digest("sha256", SHA256), "sha512": Digest("sha512", SHA512)}
    expected = (digests[algorithm],) if algorithm else ()
    assert told({field: text}, whole=True) == expected


@pytest.mark.parametrize(
    "text", [f"SHA-256={b64(SHA256)}", f"md5=abc=, sha-256={b64(SHA256)}", f"Sha-256={b64(SHA256)}"]
)
def test_rfc3230_an_old_digest_is_read(text: str) -> None:
    assert told({"digest": text}, whole=True) == (Digest("sha256", SHA256),)


@pytest.mark.parametrize(
    ("headers", "whole", "count"),
    [
        ({"repr-digest": f"sha-256=:{b64(SHA256)}:"}, False, 0),
        ({"digest": f"sha-256={b64(SHA256)}"}, False, 0),
        ({"content-digest": f"sha-256=:{b64(SHA256)}:"}, False, 1),
        (
            {
                "repr-digest": f"sha-256=:{b64(SHA256)}:",
                "content-digest": f"sha-256=:{b64(SHA256)}:",
            },
            True,
            1,
        ),
        (
            {
                "repr-digest": f"sha-256=:{b64(SHA256)}:",
                "content-digest": f"sha-512=:{b64(SHA512)}:",
            },
            True,
            2,
        ),
    ],
)
def test_a_part_is_not_held_to_the_digest_of_the_whole(
    headers: Mapping[str, str], whole: bool, count: int
) -> None:
    assert len(told(headers, whole=whole)) == count


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_digest_or_none(text: str) -> None:
    fields = ("content-digest", "repr-digest", "digest")
    assert isinstance(told(dict.fromkeys(fields, text), whole=True), tuple)


async def test_a_check_is_of_all_pieces() -> None:
    for wrong in (b"", b"!"):
        check = Checking("name", (Digest("sha512", SHA512),))
        for start in range(0, len(BODY), 100_000):
            await check.take(BODY[start : start + 100_000])
        await check.take(wrong)
        if not wrong:
            check.finish()
            continue
        with pytest.raises(ContentError, match="name: its header says sha512:"):
            check.finish()


FIELDS = [("Repr-Digest", "sha-256"), ("Content-Digest", "sha-512"), ("Digest", "SHA-256")]


@pytest.mark.parametrize(("field", "algorithm"), FIELDS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_whole_that_is_not_what_its_header_says_is_no_content(
    origin: Origin, field: str, algorithm: str, *, chunked: bool
) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Digested(field, algorithm), *([NoLength()] if chunked else []))
    async with opened() as transport:
        assert await read(transport, Request(url)) == BODY
        origin.fault("/a", Corrupt(at=200_000))
        with pytest.raises(ContentError, match="its header says") as caught:
            await read(transport, Request(url))
    assert not caught.value.transient


async def test_a_part_is_held_to_its_own_digest(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Digested("Content-Digest"))
    span = Span(1000, 100_000)
    async with opened() as transport:
        assert await read(transport, Request(url, span)) == BODY[1000:100_000]
        origin.fault("/a", Corrupt(at=99_999))
        with pytest.raises(ContentError):
            await read(transport, Request(url, span))


async def test_the_last_bytes_are_not_given_out_before_the_check(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Digested("Content-Digest"), Corrupt(at=0))
    received: list[int] = []

    async def take(response: Response) -> None:
        # As a reader does that knows how much it wants, and never asks for the end.
        while sum(received) < len(BODY):
            received.append(len(await response.receive()))

    async with opened() as transport, await transport.open(Request(url)) as response:
        with pytest.raises(ContentError):
            await take(response)
    assert sum(received) < len(BODY)


async def test_a_head_and_what_is_unchanged_have_no_body_to_check(origin: Origin) -> None:
    url = origin.put("/a", BODY, headers=(("Repr-Digest", f"sha-256=:{b64(SHA512[:32])}:"),))
    async with opened() as transport:
        async with await transport.open(Request(url, method="HEAD")) as response:
            assert await response.receive() == b""
            version = response.head.validator
        async with await transport.open(Request(url, if_changed=version)) as response:
            assert response.head.unchanged
