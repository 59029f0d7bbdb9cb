"""A process that fetches, commits, evicts and collects, and dies at its nth step, n = 1, 2, …

Usage: ``cycle_child.py DIRECTORY FIRST STEP``. Each time another process is forked off for it, on a
store that is empty at first, and one more to look at what it left, on the same boot or on the next.
It prints a line for each thing that is wrong, and at last how many steps there were.
"""

import faulthandler
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import trio

from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.digest import digest_of
from cafs.model.identity import raw_stream
from cafs.model.resolved import Part
from cafs.model.validator import Validator
from cafs.store.db.environment import Environment
from cafs.store.space import removing
from cafs.store.space.findings import Terms
from cafs.store.store import Store, open_store
from cafs.store.streams import stream_writing, sweeping
from cafs.testing.bodies import Literal
from cafs.testing.origin import Origin, running_origin
from cafs.transport.http import HttpTransport

T = TypeVar("T")
PATIENCE = Patience(20.0)
LONGEST_S = 600.0
MANY = 5000
LARGE = Random(1).randbytes(900_000)
SMALL = [Random(seed).randbytes(3000 + seed) for seed in range(4)]
BODIES = {"/large": LARGE, **{f"/small{n}": body for n, body in enumerate(SMALL)}}
KEYS = {raw_stream(digest_of(body)): body for body in SMALL}
BOOTS = ("first", "second")
SEAM: tuple[tuple[object, str], ...] = (
    (os, "fdatasync"),
    (os, "fsync"),
    (os, "ftruncate"),
    (os, "pwrite"),
    (removing, "erase"),
    (removing, "punch"),
    (stream_writing, "punch"),
    (sweeping, "punch"),
    (Path, "chmod"),
    (Path, "hardlink_to"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "unlink"),
    (Environment, "apply"),
)
"""All that changes the disk."""


class Steps:
    """Counts steps, before and after each, and dies at the nth."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def lurk(self) -> None:
        """From now on, in all of the seam."""
        for owner, name in SEAM:
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, original: Callable[..., T]) -> Callable[..., T]:
        # A plain function, so that it becomes a method where it replaces one.
        def step(*arguments: object, **options: object) -> T:
            self._step()
            result = original(*arguments, **options)
            self._step()
            return result

        return step

    def _step(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


async def located(fetcher: Fetcher, transport: HttpTransport, origin: Origin) -> Content:
    """The large content, by its version, so that ranges of it can be had."""
    url = origin.url("/large")
    part = Part(
        media_type="", size=len(LARGE), digest=None, urls=(url,), validator=Validator(etag='"v"')
    )
    return await fetcher.content(part, [Source(transport, url)], name="large")


async def pinned(
    fetcher: Fetcher, transport: HttpTransport, origin: Origin, number: int
) -> Content:
    """Small content by its digest."""
    url, body = origin.url(f"/small{number}"), SMALL[number]
    part = Part(media_type="", size=len(body), digest=digest_of(body), urls=(url,))
    return await fetcher.content(part, [Source(transport, url)], name=f"small{number}")


async def cycle(store: Store, origin: Origin) -> None:
    """Fetch, commit, evict, fetch again, collect, fetch again. Whatever is read is right."""
    transport = HttpTransport()
    async with open_fetcher(store, Metrics()) as fetcher:
        for _ in range(2):
            small = partial(pinned, fetcher, transport, origin)
            large = await located(fetcher, transport, origin)
            assert await large.read(300_000, 1000, PATIENCE) == LARGE[300_000:301_000]
            await store.checkpoint()
            for number, body in enumerate(SMALL):
                assert await (await small(number)).read(0, len(body), PATIENCE) == body
            assert await large.read(0, 400_000, PATIENCE) == LARGE[:400_000]
            await store.evictor.make_room(1 << 40)
            for offset in range(0, len(LARGE), 1 << 18):
                piece = LARGE[offset : offset + (1 << 18)]
                assert await large.read(offset, 1 << 18, PATIENCE) == piece
            assert await (await small(1)).read(0, 4000, PATIENCE) == SMALL[1]
            await collect(store)
    await transport.aclose()


async def collect(store: Store) -> None:
    """Remove all that nobody uses."""
    terms = Terms(age_s=0.0, unused=True, now_ns=time.time_ns() + 2 * 3600 * 10**9)
    await store.housekeeping.collect(terms, lambda _: None)


async def live(path: Path, number: int, boot: str) -> int:
    """Work until the nth step; how many steps there were, when there are fewer."""
    steps = Steps(number)
    with running_origin() as origin:
        for name, body in BODIES.items():
            origin.put(name, Literal(body), etag='"v"')
        async with open_store(path, boot_id=boot) as store:
            steps.lurk()
            await cycle(store, origin)
    return steps.count


async def look(path: Path, boot: str) -> list[str]:
    """What is wrong with what was left behind."""
    wrong: list[str] = []
    async with open_store(path, boot_id=boot) as store:
        for digest in store.blobs.digests():
            found = store.blobs.stat(digest)
            data = b"" if found is None else await store.blobs.read(digest, 0, found.size)
            if found is not None and digest_of(data) != digest:
                wrong.append(f"{digest} has other bytes")
        for key, record in list(store.room._ledger.all()):
            stream = store.streams.find(key)
            for span in () if stream is None or record.digest is not None else stream.present():
                assert stream is not None
                body = KEYS.get(key, LARGE)
                if await stream.read(span.start, span.length) != body[span.start : span.stop]:
                    wrong.append(f"stream {key} has other bytes in {span}")
    # Who has just read something holds it for a moment; another opening has read nothing.
    async with open_store(path, boot_id=boot) as store:
        if counted := await trio.to_thread.run_sync(store.room.recount):
            wrong.append(f"the counters were wrong by {counted}")
        await collect(store)
        await store.evictor.make_room(1 << 40)
        if total := store.room.usage().total:
            wrong.append(f"{total} bytes are left")
    return wrong


def forked(work: Callable[[], int]) -> int:
    """Work in another process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = work()
        except BaseException:  # noqa: BLE001 - told, and known by the exit code
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def living(path: Path, number: int, boot: str) -> int:
    """Exit code of one life: 0 when it came to its end, and said how many steps it took."""
    count = trio.run(live, path, number, boot)
    sys.stdout.write(f"steps {count}\n")
    return 0


def looking(path: Path, number: int, boot: str) -> int:
    """Exit code of one look."""
    wrong = trio.run(look, path, boot)
    left = [file for kind in ("blobs", "streams") for file in path.glob(f"{kind}/**/*")]
    for line in [*wrong, *(f"{file} is left" for file in left if file.is_file())]:
        sys.stdout.write(f"wrong: killed at {number}, {boot} boot: {line}\n")
    return 0


def main() -> None:
    """Die at every step from FIRST on, as often as STEP says, until nothing is left to die at."""
    place, first, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    for life, number in enumerate(range(first, MANY, step)):
        path = place / str(number)
        code = forked(partial(living, path, number, BOOTS[0]))
        looked = forked(partial(looking, path, number, BOOTS[life % 2]))
        if code not in {0, -signal.SIGKILL} or looked:
            sys.stdout.write(f"wrong: killed at {number}: exit {code}, the look {looked}\n")
        if code == 0:
            return
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
