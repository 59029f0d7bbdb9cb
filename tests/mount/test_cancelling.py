"""``cafs inflight`` and ``cafs cancel``: what a person can see and end; what readers are told."""

import errno
import json
import os
import pwd
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

from cafs.control.fetches import SUFFIX
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Mount
from cafs.testing.faults import HangBeforeHead, Stall
from cafs.testing.origin import Origin
from tests.conftest import Cafs
from tests.forked import ForkedCafs, Forks

pytestmark = pytest.mark.fuse

MIB = 1 << 20
WAITING = '[mount]\npath = "cafs"\n[defaults]\non-error = "wait"\n'


class Reader(threading.Thread):
    """Does something once, in a thread; ``failure`` is its errno, 0 when it went well."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self.failure = -1
        self.start()

    @override
    def run(self) -> None:
        try:
            self._act()
        except OSError as error:
            self.failure = error.errno or -1
        else:
            self.failure = 0

    def outcome(self) -> int:
        self.join(60)
        return self.failure


def pread(path: Path, offset: int = 0) -> int:
    file = os.open(path, os.O_RDONLY)
    try:
        return len(os.pread(file, 4096, offset))
    finally:
        os.close(file)


def inflight(cafs: Cafs, *arguments: str | Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for line in cafs.run("inflight", "--json", *arguments).stdout.splitlines()
    ]


def when_fetching(cafs: Cafs, count: int = 1, name: str = "") -> list[dict[str, object]]:
    """What is in flight, once that many contents are asked for at their sources; of one ref."""
    limit = time.monotonic() + 60
    while True:
        found = [one for one in inflight(cafs) if one["name"] == name or not name]
        if len({one["id"] for one in found if one["url"]}) >= count:
            return found
        assert time.monotonic() < limit, found
        time.sleep(0.05)


def when_waiting(cafs: Cafs, spans: int) -> None:
    """Wait until that many ranges are asked for: who comes after a cancel is not told of it."""
    limit = time.monotonic() + 60
    while len({one["start"] for one in inflight(cafs) if one["url"]}) < spans:
        assert time.monotonic() < limit
        time.sleep(0.05)


def when_idle(cafs: Cafs) -> None:
    """Wait until nothing is in flight: what a reader has had may be the front of a range."""
    limit = time.monotonic() + 60
    while found := inflight(cafs):
        assert time.monotonic() < limit, found
        time.sleep(0.05)


def sockets(cafs: Cafs) -> list[str]:
    runtime = Path(cafs.environment["XDG_RUNTIME_DIR"], "cafs")
    return [path.name for path in runtime.iterdir() if path.name.endswith(SUFFIX)]


@contextmanager
def stalled(cafs: Cafs, origin: Origin, *flags: str) -> Iterator[Mount]:
    """A mount that waits for ever: a ref that stalls once its size is known, and a fine one."""
    urls = [origin.put(f"/{name}.bin", Generated(16 * MIB, seed=9)) for name in ("stuck", "fine")]
    toml = f'{WAITING}[ref.stuck]\nfrom = "{urls[0]}?key=hunter2"\n[ref.fine]\nfrom = "{urls[1]}"\n'
    with cafs.mount(toml, *flags) as mounted:
        assert mounted.ref("stuck").stat().st_size == 16 * MIB
        origin.fault("/stuck.bin", Stall(after_bytes=1000))
        try:
            yield mounted
        finally:
            origin.heal()


@pytest.mark.parametrize("flags", [(), ("--no-keeper",)])
def test_a_fetch_is_listed_and_cancelled_and_its_readers_are_told_why(
    cafs: Cafs, origin: Origin, flags: tuple[str, ...]
) -> None:
    with stalled(cafs, origin, *flags) as mounted:
        readers = [Reader(partial(pread, mounted.ref("stuck"), offset)) for offset in (0, 9 * MIB)]
        when_waiting(cafs, len(readers))
        (first, *_) = when_fetching(cafs)
        assert first["mount_point"] == str(mounted.path)
        assert first["name"] == "stuck"
        assert first["priority"] == "demand"
        assert "hunter2" not in json.dumps(first)
        shown = cafs.run("inflight", mounted.path).stdout
        assert str(first["id"]) in shown
        assert "hunter2" not in shown
        assert all(reader.is_alive() for reader in readers)
        done = cafs.run("cancel", str(first["id"]))
        assert done.stdout == "cancelled stuck\n"
        assert [reader.outcome() for reader in readers] == [errno.ECANCELED] * 2
        assert "cancelled" in os.getxattr(mounted.ref("stuck"), "user.cafs.error").decode()
        assert pread(mounted.ref("fine")) == 4096
        when_idle(cafs)
        assert cafs.run("inflight").stdout == "nothing is being fetched\n"
        # It was ended, not forbidden: who asks later is served.
        origin.heal()
        time.sleep(1.1)
        assert pread(mounted.ref("stuck")) == 4096
    assert sockets(cafs) == []


def test_all_of_one_mount_are_cancelled_and_none_of_another(cafs: Cafs, origin: Origin) -> None:
    with stalled(cafs, origin) as mounted, cafs.mount(None, "second") as second:
        one = Reader(lambda: pread(mounted.ref("stuck")))
        when_fetching(cafs)
        other = Reader(lambda: pread(second.ref("stuck"), 12 * MIB))
        when_fetching(cafs, 2)
        assert {each["mount_point"] for each in inflight(cafs, second.path)} == {str(second.path)}
        assert cafs.run("cancel", "--all", mounted.path).stdout == "cancelled stuck\n"
        assert one.outcome() == errno.ECANCELED
        assert other.is_alive()
        told = cafs.run("cancel", "--all", "--json").stdout
        assert json.loads(told) == {"cancelled": "stuck"}
        assert other.outcome() == errno.ECANCELED


def test_an_id_that_is_not_under_way_is_not_found(cafs: Cafs, origin: Origin) -> None:
    done = cafs.run("cancel", "0a1b2c3d", check=False)
    assert done.returncode == 3
    assert "no fetch 0a1b2c3d is under way" in done.stderr
    assert cafs.run("cancel", check=False).returncode == 2
    done = cafs.run("cancel", "--all")
    assert (done.stdout, done.stderr) == ("", "nothing is being fetched\n")
    done = cafs.run("inflight", cafs.directory, check=False)
    assert done.returncode == 8
    assert "no cafs is mounted" in done.stderr
    assert cafs.run("inflight").stdout == "nothing is being fetched\n"


def test_ls_of_an_archive_is_told(cafs: Cafs, origin: Origin) -> None:
    items = {f"f{number}": (0o644, bytes(MIB)) for number in range(20)}
    url = origin.put("/tree.tar", tar_bytes(items))
    with cafs.mount(f'{WAITING}[ref.tree]\nfrom = "{url}"\n') as mounted:
        origin.fault("/tree.tar", Stall(after_bytes=3 * MIB, skip=1))
        reader = Reader(lambda: os.listdir(mounted.ref("tree")))
        (first, *_) = when_fetching(cafs)
        cafs.run("cancel", str(first["id"]))
        assert reader.outcome() == errno.ECANCELED
        origin.heal()
        time.sleep(1.1)
        assert len(os.listdir(mounted.ref("tree"))) == 20


def test_a_question_what_a_ref_means_is_told_and_ended_too(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tree.tar", tar_bytes({"a": (0o644, b"a")}))
    origin.fault("/tree.tar", HangBeforeHead())
    with cafs.mount(f'{WAITING}[ref.tree]\nfrom = "{url}"\n') as mounted:
        readers = [Reader(partial(os.listdir, mounted.ref("tree"))) for _ in range(3)]
        origin.wait_until(bool)
        (asked,) = inflight(cafs)
        assert (asked["name"], asked["start"], asked["stop"]) == ("tree", 0, 0)
        assert "what it means" in cafs.run("inflight").stdout
        assert "fetching tree: what it means (demand)\n" in cafs.run("status").stdout
        assert cafs.run("cancel", str(asked["id"])).stdout == "cancelled tree\n"
        assert [reader.outcome() for reader in readers] == [errno.ECANCELED] * 3
        assert "cancelled" in os.getxattr(mounted.ref("tree"), "user.cafs.error").decode()
        origin.heal()
        time.sleep(1.1)
        assert os.listdir(mounted.ref("tree")) == ["a"]


def test_the_next_worker_is_listed_too_and_leaves_nothing(cafs: Cafs, origin: Origin) -> None:
    cafs.expect_log(r"cafs\.keeper")
    with stalled(cafs, origin) as mounted:
        reader = Reader(lambda: pread(mounted.ref("stuck")))
        (first, *_) = when_fetching(cafs)
        os.kill(mounted.worker, signal.SIGKILL)
        limit = time.monotonic() + 60
        while not (found := inflight(cafs)) or found[0]["pid"] == first["pid"]:
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert len(sockets(cafs)) == 1
        cafs.run("cancel", "--all", mounted.path)
        assert reader.outcome() == errno.ECANCELED
    assert sockets(cafs) == []


def test_a_prefetch_skips_what_was_cancelled(cafs: Cafs, origin: Origin) -> None:
    urls = [origin.put(f"/{name}.bin", Generated(2 * MIB, seed=3)) for name in ("a", "b")]
    cafs.project(f'{WAITING}[ref.a]\nfrom = "{urls[0]}"\n[ref.b]\nfrom = "{urls[1]}"\n')
    origin.fault("/a.bin", HangBeforeHead(skip=1))
    prefetch = cafs.popen("prefetch", "--json")
    try:
        (first, *_) = when_fetching(cafs, name="a")
        assert (first["mount_point"], first["pid"]) == (None, prefetch.pid)
        assert first["priority"] == "prefetch"
        cafs.run("cancel", str(first["id"]))
        out, err = prefetch.communicate(timeout=60)
    finally:
        prefetch.kill()
        prefetch.wait()
        origin.heal()
    assert prefetch.returncode == 5
    assert "the fetch was cancelled" in err
    lines = [json.loads(line) for line in out.splitlines()]
    done = {line["ref"]: line["downloaded"] for line in lines if line["done"]}
    assert done == {"b": 2 * MIB}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses who serves")
@pytest.mark.usefixtures("nobody_enters")
def test_root_reaches_a_worker_of_another_user(forks: Forks, origin: Origin) -> None:
    url = origin.put("/stuck.bin", Generated(MIB, seed=9))
    origin.fault("/stuck.bin", HangBeforeHead(skip=1))
    with tempfile.TemporaryDirectory() as scratch:  # a test's own directory is root's alone
        Path(scratch).chmod(0o755)
        cafs = ForkedCafs(Path(scratch, "world"), forks)
        toml = f'{WAITING}[ref.stuck]\nfrom = "{url}"\n'
        flags = ("--store", Path(scratch, "store"), "--user", "nobody")
        user = pwd.getpwnam("nobody")
        Path(scratch, "store").mkdir()
        os.chown(Path(scratch, "store"), user.pw_uid, user.pw_gid)
        with cafs.mount(toml, *flags) as mounted:
            assert mounted.ref("stuck").stat().st_size == MIB
            reader = Reader(partial(pread, mounted.ref("stuck")))
            (first, *_) = when_fetching(cafs)
            assert first["mount_point"] == str(mounted.path)
            assert os.stat(f"/proc/{first['pid']}").st_uid == user.pw_uid
            cafs.run("cancel", "--all", mounted.path)
            assert reader.outcome() == errno.ECANCELED
            origin.heal()
