"""What the fields of a zip member mean: its name, mode and time. Info-ZIP's unzip is the oracle.

Source:
    PKWARE APPNOTE 6.3.10 §4.4 (fields), §4.5, §4.6.9 (extra fields); Info-ZIP's
    ``proginfo/extrafld.txt``.
"""

import stat
import zlib
from datetime import UTC, datetime
from typing import Final

from cafs.model.member import Kind

_FAT: Final = 0
_UNIX_HOSTS: Final = frozenset((3, 19))
"""Made on Unix or macOS: names are bytes as they were, attributes have a mode."""

_UTF8: Final = 0x800
_ZIP64: Final = 0x0001
_TIMES: Final = 0x5455
_UNICODE_PATH: Final = 0x7075
_HEADER: Final = 4

_READ_ONLY: Final = 1
_DOS_DIRECTORY: Final = 0x10
_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755

MASK32: Final = 0xFFFFFFFF
"""A 32-bit field that says: look in the zip64 extra field."""

MASK16: Final = 0xFFFF


def extras(data: bytes) -> dict[int, bytes]:
    """The extra fields by their tags, the first of each; what is cut off at the end is ignored."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _HEADER <= len(data):
        tag = int.from_bytes(data[at : at + 2], "little")
        length = int.from_bytes(data[at + 2 : at + 4], "little")
        at += _HEADER
        if at + length > len(data):
            break
        found.setdefault(tag, data[at : at + length])
        at += length
    return found


def widen(values: tuple[int, ...], fields: dict[int, bytes]) -> tuple[int, ...]:
    """Replace 32-bit values that are all ones by those of the zip64 field, in order.

    Raises:
        ValueError: the field is missing or too short.
    """
    if MASK32 not in values:
        return values
    data = fields.get(_ZIP64, b"")
    at = 0
    wide = []
    for value in values:
        if value != MASK32:
            wide.append(value)
            continue
        if len(data) < at + 8:
            raise ValueError("its zip64 field is missing or too short")
        wide.append(int.from_bytes(data[at : at + 8], "little"))
        at += 8
    return tuple(wide)


def path_of(raw: bytes, *, host: int, flags: int, fields: dict[int, bytes]) -> bytes:
    """A member's path in UTF-8, or in the bytes that a Unix zip was given.

    Backslashes separate only in names that a FAT system wrote without any slash.
    """
    unicode_path = fields.get(_UNICODE_PATH, b"")
    if flags & _UTF8:
        path = raw
    elif (
        unicode_path[:1] == b"\1"
        and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(raw)
        and len(unicode_path) > 5  # noqa: PLR2004 - version and checksum
    ):
        path = unicode_path[5:]
    elif host in _UNIX_HOSTS or raw.isascii():
        path = raw
    else:
        path = raw.decode("cp437").encode()
    if host == _FAT and b"/" not in path:
        path = path.replace(b"\\", b"/")
    return path


def kind_and_mode(path: bytes, *, host: int, attributes: int) -> tuple[Kind, int]:
    """What a member is, and its permission bits.

    Only a slash makes a directory, and only a Unix host symlinks. Bits beyond rwx are dropped, as
    unzip does. A mode of zero, which careless writers leave, becomes the usual one.
    """
    mode = attributes >> 16
    directory = path.endswith(b"/")
    if host in _UNIX_HOSTS:
        if stat.S_ISLNK(mode) and not directory:
            return Kind.SYMLINK, 0o777
        bits = stat.S_IMODE(mode) & 0o777
        usual = _DIRECTORY_MODE if directory else _FILE_MODE
        return Kind.DIRECTORY if directory else Kind.FILE, bits or usual
    bits = _dos_mode(mode, attributes, directory=directory or bool(attributes & _DOS_DIRECTORY))
    return Kind.DIRECTORY if directory else Kind.FILE, bits


def _dos_mode(mode: int, attributes: int, *, directory: bool) -> int:
    """Mode by DOS attributes, under the usual umask.

    PKZIP for Unix says FAT and stores a mode all the same: it is believed where it agrees.
    """
    owner = 0o4 | (0 if attributes & _READ_ONLY else 0o2) | (0o1 if directory else 0)
    if mode >> 6 & 0o7 == owner:
        return mode & 0o777
    return (owner * 0o111 | 0o444) & ~0o022


def mtime_ns(date: int, time: int, fields: dict[int, bytes]) -> int:
    """When a member was modified: the extra field's time, else the DOS time taken as UTC.

    A DOS time is local to nobody knows where; UTC makes it the same on every machine. An impossible
    one is 0.
    """
    times = fields.get(_TIMES, b"")
    if times[:1] and times[0] & 1 and len(times) >= 5:  # noqa: PLR2004 - flags and a time
        return int.from_bytes(times[1:5], "little", signed=True) * 1_000_000_000
    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2,
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp()) * 1_000_000_000
