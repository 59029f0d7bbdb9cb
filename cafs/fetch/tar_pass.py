"""The first pass over a tar: one read forward makes the tree, the decoded stream, and the hash."""

from collections.abc import Callable
from typing import Final

import trio

from cafs.codec import tar
from cafs.codec.decoding import decoder
from cafs.codec.sniffing import Compression
from cafs.errors import StorageError
from cafs.fetch.bridging import Intake
from cafs.fetch.making import MakePlanter, MemberPlanter
from cafs.fetch.watching import Watch
from cafs.model.identity import StreamKey
from cafs.model.limits import Limits
from cafs.model.member import Member
from cafs.model.record import TreeStream
from cafs.model.span import Span
from cafs.store.streams import Stream
from cafs.store.tree_writing import TreeWriter

_BATCH: Final = 1 << 20


class Tee:
    """Hands on decoded bytes, and writes them into a stream as they pass.

    Concurrency: one worker thread.
    """

    def __init__(self, read: Callable[[int], bytes], stream: Stream) -> None:
        self._read = read
        self._stream = stream
        self._batch = bytearray()
        self.written = 0

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end."""
        data = self._read(size)
        self._batch += data
        if len(self._batch) >= _BATCH:
            self.flush()
        return data

    def flush(self) -> None:
        """Write what has not been written yet."""
        if self._batch:
            self._stream.write_sync(self.written, bytes(self._batch))
            self.written += len(self._batch)
            self._batch.clear()


def plant_plain(
    intake: Intake, planter: MakePlanter, writer: TreeWriter, *, name: str, limits: Limits
) -> None:
    """Plant the members of an uncompressed tar; their content stays in the raw stream.

    Runs in a worker thread; reads everything.

    Raises:
        MalformedError: no tar, or a damaged or hostile one.
        CafsError: as the intake.
    """
    _plant(intake.read, planter(writer, name=name, limits=limits), name, limits)
    intake.drain()


def plant_compressed(
    intake: Intake,
    compression: Compression,
    stream: Stream,
    planter: MakePlanter,
    writer: TreeWriter,
    *,
    name: str,
    limits: Limits,
) -> int:
    """Plant the members of a compressed tar, and write the tar inside into ``stream``.

    Runs in a worker thread; reads everything.

    Returns:
        the size of the tar inside, bytes.

    Raises:
        MalformedError: no compressed tar, or a damaged or hostile one.
        StorageError: it could not be written.
        CafsError: as the intake.
    """
    source = decoder(compression, intake.read, name, limits)
    tee = Tee(source.read, stream)
    _plant(tee.read, planter(writer, name=name, limits=limits), name, limits)
    tee.flush()
    intake.drain()
    trio.from_thread.run(stream.set_size, tee.written)
    if not stream.present().covers(Span(0, tee.written)):
        raise StorageError(
            f"{name}: what it decodes to was removed from the store meanwhile", hint="read it again"
        )
    return tee.written


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
