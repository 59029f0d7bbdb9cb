"""A process in which the nth write fails for want of space, for n = 1, 2, … until nothing fails.

Usage: ``full_disk_child.py DIRECTORY once|lasting FIRST STEP``. For each n it fetches into a store
of its own, then opens that again without faults and looks at it. It prints a line for each thing
that is wrong, and at last how many writes there were.
"""

import errno
import faulthandler
import gzip
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import trio

from cafs.errors import CafsError, StorageFullError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.member import Kind
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.store.db.transactions import Batch
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from cafs.testing.archives import file, tar_bytes, zip_archive
from cafs.testing.bodies import Literal
from cafs.testing.origin import Origin, running_origin
from cafs.transport.http import HttpLimits, HttpTransport

T = TypeVar("T")
PATIENCE = Patience(20.0)
LONGEST_S = 200.0
DATA = Random(7).randbytes(700_000)
ZIP = zip_archive([file("a", DATA[:5000]), file("b", DATA[5000:40_000])])
TAR = gzip.compress(tar_bytes({"a": (0o644, DATA[:3000]), "b": (0o644, DATA[3000:30_000])}), 1)
BODIES = {
    "/ranged": DATA,
    "/pinned": DATA[::-1],
    "/small": DATA[:1000],
    "/a.zip": ZIP,
    "/a.tar.gz": TAR,
}
WRITES = (
    "fdatasync",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "posix_fallocate",
    "pwrite",
    "rename",
    "truncate",
)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Faults:
    """Counts what writes, and lets the nth fail, or all from the nth on."""

    def __init__(self) -> None:
        self.count = 0
        self.first = sys.maxsize
        self.lasting = False

    def arm(self, first: int, *, lasting: bool) -> None:
        self.count, self.first, self.lasting = 0, first, lasting

    def disarm(self) -> None:
        self.first = sys.maxsize

    def strikes(self) -> bool:
        self.count += 1
        return self.count == self.first or (self.lasting and self.count > self.first)

    def install(self) -> None:
        """Stand before everything that writes."""
        for name in WRITES:
            setattr(os, name, self._failing(getattr(os, name)))
        original_open, original_exit = os.open, Batch.__exit__

        def opening(path: str, flags: int, *arguments: int, **options: int) -> int:
            if flags & os.O_CREAT and not Path(path).exists() and self.strikes():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original_open(path, flags, *arguments, **options)

        def leaving(batch: Batch, kind: object, error: object, trace: object) -> None:
            if error is None and self.strikes():
                batch._transaction.abort()
                raise StorageFullError("committing: no space", hint="free some")
            original_exit(batch, kind, error, trace)  # type: ignore[arg-type]

        os.open = opening  # type: ignore[assignment]
        Batch.__exit__ = leaving  # type: ignore[method-assign]

    def _failing(self, original: Callable[..., T]) -> Callable[..., T]:
        def writing(*arguments: object, **options: object) -> T:
            if self.strikes():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        return writing


class Run:
    """One store, used through one fetcher. ``wrong`` is told of what must not be."""

    def __init__(
        self, store: Store, fetcher: Fetcher, origin: Origin, wrong: Callable[[str], None]
    ) -> None:
        self.store = store
        self.fetcher = fetcher
        self.origin = origin
        self.wrong = wrong
        self.full = 0
        self.transport = HttpTransport(limits=HttpLimits())

    async def content(self, path: str, *, pinned: bool) -> Content:
        data = BODIES[path]
        digest = digest_of(data) if pinned else None
        validator = Validator() if pinned else Validator(etag=f'"{Literal(data).tag}"')
        url = self.origin.url(path)
        part = Part(
            media_type="", size=len(data), digest=digest, urls=(url,), ranges=True,
            validator=validator,
        )  # fmt: skip
        return await self.fetcher.content(part, [Source(self.transport, url)], name=path)

    async def whole(self, path: str, *, pinned: bool) -> None:
        content, data = await self.content(path, pinned=pinned), BODIES[path]
        for offset in (300_000, 0):
            got = await content.read(offset, 400_000, PATIENCE)
            if got != data[offset : offset + 400_000]:
                self.wrong(f"{path} at {offset}: {len(got)} wrong bytes")
        await content.ensure(Span(0, len(data)), PATIENCE)

    async def members(self, path: str, expected: dict[bytes, bytes]) -> None:
        raw = await self.content(path, pinned=True)
        record = await self.fetcher.plant(raw, name=path, media_type="", patience=PATIENCE)
        content = self.fetcher.decoded(record, 0, raw)
        found = files(self.store, record)
        for name, data in expected.items():
            offset, size = found[name]
            got = await content.read(offset, size, PATIENCE)
            if got != data:
                self.wrong(f"{path}/{name.decode()}: {len(got)} wrong bytes")

    async def records(self) -> None:
        mount = await self.store.mounts.open(new_key(), "test")
        await self.store.attachments.attach(mount, "ref/a")
        await self.store.mounts.remove(mount)
        await self.store.checkpoint()

    async def all(self) -> None:
        """Do everything; what has no room is counted."""
        steps: list[Callable[[], Awaitable[None]]] = [
            partial(self.whole, "/ranged", pinned=False),
            partial(self.whole, "/pinned", pinned=True),
            partial(self.whole, "/small", pinned=True),
            partial(self.members, "/a.zip", {b"a": DATA[:5000], b"b": DATA[5000:40_000]}),
            partial(self.members, "/a.tar.gz", {b"a": DATA[:3000], b"b": DATA[3000:30_000]}),
            self.records,
        ]
        for step in steps:
            try:
                with trio.fail_after(30):
                    await step()
            except StorageFullError:
                self.full += 1
            except (CafsError, ValueError, OSError, trio.TooSlowError) as error:
                self.wrong(f"{step}: {error!r}")


def files(store: Store, record: TreeRecord) -> dict[bytes, tuple[int, int]]:
    """Where the files of a tree lie in its stream."""
    entries = [store.trees.entry(record.number, number) for number in range(record.count)]
    return {one.name: (one.offset, one.size) for one in entries if one.kind is Kind.FILE}


async def one(place: Path, origin: Origin, faults: Faults, wrong: Callable[[str], None]) -> int:
    """Use a store while writes fail, then while none do; how many writes there were."""
    try:
        await use(place, origin, wrong)
    except StorageFullError:
        say("unopened", place.name)
    except (CafsError, OSError) as error:
        wrong(f"opening: {error!r}")
    count = faults.count
    struck = count >= faults.first
    faults.disarm()
    full = await use(place, origin, wrong)
    if full:
        wrong(f"{full} steps found a full disk that had room")
    return count if struck else 0


async def use(place: Path, origin: Origin, wrong: Callable[[str], None]) -> int:
    async with (
        open_store(place, boot_id="x") as store,
        open_fetcher(store, Metrics()) as fetcher,
    ):
        look_for_leaks(store, place, wrong)
        run = Run(store, fetcher, origin, wrong)
        try:
            await run.all()
        finally:
            await run.transport.aclose()
        return run.full


def look_for_leaks(store: Store, place: Path, wrong: Callable[[str], None]) -> None:
    """Everything in the store's directory is what some record means."""
    blobs = {digest.hex for digest in store.blobs.digests()}
    for path in place.glob("blobs/sha256/*/*"):
        if path.name not in blobs:
            wrong(f"{path.name} has no record")
    for path in place.glob("streams/*/*"):
        key, _, rest = path.name.partition(".")
        record = store.streams._shelf.ledger.record(StreamKey(key))
        if record is None or record.digest is not None or record.file.hex() != rest:
            wrong(f"stream {path.name} has no record")
    for path in place.glob("quarantine/*"):
        wrong(f"{path.name} is in quarantine")


def main(directory: str, mode: str, first: str, step: str) -> None:
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    faults = Faults()
    faults.install()
    number, steps, wrongs = int(first), 0, 0
    with running_origin() as origin:
        for path, data in BODIES.items():
            origin.put(path, Literal(data))
        while True:
            place = Path(directory) / f"store{number}"

            def wrong(what: str, number: int = number) -> None:
                nonlocal wrongs
                wrongs += 1
                say(f"write {number}: {what}")

            faults.arm(number, lasting=mode == "lasting")
            count = trio.run(one, place, origin, faults, wrong)
            shutil.rmtree(place)
            steps += 1
            if not count:
                break
            number += int(step)
    say("done", steps, "of", number, "wrong", wrongs)


if __name__ == "__main__":
    main(*sys.argv[1:])
