"""zstd:chunked: a zstd layer with a table of contents in a skippable frame.

The layer is an ordinary tar.zst. Each chunk of a file is frames of its own, from its ``offset`` to
that of the next one, or to the file's ``endOffset``; runs of zeros lie nowhere. The table is JSON,
compressed with zstd, in a frame that decoders skip. The manifest's annotations say where that is,
and pin its compressed bytes.

Source: pkg/chunked/internal/compression.go of containers/storage; the annotations as skopeo 1.9 and
newer write them.
"""

import re
from collections.abc import Mapping
from typing import Final

from cafs.codec.naming import quoted
from cafs.codec.toc_entries import Read, toc_entries
from cafs.codec.toc_members import Sink, TocMembers
from cafs.errors import InvalidReferenceError, UnsupportedError
from cafs.model.digest import CANONICAL, Digest
from cafs.model.limits import Limits
from cafs.model.resolved import Contents

KIND: Final = "zstd:chunked"
PREFIXES: Final = ("io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.")
"""What annotations begin with: since containers/storage 1.43, and before."""
POSITION: Final = "manifest-position"
CHECKSUM: Final = "manifest-checksum"
_POSITION: Final = re.compile(r"(\d{1,18}):(\d{1,18}):(\d{1,18}):(\d{1,9})", re.ASCII)
_TYPE: Final = 1


def announced(annotations: Mapping[str, str]) -> Contents | None:
    """What a layer's annotations say of its table; None where they say nothing.

    Raises:
        UnsupportedError: what they say is not known here.
    """
    for prefix in PREFIXES:
        where, pin = annotations.get(prefix + POSITION), annotations.get(prefix + CHECKSUM)
        if where is not None and pin is not None:
            return _contents(where, pin)
    return None


def _contents(where: str, pin: str) -> Contents:
    match = _POSITION.fullmatch(where)
    if match is None or int(match[4]) != _TYPE:
        raise UnsupportedError(f"{POSITION}: {quoted(where)} is not known to this version")
    try:
        digest = Digest.parse(pin)
    except InvalidReferenceError as error:
        raise UnsupportedError(f"{CHECKSUM}: {quoted(pin)} is no digest") from error
    if digest.algorithm != CANONICAL:
        raise UnsupportedError(f"{CHECKSUM}: {quoted(pin)} is no sha256")
    start, length, size = (int(each) for each in match.groups()[:3])
    return Contents(kind=KIND, digest=digest, start=start, length=length, size=size)


def read_table(read: Read, sink: Sink, *, start: int, name: str, limits: Limits) -> int:
    """Read a table that has been checked; returns the bytes of all contents.

    Args:
        read: the JSON, decoded.
        sink: takes members and segments.
        start: where in the layer the table begins, and the chunks end.
        name: what errors call the layer.
        limits: what the layer may ask of us.

    Raises:
        MalformedError: it makes no sense, or asks too much.
        UnsupportedError: what it says does not do: a chunk without a digest, another version.
    """
    members = TocMembers(sink, codec="zstd", end=start, name=name, limits=limits)
    for entry in toc_entries(read, name=name, limits=limits):
        members.add(entry)
    return members.finish()
