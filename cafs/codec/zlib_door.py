"""The one door to zlib's C interface, through ctypes.

Python's own ``zlib`` cannot stop at the end of a deflate block nor tell the bit where it stands,
and that is where decoding can begin anew. libz itself can, and is part of every Debian. A call lets
go of the interpreter while it runs. No byte of input is copied on the way in.

Source:
    zlib.h of zlib 1.2.9 and later: ``z_stream``, ``inflate`` (``Z_BLOCK``, ``data_type``),
    ``inflatePrime``, ``inflateSetDictionary``, ``inflateGetDictionary``.
"""

import ctypes
import enum
import weakref
from functools import cache
from typing import Final

from cafs.errors import UnsupportedError

WINDOW: Final = 32 << 10
"""Bytes of history that deflate can refer to."""

RAW: Final = -15
GZIP: Final = 31
"""What surrounds the blocks: nothing, or header and trailer of a gzip member, which are checked."""

_LIBRARY: Final = "libz.so.1"
_OK: Final = 0
_STREAM_END: Final = 1
_BUF_ERROR: Final = -5
_AT_BLOCK: Final = 128
_IN_LAST: Final = 64
_BITS: Final = 7


class Flush(enum.IntEnum):
    """How far ``Inflater.run`` goes: as far as it can, or to the end of a block at most."""

    NONE = 0
    BLOCK = 5


class DeflateError(Exception):
    """The data is damaged; it says how."""


class _Stream(ctypes.Structure):
    """``z_stream``; what ctypes makes of the fields that are used here."""

    avail_in: int
    avail_out: int
    next_in: int | None
    next_out: int | None
    msg: bytes | None
    data_type: int


_Stream._fields_ = [
    ("next_in", ctypes.c_void_p),
    ("avail_in", ctypes.c_uint),
    ("total_in", ctypes.c_ulong),
    ("next_out", ctypes.c_void_p),
    ("avail_out", ctypes.c_uint),
    ("total_out", ctypes.c_ulong),
    ("msg", ctypes.c_char_p),
    ("state", ctypes.c_void_p),
    ("zalloc", ctypes.c_void_p),
    ("zfree", ctypes.c_void_p),
    ("opaque", ctypes.c_void_p),
    ("data_type", ctypes.c_int),
    ("adler", ctypes.c_ulong),
    ("reserved", ctypes.c_ulong),
]


class Inflater:
    """One ``z_stream`` that inflates, with a buffer for its output. Freed with the object.

    Concurrency: one caller at a time, in a thread.

    Raises:
        UnsupportedError: there is no libz.
        MemoryError: no memory for it.
    """

    def __init__(self, wrapping: int, room: int) -> None:
        self._lib = _library()
        self._stream = _Stream()
        self._at = ctypes.byref(self._stream)
        version = self._lib.zlibVersion()
        size = ctypes.sizeof(_Stream)
        if self._lib.inflateInit2_(self._at, wrapping, version, size) != _OK:
            raise MemoryError("no memory to inflate")
        # The stream holds a pointer to itself, so its memory must outlive the object's end.
        freeing = weakref.finalize(self, _end, self._lib, self._stream)
        freeing.atexit = False
        self._room = room
        self._out = ctypes.create_string_buffer(room)
        self._where = ctypes.addressof(self._out)
        self._data = b""
        self._last = 0
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Give input instead of what is left of the last."""
        used = len(self._data) - self.left
        if used:
            self._last = self._data[used - 1]
        self._data = data
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        self._stream.avail_in = len(data)

    @property
    def left(self) -> int:
        """Bytes of the input that are not used yet."""
        return self._stream.avail_in

    @property
    def rest(self) -> bytes:
        """The input that is not used yet."""
        return self._data[len(self._data) - self.left :]

    def follows(self, head: bytes) -> bool:
        """Whether the input that is not used yet begins with these bytes."""
        return self._data.startswith(head, len(self._data) - self.left)

    def used(self, left: int) -> bytes:
        """The input that was used since so much of it was left."""
        stop = len(self._data)
        return self._data[stop - left : stop - self.left]

    def run(self, room: int, flush: Flush = Flush.NONE) -> bytes:
        """Go on: until all input is used, the room is full, the end, or what ``flush`` says.

        Args:
            room: most bytes of output; nought to go on to where the next byte must be written.
            flush: where to stop besides.

        Raises:
            DeflateError: the data is damaged, or has a dictionary that nobody gave.
        """
        stream = self._stream
        room = min(room, self._room)
        stream.next_out = self._where
        stream.avail_out = room
        code = self._lib.inflate(self._at, flush)
        if code == _STREAM_END:
            self.ended = True
        elif code not in (_OK, _BUF_ERROR):
            raise DeflateError((stream.msg or b"it cannot be inflated").decode())
        made = room - stream.avail_out
        return ctypes.string_at(self._where, made) if made else b""

    def between(self) -> tuple[int, int] | None:
        """If it stands between two blocks: the bits of the last used byte that are not used yet.

        Returns:
            how many there are, and their value. None in a block, and behind the last one.
        """
        kind = self._stream.data_type
        if kind & (_AT_BLOCK | _IN_LAST) != _AT_BLOCK:
            return None
        used, bits = len(self._data) - self.left, kind & _BITS
        last = self._data[used - 1] if used else self._last
        return bits, last >> (8 - bits)

    def window(self) -> bytes:
        """What was decoded last, as much as can be referred to."""
        out = ctypes.create_string_buffer(WINDOW)
        length = ctypes.c_uint(WINDOW)
        self._lib.inflateGetDictionary(self._at, out, ctypes.byref(length))
        return out.raw[: length.value]

    def again(self) -> None:
        """Begin anew, as if nothing had been decoded; input that is left stays."""
        self._lib.inflateReset(self._at)
        self.ended = False

    def begin_within(self, window: bytes, bits: int, value: int) -> None:
        """Begin in the middle, where nothing was fed yet: only where nothing surrounds the blocks.

        Args:
            window: what was decoded before.
            bits: how many bits come before the input, 0 to 7.
            value: these bits.

        Raises:
            MemoryError: no memory for the window.
        """
        done = self._lib.inflatePrime(self._at, bits, value)
        if done == _OK:
            done = self._lib.inflateSetDictionary(self._at, window, len(window))
        if done != _OK:
            raise MemoryError("no memory to inflate")


def _end(lib: ctypes.CDLL, stream: _Stream) -> None:
    lib.inflateEnd(ctypes.byref(stream))


@cache
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(_LIBRARY)
        stream, uint, pointer = ctypes.POINTER(_Stream), ctypes.c_uint, ctypes.c_void_p
        lib.zlibVersion.restype = ctypes.c_char_p
        lib.inflateInit2_.argtypes = [stream, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        lib.inflate.argtypes = [stream, ctypes.c_int]
        lib.inflateReset.argtypes = [stream]
        lib.inflateEnd.argtypes = [stream]
        lib.inflatePrime.argtypes = [stream, ctypes.c_int, ctypes.c_int]
        lib.inflateSetDictionary.argtypes = [stream, ctypes.c_char_p, uint]
        lib.inflateGetDictionary.argtypes = [stream, pointer, ctypes.POINTER(uint)]
    except (OSError, AttributeError) as error:
        raise UnsupportedError(
            f"gzip cannot be decoded without {_LIBRARY}: {error}",
            hint="install zlib (Debian: zlib1g)",
        ) from error
    return lib
