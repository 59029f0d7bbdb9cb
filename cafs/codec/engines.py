"""Decompressors of single frames, from several libraries, behind one interface.

An engine is fed input and hands out output piece by piece, never more at once than asked for. Their
errors are translated here, so that a caller sees ours only.
"""

import bz2
import lzma
import struct
from abc import abstractmethod
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard
from isal import igzip_lib
from typing_extensions import override

from cafs.errors import MalformedError, UnsupportedError

OUTPUT: Final = 512 << 10
"""Most bytes that are decoded at once; larger pieces gain no speed."""

MEMORY: Final = 256 << 20
"""Bytes that a frame may ask for; ``xz -9`` needs 65 MiB to decode."""

WINDOW: Final = 128 << 20
"""Bytes of history that a zstd frame may need: what ``zstd --ultra -22 --long=27`` makes."""


class Engine(Protocol):
    """One frame's decompressor: the interface of ``bz2.BZ2Decompressor``.

    Concurrency: one caller at a time.
    """

    @property
    @abstractmethod
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    @abstractmethod
    def needs_input(self) -> bool:
        """Whether nothing comes without more input."""

    @property
    @abstractmethod
    def unused_data(self) -> bytes:
        """Input behind the frame."""

    @abstractmethod
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Take input, and return at most ``max_length`` bytes of output."""


def gzip_engine() -> Engine:
    """A gzip member: header, deflate, checksum and length."""
    return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)


def deflate_engine(window: bytes = b"") -> Engine:
    """Raw deflate, behind what was decoded before."""
    return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, zdict=window)


def bzip2_engine() -> Engine:
    """A bzip2 stream."""
    return bz2.BZ2Decompressor()


def xz_engine() -> Engine:
    """An xz stream."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)


class ZstdEngine(Engine):
    """A zstd frame in small pieces.

    libzstd's Python door has no bound on output, so that of one call is bounded by its input: each
    four bytes may become a block of 128 KiB. Feed it no more than ``PIECE`` bytes at once.
    """

    PIECE: Final = 512

    def __init__(self) -> None:
        self._engine = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()

    @property
    @override
    def eof(self) -> bool:
        return self._engine.eof

    @property
    @override
    def needs_input(self) -> bool:
        return True

    @property
    @override
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    @override
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._engine.decompress(data)


class ZipLzmaEngine(Engine):
    """LZMA as zip members have it: a header of its own, then the raw stream.

    The end mark is optional, so ``eof`` may stay False behind the last byte.

    Source:
        PKWARE APPNOTE 6.3.10, §5.8.8.
    """

    _HEADER: Final = struct.Struct("<xxHBI")

    def __init__(self) -> None:
        self._header = b""
        self._engine: lzma.LZMADecompressor | None = None

    @property
    @override
    def eof(self) -> bool:
        return self._engine is not None and self._engine.eof

    @property
    @override
    def needs_input(self) -> bool:
        return self._engine is None or self._engine.needs_input

    @property
    @override
    def unused_data(self) -> bytes:
        return b"" if self._engine is None else self._engine.unused_data

    @override
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        if self._engine is None:
            self._header += data
            if len(self._header) < self._HEADER.size:
                return b""
            self._engine = self._open()
            data = self._header[self._HEADER.size :]
            self._header = b""
        return self._engine.decompress(data, max_length)

    def _open(self) -> lzma.LZMADecompressor:
        length, properties, dictionary = self._HEADER.unpack_from(self._header)
        rest, lc = divmod(properties, 9)
        pb, lp = divmod(rest, 5)
        if length != 5 or pb > 4 or dictionary > MEMORY:  # noqa: PLR2004 - of the format
            raise lzma.LZMAError(f"properties {length} {properties} {dictionary}")
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def decompress(engine: Engine, data: bytes, limit: int, *, codec: str, name: str) -> bytes:
    """Run an engine, in our errors.

    Args:
        engine: whose frame has not ended.
        data: input; empty when it still has some.
        limit: most bytes of output.
        codec: what errors call the format.
        name: what errors call the input.

    Raises:
        MalformedError: the data is damaged.
        UnsupportedError: it needs more memory than we give.
    """
    try:
        return engine.decompress(data, limit)
    except lzma.LZMAError as error:
        if "limit" in str(error):
            raise UnsupportedError(
                f"{name}: the {codec} data needs more than {MEMORY >> 20} MiB of memory",
                hint="compress it with a smaller dictionary",
            ) from error
        raise MalformedError(f"{name}: damaged {codec} data: {error}") from error
    except (zstandard.ZstdError, OSError, EOFError, ValueError) as error:
        raise MalformedError(f"{name}: damaged {codec} data: {error}") from error
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # isal's stub makes it an instance
        raise MalformedError(f"{name}: damaged {codec} data: {error}") from error


def drained(engine: Engine, data: bytes, *, codec: str, name: str) -> Iterator[bytes]:
    """All that an engine makes of some input, until it wants more or has ended; none is empty.

    Args:
        engine: whose frame has not ended.
        data: the input; none of it is left behind.
        codec: what errors call the format.
        name: what errors call the input.

    Raises:
        MalformedError, UnsupportedError: as ``decompress``.
    """
    piece = decompress(engine, data, OUTPUT, codec=codec, name=name)
    while piece:
        yield piece
        if engine.eof:
            return
        # bz2 says that it needs input while there is still output for which it had no room.
        piece = decompress(engine, b"", OUTPUT, codec=codec, name=name)
