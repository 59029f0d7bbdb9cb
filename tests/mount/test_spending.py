"""A mount's budget through read(2): whoever serves the mount, and whoever fetches for it."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.store.store import open_store
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 8 * MIB


def project(url: str, budget: str) -> str:
    return f'[mount]\npath = "cafs"\nbudget = "{budget}"\n[ref.big]\nfrom = "{url}"\n'


def read(path: Path, offset: int) -> int:
    """The errno of reading 4 KiB, 0 when they came."""
    file = os.open(path, os.O_RDONLY)
    try:
        return 0 if len(os.pread(file, 4096, offset)) == 4096 else -1
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(file)


def spent(cafs: Cafs) -> int:
    """What the only mount has spent, as the store knows."""
    (live,) = Path(cafs.environment["XDG_RUNTIME_DIR"], "cafs").glob("*.json")
    key = json.loads(live.read_bytes())["key"]

    async def look() -> int:
        async with open_store(cafs.store) as store:
            number = store.mounts.number(key)
            assert number is not None
            return store.mounts.spent(number)

    return trio.run(look)


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_budget_outlives_the_worker_and_a_reload_raises_it(cafs: Cafs, origin: Origin) -> None:
    cafs.expect_log("was killed by signal 9")
    url = origin.put("/big", Generated(SIZE, seed=1))
    with cafs.mount(project(url, "2MiB")) as mounted:
        big = mounted.ref("big")
        errors = [read(big, at * MIB) for at in range(8)]
        assert (errors[0], errors[7]) == (0, errno.EDQUOT)
        until(lambda: spent(cafs) >= 2 * MIB)
        former = mounted.worker
        os.kill(former, signal.SIGKILL)
        until(lambda: mounted.worker not in {0, former})
        sent = origin.bytes_sent("/big")
        assert read(big, 7 * MIB) == errno.EDQUOT
        assert read(big, 0) == 0  # what is here costs nothing
        assert origin.bytes_sent("/big") == sent
        cafs.project(project(url, "20MiB"))
        cafs.run("reload")
        assert read(big, 7 * MIB) == 0


def test_a_prefetch_for_a_live_mount_spends_its_budget(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/big", Generated(SIZE, seed=2))
    other = origin.put("/other", Generated(SIZE, seed=3))
    toml = project(url, "9MiB") + f'[ref.other]\nfrom = "{other}"\n'
    with cafs.mount(toml) as mounted:
        assert read(mounted.ref("other"), 0) == 0
        cafs.run("prefetch", "-q", "big")
        assert read(mounted.ref("big"), SIZE - 4096) == 0
        # The worker learns of it with the next bytes that it fetches itself.
        errors = [read(mounted.ref("other"), at * MIB) for at in range(1, 8)]
        assert errors[-1] == errno.EDQUOT
        done = cafs.run("prefetch", "-q", "other", check=False)
        assert done.returncode == 7
        assert "budget of 9437184 bytes is spent" in done.stderr
