"""What the worker of these tests serves: a planted world, some of which fails or stalls.

``Levers`` are a test's way to say when; they are files and a socket in a directory, so a worker
finds them as its predecessor left them.
"""

import hashlib
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import trio
from typing_extensions import override

from cafs import errors
from cafs.distribution.interfaces import OpenTree
from cafs.distribution.policy import HostPolicy
from cafs.errors import CafsError
from cafs.fetch.interfaces import Patience
from cafs.metrics import Metrics
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Kind, Piece
from cafs.model.ref import ArchiveRef
from cafs.store.store import Store
from cafs.vfs.attributes import Attributes
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
    stored,
    symlink,
)

MANY = 2000
BIG = Random(1).randbytes(4 << 20)
SLOW = Random(2).randbytes(300_000)
"""The content of ``ref/file-stalled``."""
STALLED = b"stalled-"
"""A name directly in a ref that begins so stalls when it is looked up; the rest is what it is."""
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
AD_HOC = ("one.tar", "sub/two.tar")
"""Archives that are found by their paths below ``ref/archive/https/files.example``."""
SWAPPED = {b"big": Item(data=BIG[::-1]), b"new": Item(data=b"new")}
"""What ``ref/gcc`` shows after the command ``swap``."""
_POLL_S = 0.01
_ANSWER_S = 30.0


class Levers:
    """What a test can do to a worker, through a directory that both know."""

    def __init__(self, directory: Path) -> None:
        self._stall = directory / "stall"
        self._names = directory / "names"
        self.socket = directory / "commands"

    def stall(self) -> None:
        """Let lookups of ``STALLED`` names and reads of ``ref/file-stalled`` wait."""
        self._stall.touch()

    def go_on(self) -> None:
        """Let them go on."""
        self._stall.unlink()

    @property
    def stalling(self) -> bool:
        return self._stall.exists()

    def name(self, *refs: str) -> None:
        """Let workers that start from now on have these refs too; they show what ``gcc`` does."""
        self._names.write_text("\n".join(refs))

    @property
    def names(self) -> list[str]:
        return self._names.read_text().split("\n") if self._names.exists() else []

    def tell(self, *words: str) -> str:
        """Give the worker a command of ``fuse_child`` by its own socket; its answer.

        Raises:
            OSError: there is no worker.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(_ANSWER_S)
            line.connect(str(self.socket))
            line.send("\n".join(words).encode())
            return line.recv(1 << 20).decode()

    def status(self) -> Counter[str]:
        """The counters of the worker, without asking through the mount."""
        return Counter(json.loads(self.tell("status")))


@dataclass
class Asked:
    """The reads that reached the file system: how many, bytes; and the requests that stand still.

    ``stuck`` are reads of ``ref/file-stuck``, ``stalled`` what ``Levers.stall`` holds up.
    """

    reads: int = 0
    bytes: int = 0
    stuck: int = 0
    stalled: int = 0


@dataclass
class Scene:
    """What a worker's world has in common: its counters, and what tests do to it."""

    levers: Levers | None
    metrics: Metrics = field(default_factory=Metrics)
    asked: Asked = field(default_factory=Asked)

    @property
    def names(self) -> list[str]:
        """What ``Levers.name`` says."""
        return self.levers.names if self.levers is not None else []

    async def stall(self) -> None:
        """Wait for as long as ``Levers.stall`` says."""
        self.asked.stalled += 1
        try:
            # It is another process that says so, by a file. All who wait together look at it a
            # hundred times a second.
            while self.levers is not None and self.levers.stalling:  # noqa: ASYNC110
                await trio.sleep(_POLL_S * self.asked.stalled)
        finally:
            self.asked.stalled -= 1

    def status(self) -> bytes:
        """``.cafs/status.json``."""
        return json.dumps({**self.metrics.snapshot(), **asdict(self.asked)}).encode()


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

    asked: Asked = field(default_factory=Asked)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        self.asked.stuck += 1
        try:
            await trio.sleep_forever()
        finally:
            self.asked.stuck -= 1


@dataclass
class Slow(Stored):
    """Content that may stall before it comes."""

    before: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        await self.before()
        return await super().read(offset, length, patience)


class Watched(FileSystem):
    """A file system that counts what reads ask for, and whose lookups may stall.

    Its trees and contents are ``refs``, which commands may change.
    """

    def __init__(self, scene: Scene, store: Store, mount: int, refs: PlantedRefs) -> None:
        names = ["gcc", "broken", "missing", *scene.names]
        super().__init__(
            store=store,
            mount=mount,
            refs=refs,
            digests=PlantedDigests(),
            policy=HostPolicy(frozenset({"files.example"})),
            specs=[archive(name) for name in names] + [blob(name) for name in refs.files],
            ad_hoc=ad_hoc,
            appearance=MINE,
            version="1.2.3",
            status=scene.status,
            inflight=lambda: b"[]",
        )
        self.refs = refs
        self._scene = scene

    @override
    async def lookup(self, parent: int, name: bytes) -> Attributes:
        # Inside trees nothing waits, and nothing would be dropped.
        if name.startswith(STALLED) and not self.is_inside(parent):
            await self._scene.stall()
        return await super().lookup(parent, name.removeprefix(STALLED))

    @override
    async def read(self, inode: int, offset: int, length: int) -> bytes:
        self._scene.asked.reads += 1
        self._scene.asked.bytes += length
        return await super().read(inode, offset, length)


async def plant_once(store: Store, name: str, items: Mapping[bytes, Item]) -> OpenTree:
    """Plant a tree, or open the one that a worker before has planted under that name."""
    record = store.trees.find(TreeIdentity(hashlib.sha256(name.encode()).hexdigest()))
    if record is None:
        return await plant(store, name, items)
    (stream,) = record.streams
    return OpenTree(record, ROOT, (Stored(store, stream.key, stream.size),))


def mend(filesystem: Watched, name: str) -> None:
    """Let a ref that fails be there after all, with what ``gcc`` shows."""
    refs = filesystem.refs
    refs.trees[name] = refs.trees["gcc"]
    del refs.failing[name]


async def make(store: Store, mount: int, scene: Scene) -> Watched:
    """Plant the world; as the worker before has left it, if there was one."""
    refs = PlantedRefs()
    tree = refs.trees["gcc"] = await plant_once(store, "gcc", TREE)
    refs.trees.update(dict.fromkeys(scene.names, tree))
    for path in AD_HOC:
        refs.trees[ArchiveRef(f"https://files.example/{path}").canonical] = tree
    key = tree.contents[0].key
    for name, failure in {**FAILURES, "bug": ZeroDivisionError("planted")}.items():
        refs.files[f"file-{name}"] = Failing(store, key, 10, failure=failure)
    refs.files["file-stuck"] = Stuck(store, key, 10, asked=scene.asked)
    slow = await stored(store, SLOW)
    refs.files["file-stalled"] = Slow(store, slow.key, slow.size, before=scene.stall)
    refs.failing["broken"] = errors.UnreachableError("GET https://files.example: 503", hint="wait")
    refs.failing["missing"] = errors.NotFoundError("GET https://files.example: 404")
    return Watched(scene, store, mount, refs)
