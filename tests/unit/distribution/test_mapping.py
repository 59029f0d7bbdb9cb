"""Mapping: other URLs are asked, what a ref is stays; and nobody is asked but those configured."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cafs.errors import CredentialsError, NotFoundError, SourceChangedError
from cafs.model.digest import digest_of
from cafs.model.mapping import MapRule
from cafs.testing.faults import ChangedEtag, Status
from cafs.testing.origin import Origin, running_origin
from tests.unit.distribution.conftest import USUAL, OpenWorld

DATA = b"0123456789" * 5000
PIN = str(digest_of(DATA))


@dataclass
class Places:
    """The original, which must not be asked, and two places that it is mapped to."""

    original: Origin
    near: Origin
    far: Origin
    rules: tuple[MapRule, ...] = field(init=False)

    def __post_init__(self) -> None:
        targets = (self.near.url("/mirror/"), self.far.url("/mirror/"))
        self.rules = (MapRule(self.original.url("/files/"), targets),)

    def put(self, name: str, data: bytes) -> str:
        """Serve it at all three; its URL."""
        self.near.put(f"/mirror/{name}", data)
        self.far.put(f"/mirror/{name}", data)
        return self.original.put(f"/files/{name}", data)


@pytest.fixture
def places() -> Iterator[Places]:
    """Three origins."""
    with running_origin() as one, running_origin() as two, running_origin() as three:
        yield Places(one, two, three)


class Watch:
    """Hears of every connection that this process begins; audit hooks stay, so there is one."""

    def __init__(self) -> None:
        self.heard: list[object] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.heard is not None and event == "socket.connect":
            self.heard.append(arguments[1])
        elif self.heard is not None and event in {"socket.getaddrinfo", "socket.gethostbyname"}:
            self.heard.append(arguments[:2])

    @contextmanager
    def listening(self) -> Iterator[list[object]]:
        """Whom it was connected to, or looked up, in the block."""
        heard: list[object] = []
        self.heard = heard
        try:
            yield heard
        finally:
            self.heard = None


WATCH = Watch()


def only(heard: list[object], *allowed: Origin) -> bool:
    """Whether nobody but these was connected to, and no name was looked up."""
    return {("127.0.0.1", each.port) for each in allowed}.issuperset(heard)


@pytest.mark.parametrize("pinned", [False, True])
async def test_y23_only_the_mapped_urls_are_asked(
    places: Places, mounted: OpenWorld, pinned: bool
) -> None:
    url = places.put("a", DATA)
    with WATCH.listening() as heard:
        async with mounted(rules=places.rules) as world:
            spec = world.spec(url, integrity=PIN if pinned else None)
            resolved = await world.resolver.resolve(spec, USUAL)
            assert resolved.parts[0].urls == (url,)
            assert await world.file(spec) == DATA
    assert heard
    assert only(heard, places.near, places.far)
    assert not places.original.requests


async def test_the_watch_hears_of_connections_that_are_not_allowed(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.put("a", DATA)
    with WATCH.listening() as heard:
        async with mounted() as world:
            assert await world.file(world.spec(url)) == DATA
    assert not only(heard, places.near, places.far)


@pytest.mark.parametrize("fault", [Status(404), Status(401), Status(503)])
@pytest.mark.parametrize("pinned", [False, True])
async def test_the_next_target_is_asked_when_the_first_has_it_not(
    places: Places, mounted: OpenWorld, fault: Status, pinned: bool
) -> None:
    url = places.put("a", DATA)
    places.near.fault("/mirror/a", fault)
    async with mounted(rules=places.rules) as world:
        assert await world.file(world.spec(url, integrity=PIN if pinned else None)) == DATA
    assert not places.original.requests


async def test_content_without_a_digest_is_read_where_it_was_located(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.put("a", DATA)
    places.near.fault("/mirror/a", Status(503, times=1))
    places.near.fault("/mirror/a", ChangedEtag('"of the near one"'))
    async with mounted(rules=places.rules) as world:
        resolved = await world.resolver.resolve(world.spec(url), USUAL)
        assert resolved.parts[0].at == places.far.url("/mirror/a")
        asked = len(places.near.requests)
        assert await world.file(world.spec(url)) == DATA
        assert len(places.near.requests) == asked


async def test_what_was_located_elsewhere_is_located_again_when_the_settings_map_otherwise(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.original.put("/files/a", DATA, cache_control="max-age=1000")
    places.near.put("/mirror/a", DATA, cache_control="max-age=1000")
    async with mounted(rules=places.rules) as world:
        assert await world.file(world.spec(url)) == DATA
    places.near.forget()
    async with mounted(rules=places.rules) as world:
        assert await world.file(world.spec(url)) == DATA
    assert not places.near.requests  # it is fresh, and in the store
    places.far.put("/other/a", DATA + b"more")
    rules = (MapRule(places.original.url("/files/"), (places.far.url("/other/"),)),)
    async with mounted(rules=rules) as world:
        assert await world.file(world.spec(url)) == DATA + b"more"
    assert not places.near.requests
    assert not places.original.requests


async def test_a_version_that_another_target_told_is_not_told_to_this_one(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.put("a", DATA)
    for each in (places.near, places.far):
        each.put("/mirror/a", DATA, etag='"1"')
    places.far.put("/mirror/a", DATA[::-1], etag='"1"')
    async with mounted(rules=places.rules) as world:
        assert await world.file(world.spec(url)) == DATA
    places.near.remove("/mirror/a")
    async with mounted(rules=places.rules) as world:
        assert await world.file(world.spec(url)) == DATA[::-1]


async def test_a_file_may_stand_for_a_url(
    places: Places, mounted: OpenWorld, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(DATA)
    url = places.original.url("/files/a")
    rules = (MapRule(places.original.url("/files/"), (f"file://{tmp_path}/",)),)
    for _ in range(2):
        async with mounted(rules=rules) as world:
            assert await world.file(world.spec(url)) == DATA
    assert not places.original.requests


async def test_a_source_that_changes_is_a_changed_source(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.put("a", DATA)
    async with mounted(rules=places.rules) as world:
        spec = world.spec(url)
        content = await world.resolver.file(spec, USUAL)
        places.near.put("/mirror/a", DATA[::-1])
        with pytest.raises(SourceChangedError):
            await world.read(content)


async def test_when_no_target_has_it_the_first_failure_is_told(
    places: Places, mounted: OpenWorld
) -> None:
    url = places.original.put("/files/a", DATA)
    places.near.put("/mirror/a", DATA)
    places.near.fault("/mirror/a", Status(403))
    async with mounted(rules=places.rules) as world:
        with pytest.raises(CredentialsError, match="403"):
            await world.file(world.spec(url))
        with pytest.raises(NotFoundError):
            await world.file(world.spec(places.original.url("/files/b"), integrity=PIN))
    assert not places.original.requests
