"""What is mounted now: one small file per mount in the user's runtime directory.

A worker writes its file when the mount is ready and removes it when it ends. A file whose process
is gone is left over from a crash, and says so.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import MountError

_DIRECTORY_MODE: Final = 0o700


class LiveMount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount that a worker serves.

    ``mount`` is its number in the store; ``pid`` is the worker's; ``log`` is empty for a worker in
    the foreground; ``started_ns`` is since the epoch.
    """

    mount_point: str
    pid: int
    mount: int
    store: str
    view: str
    log: str
    started_ns: int

    @property
    def alive(self) -> bool:
        """Whether the worker's process is there, and no zombie that nobody has reaped.

        Source: proc(5), /proc/pid/stat: the state follows the name, which ends with the last ")".
        """
        try:
            told = Path(f"/proc/{self.pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return told.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}


def directory() -> Path:
    """The directory of the files: XDG_RUNTIME_DIR, or one of ours in the temporary directory.

    Raises:
        MountError: it belongs to somebody else, or others may write there.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = (
        Path(runtime) / "cafs" if runtime else Path(tempfile.gettempdir()) / f"cafs-{os.getuid()}"
    )
    path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise MountError(f"{path} is not a directory of this user", hint="set XDG_RUNTIME_DIR")
    if status.st_mode & 0o077:
        raise MountError(f"{path} is open to others", hint=f"chmod 700 {path}")
    return path


def _file_of(mount_point: Path) -> Path:
    name = hashlib.sha256(os.fsencode(mount_point)).hexdigest()[:24]
    return directory() / f"{name}.json"


def save(live: LiveMount) -> None:
    """Write the file of a mount that has become ready, atomically."""
    path = _file_of(Path(live.mount_point))
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(live))
    draft.replace(path)


def remove(live: LiveMount) -> None:
    """Remove the file of a mount that has ended, unless another one has taken its place."""
    found = find(Path(live.mount_point))
    if found is not None and found.pid == live.pid:
        _file_of(Path(live.mount_point)).unlink(missing_ok=True)


def find(mount_point: Path) -> LiveMount | None:
    """The mount at a mount point (absolute), alive or crashed; None when there is no file."""
    try:
        return msgspec.json.decode(_file_of(mount_point).read_bytes(), type=LiveMount)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise MountError(f"{_file_of(mount_point)} is damaged", hint="remove it") from error


def all_mounts() -> list[LiveMount]:
    """Every mount of this user that has a file, by mount point."""
    found = [
        msgspec.json.decode(path.read_bytes(), type=LiveMount)
        for path in directory().glob("*.json")
    ]
    return sorted(found, key=lambda live: live.mount_point)


def mounted_type(mount_point: Path) -> str | None:
    """The type of the file system that is mounted exactly there, as /proc/self/mountinfo tells.

    Source: proc(5): fields are separated by spaces, " ", tab, newline and backslash are octal.
    """
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        place = fields[4].decode("unicode_escape").encode("latin-1")
        if place == os.fsencode(mount_point):
            found = fields[fields.index(b"-") + 1].decode()
    return found
