"""eStargz: a gzip layer with a table of contents at its end.

The layer is an ordinary tar.gz. Each chunk of a file begins a gzip member of its own, or lies in
one with others (``innerOffset``). Behind the members of the tar comes one with a tar of one file,
the table as JSON, and behind that a member without content, whose header says where the table
begins::

    | members of the tar … | member: tar of stargz.index.json | footer, 51 bytes |

The manifest's annotation pins the JSON. Nothing pins the footer: who lies about it lies about where
the pinned JSON is. The older footer of 47 bytes is not read: its tables have no digests of chunks.

Source: docs/estargz.md of containerd's stargz-snapshotter, version 0.12; estargz/gzip.go for the
footer.
"""

import struct
from collections.abc import Mapping
from functools import partial
from typing import Final

from cafs.codec.decoding import decoder
from cafs.codec.sniffing import Compression
from cafs.codec.tar_header import BLOCK, HeaderParser
from cafs.codec.toc_entries import Read
from cafs.codec.toc_members import read_members
from cafs.codec.toc_values import pinned
from cafs.errors import MalformedError
from cafs.model.limits import Limits
from cafs.model.resolved import Contents

KIND: Final = "estargz"
ANNOTATION: Final = "containerd.io/snapshot/stargz/toc.digest"
TABLE: Final = b"stargz.index.json"
FOOTER: Final = 51
"""Bytes of the footer."""
_FOOTER: Final = struct.Struct("<10s H 2s H 16s 6s 5s 8s")
_MEMBER: Final = b"\x1f\x8b\x08\x04"
_EMPTY: Final = b"\x01\x00\x00\xff\xff"
LANDMARKS: Final = (b".prefetch.landmark", b".no.prefetch.landmark")
_HIDDEN: Final = frozenset((*LANDMARKS, TABLE))
"""What the format adds to the image's files, as stargz-snapshotter hides it."""


def announced(annotations: Mapping[str, str]) -> Contents | None:
    """What a layer's annotations say of its table; None where they say nothing.

    Raises:
        UnsupportedError: what they say is not known here.
    """
    text = annotations.get(ANNOTATION)
    if text is None:
        return None
    return Contents(kind=KIND, digest=pinned(text, ANNOTATION))


def table_start(footer: bytes) -> int | None:
    """Where the table begins, as the last ``FOOTER`` bytes say; None where they are no footer."""
    if len(footer) != FOOTER:
        return None
    member, extra, field, length, digits, magic, stored, sums = _FOOTER.unpack(footer)
    if not member.startswith(_MEMBER) or (extra, field, length) != (26, b"SG", 22):
        return None
    if (magic, stored, sums) != (b"STARGZ", _EMPTY, bytes(8)):
        return None
    # int() alone would take blanks, signs and underscores too.
    return int(digits, 16) if digits.isalnum() and digits.isascii() and _is_hex(digits) else None


def _is_hex(digits: bytes) -> bool:
    return not digits.lower().strip(b"0123456789abcdef")


class TableText:
    """The JSON in the table's gzip member, forward.

    Args:
        read: the raw bytes from where the table begins to the footer. Its errors pass through.
        name: what errors call the table.
        limits: ratio and size are obeyed.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, read: Read, *, name: str, limits: Limits) -> None:
        """Read the tar's header.

        Raises:
            MalformedError: there is no gzip member with such a tar.
        """
        self._name = name
        self._source = decoder(Compression.GZIP, read, name, limits)
        block = self._source.read(BLOCK)
        header = HeaderParser(name).parse(block, 0) if len(block) == BLOCK else None
        if header is None or header.path != TABLE or header.flag not in {b"0", b"\0"}:
            raise MalformedError(f"{name}: no {TABLE.decode()} where the footer says")
        self._left = header.size

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end.

        Raises:
            MalformedError: it is damaged, or ends too early.
        """
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        if not data and self._left > 0:
            raise MalformedError(f"{self._name}: {self._left} bytes of the table are missing")
        return data


def _hidden(path: bytes) -> bool:
    return path.removeprefix(b"./").lstrip(b"/") in _HIDDEN


read_table: Final = partial(read_members, codec="gzip", hidden=_hidden)
"""Reads the JSON; the chunks are gzip members, and what the format adds is left out."""
