"""Limits on what an archive may ask of us; malicious input is ordinary input."""

from typing import Final

import msgspec

_MIB = 1 << 20
INDEX_LIMIT: Final = 512 << 20
"""Bytes of an index file at most: of ten million files."""

TOO_MUCH: Final = "cafs opens no larger one; if you trust it, unpack it with the tool that made it"
"""What to do about an archive that is beyond what one may hold: no setting allows more."""
BOMB: Final = f"a decompression bomb, or honest: {TOO_MUCH}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one archive may hold. Sizes are bytes; every bound is inclusive.

    ``members`` counts members, and the entries of a tree. ``path_bytes`` and ``depth`` bound a
    member's path as it is spelled. ``header_bytes`` bounds what is kept in memory of one member's
    headers. ``size`` bounds the decoded content. ``ratio`` bounds decoded bytes per byte of input,
    once more than ``free_bytes`` were decoded: deflate cannot exceed 1,032, so only the formats
    that can repeat without end (zstd, xz, bzip2) ever meet the default.
    """

    members: int = 5_000_000
    path_bytes: int = 4096
    depth: int = 256
    header_bytes: int = _MIB
    size: int = 1 << 40
    ratio: int = 2000
    free_bytes: int = 64 * _MIB

    def inflated(self, *, decoded: int, given: int) -> bool:
        """Whether so many decoded bytes are more than so many bytes of input may become."""
        return decoded > self.most(given)

    def most(self, given: int) -> int:
        """What so many bytes of input may become; bytes."""
        return min(self.size, self.free_bytes + self.ratio * given)
