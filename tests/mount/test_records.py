"""What a mount leaves in the store: nothing, once it has ended, whoever ended it and however."""

import os
import signal
import time
from collections.abc import Callable

import pytest
import trio

from cafs.store.store import open_store
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse


def leases(cafs: Cafs) -> list[str]:
    return sorted(path.name for path in (cafs.store / "leases").glob("mount-*"))


def records(cafs: Cafs) -> int:
    """How many mounts the store knows, those included that are half removed."""

    async def count() -> int:
        async with open_store(cafs.store) as store:
            tables = store.mounts._tables
            with tables.recent.read() as snapshot:
                return len(tables.all(snapshot))

    return trio.run(count)


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def toml(origin: Origin) -> str:
    url = origin.put("/data.tar", tar_bytes({"a": (0o644, b"alpha")}))
    return f'[mount]\npath = "cafs"\n[ref.data]\nfrom = "{url}"\n'


@pytest.mark.parametrize("flags", [(), ("--no-keeper",)])
def test_a_mount_is_recorded_while_it_lives_and_forgotten_when_it_is_unmounted(
    cafs: Cafs, toml: str, flags: tuple[str, ...]
) -> None:
    with cafs.mount(toml, *flags) as mounted:
        assert (mounted.ref("data") / "a").read_bytes() == b"alpha"
        assert (records(cafs), len(leases(cafs))) == (1, 1)
    assert (records(cafs), leases(cafs)) == (0, [])


@pytest.mark.parametrize("flags", [(), ("--no-keeper",)])
def test_what_a_killed_mount_left_goes_with_the_next(
    cafs: Cafs, toml: str, flags: tuple[str, ...]
) -> None:
    cafs.project(toml)
    with cafs.mount(toml, *flags) as mounted:
        assert (mounted.ref("data") / "a").read_bytes() == b"alpha"
        (former,) = leases(cafs)
        worker = mounted.worker
        os.kill(mounted.pid, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{worker}"))
        # The dead mount is in the way of the command that mounts again; it cleans up.
        cafs.run("mount", *flags)
        until(lambda: former not in leases(cafs) and records(cafs) == 1)
        assert len(leases(cafs)) == 1
        assert (mounted.ref("data") / "a").read_bytes() == b"alpha"
    until(lambda: leases(cafs) == [])


def test_commands_leave_nothing(cafs: Cafs, toml: str) -> None:
    cafs.project(toml)
    cafs.run("prefetch", "-q")
    cafs.run("ls", "data")
    cafs.run("cat", "data/a")
    cafs.run("resolve", "data")
    assert (records(cafs), leases(cafs)) == (0, [])
