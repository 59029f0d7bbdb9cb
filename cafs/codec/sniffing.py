"""What bytes, or a name, say about a format."""

import enum
from typing import Final

from cafs.codec.tar_header import BLOCK, is_header

HEAD: Final = 512
"""Bytes of the beginning that ``sniff`` needs to tell every format."""


class Format(enum.Enum):
    """A container of members."""

    TAR = "tar"
    ZIP = "zip"


class Compression(enum.Enum):
    """How a stream of bytes was compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGIC: Final = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"PK\x03\x04", Format.ZIP),
    (b"PK\x05\x06", Format.ZIP),
    (b"PK\x07\x08PK", Format.ZIP),
)
_BZIP2: Final = (b"1AY&SY", b"\x17rE8P\x90")
"""What follows ``BZh1`` … ``BZh9``: the first block, or the end of an empty stream."""
_SKIPPABLE: Final = b"\x2a\x4d\x18"
_SKIPPABLE_HIGH: Final = 5
"""A skippable frame (0x184D2A50 to …5F): what some writers of zstd begin with."""

_SUFFIXES: Final = (
    ((".tar.gz", ".tgz", ".tar.gzip"), Compression.GZIP),
    ((".tar.zst", ".tar.zstd", ".tzst"), Compression.ZSTD),
    ((".tar.xz", ".txz"), Compression.XZ),
    ((".tar.bz2", ".tbz2", ".tbz"), Compression.BZIP2),
    ((".tar",), Format.TAR),
    (
        (".zip", ".whl", ".jar", ".war", ".ear", ".aar", ".apk", ".nupkg", ".vsix", ".xpi", ".egg"),
        Format.ZIP,
    ),
)


def sniff(head: bytes) -> Compression | Format | None:
    """Tell a format from the first ``HEAD`` bytes (or all there are, when there are fewer).

    Returns:
        the compression, the container, or None for anything else. A tar is told by the checksum of
        its first header, or by an empty one's block of zeros; a zip that another program precedes
        (self-extracting) is not told.
    """
    for magic, meaning in _MAGIC:
        if head.startswith(magic):
            return meaning
    if head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in _BZIP2:
        return Compression.BZIP2
    if head[1:4] == _SKIPPABLE and head[0] >> 4 == _SKIPPABLE_HIGH:
        return Compression.ZSTD
    block = head[:BLOCK]
    if len(block) == BLOCK and (is_header(block) or not block.strip(b"\0")):
        return Format.TAR
    return None


def expected_by_name(name: str) -> Compression | Format | None:
    """What a file of this name should be: for a compressed tar its compression.

    Args:
        name: a file name or path, without query; the case does not matter.

    Returns:
        None when the name tells nothing.
    """
    lower = name.lower()
    for suffixes, meaning in _SUFFIXES:
        if lower.endswith(suffixes):
            return meaning
    return None
