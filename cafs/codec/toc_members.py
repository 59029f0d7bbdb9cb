"""Members and segments out of a table of contents: what both formats have in common.

The contents of all files lie end to end in one stream that no tar is: each chunk is a segment of
it, which can be decoded and checked alone. A chunk without a sha256 of its own could not be, and
then the whole table is of no use.

What an entry says was written by a stranger. It must make sense here, before anything is made of
it: the chunks of a file follow each other and are all of it, their inputs lie inside the layer and
do not overlap, those that share one follow each other in it, and everything is within the limits.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from msgspec.structs import replace

from cafs.codec.naming import quoted
from cafs.codec.toc_entries import Read, TocEntry, toc_entries
from cafs.codec.toc_values import malformed, member_of, sha256_of, unsupported
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member, Piece
from cafs.model.record import Segment

CHUNK: Final = "chunk"
_ZEROS: Final = "zeros"
_PIECE_BYTES: Final = 16
"""Of a member's ``header_bytes``, what a piece of a sparse map takes."""
_TOGETHER: Final = 1 << 16
"""Chunks that may lie in one member of the layer."""


class Sink(Protocol):
    """Takes what a table says.

    Concurrency: one caller at a time.
    """

    @abstractmethod
    def member(self, member: Member) -> None:
        """Take a member; its content lies at ``offset`` of the stream.

        Raises:
            MalformedError: it cannot be in a tree.
        """

    @abstractmethod
    def segment(self, segment: Segment) -> None:
        """Take a segment of the stream."""


def read_members(
    read: Read,
    sink: Sink,
    *,
    codec: str,
    start: int,
    name: str,
    limits: Limits,
    hidden: Callable[[bytes], bool] = lambda _: False,
) -> int:
    """Read a table that has been checked; returns the bytes of all contents.

    Args:
        read: the JSON, decoded.
        sink: takes members and segments.
        codec: of the chunks.
        start: where in the layer the table begins, and the chunks end.
        name: what errors call the layer.
        limits: what the layer may ask of us.
        hidden: whether a file is left out, by its path.

    Raises:
        MalformedError: it makes no sense, or asks too much.
        UnsupportedError: what it says does not do: a chunk without a digest, another version.
    """
    members = TocMembers(sink, codec=codec, end=start, name=name, limits=limits, hidden=hidden)
    for entry in toc_entries(read, name=name, limits=limits):
        members.add(entry)
    return members.finish()


class TocMembers:
    """Takes the entries of a table, in their order, and hands on members and segments.

    Args:
        sink: takes them.
        codec: of the chunks.
        end: where in the layer the chunks end.
        name: what errors call the layer.
        limits: what the layer may ask of us.
        hidden: whether a file is left out, by its path.

    ``size`` are the bytes of the stream so far.

    Concurrency: one caller at a time.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        codec: str,
        end: int,
        name: str,
        limits: Limits,
        hidden: Callable[[bytes], bool],
    ) -> None:
        self._sink = sink
        self._codec = codec
        self._end = end
        self._name = name
        self._limits = limits
        self._hidden = hidden
        self._file: _File | None = None
        self._waiting: list[_Waiting] = []
        self._last = -1
        self._count = 0
        self.size = 0

    def add(self, entry: TocEntry) -> None:
        """Take the next entry.

        Raises:
            MalformedError: it makes no sense, or is one too many.
            UnsupportedError: what is said of it does not do.
        """
        self._count += 1
        if self._count > self._limits.members:
            raise MalformedError(
                f"{self._name}: more than {self._limits.members} entries and chunks"
            )
        if entry.type == CHUNK:
            if self._file is None or not self._file.goes_on(entry):
                raise malformed(self._name, entry.name, "a chunk of no file")
            self._chunk(self._file, entry)
            return
        self._end_file()
        member = member_of(entry, self.size, self._name)
        if member.kind is not Kind.FILE:
            self._sink.member(member)
            return
        self._file = _File(entry, member, hidden=self._hidden(member.path))
        if entry.size:
            self._chunk(self._file, entry)

    def finish(self) -> int:
        """Say that those were all; returns the bytes of the stream.

        Raises:
            MalformedError: the last file is cut off.
        """
        self._end_file()
        self._bound(self._end)
        return self.size

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if file.seen != file.entry.size:
            raise malformed(
                self._name,
                file.entry.name,
                f"its chunks have {file.seen} of {file.entry.size} bytes",
            )
        if file.entry.end_offset:
            self._bound(file.entry.end_offset)
        if not file.hidden:
            self._sink.member(file.made())

    def _chunk(self, file: "_File", entry: TocEntry) -> None:
        length = entry.chunk_size or file.entry.size - entry.chunk_offset
        if entry.chunk_offset != file.seen or not 0 < length <= file.entry.size - file.seen:
            raise malformed(self._name, file.entry.name, "its chunks do not follow each other")
        zeros = entry.chunk_type == _ZEROS
        if entry.offset != self._last and (entry.offset or not zeros):
            self._bound(entry.offset)
        file.seen += length
        if zeros:
            file.holes = True
        elif entry.chunk_type not in {"", "data"}:
            raise unsupported(
                self._name, file.entry.name, f"chunks of type {quoted(entry.chunk_type)}"
            )
        elif not file.hidden:
            self._data(file, entry, length)

    def _data(self, file: "_File", entry: TocEntry, length: int) -> None:
        said = entry.chunk_digest or (entry.digest if length == file.entry.size else "")
        digest = sha256_of(said, entry, self._name)
        self._wait((self.size, length, entry.offset, entry.inner_offset, digest))
        file.take(length)
        if len(file.pieces) > self._limits.header_bytes // _PIECE_BYTES:
            raise unsupported(self._name, file.entry.name, "a file of so many holes")
        self.size += length
        if self.size > self._limits.size or entry.inner_offset > self._limits.size:
            raise malformed(self._name, file.entry.name, "more content than the limits allow")
        if self._limits.inflated(decoded=self.size, given=self._end):
            raise malformed(
                self._name,
                file.entry.name,
                f"a layer of {self._end} bytes with {self.size} bytes of content",
            )

    def _wait(self, chunk: "_Waiting") -> None:
        """Keep a chunk until it is known where its input ends."""
        if self._waiting:
            if len(self._waiting) >= _TOGETHER:
                raise UnsupportedError(f"{self._name}: more than {_TOGETHER} chunks at one place")
            _, length, at, skip, _ = self._waiting[-1]
            if chunk[3] < skip + length:
                raise MalformedError(f"{self._name}: chunks at {at} that lie upon each other")
        self._waiting.append(chunk)

    def _bound(self, stop: int) -> None:
        """What waits ends there at the latest."""
        if not self._last <= stop <= self._end:
            raise MalformedError(
                f"{self._name}: chunks that lie at {self._last} and at {stop} of {self._end} bytes"
            )
        for start, length, at, skip, digest in self._waiting:
            given = stop - at
            if not given:
                raise MalformedError(f"{self._name}: a chunk of no bytes at {stop}")
            if self._limits.inflated(decoded=skip + length, given=given):
                raise MalformedError(f"{self._name}: a chunk {skip} bytes into what {given} are")
            self._sink.segment(
                Segment(
                    start=start,
                    length=length,
                    input_start=at,
                    input_length=given,
                    codec=self._codec,
                    sha256=digest,
                    skip=skip,
                )
            )
        self._waiting.clear()
        self._last = stop


_Waiting = tuple[int, int, int, int, bytes]
"""A chunk: where it starts, its bytes, where its input does, how far inside that, its digest."""


class _File:
    """A file whose chunks come one by one.

    ``seen`` are bytes so far; ``pieces`` the runs of them that have data, where it has ``holes``.
    """

    def __init__(self, entry: TocEntry, member: Member, *, hidden: bool) -> None:
        self.entry = entry
        self.hidden = hidden
        self.seen = 0
        self.holes = False
        self.pieces: list[Piece] = []
        self._member = member

    def goes_on(self, entry: TocEntry) -> bool:
        """Whether a chunk is the next one of this file."""
        return entry.name in {"", self.entry.name} and self.seen < self.entry.size

    def take(self, length: int) -> None:
        """What was seen last is data."""
        start = self.seen - length
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.offset + last.length == start:
            self.pieces[-1] = Piece(last.offset, last.length + length)
        else:
            self.pieces.append(Piece(start, length))

    def made(self) -> Member:
        """The member, when all of it has been seen."""
        if not self.holes:
            return self._member
        return replace(self._member, sparse=tuple(self.pieces))
