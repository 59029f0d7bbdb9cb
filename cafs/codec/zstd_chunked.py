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
from functools import partial
from typing import Final

from cafs.codec.naming import quoted
from cafs.codec.toc_members import read_members
from cafs.codec.toc_values import pinned
from cafs.errors import UnsupportedError
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
    digest = pinned(pin, CHECKSUM)
    start, length, size = (int(each) for each in match.groups()[:3])
    return Contents(kind=KIND, digest=digest, start=start, length=length, size=size)


read_table: Final = partial(read_members, codec="zstd")
"""Reads the JSON; the chunks are zstd frames."""
