"""A worker for tests: serves a planted world, and says so. ``python -m tests.mount.fuse_child``.

It mounts by itself, or with ``--kept`` serves a keeper on the descriptors 3, 4 and 5 (or those that
are named). It prints ``ready`` once the kernel has begun to talk, ends on SIGTERM or when the mount
or the keeper has gone, and answers ``.cafs/status.json`` with its counters.

With ``--levers DIRECTORY`` a test can make it stall and hang, and can give it commands, each word
on a line of its own: ``status``; ``invalidate-inode INODE [attributes]``; ``invalidate-entry PARENT
NAME``; ``swap``, after which ``ref/gcc`` shows another tree; ``mend``, after which the refs that
fail do not; ``put TEXT`` and ``drop TEXT``, for a blob of the store. Invalidations are sent from a
thread.
"""

import argparse
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from cafs.errors import MountError
from cafs.fuse.channel import CHANNEL_FD, REQUESTS_FD, WORD_FD, open_channel
from cafs.fuse.interests import Interests
from cafs.fuse.operations import CafsOperations
from cafs.fuse.session import (
    Session,
    SessionOptions,
    open_kept_session,
    open_mounted_session,
)
from cafs.model.digest import digest_of
from cafs.model.identity import raw_stream
from cafs.store.store import Store, open_store
from tests.mount.fuse_world import SWAPPED, Levers, Scene, Watched, make, mend, plant_once

KEY = "c4" * 16
"""The key of the mount: the next worker goes on with what the last one has shown."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("mount_point", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--levers", type=Path)
    parser.add_argument("--requests", type=int, default=REQUESTS_FD)
    parser.add_argument("--channel", type=int, default=CHANNEL_FD)
    parser.add_argument("--word", type=int, default=WORD_FD)
    return parser.parse_args()


async def main(given: argparse.Namespace) -> None:
    levers = Levers(given.levers) if given.levers is not None else None
    scene = Scene(levers)
    async with open_store(given.store) as store:
        mount = await store.mounts.open(KEY, "test")
        filesystem = await make(store, mount, scene)
        interests = Interests(given.requests) if given.kept else None
        operations = CafsOperations(filesystem, scene.metrics, interests)
        async with AsyncExitStack() as stack:
            if interests is None:
                opening = open_mounted_session(given.mount_point, operations, SessionOptions())
            else:
                opening = open_kept_session(given.requests, operations)
            session = await stack.enter_async_context(opening)
            if given.twice:
                await mount_again(given.mount_point, operations)
            nursery = await stack.enter_async_context(trio.open_nursery())
            await nursery.start(end_on_signal, session)
            if interests is not None:
                nursery.start_soon(hear, given, store, mount, interests, session)
            if levers is not None:
                await nursery.start(obey, levers, filesystem, store, scene)
            nursery.start_soon(say_ready, session, given.word if given.kept else None)
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


async def say_ready(session: Session, word: int | None) -> None:
    await session.ready()
    say("ready")
    if word is not None:
        with os.fdopen(word, "w") as waiting:
            waiting.write("ready\n")


async def end_on_signal(
    session: Session, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            session.terminate()


async def hear(
    given: argparse.Namespace, store: Store, mount: int, interests: Interests, session: Session
) -> None:
    """Lend the lease if it is ours, and listen to the keeper until it has gone."""
    async with open_channel(given.channel) as channel:
        lease = store.mounts.lease(mount)
        if lease is not None:
            await channel.lend(lease.fileno())
        await channel.listen(interests.gone, partial(say, "over"))
        session.terminate()


async def obey(
    levers: Levers,
    filesystem: Watched,
    store: Store,
    scene: Scene,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do what a test commands, one after the other."""
    new = levers.socket.with_suffix(f".{os.getpid()}")
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET) as listening:
        await listening.bind(str(new))
        listening.listen()
        # The last worker's place is taken at once: there is always somebody to talk to.
        new.rename(levers.socket)
        task_status.started()
        while True:
            line, _ = await listening.accept()
            with line:
                words = (await line.recv(1 << 16)).decode().split("\n")
                await line.send((await do(words, filesystem, store, scene)).encode())


async def put(store: Store, text: str) -> None:
    data = text.encode()
    digest = digest_of(data)
    stream = raw_stream(digest)
    await store.blobs.take(stream, data, media_type="", claims=(digest,), name="blob")


async def do(words: list[str], filesystem: Watched, store: Store, scene: Scene) -> str:
    match words:
        case ["status"]:
            return scene.status().decode()
        case ["invalidate-inode", inode, *attributes]:
            await trio.to_thread.run_sync(
                pyfuse3.invalidate_inode, pyfuse3.InodeT(int(inode)), bool(attributes)
            )
        case ["invalidate-entry", parent, name]:
            entry = pyfuse3.FileNameT(os.fsencode(name))
            await trio.to_thread.run_sync(
                pyfuse3.invalidate_entry, pyfuse3.InodeT(int(parent)), entry
            )
        case ["swap"]:
            filesystem.refs.trees["gcc"] = await plant_once(store, "swapped", SWAPPED)
        case ["mend", name]:
            mend(filesystem, name)
        # Many together share their syncing.
        case ["put", *texts]:
            async with trio.open_nursery() as nursery:
                for text in texts:
                    nursery.start_soon(put, store, text)
        case ["drop", *texts]:
            async with trio.open_nursery() as nursery:
                for text in texts:
                    nursery.start_soon(store.blobs.delete, digest_of(text.encode()))
        case _:
            return f"what is {words}?"
    return "done"


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    trio.run(main, arguments())
