"""A process that uses a store until it is killed, or dies by itself at a chosen step.

Usage: ``store_child.py STORE BOOT ROLE [NUMBER]``. It prints a line for each thing that is done.
Without arguments it forks such a process for each line ``STORE BOOT ROLE NUMBER`` of its input, so
that many need not import everything, and prints ``exit CODE`` when that has ended.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.store import Store, open_store

T = TypeVar("T")
KEY = StreamKey("ab" * 32)
OTHER = StreamKey("ef" * 32)
TREE = TreeIdentity("cd" * 32)
SIZE = 1 << 20
PIECE = 4096
FORMER = b"bytes that were a blob before"


def content(offset: int, length: int) -> bytes:
    """What the stream has there: no zeros, and different at each offset."""
    return bytes((at * 131 + at // 255) % 255 + 1 for at in range(offset, offset + length))


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write_forever(store: Store, seed: int) -> None:
    """Write pieces in random order, saying each when it is recorded."""
    stream = await store.streams.open(KEY, SIZE)
    offsets = list(range(0, SIZE, PIECE))
    random.Random(seed).shuffle(offsets)
    for offset in offsets:
        await stream.write(offset, content(offset, PIECE))
        say(offset)
    await trio.sleep_forever()


async def checkpoint_forever(store: Store, seed: int) -> None:
    """Write pieces in random order, with a checkpoint after every seventh, saying each."""
    stream = await store.streams.open(KEY, SIZE)
    offsets = list(range(0, SIZE, PIECE))
    random.Random(seed).shuffle(offsets)
    for number, offset in enumerate(offsets, 1):
        await stream.write(offset, content(offset, PIECE))
        say(offset)
        if not number % 7:
            await store.checkpoint()
            say("kept")
    await trio.sleep_forever()


class Deadly:
    """Kills this process at the nth step, before or after it is done."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, step: Callable[..., T], *arguments: object, **options: object) -> T:
        self._count()
        result = step(*arguments, **options)
        self._count()
        return result

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def lurk(self) -> None:
        """From now on, in all that changes the disk."""
        for owner, name in [
            (os, "fsync"),
            (os, "pwrite"),
            (Path, "rename"),
            (Path, "hardlink_to"),
            (Path, "unlink"),
            (Path, "chmod"),
            (Path, "mkdir"),
            (Environment, "apply"),
        ]:
            original = getattr(owner, name)
            setattr(owner, name, _wrapped(self, original))


def _wrapped(deadly: Deadly, original: Callable[..., T]) -> Callable[..., T]:
    # A plain function, so that it becomes a method where it replaces one.
    def step(*arguments: object, **options: object) -> T:
        return deadly(original, *arguments, **options)

    return step


async def admit(store: Store, number: int) -> None:
    """Fill a stream, admit it, and die at a step on the way."""
    Deadly(number).lurk()
    stream = await store.streams.open(KEY, PIECE)
    await stream.write(0, content(0, PIECE))
    say("written")
    digest = digest_of(content(0, PIECE))
    await store.blobs.admit(KEY, media_type="a/b", claims=[digest], name="x")
    await store.blobs.delete(digest_of(FORMER))
    say("done")


async def take(store: Store, number: int) -> None:
    """Take small content that came whole, with other content, and die at a step on the way."""
    Deadly(number).lurk()
    data = content(0, PIECE)
    async with trio.open_nursery() as nursery:
        for key, body in ((KEY, data), (OTHER, data[1:])):
            take_one = partial(store.blobs.take, media_type="", name="x")
            nursery.start_soon(partial(take_one, key, body, claims=[digest_of(body)]))
    say("done")


async def refuse(store: Store, number: int) -> None:
    """Fill a stream with other bytes than promised, and die while they are put aside."""
    Deadly(number).lurk()
    stream = await store.streams.open(KEY, PIECE)
    await stream.write(0, content(1, PIECE))
    try:
        await store.blobs.admit(
            KEY, media_type="a/b", claims=[digest_of(content(0, PIECE))], name="x"
        )
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 (any refusal is what is wanted here)
        say("done", type(error).__name__)


async def plant(store: Store, number: int) -> None:
    """Write a tree in several transactions, publish it over another, and die on the way."""
    Deadly(number).lurk()
    await trio.to_thread.run_sync(partial(write_tree, store, b"new"))
    say("done")


def write_tree(store: Store, name: bytes) -> None:
    with store.trees.writer(TREE) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        for each in range(3):
            writer.add(Entry(name=name + b"%d" % each, parent=ROOT, kind=Kind.FILE, mode=0o644))
            writer.flush()
        writer.publish((), None)


async def answer(store: Store, _: int) -> None:
    """Do what each line of the input asks for, and say what came of it."""
    stream = await store.streams.open(KEY, SIZE)
    locks = []
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        verb, start, stop = line.split()
        span = Span(int(start), int(stop))
        if verb == "write":
            await stream.write(span.start, content(span.start, span.length))
            say("written")
        elif verb == "read":
            data = await stream.read(span.start, span.length)
            say("absent" if data is None else data == content(span.start, span.length))
        elif verb == "lock":
            locks.append(stream.try_lock(span))
            say("busy" if locks[-1] is None else "locked")
        elif verb == "admit":
            say((await store.blobs.admit(KEY, media_type="", name="x")).digest)


ROLES = {
    "write": write_forever,
    "checkpoint": checkpoint_forever,
    "admit": admit,
    "refuse": refuse,
    "take": take,
    "plant": plant,
    "answer": answer,
}


async def main(path: str, boot: str, role: str, number: str = "0") -> None:
    async with open_store(Path(path), checkpoint_s=1e6, boot_id=boot) as store:
        await ROLES[role](store, int(number))


def fork() -> None:
    """Be a process for each line of the input."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            trio.run(partial(main, *line.split()))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        say("exit", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if sys.argv[1:]:
        trio.run(partial(main, *sys.argv[1:]))
    else:
        fork()
