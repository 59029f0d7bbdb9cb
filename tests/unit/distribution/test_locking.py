"""Locking beside who reads: nothing that is mounted is touched, and errors come as they are."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cafs.distribution import lock_reading
from cafs.distribution.locking import Located, Locker, Reports
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.testing import tabled
from cafs.testing.archives import file, tar_bytes, zip_archive
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, World
from tests.unit.distribution.test_tables import serve

UNHEARD = Reports()


async def lock(world: World, text: str, folder: Path, reports: Reports = UNHEARD) -> Located:
    await trio.Path(folder).mkdir()
    locker = Locker(world.store, world.resolver, world.fetcher, Limits())
    return await locker.locate(world.spec(text), folder, reports, USUAL)


TAR = tar_bytes({"a/b": (0o644, b"beta" * 1000), "c": (0o644, b"gamma")}, compression="gz")


async def test_a_tree_that_does_not_tell_all_stays_as_it_is_mounted(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    """Such as another version has made, with no segments; a mount may be reading it."""
    url = f"archive+{origin.put('/t.tgz', TAR)}"
    (right,) = (await lock(world, url, tmp_path / "first")).indexes.values()
    trees = world.store.trees
    (made,) = trees.all()
    with trees.writer(made.identity) as writer:
        for entry, _ in trees.rows(made.number):
            if entry.name:
                writer.add(entry)
        shown = writer.publish(made.streams, made.digest)
    (stream,) = shown.streams
    before = world.store.streams.find(stream.key)
    assert before is not None
    generation = before.incarnation()
    (index,) = (await lock(world, url, tmp_path / "again")).indexes.values()
    assert index.read_bytes() == right.read_bytes()
    assert list(trees.all()) == [shown]
    after = world.store.streams.find(stream.key)
    assert after is not None
    assert after.incarnation() == generation


async def test_of_several_layers_the_error_of_the_one_that_failed_is_raised(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    """And not a group, in which nobody sees that the disk is full, say."""
    good = tabled.zstd_chunked([file("a", "alpha")])
    bad = replace(good, data=b"no archive" * 100)
    with pytest.raises((MalformedError, UnsupportedError)):
        await lock(world, serve(origin, good, bad), tmp_path / "new")


class Heard:
    """What was told of one stage: how far it is, and of how much."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


TARS = [tar_bytes({name: (0o644, name.encode() * 300_000)}, compression="gz") for name in "ab"]
LARGE = tar_bytes({"a": (0o644, random.Random(1).randbytes(3 << 20))})
ZIP = zip_archive([file("a", "alpha" * 1000), file("b", "beta")])
ZIP_READ = len(ZIP) + 5004


@pytest.mark.parametrize(
    ("raw", "total"),
    [(TARS[0], len(TARS[0])), (LARGE, len(LARGE)), (ZIP, ZIP_READ)],
    ids=["tgz", "tar", "zip"],
)
@pytest.mark.parametrize("again", [False, True])
async def test_what_is_read_of_what_has_come_is_told_to_its_end(
    world: World, origin: Origin, tmp_path: Path, *, raw: bytes, total: int, again: bool
) -> None:
    """Also where a pass was made before, and nothing is read."""
    url = f"archive+{origin.put('/archive', raw)}"
    if again:
        await lock(world, url, tmp_path / "before")
    fetched, read = Heard(), Heard()
    await lock(world, url, tmp_path / "now", Reports(fetched, read))
    assert fetched.told[-1] == (len(raw), len(raw))
    assert read.told[0] == (0, len(raw))
    assert read.told[-1] == (total, total)
    assert read.told == sorted(read.told)


async def test_a_pass_tells_how_far_it_is_while_it_reads(
    world: World, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_reading, "REPORT_S", 0.0)
    read = Heard()
    await lock(world, f"archive+{origin.put('/t.tar', LARGE)}", tmp_path / "n", Reports(read=read))
    steps = {done for done, _ in read.told}
    assert len(steps) > 3
    assert {0, len(LARGE)} < steps


async def test_of_layers_that_are_read_at_once_the_sum_is_told(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    layers = [tabled.zstd_chunked([file(name, name * 1000)]) for name in "abc"]
    read = Heard()
    await lock(world, serve(origin, *layers), tmp_path / "now", Reports(read=read))
    total = sum(len(layer.data) for layer in layers)
    assert (read.told[0], read.told[-1]) == ((0, total), (total, total))


async def test_what_is_larger_than_a_lock_may_say_is_refused_before_it_is_fetched(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/large", b"x" * 3_000_000)
    locker = Locker(world.store, world.resolver, world.fetcher, Limits(size=2_999_999))
    with pytest.raises(UnsupportedError, match="3000000 bytes; 2999999 are the most"):
        await locker.locate(world.spec(f"blob+{url}"), tmp_path, UNHEARD, USUAL)
    assert origin.bytes_sent("/large") < 1_000_000
