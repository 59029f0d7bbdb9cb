"""Readers of what other processes let go of: ``scripts/soak evicting``.

Reading processes compare every byte of what they find, while evicting processes take ranges out of
the same streams by punching holes, remove whole streams and the blobs that they have become, and
make room as a full store does; a writing process fills what is missing, and admits what is whole. A
part of the reads is held: what is there once it is held, nobody may let go of.

Each process is ``python -m cafs.testing.evicting ROLE STORE SECONDS SEED``; it prints what it did.
"""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
from typing_extensions import override

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.blobs.admission import NotWholeError
from cafs.store.store import Store, open_store
from cafs.store.tables.sums import PIECE
from cafs.testing.bodies import Generated

_MIB: Final = 1 << 20
_SIZES: Final = (12 * _MIB, 7 * _MIB + 4321, 20 * _MIB + 1, 96 * _MIB)
"""Bytes of the streams; the last is one of which a full store gives ranges away."""
_BODIES: Final = {
    StreamKey(f"{seed + 1:02x}" * 32): Generated(size, seed) for seed, size in enumerate(_SIZES)
}
_LENGTHS: Final = (1, 4096, 65_536, 300_000, _MIB, 3 * _MIB)
_TASKS: Final = 4
"""Reads that a reading process has under way at once."""
_ROLES: Final = ("read", "read", "read", "evict", "evict", "write")
_PAUSE_S: Final = 0.02
"""How long an evicting process pauses at most between two acts."""
_OFTEN: Final = (20, 1, 4)
"""How often it takes out a range, removes an item, makes room."""
_HELD: Final = 1 / 3
_ADMITTED: Final = 0.05
"""Of the looks at a stream that is whole, after which it becomes a blob."""
_END_S: Final = 60.0
"""How long a process may take to end after its time."""


@dataclass(slots=True)
class Eviction:
    """What reading and evicting came to.

    ``counts`` are of all processes; ``wrong`` are the reads of which a byte was not what it should
    be, ``lost`` those that found nothing where there was something, and was held; ``failed`` is
    what processes complained of.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    miscounted: int = 0

    @property
    def well(self) -> bool:
        """Whether every byte was right, and there were both reads and evictions."""
        nothing = not (self.wrong or self.lost or self.failed or self.miscounted)
        return nothing and all(map(self.counts.get, ("reads", "absent", "cuts", "removals")))

    @override
    def __str__(self) -> str:
        count = self.counts
        return (
            f"evicting: {count['reads']} reads of {count['read bytes'] // _MIB} MiB, "
            f"{count['absent']} of what was absent; {count['held']} were held\n"
            f"  {count['cuts']} ranges taken out, {count['removals']} items removed, room made "
            f"{count['rooms']} times; {count['freed bytes'] // _MIB} MiB freed\n"
            f"  {count['writes']} writes, {count['written bytes'] // _MIB} MiB; "
            f"{count['admitted']} streams became blobs\n"
            f"  wrong: {'; '.join(self.wrong[:5]) or 'nothing'}; "
            f"lost while held: {'; '.join(self.lost[:5]) or 'nothing'}\n"
            f"  failed: {'; '.join(self.failed) or 'nothing'}; "
            f"miscounted at the end: {self.miscounted} bytes"
        )


class _Told(msgspec.Struct):
    """What one process did."""

    counts: dict[str, int]
    wrong: list[str]
    lost: list[str]


class _Actor:
    """One process at work on the store.

    Concurrency: one trio run.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost: list[str] = []

    async def read(self) -> None:
        """Read and compare, several at once."""
        async with trio.open_nursery() as nursery:
            for _ in range(_TASKS):
                nursery.start_soon(self._read_on)

    async def _read_on(self) -> None:
        while True:
            key, body = self._chance.choice([*_BODIES.items()])
            offset = self._chance.randrange(body.size)
            length = min(self._chance.choice(_LENGTHS), body.size - offset)
            await self._read_one(key, Span(offset, offset + length))

    async def _read_one(self, key: StreamKey, span: Span) -> None:
        stream = self._store.streams.find(key)
        if stream is None:
            self.counts["absent"] += 1
            await trio.sleep(_PAUSE_S)
            return
        async with AsyncExitStack() as holding:
            held = self._chance.random() < _HELD
            if held:
                await holding.enter_async_context(self._store.streams.hold(key, span))
            found = 0
            for _ in range(2):
                data = await stream.read(span.start, span.length)
                if data is not None:
                    found += 1
                    self._check(key, span, data)
                elif held and found:
                    self.lost.append(f"{span} of {key[:2]}")
                else:
                    self.counts["absent"] += 1
            self.counts["held"] += held
        await trio.lowlevel.checkpoint()

    def _check(self, key: StreamKey, span: Span, data: bytes) -> None:
        self.counts["reads"] += 1
        self.counts["read bytes"] += len(data)
        right = _BODIES[key].read(span.start, span.length)
        if data != right:
            zeros = data.count(0) - right.count(0)
            self.wrong.append(f"{span} of {key[:2]}, {zeros} zeros too many")

    async def evict(self) -> None:
        """Let go of ranges, of wholes, and of what the store would let go of."""
        acts: list[Callable[[], Awaitable[None]]] = [self._cut, self._remove, self._make_room]
        while True:
            [act] = self._chance.choices(acts, weights=_OFTEN)
            await act()
            await trio.sleep(self._chance.uniform(0, _PAUSE_S))

    async def _cut(self) -> None:
        key, body = self._chance.choice([*_BODIES.items()])
        start = self._chance.randrange(0, body.size, PIECE)
        length = self._chance.choice((PIECE, 4 * PIECE, _MIB, 4 * _MIB))
        stop = min(start + length, -(-body.size // PIECE) * PIECE)
        cut = partial(self._store.remover.cut, key, [Span(start, stop)])
        freed = await trio.to_thread.run_sync(cut)
        self.counts["cuts"] += freed > 0
        self.counts["freed bytes"] += freed

    async def _remove(self) -> None:
        items = [Item.blob(digest) for digest in self._store.blobs.digests()]
        items.append(Item.stream(self._chance.choice([*_BODIES])))
        chosen = [self._chance.choice(items)]
        freed = await trio.to_thread.run_sync(self._store.remover.remove, chosen)
        self.counts["removals"] += freed > 0
        self.counts["freed bytes"] += freed

    async def _make_room(self) -> None:
        freed = await self._store.evictor.make_room(self._chance.randrange(8 * _MIB))
        self.counts["rooms"] += freed > 0
        self.counts["freed bytes"] += freed

    async def write(self) -> None:
        """Fill what is missing, and make blobs of some of what is whole."""
        async with trio.open_nursery() as nursery:
            for key, body in _BODIES.items():
                nursery.start_soon(self._fill, key, body)

    async def _fill(self, key: StreamKey, body: Generated) -> None:
        while True:
            stream = await self._store.streams.open(key, body.size)
            gaps = [*stream.present().missing(Span(0, body.size))]
            if gaps:
                gap = self._chance.choice(gaps)
                length = min(gap.length, _MIB)
                start = self._chance.choice((gap.start, gap.stop - length))
                await stream.write(start, body.read(start, length))
                self.counts["writes"] += 1
                self.counts["written bytes"] += length
            elif stream.digest() is None and self._chance.random() < _ADMITTED:
                await self._admit(key)
            else:
                await trio.sleep(_PAUSE_S)

    async def _admit(self, key: StreamKey) -> None:
        try:
            await self._store.blobs.admit(key, media_type="", name="content")
        except (NotWholeError, ValueError):
            return  # somebody has let go of some of it since
        self.counts["admitted"] += 1


async def _act(role: str, path: Path, seconds: float, seed: int) -> _Told:
    async with open_store(path) as store:
        actor = _Actor(store, seed)
        work = {"read": actor.read, "evict": actor.evict, "write": actor.write}[role]
        with trio.move_on_after(seconds):
            await work()
        return _Told(dict(actor.counts), actor.wrong, actor.lost)


async def _miscounted(path: Path) -> int:
    async with open_store(path) as store:
        return await trio.to_thread.run_sync(store.room.recount)


def evict_beside_readers(store: Path, *, seconds: float) -> Eviction:
    """Let processes read, evict and write on one store for so long.

    Args:
        store: a directory that is made.
        seconds: how long.
    """
    trio.run(_miscounted, store)
    outcome = Eviction()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, role, str(store), str(seconds), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed, role in enumerate(_ROLES)
    ]
    try:
        for role, process in zip(_ROLES, processes, strict=True):
            said, complained = process.communicate(timeout=seconds + _END_S)
            lines = complained.decode(errors="replace").splitlines()
            outcome.failed += [f"{role}: {line}" for line in lines[-3:]]
            if process.returncode:
                outcome.failed.append(f"{role}: exit {process.returncode}")
                continue
            told = msgspec.json.decode(said, type=_Told)
            outcome.counts.update(told.counts)
            outcome.wrong += told.wrong
            outcome.lost += told.lost
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    outcome.miscounted = trio.run(_miscounted, store)
    return outcome


def main() -> None:
    """Be one of the processes."""
    role, store, seconds, seed = sys.argv[1:]
    told = trio.run(_act, role, Path(store), float(seconds), int(seed))
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
