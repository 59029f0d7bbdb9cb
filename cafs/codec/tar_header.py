"""One tar header: 512 bytes of text fields.

Source:
    POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" (base-256
    numbers).
"""

import os
import zlib
from struct import Struct
from typing import Final, NamedTuple

from cafs.errors import MalformedError
from cafs.model.member import Kind

BLOCK: Final = 512
"""Bytes of a header, and what content is padded to."""

_FIELDS: Final = Struct("100s 24s 12s 12s 8s c 100s 8s 64x 8s 8s 155s 12x")
_CHECKSUM: Final = slice(148, 156)
_SPACES: Final = 8 * 0x20
"""The checksum's own field counts as spaces."""

_ADLER: Final = 65521
_POSIX: Final = b"ustar\0"
_MAGICS: Final = (_POSIX, b"ustar ")
_OVERFLOW_ID: Final = 65534
"""Owner of what has an impossible one: the kernel's overflow uid."""
_IDS: Final = (1 << 32) - 1

_LATEST_NS: Final = (1 << 63) - 1
_DEVICES: Final = (b"3", b"4")
_MAJORS: Final = 1 << 12
_MINORS: Final = 1 << 20

KINDS: Final = {
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    b"D": Kind.DIRECTORY,
}
"""Kind by type flag; what is not here is a file, as POSIX asks for unknown flags."""


class Header(NamedTuple):
    """What a header says, numbers parsed. ``size`` is the content's, as stored."""

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    flag: bytes
    link: bytes
    device: int


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are a header, which its checksum tells.

    The sum is compared modulo 65,521: adler32's lower half is the sum of all bytes plus one, and
    costs a twentieth of a sum in Python. A block whose sum matches modulo that and not plainly was
    made on purpose, by somebody who could as well have made the right one.
    """
    field = block[_CHECKSUM]
    digits = field.strip(b" \0").partition(b"\0")[0].strip()
    if not digits.isdigit():
        return False
    try:
        stored = int(digits, 8)
    except ValueError:
        return False
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(field) + _SPACES
    return (total - stored) % _ADLER == 0 or _signed_sum(block) == stored


def _signed_sum(block: bytes) -> int:
    """The sum as some old tars took it, of signed bytes."""
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return sum(byte - 256 if byte > 127 else byte for byte in rest) + _SPACES  # noqa: PLR2004 - sign


def number(field: bytes) -> int:
    """A numeric field: octal digits between blanks, or base-256; 0 when blank.

    Raises:
        ValueError: anything else.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The first bit is the mark; the second is the sign.
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << bits - 1)
    digits = field.strip(b" \0").partition(b"\0")[0].partition(b" ")[0]
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError(f"{field!r} is no number")
    return int(digits, 8)


def owner(value: int) -> int:
    """A uid or gid that Linux can hold; the overflow one for what it cannot."""
    return value if 0 <= value < _IDS else _OVERFLOW_ID


def device(major: int, minor: int) -> int:
    """A device's number; 0 for one that Linux cannot have."""
    return os.makedev(major, minor) if 0 <= major < _MAJORS and 0 <= minor < _MINORS else 0


def nanoseconds(seconds: int) -> int:
    """Seconds since the epoch in ns, within 64 bits."""
    return max(-_LATEST_NS, min(_LATEST_NS, seconds * 1_000_000_000))


class HeaderParser:
    """Parses headers of one archive, remembering the last owner and mode: most repeat it.

    Concurrency: one caller at a time.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._raw = b""
        self._rights = (0, 0, 0)

    def parse(self, block: bytes, at: int) -> Header:
        """Parse a block that lies at ``at``.

        Raises:
            MalformedError: no header, or one whose numbers are none. It names the place.
        """
        if not is_header(block):
            what = f"no header at byte {at}" if at else "not a tar archive"
            raise MalformedError(f"{self._name}: {what}")
        path, rights, size, mtime, _, flag, link, magic, major, minor, prefix = _FIELDS.unpack(
            block
        )
        path = path.partition(b"\0")[0]
        try:
            if rights != self._raw:
                self._rights = (
                    number(rights[:8]) & 0o7777,
                    owner(number(rights[8:16])),
                    owner(number(rights[16:])),
                )
                self._raw = rights
            header = Header(
                path,
                *self._rights,
                number(size),
                nanoseconds(number(mtime)),
                flag,
                link.partition(b"\0")[0],
                device(number(major), number(minor))
                if flag in _DEVICES and magic[:6] in _MAGICS
                else 0,
            )
        except (ValueError, OverflowError) as error:
            raise MalformedError(f"{self._name}: header at byte {at}: {error}") from error
        if prefix[0] and magic[:6] == _POSIX:
            return header._replace(path=prefix.partition(b"\0")[0] + b"/" + path)
        return header
