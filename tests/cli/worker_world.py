"""A mount whose workers are real, and whose keeper is the test."""

import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from cafs.store.holds.leases import Leases
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.fuse_wire import Opcode, Reply, name_body, read_body
from cafs.testing.hand_keeper import HandKeeper, KeptWorker
from cafs.testing.origin import Origin

_NODE: Final = struct.Struct("=Q")


class World:
    """A project, the key of its mount, and the keeper's place, which the test takes."""

    def __init__(self, cafs: Cafs, origin: Origin) -> None:
        self.cafs = cafs
        self.key = new_key()
        self.keeper = HandKeeper(cafs, self.key, cafs.directory / "cafs")
        self.origin = origin
        self.url = origin.put("/data.tar", tar_bytes({"a": (0o644, b"alpha")}))

    def project(self, refs: str | None = None, mount: str = "") -> None:
        given = refs if refs is not None else f'[ref.data]\nfrom = "{self.url}"\n'
        self.cafs.project(f'[mount]\npath = "cafs"\n{mount}{given}')

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        async with open_store(self.cafs.store) as store:
            yield store

    def number(self) -> int | None:
        """The mount's number in the store; None when it is forgotten."""

        async def look() -> int | None:
            async with self.store() as store:
                return store.mounts.number(self.key)

        return trio.run(look)

    def remember(self, settings: bytes) -> None:
        """Make the mount, if it is none yet, and give it these settings."""

        async def write() -> None:
            async with self.store() as store:
                mount = await store.mounts.open(self.key, "test")
                await store.mounts.set_settings(mount, settings)

        trio.run(write)

    def spent(self) -> int:
        """What is written down of what the mount has spent."""

        async def look() -> int:
            async with self.store() as store:
                number = store.mounts.number(self.key)
                return 0 if number is None else store.mounts.spent(number)

        return trio.run(look)

    def held(self) -> bool:
        """Whether somebody holds the mount's lease."""
        leases = Leases(self.cafs.store / "leases")
        with leases.deciding():
            return leases.held(self.key)

    def lease_file(self) -> Path:
        return self.cafs.store / "leases" / f"mount-{self.key}"


def find(worker: KeptWorker, path: str) -> Reply:
    """Look a path up, name by name."""
    reply, node = Reply(0), 1
    for name in path.split("/"):
        reply = worker.ask(Opcode.LOOKUP, node, name_body(name))
        if reply.error:
            break
        (node,) = _NODE.unpack_from(reply.body)
    return reply


def node_of(reply: Reply) -> int:
    assert not reply.error, os.strerror(reply.error)
    (node,) = _NODE.unpack_from(reply.body)
    return int(node)


def read(worker: KeptWorker, node: int, offset: int = 0, size: int = 4096) -> Reply:
    return worker.ask(Opcode.READ, node, read_body(fh=node, offset=offset, size=size))


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)
