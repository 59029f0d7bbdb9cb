"""A worker for tests: mounts a planted world, and says so. ``python -m tests.mount.fuse_child``.

Arguments: the mount point, the store, options. It prints ``ready`` once the kernel has begun to
talk, ends on SIGTERM or when it is unmounted, and answers ``.cafs/status.json`` with its counters
and with the bytes that reads asked for.
"""

import json
import logging
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio
from typing_extensions import override

from cafs import errors
from cafs.distribution.policy import HostPolicy
from cafs.errors import CafsError, MountError
from cafs.fetch.interfaces import Patience
from cafs.fuse.operations import CafsOperations
from cafs.fuse.session import Session, SessionOptions, open_mounted_session
from cafs.metrics import Metrics
from cafs.model.member import Kind, Piece
from cafs.store.store import Store, open_store
from cafs.vfs.filesystem import FileSystem
from tests.vfs_world import (
    MINE,
    Item,
    PlantedDigests,
    PlantedRefs,
    Stored,
    ad_hoc,
    archive,
    blob,
    directory,
    plant,
    symlink,
)

MANY = 2000
BIG = Random(1).randbytes(4 << 20)
FAILURES: dict[str, CafsError] = {
    "credentials": errors.CredentialsError("x"),
    "deadline": errors.DeadlineError("x"),
    "unreachable": errors.UnreachableError("x"),
    "offline": errors.OfflineError("x"),
    "malformed": errors.MalformedError("x"),
    "changed": errors.SourceChangedError("x"),
    "full": errors.StorageFullError("x"),
    "budget": errors.BudgetError("x"),
    "unsupported": errors.UnsupportedError("x"),
}
TREE = {
    b"bin": directory(),
    b"bin/cc": Item(data=b"#!cc", mode=0o755, mtime_ns=1_600_000_000_123_456_789),
    b"bin/gcc": Item(kind=Kind.HARD_LINK, link=b"bin/cc"),
    b"bin/c89": symlink(b"cc"),
    b"big": Item(data=BIG),
    b"empty": Item(),
    b"noted": Item(data=b"n", xattrs=((b"user.note", b"theirs"),)),
    b"sparse": Item(data=bytes(1 << 20) + b"end", pieces=(Piece(1 << 20, 3),)),
    b"su": Item(data=b"su", mode=0o4755),
    b"many": directory(),
    **{b"many/%04d" % number: Item(data=b"%d\n" % number) for number in range(MANY)},
}


@dataclass
class Asked:
    """The reads that reached the file system: how many, bytes, and how many never end."""

    count: int = 0
    size: int = 0
    stuck: int = 0


ASKED = Asked()


@dataclass
class Failing(Stored):
    """Content whose reads fail, with an expected error or with a bug."""

    failure: Exception = field(default_factory=ZeroDivisionError)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        raise self.failure


@dataclass
class Stuck(Stored):
    """Content that never comes."""

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        ASKED.stuck += 1
        await trio.sleep_forever()
        raise AssertionError


class Watched(FileSystem):
    """A file system that counts what reads ask for."""

    @override
    async def read(self, inode: int, offset: int, length: int) -> bytes:
        ASKED.count += 1
        ASKED.size += length
        return await super().read(inode, offset, length)


async def make(store: Store, metrics: Metrics) -> Watched:
    refs = PlantedRefs()
    tree = refs.trees["gcc"] = await plant(store, "gcc", TREE)
    key = tree.contents[0].key
    refs.trees["later"] = tree
    for name, failure in {**FAILURES, "bug": ZeroDivisionError("planted")}.items():
        refs.files[f"file-{name}"] = Failing(store, key, 10, failure=failure)
    refs.files["file-stuck"] = Stuck(store, key, 10)
    refs.failing["broken"] = errors.UnreachableError("GET https://files.example: 503", hint="wait")
    specs = [archive(name) for name in ("gcc", "broken")]
    specs += [blob(name) for name in refs.files]
    return Watched(
        store=store,
        mount=await store.mounts.create("test"),
        refs=refs,
        digests=PlantedDigests(),
        policy=HostPolicy(frozenset({"files.example"})),
        specs=specs,
        ad_hoc=ad_hoc,
        appearance=MINE,
        version="1.2.3",
        status=lambda: status(metrics),
        inflight=lambda: b"[]",
    )


def status(metrics: Metrics) -> bytes:
    asked = {"reads": ASKED.count, "bytes": ASKED.size, "stuck": ASKED.stuck}
    return json.dumps({**metrics.snapshot(), **asked}).encode()


async def main(mount_point: Path, store_path: Path, *options: str) -> None:
    async with open_store(store_path) as store:
        metrics = Metrics()
        filesystem = await make(store, metrics)
        operations = CafsOperations(filesystem, metrics)
        async with open_mounted_session(mount_point, operations, SessionOptions()) as session:
            if "twice" in options:
                await mount_again(mount_point, operations)
            async with trio.open_nursery() as nursery:
                await nursery.start(end_on_signal, session)
                nursery.start_soon(say_ready, session)
                await session.serve()
                nursery.cancel_scope.cancel()
    say("ended")


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def mount_again(mount_point: Path, operations: CafsOperations) -> None:
    try:
        async with open_mounted_session(mount_point, operations, SessionOptions()):
            raise AssertionError
    except MountError as error:
        say(error.line)


async def say_ready(session: Session) -> None:
    await session.ready()
    say("ready")


async def end_on_signal(
    session: Session, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            session.terminate()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
