"""The restart scenario of ``scripts/bench``: how long a mount takes to begin, and to recover.

After each death of a worker something cold is asked for: a name that nobody has asked about before,
or bytes that are not in the store. The reference is a bare Python, which has to start too.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final, Self

from cafs.testing.benching import KEEPERLESS, Site, toml
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.measuring import Measured, alternating, seconds
from cafs.testing.soaking import KEEPER_LINES, Keeper

_BLOB: Final = 256 << 20
_APART: Final = 4 << 20
"""Reads are so far apart that none finds what was read ahead for another."""
_SETTLED_S: Final = 1.2
"""A worker that ended within its first second has failed, and the next one starts later."""
_BARE: Final = (sys.executable, "-c", "pass")


class Restart:
    """The scenario; at least ten of everything.

    Concurrency: one thread, and a reader during reloads.
    """

    def __init__(self, site: Site, rounds: int) -> None:
        self._site = site
        self._rounds = max(10, rounds)
        self._places = count()
        self._names = count()

    def measure(self) -> Iterator[Measured]:
        """Measure everything."""
        url = self._site.origin.put("/blob", Generated(_BLOB))
        yield self._ready(url)
        bare = median(seconds(_BARE) for _ in range(self._rounds))
        cafs = self._site.world()
        cafs.expect_log(KEEPER_LINES)
        with cafs.mount(toml("data", url)) as mount:
            for name, ask in (("a name", self._look_up), ("bytes", self._read)):
                ask(mount)
                yield Measured(
                    f"worker killed, then {name}",
                    median(self._killed(mount, ask) for _ in range(self._rounds)),
                    bare,
                )
            yield from self._reloads(cafs, mount, bare)

    def _ready(self, url: str) -> Measured:
        """``cafs mount`` until it returns, with and without a keeper."""

        def once(side: int) -> float:
            if side == 1:
                return seconds(_BARE)
            arguments = KEEPERLESS if side else ()
            started = time.perf_counter()
            with self._site.mount("data", url, *arguments):
                return time.perf_counter() - started

        ours, bare, without = alternating(once, self._rounds, 3)
        return Measured("cafs mount until ready", ours, bare, without)

    def _killed(self, mount: Mount, ask: Callable[[Mount], None]) -> float:
        """From the death of a worker until the next request is answered, by another worker."""
        before = Keeper(mount.control).wait_serving()
        time.sleep(_SETTLED_S)
        started = time.perf_counter()
        os.kill(before.worker, signal.SIGKILL)
        ask(mount)
        took_s = time.perf_counter() - started
        if Keeper(mount.control).status().worker == before.worker:
            raise AssertionError("a killed worker answered")
        return took_s

    def _reloads(self, cafs: Cafs, mount: Mount, bare: float) -> Iterator[Measured]:
        """The command, and the longest that anybody waited for an answer meanwhile."""
        took_s, longest_s = [], []
        for _ in range(self._rounds):
            time.sleep(_SETTLED_S)
            with _Asking(lambda: self._look_up(mount)) as asking:
                started = time.perf_counter()
                cafs.run("reload", mount.path)
                took_s.append(time.perf_counter() - started)
            longest_s.append(asking.longest_s)
        yield Measured("cafs reload", median(took_s), bare)
        yield Measured("longest wait in a reload", median(longest_s), bare)

    def _look_up(self, mount: Mount) -> None:
        with suppress(FileNotFoundError):
            (mount.path / "ref" / f"none-{next(self._names)}").stat()

    def _read(self, mount: Mount) -> None:
        with Path(mount.ref("data")).open("rb", buffering=0) as blob:
            blob.seek(next(self._places) * _APART)
            blob.read(1)


class _Asking:
    """Asks again and again in a thread, from the beginning to the end of the ``with``.

    ``longest_s`` is the longest that it waited.

    Concurrency: one thread uses it; it has one of its own.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.longest_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            started = time.perf_counter()
            self._ask()
            self.longest_s = max(self.longest_s, time.perf_counter() - started)
