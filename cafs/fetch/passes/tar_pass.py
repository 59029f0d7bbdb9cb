"""The first pass over a tar: one read forward makes the tree, the decoded stream, and the hash."""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec
import trio

from cafs.codec import tar
from cafs.codec.pointing import pointed
from cafs.codec.sniffing import Compression
from cafs.errors import StorageError
from cafs.fetch.content.bridging import Intake
from cafs.fetch.passes.aside import Aside
from cafs.fetch.passes.cutting import SLICE, Cutter
from cafs.fetch.passes.making import MakePlanter, MemberPlanter
from cafs.fetch.passes.watching import Watch
from cafs.labour import worked
from cafs.model.identity import StreamKey
from cafs.model.limits import Limits
from cafs.model.member import Member
from cafs.model.record import TreeStream
from cafs.model.span import Span
from cafs.store.streams.stream import Stream
from cafs.store.trees.tree_writing import TreeWriter

_BATCH: Final = 1 << 20
_LOOK: Final = 256
"""Reads after which it is said that work was done, and looked whether the pass is still wanted:
some milliseconds. Of a few raw bytes there may be millions of members, and until the next raw bytes
are asked for it is not seen that it was cancelled."""
Keep = Callable[[int, bytes | bytearray], None]
"""Keeps decoded bytes that lie at an offset."""


class PlantSlices(Protocol):
    """Plants what is not compressed, whose content stays in the raw stream. In a thread."""

    def __call__(
        self, intake: Intake, planter: MakePlanter, writer: TreeWriter, *, name: str, limits: Limits
    ) -> None:
        """As ``plant_plain``."""


class Tee:
    """Hands on decoded bytes, and has them kept as they pass, many at once.

    A cancelled pass ends here: ``read`` raises ``trio.Cancelled`` then.

    Concurrency: one thread, started by ``trio.to_thread``.
    """

    def __init__(self, read: Callable[[int], bytes], keep: Keep) -> None:
        self._read = read
        self._keep = keep
        self._batch = bytearray()
        self._reads = 0
        self.written = 0

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end."""
        self._reads += 1
        if not self._reads % _LOOK:
            trio.from_thread.check_cancelled()
            worked()
        data = self._read(size)
        if len(data) >= _BATCH and not self._batch:
            self._hand_on(data)
            return data
        self._batch += data
        if len(self._batch) >= _BATCH:
            self.flush()
        return data

    def flush(self) -> None:
        """Have kept what has not been kept yet."""
        if self._batch:
            batch, self._batch = self._batch, bytearray()
            self._hand_on(batch)

    def _hand_on(self, data: bytes | bytearray) -> None:
        start = self.written
        self.written += len(data)
        self._keep(start, data)


class Decoded(msgspec.Struct, frozen=True):
    """What a pass decoded: how many bytes, in how many segments."""

    size: int
    segments: int


def plant_plain(
    intake: Intake, planter: MakePlanter, writer: TreeWriter, *, name: str, limits: Limits
) -> None:
    """Plant the members of an uncompressed tar; their content stays in the raw stream.

    Runs in a worker thread; reads everything. The tar is cut into slices, each with its digest: so
    that who has these can check one alone.

    Raises:
        MalformedError: no tar, or a damaged or hostile one.
        CafsError: as the intake.
    """
    with Aside() as aside:
        source = pointed(Compression.NONE, intake.read, name, limits, spacing=SLICE)
        cutter = Cutter(source, writer, aside)
        tee = Tee(source.read, cutter.add)
        _plant(tee.read, planter(writer, name=name, limits=limits), name, limits)
        tee.flush()
        intake.drain()
        cutter.end(tee.written)


def plant_compressed(
    intake: Intake,
    compression: Compression,
    stream: Stream | None,
    planter: MakePlanter,
    writer: TreeWriter,
    *,
    name: str,
    limits: Limits,
) -> Decoded:
    """Plant the members of a compressed tar, and write the tar inside into ``stream``.

    Runs in a worker thread; reads everything. Without a stream nothing of the tar is kept.

    Raises:
        MalformedError: no compressed tar, or a damaged or hostile one.
        StorageError: it could not be written.
        CafsError: as the intake.
    """
    with Aside() as aside:
        source = pointed(compression, intake.read, name, limits)
        cutter = Cutter(source, writer, aside)

        def keep(offset: int, data: bytes | bytearray) -> None:
            cutter.add(offset, data)
            if stream is not None:
                aside.post(partial(stream.write_sync, offset, data))

        tee = Tee(source.read, keep)
        _plant(tee.read, planter(writer, name=name, limits=limits), name, limits)
        tee.flush()
        cutter.end(tee.written)
    intake.drain()
    if stream is not None:
        trio.from_thread.run(stream.set_size, tee.written)
        if not stream.present().covers(Span(0, tee.written)):
            raise StorageError(
                f"{name}: what it decodes to was removed from the store meanwhile",
                hint="read it again",
            )
    return Decoded(tee.written, cutter.count)


def _plant(read: Callable[[int], bytes], planter: MemberPlanter, name: str, limits: Limits) -> None:
    watch = Watch(read)
    last: Member | None = None
    for member in tar.members(watch.read, name=name, limits=limits):
        # The content of the last one has gone by.
        if last is not None:
            planter.plant(last, watch.digest())
        last = member
        watch.begin(member)
    if last is not None:
        planter.plant(last, watch.digest())
    planter.finish()


def raw_stream_of(key: StreamKey, size: int) -> TreeStream:
    """The stream of a tree whose content lies in the raw bytes."""
    return TreeStream(key=key, size=size, raw=key, part=0, rules="")
