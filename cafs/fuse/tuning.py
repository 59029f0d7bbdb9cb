"""The kernel's limits of a mount, raised where the process may: read-ahead, background requests.

Where it may not, the kernel's own hold, and only speed suffers.
"""

import logging
import os
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger("cafs.fuse")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_BDI: Final = Path("/sys/class/bdi")
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_ESCAPED: Final = ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\"))


def tune(mount_point: Path, read_ahead_kb: int, max_background: int) -> None:
    """Raise the limits of the mount at ``mount_point``. Blocks a little; never touches the mount.

    Args:
        mount_point: the real path where it is mounted.
        read_ahead_kb: how far sequential reads are read ahead, KiB. Random reads are not.
        max_background: reads of the page cache that may wait at once. The kernel's own 12 let
            twelve readers of a dead source hold up all the others.
    """
    device = device_of(mount_point, os.fsdecode(_MOUNTS.read_bytes()))
    if device is None:
        _LOG.debug("fuse.session.tuning: %s is not mounted any more", mount_point)
        return
    minor = device.partition(":")[2]
    _write(_BDI / device / "read_ahead_kb", read_ahead_kb)
    _write(_CONNECTIONS / minor / "max_background", max_background)
    _write(_CONNECTIONS / minor / "congestion_threshold", max_background * 3 // 4)


def device_of(mount_point: Path, mountinfo: str) -> str | None:
    """The ``major:minor`` of the uppermost mount at a real path; None when nothing is there.

    Source: proc_pid_mountinfo(5). A newline in a path is escaped; what else may end a line is not.
    """
    wanted = str(mount_point)
    found = None
    for line in mountinfo.rstrip("\n").split("\n"):
        fields = line.split(" ")
        if _unescaped(fields[4]) == wanted:
            found = fields[2]
    return found


def _unescaped(text: str) -> str:
    for escaped, plain in _ESCAPED:
        text = text.replace(escaped, plain)
    return text


def _write(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        _LOG.debug("fuse.session.tuning: %s: %s", path, error.strerror)
