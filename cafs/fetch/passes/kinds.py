"""Kinds: tells what an archive is by its first bytes, and holds them against its name."""

from typing import Final

import msgspec

from cafs.codec.sniffing import Compression, Format, expected_by_name, sniff
from cafs.errors import MalformedError, UnsupportedError

_SHOWN: Final = 16


class Kind(msgspec.Struct, frozen=True):
    """What an archive is: the container, and what it is wrapped in."""

    format: Format
    compression: Compression = Compression.NONE


def kind_of(head: bytes, name: str, media_type: str) -> Kind:
    """Tell what an archive is from its first bytes, and hold them against its name.

    Args:
        head: the first ``HEAD`` bytes, or all of them.
        name: what it is called.
        media_type: what its source calls it; empty when it calls it nothing.

    Raises:
        MalformedError: the name says something else.
        UnsupportedError: no archive that we know.
    """
    found = sniff(head)
    expected = expected_by_name(name)
    if expected is not None and found is not expected:
        what = "something else" if found is None else found.value
        raise MalformedError(
            f"{name}: named like {expected.value}, but the bytes are {what} ({_shown(head)})"
        )
    if found is None:
        served = f", served as {media_type}" if media_type else ""
        raise UnsupportedError(
            f"{name} is no archive: it begins with {_shown(head)}{served}",
            hint="tar, also with gzip, zstd, xz or bzip2, and zip can be opened",
        )
    if isinstance(found, Format):
        return Kind(found)
    return Kind(Format.TAR, found)


def _shown(head: bytes) -> str:
    return repr(head[:_SHOWN])[1:] if head else "nothing"
