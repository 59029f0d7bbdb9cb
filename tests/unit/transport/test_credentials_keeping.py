"""For how long credentials are kept, and how often they are looked for."""

import trio
from typing_extensions import override

from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.interfaces import Asked, Keyring
from cafs.transport.credentials.keeping import Credentials

SITE = "https://example.com/a"
REGISTRY = "https://example.com/v2/a/manifests/b"


class Clock:
    """Seconds since the epoch, as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ring(Keyring):
    """Has what a test puts in."""

    def __init__(self, credential: Credential | None, *, fails: bool = False) -> None:
        self.credential = credential
        self.fails = fails
        self.asked: list[Asked] = []

    @override
    async def look(self, asked: Asked) -> Finding:
        self.asked.append(asked)
        await trio.sleep(0.01)
        if self.fails:
            raise UnusableError("ring", "broken")
        return Finding(self.credential, (Look("ring", "x", found=self.credential is not None),))


def bearer(token: str, expires_s: float | None = None) -> Credential:
    return Credential.headers([("Authorization", f"Bearer {token}")], "ring", expires_s)


async def test_many_who_want_the_same_wait_for_one_search(autojump_clock: object) -> None:
    ring = Ring(bearer("a"))
    credentials = Credentials([ring])
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(credentials.of, f"https://example.com/{number}?{number}")
    assert len(ring.asked) == 1
    assert "?" not in ring.asked[0].url


async def test_what_says_no_end_is_kept_for_five_minutes(autojump_clock: object) -> None:
    ring, clock = Ring(bearer("a")), Clock()
    credentials = Credentials([ring], clock=clock)
    for clock.now in (1000.0, 1299.0, 1301.0):
        await credentials.of(SITE)
    assert len(ring.asked) == 2


async def test_what_says_its_end_is_looked_for_before_it(autojump_clock: object) -> None:
    ring, clock = Ring(bearer("a", 2000.0)), Clock()
    credentials = Credentials([ring], clock=clock)
    for clock.now in (1000.0, 1969.0, 1971.0):
        await credentials.of(SITE)
    assert len(ring.asked) == 2
    ring.credential = bearer("b", 1980.0)
    for clock.now in (2000.0, 2000.5):  # over when it came: not for each request again
        await credentials.of(SITE)
    assert len(ring.asked) == 3


async def test_nothing_and_what_fails_are_looked_for_again_soon(autojump_clock: object) -> None:
    for ring in (Ring(None), Ring(bearer("a"), fails=True)):
        clock = Clock()
        credentials = Credentials([ring], clock=clock)
        for clock.now in (1000.0, 1009.0):
            assert (await credentials.of(SITE)).credential is None
        assert len(ring.asked) == 1
        ring.credential, ring.fails = bearer("a"), False
        clock.now = 1011.0
        assert (await credentials.of(SITE)).credential is not None


async def test_many_refusals_are_one_renewal(autojump_clock: object) -> None:
    ring = Ring(bearer("old"))
    credentials = Credentials([ring])
    old = (await credentials.of(SITE)).credential
    assert old is not None
    ring.credential = bearer("new")
    found: list[Finding | None] = []

    async def refused() -> None:
        found.append(await credentials.renewed(SITE, old))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(refused)
    await refused()  # one that was slower than all of them
    assert len(ring.asked) == 2
    assert {each and each.credential for each in found} == {ring.credential}


async def test_what_stays_the_same_is_not_renewed_for_some_seconds(autojump_clock: object) -> None:
    ring, clock = Ring(bearer("old")), Clock()
    credentials = Credentials([ring], clock=clock)
    old = (await credentials.of(SITE)).credential
    assert old is not None
    for _ in range(5):
        assert await credentials.renewed(SITE, old) is None
    assert len(ring.asked) == 2
    ring.credential = bearer("new")
    clock.now += 11
    found = await credentials.renewed(SITE, old)
    assert found is not None
    assert found.credential == ring.credential


async def test_origins_and_registries_are_kept_apart(autojump_clock: object) -> None:
    ring = Ring(bearer("a"))
    credentials = Credentials([ring])
    for url in (SITE, REGISTRY, "https://example.com:8443/", "http://localhost/", SITE, REGISTRY):
        await credentials.of(url)
    assert [each.registry for each in ring.asked] == [False, True, False, False]


async def test_a_search_that_was_cancelled_is_done_by_the_next(autojump_clock: object) -> None:
    ring = Ring(bearer("a"))
    credentials = Credentials([ring])
    with trio.move_on_after(0.001):
        await credentials.of(SITE)
    assert (await credentials.of(SITE)).credential == ring.credential
    assert len(ring.asked) == 2
