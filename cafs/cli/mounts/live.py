"""What is mounted now: one small file per mount in the user's runtime directory.

The command that mounts writes it; who holds the mount removes it when the mount ends in order. A
file whose process is gone is left over from a crash, and says so until somebody cleans up.

The names are made of the mount point and of the mount's key: a mount that was detached lazily
serves its last readers beside the one that has taken its place.
"""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from cafs.errors import MountError

TYPE: Final = "fuse.cafs"
"""The type of our mounts in /proc/self/mountinfo."""
_DIRECTORY_MODE: Final = 0o700
_SOCKET_NAME: Final = 107
"""Bytes of a unix socket's path. Source: unix(7), sun_path without its NUL."""


class LiveMount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount, and the process that holds it.

    ``pid`` is the keeper's, or the worker's where there is none; ``key`` is the mount's in the
    store; ``log`` is empty in the foreground; ``control`` is the keeper's socket, empty without a
    keeper; ``started_ns`` is since the epoch; ``project`` is the project's file, empty without one.
    """

    mount_point: str
    pid: int
    key: str
    store: str
    view: str
    log: str
    control: str
    started_ns: int
    project: str = ""

    @property
    def alive(self) -> bool:
        """Whether the process is there: this one, no zombie, and none that got its pid later.

        Its command line has its socket or its key; that of one which has just been started in the
        foreground says so. A zombie's is empty.
        """
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        known = (self.control.encode(), self.key.encode(), b"--foreground")
        return any(word in words for word in known if word)

    @property
    def holder(self) -> str:
        """Who holds the mount, in a word for people."""
        return "keeper" if self.control else "worker"


class Mounted(NamedTuple):
    """A mount of the kernel's: where, of which type, and who mounted it, None if it does not say.

    Only the kernel's FUSE says who.
    """

    place: bytes
    kind: str
    user: int | None


class Known(NamedTuple):
    """Mounts that have a file, by mount point, later ones last; and why there may be others.

    Whoever only wants to know which mounts there are goes on without those.
    """

    mounts: list[LiveMount]
    troubles: list[MountError]


def directory() -> Path:
    """The directory of the files: XDG_RUNTIME_DIR, or one of ours in the temporary directory.

    Raises:
        MountError: it belongs to somebody else, others may write there, or it cannot be made.
    """
    return _private(_place())


def _place() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "cafs" if runtime else _temporary(tempfile.gettempdir())


def _temporary(top: str) -> Path:
    return Path(top) / f"cafs-{os.getuid()}"


def _private(path: Path) -> Path:
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MountError(f"{path} is no directory", hint="set XDG_RUNTIME_DIR") from error
    except OSError as error:
        raise MountError(
            f"{path} cannot be made: {error.strerror}", hint="set XDG_RUNTIME_DIR"
        ) from error
    return _checked(path)


def _checked(path: Path) -> Path:
    try:
        status = path.lstat()
    except OSError as error:
        raise MountError(
            f"{path} cannot be used: {error.strerror}", hint="set XDG_RUNTIME_DIR"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise MountError(f"{path} is not a directory of this user", hint="set XDG_RUNTIME_DIR")
    if status.st_mode & 0o077:
        raise MountError(f"{path} is open to others", hint=f"chmod 700 {path}")
    return path


def _hash(mount_point: Path | str) -> str:
    return hashlib.sha256(os.fsencode(mount_point)).hexdigest()[:16]


def live_path(mount_point: Path | str, key: str) -> Path:
    """The file of a mount."""
    return directory() / f"{_hash(mount_point)}-{key[:8]}.json"


def control_path(mount_point: Path | str, key: str) -> Path:
    """The control socket of a mount: beside its file, or where its name is short enough."""
    name = f"{_hash(mount_point)}-{key[:8]}.sock"
    path = directory() / name
    if len(os.fsencode(path)) > _SOCKET_NAME:
        path = _private(_temporary("/tmp")) / name  # noqa: S108 - 0700 and checked, and always short
    return path


def lock_path(mount_point: Path | str) -> Path:
    """The file that is locked by who is about to mount."""
    return directory() / f"{_hash(mount_point)}.lock"


def save(live: LiveMount) -> None:
    """Write the file of a mount, atomically.

    Raises:
        MountError: it cannot be written; nothing is left of it.
    """
    path = live_path(live.mount_point, live.key)
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.encode(live))
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise MountError(
            f"{path} cannot be written: {error.strerror}", hint="make room, or set XDG_RUNTIME_DIR"
        ) from error


def remove(live: LiveMount) -> None:
    """Remove what a mount that has ended has left in the directory."""
    live_path(live.mount_point, live.key).unlink(missing_ok=True)
    if live.control:
        Path(live.control).unlink(missing_ok=True)
    for left in directory().glob(f"{live.key}.*"):
        left.unlink(missing_ok=True)


def find(mount_point: Path) -> LiveMount | None:
    """The last mount at a mount point (absolute), alive or crashed; None when there is no file.

    Raises:
        MountError: the directory cannot be used, or a file of that mount point not be read.
    """
    known = all_mounts(mount_point)
    if known.troubles:
        raise known.troubles[0]
    return next(reversed(known.mounts), None)


def of_project(file: Path) -> Known:
    """The mounts that were made for a project's file, and that are there."""
    name = project_name(file)
    known = all_mounts()
    ours = [each for each in known.mounts if name and each.project == name]
    return Known([each for each in ours if is_uppermost(each)], known.troubles)


def all_mounts(mount_point: Path | None = None) -> Known:
    """Every mount of this user that has a file, or those at a mount point (absolute).

    Nothing is made for that: without a directory there are none.
    """
    known = Known([], [])
    pattern = "*.json" if mount_point is None else f"{_hash(mount_point)}-*.json"
    place = _place()
    try:
        found = list(_checked(place).glob(pattern)) if os.path.lexists(place) else []
    except MountError as error:
        known.troubles.append(error)
        return known
    for path in found:
        try:
            live = _read(path)
        except MountError as error:
            known.troubles.append(error)
            continue
        known.mounts.extend([] if live is None else [live])
    known.mounts.sort(key=lambda live: (live.mount_point, live.started_ns))
    return known


def project_name(file: Path) -> str:
    """What the file of a mount calls a project's file; empty where that cannot be written down."""
    path = os.fsencode(Path(os.path.realpath(file.parent)) / file.name)
    try:
        return path.decode()
    except UnicodeDecodeError:
        return ""


def is_uppermost(mount: LiveMount) -> bool:
    """Whether it is what is mounted there now, and not one that was detached."""
    place = Path(mount.mount_point)
    return mounted_type(place) == TYPE and all_mounts(place).mounts[-1:] == [mount]


def _read(path: Path) -> LiveMount | None:
    """The mount of a file; None when it has just ended.

    Raises:
        MountError: the file is damaged, or cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=LiveMount)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MountError(f"{path} cannot be read: {error.strerror}", hint="remove it") from error
    except msgspec.MsgspecError as error:
        raise MountError(f"{path} is damaged", hint="remove it") from error


def mounted_type(mount_point: Path) -> str | None:
    """The type of the file system that is mounted exactly there; None when none is."""
    found = _uppermost(mount_point)
    return None if found is None else found.kind


def whose(mount_point: Path) -> str:
    """For people: whose a mount is that ``find`` does not know, as far as that can be told."""
    found = _uppermost(mount_point)
    if found is not None and found.user not in (None, os.getuid()):
        return f"of user id {found.user}"
    return f"not known in {_place()}: it was moved, or made with another XDG_RUNTIME_DIR"


def is_foreign(mount_point: Path) -> bool:
    """Whether a mount is another user's, and we are not root: then only they may end it."""
    found = _uppermost(mount_point)
    return os.geteuid() != 0 and found is not None and found.user not in (None, os.geteuid())


def _uppermost(mount_point: Path) -> Mounted | None:
    found = [each for each in mounts() if each.place == os.fsencode(mount_point)]
    return found[-1] if found else None


def mounts() -> list[Mounted]:
    """Every mount of this mount namespace, in the order of mounting."""
    return mounts_of(Path("/proc/self/mountinfo").read_bytes())


def mounts_of(mountinfo: bytes) -> list[Mounted]:
    """What ``mounts`` says, from the kernel's table.

    Source: proc(5), /proc/self/mountinfo: fields are separated by spaces; " ", tab, newline and
    backslash are octal. A carriage return is not, and ends no line.
    """
    found: list[Mounted] = []
    for line in mountinfo.rstrip(b"\n").split(b"\n"):
        fields = line.split(b" ")
        place = fields[4].decode("unicode_escape").encode("latin-1")
        kind, _, options = fields[fields.index(b"-") + 1 :][:3]
        found.append(Mounted(place, kind.decode(), _user(options)))
    return found


def _user(options: bytes) -> int | None:
    said = [each[8:] for each in options.split(b",") if each.startswith(b"user_id=")]
    return int(said[0]) if said else None
