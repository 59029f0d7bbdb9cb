"""Mirrors as programs and people meet them: right bytes, and who was wrong."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from cafs.testing.bodies import Generated
from cafs.testing.faults import Corrupt, Latency, Rate
from cafs.testing.origin import Origin, running_origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20
BODY = Generated(20 * MIB, seed=3)
SMALL = Generated(5 * MIB, seed=4)
PATH = "/data.bin"


@pytest.fixture
def other() -> Iterator[Origin]:
    """A second origin."""
    with running_origin() as running:
        yield running


def host(origin: Origin) -> str:
    return f"127.0.0.1:{origin.port}"


def project(first: Origin, second: Origin, body: Generated = BODY) -> str:
    """A ref with a digest, at one origin and at another."""
    return (
        f'[ref.data]\nfrom = "{first.put(PATH, body)}"\nintegrity = "sha256:{body.sha256()}"\n'
        f'mirrors = ["{second.put(PATH, body)}"]\n'
    )


def read_through(path: Path, step: int = 128 << 10) -> bytes:
    """All of a file by read(2)."""
    pieces = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(descriptor, step):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("corrupt", [0, 1], ids=["the first", "the second"])
def test_one_corrupt_byte_from_one_of_two_mirrors_reaches_nobody_and_names_the_mirror(
    cafs: Cafs, origin: Origin, other: Origin, corrupt: int
) -> None:
    cafs.expect_log("fetch.mirror.wrong")
    places = [origin, other]
    bad, good = places[corrupt], places[1 - corrupt]
    with cafs.mount(project(origin, other)) as mounted:
        bad.fault(PATH, Corrupt(at=0), Corrupt(at=BODY.size // 2), Corrupt(at=BODY.size - 1))
        good.fault(PATH, Latency(0.05))
        assert read_through(mounted.ref("data")) == BODY.read(0, BODY.size)

        def states() -> dict[str, str]:
            told = msgspec.json.decode((mounted.path / ".cafs/status.json").read_bytes())
            return {each["host"]: each["state"] for each in told["mirrors"]}

        assert bad.requests_for(PATH)
        until(lambda: states().get(host(bad)) == "wrong")
        assert states()[host(good)] == "ok"
        lines = [
            line for line in cafs.run("status").stdout.splitlines() if line.startswith("from ")
        ]
        (line,) = [each for each in lines if "wrong" in each]
        assert host(bad) in line
        assert "data" in line
        log = [line for line in mounted.log().splitlines() if "fetch.mirror.wrong" in line]
        assert len(log) == 1
        assert host(bad) in log[0]


def test_both_of_two_good_mirrors_bring_the_bytes(
    cafs: Cafs, origin: Origin, other: Origin
) -> None:
    # By the line that each has, and not by what the machine does meanwhile, neither is slow.
    for each in (origin, other):
        each.fault(PATH, Rate(16 * MIB, shared=True))
    with cafs.mount(project(origin, other)) as mounted:
        assert read_through(mounted.ref("data")) == BODY.read(0, BODY.size)
        told = msgspec.json.decode(cafs.run("status", "--json").stdout)
        facts = {each["host"]: each for each in told["mirrors"]}
        assert {each["state"] for each in facts.values()} == {"ok"}
        assert all(facts[host(place)]["bytes"] > MIB for place in (origin, other))
        assert sum(each["bytes"] for each in facts.values()) == BODY.size


def test_a_mirror_that_is_down_holds_nobody_up(cafs: Cafs, origin: Origin, other: Origin) -> None:
    toml = project(origin, other)
    origin.stop()
    with cafs.mount(toml) as mounted:
        began = time.monotonic()
        assert read_through(mounted.ref("data")) == BODY.read(0, BODY.size)
        assert time.monotonic() - began < 30
        line = next(
            line
            for line in cafs.run("status").stdout.splitlines()
            if line.startswith(f"from {host(origin)}")
        )
        assert "failing" in line


def test_y23_the_users_map_sends_requests_elsewhere_and_the_ref_stays(
    cafs: Cafs, origin: Origin, other: Origin
) -> None:
    url = origin.put(PATH, BODY)
    other.put(f"/mirror{PATH}", BODY)
    config = Path(cafs.environment["XDG_CONFIG_HOME"]) / "cafs" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'[map]\n"{origin.url("/")}" = "{other.url("/mirror/")}"\n')
    with cafs.mount(f'[ref.data]\nfrom = "{url}"\n') as mounted:
        assert read_through(mounted.ref("data")) == BODY.read(0, BODY.size)
        assert (
            os.getxattr(mounted.ref("data"), "user.cafs.ref").decode().endswith(quote(url, safe=""))
        )
        (ref,) = msgspec.json.decode(cafs.run("status", "--json").stdout)["refs"]
        assert ref["sources"] == [url]
    assert not origin.requests
    assert other.requests


@pytest.mark.parametrize(
    "lie",
    [SMALL.read(0, MIB + 5), b"<html>gone\n", b"x" * (6 * MIB)],
    ids=["part of a file", "an error page", "a longer file"],
)
@pytest.mark.parametrize("first", [True, False], ids=["the first lies", "the second lies"])
def test_a_mirror_that_lies_about_the_size_of_pinned_content_deceives_nobody(
    cafs: Cafs, origin: Origin, other: Origin, lie: bytes, first: bool
) -> None:
    cafs.expect_log("fetch.mirror.wrong")
    toml = project(origin, other, SMALL)
    (origin if first else other).put(PATH, lie)
    with cafs.mount(toml) as mounted:
        path = mounted.ref("data")
        assert path.stat().st_size == SMALL.size
        assert read_through(path) == SMALL.read(0, SMALL.size)
    with cafs.mount(toml) as mounted:
        assert read_through(mounted.ref("data")) == SMALL.read(0, SMALL.size)


def test_an_error_page_in_the_place_of_pinned_content_is_forgotten_by_the_next_mount(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put(PATH, b"<html>we are back soon</html>")
    toml = f'[ref.data]\nfrom = "{url}"\nintegrity = "sha256:{BODY.sha256()}"\n'
    with cafs.mount(toml) as mounted, pytest.raises(OSError, match="Bad message"):
        mounted.ref("data").read_bytes()
    origin.put(PATH, BODY)
    with cafs.mount(toml) as mounted:
        assert mounted.ref("data").stat().st_size == BODY.size
        assert read_through(mounted.ref("data")) == BODY.read(0, BODY.size)
