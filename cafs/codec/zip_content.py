"""The content of zip members: where it begins, and how it is decoded as its input arrives.

Source:
    PKWARE APPNOTE 6.3.10 §4.3.7, §4.4.5.
"""

from collections.abc import Iterator
from typing import Final

from cafs.codec.engines import (
    Engine,
    ZipLzmaEngine,
    ZstdEngine,
    bzip2_engine,
    decompress,
    deflate_engine,
)
from cafs.errors import MalformedError, UnsupportedError

LOCAL: Final = 30
"""Bytes of a local header before its name."""

_LOCAL_MARK: Final = b"PK\3\4"
_OUTPUT: Final = 512 << 10


class Inflater:
    """Decodes one member's content, fed piece by piece.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, codec: str, engine: Engine | None, name: str, length: int | None) -> None:
        self._codec = codec
        self._engine = engine
        self._name = name
        self._length = length
        self._total = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes of the input, as output pieces of at most 16 MiB, most 512 KiB.

        Raises:
            MalformedError: damaged, or more output than the length that was given.
            UnsupportedError: it needs more memory than we give.
        """
        step = ZstdEngine.PIECE if isinstance(self._engine, ZstdEngine) else len(data)
        for at in range(0, len(data), step or 1):
            for piece in self._run(data[at : at + step]):
                self._total += len(piece)
                if self._length is not None and self._total > self._length:
                    raise MalformedError(
                        f"{self._name}: decodes to more than the {self._length} bytes announced"
                    )
                yield piece

    def _run(self, data: bytes) -> Iterator[bytes]:
        engine = self._engine
        if engine is None:
            yield data
            return
        while not engine.eof:
            piece = decompress(engine, data, _OUTPUT, codec=self._codec, name=self._name)
            if piece:
                yield piece
            data = b""
            if engine.needs_input:
                return

    def finish(self) -> None:
        """Check that all has been decoded. Input behind the end of the data is ignored.

        Raises:
            MalformedError: the data ended too early, or has another length than announced.
        """
        whole = self._length is None or self._total == self._length
        ended = self._engine is None or self._engine.eof
        # LZMA in zip may lack its end mark; then the length tells.
        if not whole or not (ended or (self._codec == "lzma" and self._length is not None)):
            of = "" if self._length is None else f" of {self._length}"
            raise MalformedError(f"{self._name}: the data ends after {self._total}{of} bytes")


def inflate(codec: str, *, name: str = "zip member", length: int | None = None) -> Inflater:
    """Make what decodes a member's content.

    Args:
        codec: of its segment.
        name: what errors call the member.
        length: bytes that it must decode to; None when nobody told.

    Raises:
        UnsupportedError: encrypted, or a method that we do not know.
    """
    match codec:
        case "store":
            return Inflater(codec, None, name, length)
        case "deflate":
            return Inflater(codec, deflate_engine(), name, length)
        case "bzip2":
            return Inflater(codec, bzip2_engine(), name, length)
        case "lzma":
            return Inflater(codec, ZipLzmaEngine(), name, length)
        case "zstd":
            return Inflater(codec, ZstdEngine(), name, length)
        case "encrypted":
            raise UnsupportedError(f"{name}: it is encrypted")
        case _:
            raise UnsupportedError(f"{name}: compression {codec!r} is not supported")


def content_start(local_header: bytes, *, name: str = "zip archive") -> int:
    """How far behind its local header a member's content begins.

    Args:
        local_header: from its start, at least ``LOCAL`` bytes.
        name: what errors call the member.

    Raises:
        MalformedError: no local header.
    """
    if len(local_header) < LOCAL or not local_header.startswith(_LOCAL_MARK):
        raise MalformedError(f"{name}: no local header where the zip directory says")
    name_length = int.from_bytes(local_header[26:28], "little")
    return LOCAL + name_length + int.from_bytes(local_header[28:30], "little")
