"""Readers that wait for a silent origin: they can be killed, and hold up nobody else."""

import errno
import hashlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import HangBeforeHead, Rate
from cafs.testing.loading import Reader, compiled
from cafs.testing.origin import Origin
from cafs.testing.soaking import Keeper

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SLOW_S = 20.0
"""How much longer than it should anything may take on a machine that does other things too."""
GONE_S = 1.5 + SLOW_S
BEYOND_S = 0.05
READERS = 100


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("reader", tmp_path_factory.mktemp("reader"))


@contextmanager
def hanging(cafs: Cafs, origin: Origin) -> Iterator[Mount]:
    """A mount of a file whose bytes, one whose size, and a tree whose content never come."""
    known = origin.put("/known.bin", Generated(256 * MIB, seed=10))
    unknown = origin.put("/unknown.bin", Generated(MIB, seed=11))
    tree = origin.put("/tree.tar", tar_bytes({"a": (0o644, b"alpha")}))
    names = [f"f{number:03}" for number in range(100)]
    fine = origin.put("/fine.tar", tar_bytes({n: (0o644, n.encode() * 99) for n in names}))
    # The first request tells the size.
    origin.fault("/known.bin", HangBeforeHead(skip=1))
    origin.fault("/unknown.bin", HangBeforeHead())
    origin.fault("/tree.tar", HangBeforeHead())
    toml = '[mount]\npath = "cafs"\n[defaults]\ndeadline = "120s"\n' + "".join(
        f'[ref.{name}]\nfrom = "{url}"\n'
        for name, url in (("known", known), ("unknown", unknown), ("tree", tree), ("fine", fine))
    )
    with cafs.mount(toml) as mount:
        assert mount.ref("known").stat().st_size == 256 * MIB
        assert len(os.listdir(mount.ref("fine"))) == len(names)
        try:
            yield mount
        finally:
            origin.heal()


@pytest.mark.parametrize(
    "wait", ["read known", "map known", "stat unknown", "list tree"], ids=lambda wait: wait[:4]
)
def test_a_killed_reader_is_gone_and_so_is_its_fetch(
    cafs: Cafs, origin: Origin, reader: Path, wait: str
) -> None:
    verb, name = wait.split()
    with hanging(cafs, origin) as mount:
        keeper = Keeper(mount.control)
        asked = len(origin.requests)
        with Reader(reader, verb, mount.ref(name), 100 * MIB + 5) as blocked:
            origin.wait_until(lambda log: len(log) > asked)
            keeper.wait_until(lambda now: now.waiting >= 1)
            assert blocked.process.poll() is None
            began = time.monotonic()
            blocked.process.kill()
            blocked.process.wait(GONE_S)
            origin.wait_until(lambda log: all(one.ended and one.aborted for one in log[asked:]))
            assert time.monotonic() - began < GONE_S
        now = keeper.wait_until(lambda now: now.waiting == 0)
        assert now.interrupted >= 1
        assert now.workers == 1
        origin.heal()
        assert mount.ref("unknown").read_bytes() == origin.expected("/unknown.bin")
        assert (mount.ref("tree") / "a").read_bytes() == b"alpha"


def test_a_reader_that_is_left_keeps_the_fetch_that_it_shared(
    cafs: Cafs, origin: Origin, reader: Path
) -> None:
    with hanging(cafs, origin) as mount:
        keeper, asked = Keeper(mount.control), len(origin.requests)
        with (
            Reader(reader, "read", mount.ref("known"), 100 * MIB) as killed,
            Reader(reader, "read", mount.ref("known"), 100 * MIB + 300_000) as left,
        ):
            origin.wait_until(lambda log: len(log) > asked)
            keeper.wait_until(lambda now: now.waiting >= 1)
            killed.process.kill()
            killed.process.wait(GONE_S)
            keeper.wait_until(lambda now: now.interrupted >= 1)
            assert left.process.poll() is None
            origin.heal()
            assert left.process.wait(60) == 0


def test_a_rain_of_signals_disturbs_no_read(cafs: Cafs, origin: Origin, reader: Path) -> None:
    body = Generated(16 * MIB, seed=12)
    url = origin.put("/slow.bin", body)
    origin.fault("/slow.bin", Rate(8 * MIB))
    with (
        cafs.mount(f'[ref.slow]\nfrom = "{url}"\n') as mount,
        Reader(reader, "signalled", mount.ref("slow")) as rained,
    ):
        out, said = rained.process.communicate(timeout=60)
        assert rained.process.returncode == 0, said
        assert hashlib.sha256(out).hexdigest() == body.sha256()
        assert int(said.split()[-1]) > 500


def refused(place: Path) -> None:
    with pytest.raises(OSError) as caught:
        place.mkdir()
    assert caught.value.errno == errno.EROFS


def longest_of(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """How long each action takes, in s: the median of so many."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in found.items()}


def test_100_readers_that_are_stuck_hold_up_nobody(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    with hanging(cafs, origin) as mount:
        fresh = iter(sorted(mount.ref("fine").iterdir()))
        elsewhere = iter(range(1000))
        actions: dict[str, Callable[[], object]] = {
            "read": lambda: next(fresh).read_bytes(),
            # The kernel has never heard of the name, so it asks.
            "stat": lambda: os.path.exists(mount.ref("fine") / str(next(elsewhere))),
            "mkdir": lambda: os.mkdir(tmp_path / str(next(elsewhere))),
            "refused mkdir": lambda: refused(mount.path / "ref" / str(next(elsewhere))),
            "ls": lambda: os.listdir(mount.ref("fine")),
            "ls ref": lambda: os.listdir(mount.path / "ref"),
        }
        alone = longest_of(actions, 25)
        stuck = [
            threading.Thread(target=wait_for_byte, args=(mount.ref("known"), n * 2 * MIB))
            for n in range(READERS - 1)
        ]
        stuck.append(threading.Thread(target=mount.ref("unknown").stat))
        for thread in stuck:
            thread.start()
        Keeper(mount.control).wait_until(lambda now: now.waiting >= READERS)
        crowded = longest_of(actions, 25)
        assert all(thread.is_alive() for thread in stuck)
        beyond = {name: crowded[name] - alone[name] for name in actions}
        assert max(beyond.values()) < BEYOND_S + SLOW_S / 10, beyond
        origin.heal()
        for thread in stuck:
            thread.join()


def wait_for_byte(path: Path, offset: int) -> None:
    with path.open("rb", buffering=0) as opened:
        assert len(os.pread(opened.fileno(), 1, offset)) == 1
