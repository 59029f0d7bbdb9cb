"""Which bytes of a file the kernel has in its page cache: what somebody has read of it.

Asked by mincore(2), which reads nothing itself. Root, or the file's owner, gets an answer; to
others all of it seems to be there.
"""

import ctypes
import mmap
import os
from pathlib import Path
from typing import Final

from cafs.model.span import Span, SpanSet

_FAILED: Final = ctypes.c_void_p(-1).value
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def resident(path: Path) -> SpanSet:
    """The bytes of a file that are in the page cache, by whole pages but for the last one.

    Raises:
        OSError: it cannot be opened or mapped.
    """
    # Not by the mmap module: that gives the address of what may be written only.
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return SpanSet()
        address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), f"mmap of {path}")
    try:
        pages = -(-size // mmap.PAGESIZE)
        found = ctypes.create_string_buffer(pages)
        if _LIBC.mincore(address, size, found):
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
    finally:
        _LIBC.munmap(address, size)
    return SpanSet(
        Span(number * mmap.PAGESIZE, min(size, (number + 1) * mmap.PAGESIZE))
        for number, flags in enumerate(found.raw)
        if flags & 1
    )
