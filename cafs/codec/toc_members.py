"""Members and segments out of a table of contents: what both formats have in common.

The contents of all files lie end to end in one stream that no tar is: each chunk is a segment of
it, which can be decoded and checked alone. A chunk without a sha256 of its own could not be, and
then the whole table is of no use.

What an entry says was written by a stranger. It must make sense here, before anything is made of
it: the chunks of a file follow each other and are all of it, their inputs lie inside the layer and
do not overlap, and everything is within the limits.
"""

import base64
import binascii
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

from cafs.codec.naming import label
from cafs.codec.tar_header import owner
from cafs.codec.toc_entries import TocEntry
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member, Piece
from cafs.model.record import Segment

KINDS: Final = {
    "dir": Kind.DIRECTORY,
    "reg": Kind.FILE,
    "symlink": Kind.SYMLINK,
    "hardlink": Kind.HARD_LINK,
    "char": Kind.CHARACTER_DEVICE,
    "block": Kind.BLOCK_DEVICE,
    "fifo": Kind.FIFO,
}
CHUNK: Final = "chunk"
_ZEROS: Final = "zeros"
_SHA256: Final = "sha256:"
_SHA256_BYTES: Final = 32
_PIECE_BYTES: Final = 16
"""Of a member's ``header_bytes``, what a piece of a sparse map takes."""
_TOGETHER: Final = 1 << 16
"""Chunks that may lie in one member of the layer."""
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
"""What Go's encoder writes for bytes that are no UTF-8: what they were is lost."""
_DIGITS: Final = 9
_DAY_S: Final = 86_400
_LATEST_NS: Final = (1 << 63) - 1


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
        hidden: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._sink = sink
        self._codec = codec
        self._end = end
        self._name = name
        self._limits = limits
        self._hidden = hidden
        self._file: _File | None = None
        self._waiting: list[Segment] = []
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
                raise self._malformed(entry.name, "a chunk of no file")
            self._chunk(self._file, entry)
            return
        self._end_file()
        member = self._member(entry)
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
            raise self._malformed(
                file.entry.name, f"its chunks have {file.seen} of {file.entry.size} bytes"
            )
        if file.entry.end_offset:
            self._bound(file.entry.end_offset)
        if not file.hidden:
            self._sink.member(file.made())

    def _chunk(self, file: "_File", entry: TocEntry) -> None:
        length = entry.chunk_size or file.entry.size - entry.chunk_offset
        if entry.chunk_offset != file.seen or not 0 < length <= file.entry.size - file.seen:
            raise self._malformed(file.entry.name, "its chunks do not follow each other")
        zeros = entry.chunk_type == _ZEROS
        if entry.offset != self._last and (entry.offset or not zeros):
            self._bound(entry.offset)
        file.seen += length
        if zeros:
            file.holes = True
        elif entry.chunk_type not in {"", "data"}:
            raise self._unsupported(file.entry.name, f"chunks of type {entry.chunk_type!r}")
        elif not file.hidden:
            self._data(file, entry, length)

    def _data(self, file: "_File", entry: TocEntry, length: int) -> None:
        said = entry.chunk_digest or (entry.digest if length == file.entry.size else "")
        self._wait(
            Segment(
                start=self.size,
                length=length,
                input_start=entry.offset,
                input_length=0,
                codec=self._codec,
                sha256=self._sha256(entry, said),
                skip=entry.inner_offset,
            )
        )
        file.take(length)
        if len(file.pieces) > self._limits.header_bytes // _PIECE_BYTES:
            raise self._unsupported(file.entry.name, "a file of so many holes")
        self.size += length
        if self.size > self._limits.size or entry.inner_offset > self._limits.size:
            raise self._malformed(file.entry.name, "more content than the limits allow")
        if self._limits.inflated(decoded=self.size, given=self._end):
            raise self._malformed(
                file.entry.name, f"a layer of {self._end} bytes with {self.size} bytes of content"
            )

    def _wait(self, segment: Segment) -> None:
        """Keep a segment until it is known where its input ends."""
        if len(self._waiting) >= _TOGETHER:
            raise UnsupportedError(f"{self._name}: more than {_TOGETHER} chunks at one place")
        self._waiting.append(segment)

    def _bound(self, stop: int) -> None:
        """What waits ends there at the latest."""
        if not self._last <= stop <= self._end:
            raise MalformedError(
                f"{self._name}: chunks that lie at {self._last} and at {stop} of {self._end} bytes"
            )
        for segment in self._waiting:
            if stop == segment.input_start:
                raise MalformedError(f"{self._name}: a chunk of no bytes at {stop}")
            self._sink.segment(replace(segment, input_length=stop - segment.input_start))
        self._waiting.clear()
        self._last = stop

    def _sha256(self, entry: TocEntry, text: str) -> bytes:
        if not text.startswith(_SHA256):
            raise self._unsupported(entry.name, "a chunk without a sha256 of it")
        try:
            raw = bytes.fromhex(text.removeprefix(_SHA256))
        except ValueError as error:
            raise self._malformed(entry.name, f"{text!r} is no sha256") from error
        if len(raw) != _SHA256_BYTES:
            raise self._malformed(entry.name, f"{text!r} is no sha256")
        return raw

    def _member(self, entry: TocEntry) -> Member:
        kind = KINDS.get(entry.type)
        if kind is None:
            raise self._unsupported(entry.name, f"an entry of type {entry.type!r}")
        linked = kind in {Kind.SYMLINK, Kind.HARD_LINK}
        if linked and not entry.link_name:
            raise self._malformed(entry.name, "a link to nothing")
        try:
            return Member(
                path=self._raw(entry.name),
                kind=kind,
                mode=entry.mode & 0o7777,
                uid=owner(entry.uid),
                gid=owner(entry.gid),
                mtime_ns=_since_epoch(entry.modtime),
                size=entry.size if kind is Kind.FILE else 0,
                offset=self.size,
                target=self._raw(entry.link_name) if linked else None,
                device=os.makedev(entry.dev_major, entry.dev_minor)
                if kind in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE}
                else 0,
                xattrs=self._xattrs(entry),
            )
        except (ValueError, OverflowError) as error:
            raise self._malformed(entry.name, str(error)) from error

    def _raw(self, text: str) -> bytes:
        if _REPLACED in text:
            raise self._unsupported(text, "a name that JSON cannot spell")
        return text.encode()

    def _xattrs(self, entry: TocEntry) -> tuple[tuple[bytes, bytes], ...]:
        if not entry.xattrs:
            return ()
        try:
            return tuple(
                (self._raw(name), base64.b64decode(value, validate=True))
                for name, value in sorted(entry.xattrs.items())
            )
        except binascii.Error as error:
            raise self._malformed(entry.name, "an attribute that is no base64") from error

    def _malformed(self, name: str, what: str) -> MalformedError:
        return MalformedError(f"{label(self._name, name.encode('utf-8', 'replace'))}: {what}")

    def _unsupported(self, name: str, what: str) -> UnsupportedError:
        return UnsupportedError(f"{label(self._name, name.encode('utf-8', 'replace'))}: {what}")


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


@lru_cache(4096)
def _since_epoch(text: str) -> int:
    """A time as RFC 3339 spells it, in ns since the epoch; 0 where none is said.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return 0
    seconds, dot, rest = text.partition(".")
    fraction = ""
    if dot:
        fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        seconds += rest[len(fraction) :]
    moment = datetime.fromisoformat(seconds)
    if moment.tzinfo is None or len(fraction) > _DIGITS:
        raise ValueError(f"{text!r} is no time")
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    since = (elapsed.days * _DAY_S + elapsed.seconds) * 10**_DIGITS
    since += int(fraction.ljust(_DIGITS, "0"))
    return max(-_LATEST_NS, min(_LATEST_NS, since))
