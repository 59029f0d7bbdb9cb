"""Decompression of whole streams: pull bytes out, bounded memory, every damage an error.

A decoder pulls its input from a ``read`` function and hands out decoded bytes. It keeps at most one
piece of input and one of output (plus the window of the format). Input behind the end of the
compressed data is not read to its end; whoever hashes the input reads the rest.

What happens behind the last frame follows the formats' own tools: gzip and bzip2 ignore it, zstd
and xz do not.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from typing_extensions import override

from cafs.codec.engines import Engine, bzip2_engine, decompress, gzip_engine, xz_engine
from cafs.codec.sniffing import Compression
from cafs.codec.zstd import zstd_pieces
from cafs.errors import MalformedError
from cafs.model.limits import BOMB, Limits

Read = Callable[[int], bytes]
"""Returns the next bytes, at most as many as asked for, none only at the end."""

_INPUT: Final = 128 << 10
_OUTPUT: Final = 512 << 10
"""Piece sizes; smaller ones cost speed, larger ones gain none (gzip: 570 MB/s from 64 KiB on)."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BZIP2_MAGIC: Final = b"BZh"
_MAGIC_BYTES: Final = 3


class Decoder(Protocol):
    """Decoded bytes, pulled.

    Concurrency: one caller at a time, in a thread.
    """

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes; fewer only at the end of the stream.

        Raises:
            MalformedError: the input is damaged, ends too early, or decodes to more than the limits
                allow.
            UnsupportedError: it needs more memory than we give, or a dictionary.
        """


def decoder(
    compression: Compression, read: Read, name: str, limits: Limits | None = None
) -> Decoder:
    """Make a decoder.

    Args:
        compression: of the input; ``NONE`` hands it through.
        read: the input. Its errors pass through unchanged.
        name: what errors call the input.
        limits: ratio and size are obeyed; the defaults of ``Limits`` when None.
    """
    source = Counted(read)
    if compression is Compression.NONE:
        pieces = _plain(source)
    elif compression is Compression.ZSTD:
        pieces = zstd_pieces(source.read, name)
    else:
        pieces = _framed(compression, source.read, name)
    return Pulled(pieces, source, name, limits or Limits())


class Counted:
    """Input that knows how much of it was read.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self.total = 0

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end."""
        data = self._read(size)
        self.total += len(data)
        return data


class Pulled(Decoder):
    """Cuts pieces into what the caller asks for, and watches the ratio.

    Args:
        pieces: the decoded bytes.
        source: what they are decoded from, for the ratio.
        name: what errors call the input.
        limits: ratio and size are obeyed.
    """

    def __init__(self, pieces: Iterator[bytes], source: Counted, name: str, limits: Limits) -> None:
        self._pieces = pieces
        self._source = source
        self._name = name
        self._limits = limits
        self._total = 0
        self._piece = b""
        self._at = 0

    @override
    def read(self, size: int) -> bytes:
        stop = self._at + size
        if stop <= len(self._piece):
            data = self._piece[self._at : stop]
            self._at = stop
            return data
        return self._read_across(size)

    def _read_across(self, size: int) -> bytes:
        parts = [self._piece[self._at :]]
        missing = size - len(parts[0])
        self._piece, self._at = b"", 0
        while missing > 0:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._count(len(piece))
            if len(piece) > missing:
                self._piece, self._at = piece, missing
                piece = piece[:missing]
            parts.append(piece)
            missing -= len(piece)
        return b"".join(parts)

    def _count(self, size: int) -> None:
        self._total += size
        given = self._source.total
        if self._limits.inflated(decoded=self._total, given=given):
            most = self._limits.most(given)
            raise MalformedError(
                f"{self._name}: {given} bytes decode to more than {most} bytes",
                hint=BOMB,
            )


def _plain(source: Counted) -> Iterator[bytes]:
    while data := source.read(_INPUT):
        yield data


def _framed(compression: Compression, read: Read, name: str) -> Iterator[bytes]:
    """Decode frame after frame of what has one engine a frame."""
    data = _fill(read, b"")
    while True:
        engine = _engine(compression)
        while not engine.eof:
            if engine.needs_input and not data:
                data = read(_INPUT)
                if not data:
                    raise MalformedError(f"{name}: the {compression.value} data ends too early")
            piece = decompress(engine, data, _OUTPUT, codec=compression.value, name=name)
            data = b""
            if piece:
                yield piece
        following = _next_frame(compression, engine.unused_data, read, name)
        if following is None:
            return
        data = following


def _engine(compression: Compression) -> Engine:
    if compression is Compression.GZIP:
        return gzip_engine()
    return xz_engine() if compression is Compression.XZ else bzip2_engine()


def _fill(read: Read, data: bytes) -> bytes:
    """Make sure that the first bytes, by which a frame is known, are there if any are."""
    while len(data) < _MAGIC_BYTES and (more := read(_INPUT)):
        data += more
    return data


def _next_frame(compression: Compression, rest: bytes, read: Read, name: str) -> bytes | None:
    """The beginning of the next frame, None when there is none.

    Source:
        gzip(1): "trailing garbage ignored", zeros silently; RFC 1952 §2.2 (members follow each
        other). bzip2(1): the same. xz file format §2.2: stream padding is zeros, a multiple of 4.
    """
    data = _fill(read, rest)
    if compression is Compression.GZIP:
        return data if data.startswith(_GZIP_MAGIC) else None
    if compression is Compression.BZIP2:
        return data if data.startswith(_BZIP2_MAGIC) else None
    padding = 0
    while not (stripped := data.lstrip(b"\0")):
        padding += len(data)
        data = read(_INPUT)
        if not data:
            break
    padding += len(data) - len(stripped)
    if padding % 4:
        raise MalformedError(f"{name}: {padding} bytes of padding behind the xz data")
    return stripped or None
