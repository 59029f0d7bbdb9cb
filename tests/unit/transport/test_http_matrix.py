"""What servers do, and what is known and kept already: the bytes are right, or the error is.

Each behaviour of a server meets five states of the store:

- nothing: the URL was never seen;
- fresh: the content is there, and its document may still be used without asking;
- stale: the content is there, and its document is too old;
- partial: the first part of the content is there, and its document is fresh;
- complete: the content is there, its document is too old, and nobody wants news (``pull = new``).

A cell is "right", or the code of the error. Where nothing needs to be asked, nothing is asked:
fresh and complete are right under every behaviour. Then the same behaviours at the first of two
mirrors of content that has a digest: the reader sees none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from cafs.errors import CafsError
from cafs.fetch import contents as fetching
from cafs.model.spec import Pull
from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.faults import (
    ChangedEtag,
    Drop,
    Fault,
    HangBeforeHead,
    IgnoreRange,
    NoLength,
    NoValidators,
    Rate,
    Redirect,
    Stall,
    Status,
    Truncate,
    WrongContentRange,
)
from cafs.testing.oddities import (
    Coded,
    Digested,
    Endless,
    LessThanAsked,
    NewAge,
    NoHead,
    OtherTotal,
    SeveralParts,
    Unsatisfiable,
)
from cafs.testing.origin import AUTO, Origin
from cafs.transport.http import HttpLimits
from tests.unit.transport.fetching import CALM, HASTY, HURRY, NOW, opened

BODY: Final = bytes(range(251)) * 2500
HEAD: Final = 256 << 10
"""What of the content is there in the state "partial"."""
AGE: Final = 100
PLACES: Final = {
    "none": ("nothing",),
    "whole": ("fresh", "complete", "stale"),
    "part": ("partial",),
}
"""The states, by what must be kept for them; those that ask nobody come first."""

Arrange: TypeAlias = Callable[[Origin, str], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A behaviour, and what becomes of it in each state where something is asked."""

    nothing: str = "right"
    stale: str = "right"
    partial: str = "right"
    faults: tuple[Fault, ...] = ()
    arrange: Arrange | None = None
    etag: str | None = AUTO
    undated: bool = False
    limits: HttpLimits = CALM
    asks: dict[str, int] = field(default_factory=dict)
    """How many requests, where that is the point."""


def hops(count: int) -> Arrange:
    """A chain of so many redirects, to the same content."""

    def arrange(origin: Origin, path: str) -> None:
        origin.put("/there", BODY)
        for hop in range(1, count):
            origin.put(f"/hop{hop}", b"")
            origin.fault(f"/hop{hop}", Redirect(f"/hop{hop + 1}" if hop < count - 1 else "/there"))
        origin.fault(path, Redirect("/hop1" if count > 1 else "/there"))

    return arrange


def elsewhere(origin: Origin, path: str) -> None:
    """A redirect to another host."""
    origin.put("/there", BODY)
    origin.fault(path, Redirect(f"http://localhost:{origin.port}/there"))


def inside(origin: Origin, path: str) -> None:
    """A redirect to where none may lead."""
    origin.fault(path, Redirect("http://10.255.255.1/there"))


class Signing:
    """A source whose redirects are signed; a cache before it keeps the first for too long."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self._stubborn = stubborn

    def __call__(self, origin: Origin, path: str) -> None:
        there = origin.put("/there", BODY)

        def sign(ask: Ask) -> Answer:
            past = ask.header("cache-control") == "no-cache" and not self._stubborn
            location = f"/signed?until={'later' if past else 'yesterday'}"
            return text_answer(302, "", (("Location", location),))

        def serve(ask: Ask) -> Answer:
            if "later" not in ask.query:
                return text_answer(403, "expired\n")
            return text_answer(307, "", (("Location", there),))

        origin.serve(path, sign)
        origin.serve("/signed", serve)


GONE: Final = Case(nothing="not-found", stale="not-found", partial="not-found")
BUSY: Final = "unreachable"
CASES: Final = {
    "ranges": Case(asks={"nothing": 2, "stale": 1, "partial": 1}),
    "200 for a range": Case(
        # What was there of the partial is not mixed with the whole.
        faults=(IgnoreRange(),),
        asks={"nothing": 1, "stale": 1, "partial": 2},
    ),
    "206 of another place": Case(
        faults=(WrongContentRange(),), nothing="refused", partial="refused"
    ),
    "206 of another total": Case(
        # It is believed until the server has nothing at the end of what it told.
        faults=(OtherTotal(),),
        nothing="source-changed",
        partial="source-changed",
    ),
    "206 of another total than at first": Case(
        faults=(OtherTotal(skip=1),), nothing="source-changed"
    ),
    "206 of less than was asked": Case(faults=(LessThanAsked(100_000),)),
    "206 in several parts": Case(faults=(SeveralParts(),), nothing="refused", partial="refused"),
    "416 whose total is the offset": Case(
        # The size was another when the first part came; a new reader begins at 0.
        faults=(Unsatisfiable(HEAD),),
        partial="source-changed",
    ),
    "416 without a reason": Case(faults=(Unsatisfiable(),), partial="refused"),
    "a body that is cut": Case(faults=(Drop(after_bytes=100_000, times=3),)),
    "a body that is shorter than its range": Case(
        faults=(Truncate(to=1000),), nothing="refused", partial="refused"
    ),
    "a range that never ends": Case(faults=(Endless(),), nothing="refused", partial="refused"),
    "a whole that never ends": Case(
        # Of unknown size it is bounded; where the size was known, it is another one now.
        faults=(IgnoreRange(), Endless()),
        nothing="unsupported",
        partial="source-changed",
    ),
    "chunks": Case(faults=(NoLength(),)),
    "chunks of a whole": Case(faults=(IgnoreRange(), NoLength())),
    "gzip": Case(faults=(Coded(),), nothing="refused", partial="refused"),
    "gzip for a whole": Case(faults=(IgnoreRange(), Coded()), nothing="refused", partial="refused"),
    "a weak ETag": Case(etag='W/"1"'),
    "no validator": Case(faults=(NoValidators(),), etag=None, undated=True),
    "Last-Modified only": Case(etag=None),
    "another version": Case(faults=(ChangedEtag(),), partial="source-changed"),
    "another version in between": Case(faults=(ChangedEtag(skip=1),), nothing="source-changed"),
    "304": Case(asks={"stale": 1}),
    "304 with another age": Case(faults=(NewAge(),), asks={"stale": 1}),
    "a redirect": Case(arrange=hops(1)),
    "ten redirects": Case(arrange=hops(10)),
    "eleven redirects": Case(
        arrange=hops(11), nothing="refused", stale="refused", partial="refused"
    ),
    "a redirect to another host": Case(arrange=elsewhere),
    "a redirect inside": Case(arrange=inside, nothing="policy", stale="policy", partial="policy"),
    "a signed URL that has expired": Case(arrange=Signing()),
    "signed URLs that are always expired": Case(
        arrange=Signing(stubborn=True),
        nothing="credentials",
        stale="credentials",
        partial="credentials",
    ),
    "404": Case(
        # What is known to exist is not said not to: its content cannot be had.
        faults=(Status(code=404),),
        nothing="not-found",
        stale="not-found",
        partial="refused",
    ),
    "410": Case(
        faults=(Status(code=410),), nothing="not-found", stale="not-found", partial="refused"
    ),
    "401": Case(
        faults=(Status(code=401),),
        nothing="credentials",
        stale="credentials",
        partial="credentials",
    ),
    "403": Case(
        faults=(Status(code=403),),
        nothing="credentials",
        stale="credentials",
        partial="credentials",
    ),
    "429 twice": Case(faults=(Status(code=429, headers=(("Retry-After", "1"),), times=2),)),
    "429": Case(faults=(Status(code=429),), nothing=BUSY, stale=BUSY, partial=BUSY),
    "500 twice": Case(faults=(Status(code=500, times=2),)),
    "503 with a date": Case(
        faults=(
            Status(code=503, headers=(("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),), times=2),
        )
    ),
    "503": Case(faults=(Status(code=503),), nothing=BUSY, stale=BUSY, partial=BUSY),
    "no HEAD": Case(faults=(NoHead(),)),
    "no answer": Case(
        faults=(HangBeforeHead(),),
        limits=HASTY,
        nothing="deadline",
        stale="deadline",
        partial="deadline",
    ),
    "no answer once": Case(faults=(HangBeforeHead(times=1),), limits=HASTY),
    "a body that stalls once": Case(
        faults=(Stall(after_bytes=100_000, skip=1, times=1),), limits=HASTY
    ),
    "a body that drips once": Case(faults=(Rate(100, skip=1, times=1),), limits=HASTY),
    "the digest of the whole": Case(faults=(Digested("Repr-Digest"),)),
    "the digest of the body": Case(faults=(Digested("Content-Digest"),)),
    "a wrong digest of the body": Case(
        faults=(Digested("Content-Digest", wrong=True),), nothing="content", partial="content"
    ),
    "a wrong digest of the second body": Case(
        faults=(Digested("Content-Digest", wrong=True, skip=1),), nothing="content"
    ),
    "a wrong digest of a whole": Case(
        faults=(IgnoreRange(), Digested("Repr-Digest", "sha-512", wrong=True)),
        nothing="content",
        partial="content",
    ),
    "a wrong digest of old": Case(
        faults=(IgnoreRange(), Digested("Digest", "SHA-256", wrong=True)),
        nothing="content",
        partial="content",
    ),
}


async def prepare(path: Path, url: str, state: str) -> None:
    """Bring the store into a state, as an earlier process would have."""
    if state == "nothing":
        return
    async with opened(path) as bench:
        content = await bench.located(url, "update")
        size = HEAD if state == "partial" else len(BODY)
        assert await content.read(0, size, HURRY) == BODY[:size]
        if state != "partial":
            with trio.fail_after(60):
                await bench.seen_whole.wait()


async def outcome(path: Path, url: str, state: str, limits: HttpLimits = CALM) -> str:
    """Read everything in a state: "right", or the code of the error. Never wrong bytes."""
    later = AGE if state in {"stale", "complete"} else AGE // 2
    pull: Pull = "new" if state == "complete" else "update"
    async with opened(path, NOW + later, limits) as bench:
        try:
            with trio.fail_after(30):
                content = await bench.located(url, pull)
                read = await content.read(0, len(BODY) + 1, HURRY)
        except CafsError as error:
            return error.code
        assert read == BODY, f"{state}: other bytes"
        return "right"


async def row(origin: Origin, tmp_path: Path, case: Case) -> dict[str, str]:
    """What becomes of a behaviour, by state."""
    found: dict[str, str] = {}
    for place, states in PLACES.items():
        path, store = f"/{place}", tmp_path / place
        modified = None if case.undated else 1_700_000_000
        url = origin.put(
            path, BODY, etag=case.etag, last_modified=modified, cache_control=f"max-age={AGE}"
        )
        await prepare(store, url, states[0])
        origin.fault(path, *case.faults)
        if case.arrange is not None:
            case.arrange(origin, path)
        for state in states:
            origin.forget()
            found[state] = await outcome(store, url, state, case.limits)
            asked = [one.method for one in origin.requests]
            silent = state in {"fresh", "complete"}
            expected = 0 if silent else case.asks.get(state, len(asked))
            assert asked == ["GET"] * expected, f"{state}: {origin.requests}"
    return found


@pytest.mark.parametrize("name", CASES)
async def test_a_server_that_sends(
    origin: Origin, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "UNSIZED_LIMIT", 2 << 20)
    case = CASES[name]
    told = {"nothing": case.nothing, "stale": case.stale, "partial": case.partial}
    assert await row(origin, tmp_path, case) == {**told, "fresh": "right", "complete": "right"}


@pytest.mark.expects_log("fetch.mirror")
@pytest.mark.parametrize("name", CASES)
async def test_with_a_digest_the_next_mirror_is_tried_after(
    origin: Origin, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    url = origin.put("/a", BODY, etag=case.etag)
    origin.fault("/a", *case.faults)
    if case.arrange is not None:
        case.arrange(origin, "/a")
    good = origin.put("/b", BODY)
    async with opened(tmp_path / "store", limits=case.limits) as bench:
        content = await bench.pinned(BODY, url, good)
        assert await content.read(0, len(BODY), HURRY) == BODY


async def test_a_304_with_another_age_is_fresh_for_that_long(
    origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/a", BODY, cache_control=f"max-age={AGE}")
    await prepare(tmp_path, url, "fresh")
    origin.fault("/a", NewAge("max-age=1000"))
    assert await outcome(tmp_path, url, "stale") == "right"
    origin.forget()
    async with opened(tmp_path, NOW + AGE + 999) as bench:
        await bench.located(url, "update")
    assert not origin.requests


async def test_what_a_wrong_digest_spoils_is_not_kept(origin: Origin, tmp_path: Path) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Digested("Content-Digest", wrong=True, skip=1))
    async with opened(tmp_path) as bench:
        content = await bench.located(url, "update")
        with pytest.raises(CafsError, match="its header says"):
            await content.read(HEAD, len(BODY) - HEAD, HURRY)
        assert not content.present()
