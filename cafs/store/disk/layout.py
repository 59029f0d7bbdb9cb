"""The directory of a store: what lies where, who may use it, and what must be true of it first.

::

    VERSION                 layout version; ``migrating``, ``backups/``: see ``migrating``
    users                   a file that every process using the store keeps flocked
    index/                  records that outlive a power cut
    recent-<boot id>/       records that outlive the process; other boots' are deleted unread
    blobs/sha256/ab/<hex>   complete and verified, mode 0444
    streams/ab/<key>.<id>   sparse files being filled
    quarantine/             what failed verification, each with a note
    leases/                 files that a holder keeps flocked; ``readers``: see ``precedence``;
                            ``arrivals``: see ``Streams.try_lock_new``; ``uploads``: see ``uploads``
    scratch/<random>/       files of one process, which keeps it flocked; see ``scratch``
    ballast                 space to let go of first when the disk is full; see ``ballast``

Everything here blocks; it belongs in a thread.
"""

import os
import re
import shlex
import shutil
import stat
from pathlib import Path
from typing import Final

from cafs.errors import StorageError
from cafs.model.digest import Digest
from cafs.store.disk.ballast import Ballast
from cafs.store.disk.files import storage_error, sync_directory
from cafs.store.disk.locking import flock

VERSION: Final = 2
"""Version of this layout. A store of a newer one is refused, an older one migrated."""
_SHARED: Final = 64
"""Bytes of the file ``users``, which hold the name of a namespace or nothing."""
_FOLDERS: Final = ("blobs/sha256", "streams", "quarantine", "leases", "index")
_OURS: Final = re.compile(
    r"VERSION(\.new)?|users|ballast|index(\..*)?|recent-.*|blobs|streams|quarantine|leases|scratch"
    r"|migrating(\.new)?|backups|rebuilding|lost\+found"
)
"""What a store that has no VERSION yet, or no more, may have; and what every new disk has."""
_MODE: Final = 0o700
_REMOTE: Final = frozenset({"nfs", "nfs4", "fuse", "cifs", "smb3", "9p", "afs", "ceph"})
"""File system types on which locks and memory maps do not join up between machines, or which are
answered by a process that may itself wait for this store."""


class Layout:
    """The paths of one store.

    Args:
        root: the store's directory.
        boot_id: names this boot of the machine.
    """

    def __init__(self, root: Path, boot_id: str) -> None:
        self.root = root
        self.index = root / "index"
        self.recent = root / f"recent-{boot_id}"
        self.quarantine = root / "quarantine"
        self.ballast = Ballast(root / "ballast")
        self.leases = root / "leases"
        self.checkpoint_lock = self.leases / "checkpoint"
        self.arrivals = self.leases / "arrivals"
        self._blobs = str(root / "blobs")
        self._streams = str(root / "streams")

    def blob(self, digest: Digest) -> Path:
        """Where the blob of a canonical digest lies, if it is there (B-12)."""
        # One path from one text: this is asked some ten times for a small file.
        name = digest.hex
        return Path(f"{self._blobs}/{digest.algorithm}/{name[:2]}/{name}")

    def stream(self, key: bytes, file: bytes) -> Path:
        """Where one incarnation of a stream lies; the random ``file`` is never used again."""
        name = key.hex()
        return Path(f"{self._streams}/{name[:2]}/{name}.{file.hex()}")  # as for a blob

    def free_bytes(self) -> int:
        """Bytes that this user may still write on the store's disk.

        Raises:
            StorageError: the store has gone.
        """
        try:
            info = os.statvfs(self.root)
        except OSError as error:
            raise storage_error(error, f"{self.root}: cannot be looked at") from error
        return info.f_bavail * info.f_frsize

    def prepare(self) -> None:
        """Make the directory if it is missing, and check that it may be used.

        Raises:
            StorageError: it belongs to somebody else, lies on a file system where a store cannot
                live, is something else than a store, or cannot be made.
            OSError: the disk failed.
        """
        try:
            self.root.mkdir(mode=_MODE, parents=True, exist_ok=True)
            info = self.root.stat()
        except OSError as error:
            raise storage_error(error, f"{self.root}: cannot be made") from error
        if not stat.S_ISDIR(info.st_mode):
            raise StorageError(f"{self.root}: not a directory")
        if info.st_uid != os.geteuid():
            raise StorageError(
                f"{self.root}: belongs to user {info.st_uid}, not to {os.geteuid()}",
                hint="a store has one user; choose another directory",
            )
        check_type(self.root, file_system_type(self.root))
        self._check_content()
        if stat.S_IMODE(info.st_mode) != _MODE:
            self.root.chmod(_MODE)

    def _check_content(self) -> None:
        """Refuse what is no store, before it is closed to others and filled with ours.

        Raises:
            StorageError: it is another directory with something in it, or of another version.
            OSError: the disk failed.
        """
        if self.version() is not None:
            return
        names = (each.name for each in self.root.iterdir())
        foreign = [name for name in names if not _OURS.fullmatch(name)]
        if foreign:
            raise StorageError(
                f"{self.root}: no store, and not empty: {min(foreign)!r} lies there",
                hint="choose an empty directory, or one that is still to be made",
            )

    def fill(self) -> None:
        """Make what is missing inside; only while nobody else is using the store.

        Raises:
            StorageError: the layout is of a newer version, or cannot be made.
        """
        try:
            if self.version() is None:
                self.set_version()
            for folder in _FOLDERS:
                (self.root / folder).mkdir(mode=_MODE, parents=True, exist_ok=True)
            for other in self.root.glob("recent-*"):
                if other != self.recent and other.is_dir() and not other.is_symlink():
                    shutil.rmtree(other)
            self.ballast.fill()
        except OSError as error:
            raise storage_error(error, f"{self.root}: cannot be prepared") from error

    def mend(self) -> bool:
        """Make directories that somebody has removed again; whether any was missing.

        Raises:
            OSError: they cannot be made.
        """
        missing = [each for each in _FOLDERS if not (self.root / each).is_dir()]
        if missing:
            self.root.mkdir(mode=_MODE, parents=True, exist_ok=True)
        for folder in missing:
            (self.root / folder).mkdir(mode=_MODE, parents=True, exist_ok=True)
        return bool(missing)

    def join(self) -> None:
        """Make the directory of this boot's records, if nobody has.

        Raises:
            OSError: it cannot be made.
        """
        self.recent.mkdir(mode=_MODE, exist_ok=True)

    def version(self) -> int | None:
        """The version that the store has; None when it has just been begun.

        Raises:
            StorageError: it is newer than what is known here, or no version.
            OSError: the disk failed.
        """
        path = self.root / "VERSION"
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not text.isdecimal() or int(text) == 0:
            raise StorageError(
                f"{path}: {text[:40]!r} is no layout version",
                hint="name another store; if it is one of this cafs, whose file a disk has damaged:"
                f" echo {VERSION} >{shlex.quote(str(path))}, then cafs verify",
            )
        if int(text) > VERSION:
            raise StorageError(
                f"{self.root}: written by a newer cafs (layout {text}, known up to {VERSION})",
                hint="upgrade cafs, or choose another store",
            )
        return int(text)

    def set_version(self) -> None:
        """Say that the store has this layout now.

        Raises:
            OSError: the disk failed.
        """
        write_new(self.root / "VERSION", f"{VERSION}\n".encode())


def write_new(path: Path, data: bytes) -> None:
    """Make a file that is there with all of its content, or not at all, also after a power cut."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


class Usage:
    """Our place among the users of a store, held until ``close`` or the end of the process.

    ``alone`` says that nobody else is using the store, and that nobody can begin to before
    ``share`` is called.
    """

    def __init__(self, layout: Layout, namespace: str) -> None:
        """Enter, waiting for one who is alone there to share it, or to die.

        The file says in which namespace the store is shared; nothing while somebody is alone.

        Raises:
            StorageError: in use from another PID namespace, where LMDB cannot tell whether our
                processes live.
        """
        self._path = layout.root / "users"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._namespace = namespace
        self.alone = False
        while not flock(self._descriptor, exclusive=True, wait=False):
            flock(self._descriptor, exclusive=False, wait=True)
            theirs = os.pread(self._descriptor, _SHARED, 0).decode("ascii", "replace").rstrip("\0")
            if theirs == namespace:
                return
            if theirs:
                self.close()
                raise StorageError(
                    f"{layout.root}: in use from another PID namespace ({theirs}, not {namespace})",
                    hint="use one store per container, or share the host's PID namespace",
                )
        self.alone = True
        try:
            self._say("")
        except OSError:
            # Else others would wait for one who is not there.
            self.close()
            raise

    def share(self) -> None:
        """Let others in."""
        if self.alone:
            self._say(self._namespace)
            flock(self._descriptor, exclusive=False, wait=True)
            self.alone = False

    def _say(self, text: str) -> None:
        # Always in the same bytes: a full disk has no others.
        os.pwrite(self._descriptor, text.encode().ljust(_SHARED, b"\0"), 0)

    def close(self) -> None:
        """Leave."""
        os.close(self._descriptor)


def check_type(path: Path, kind: str) -> None:
    """Refuse a directory on a file system of a type on which a store cannot live.

    Raises:
        StorageError: it is remote, or served by a process.
    """
    if kind in _REMOTE or kind.startswith("fuse."):
        raise StorageError(
            f"{path}: lies on {kind}, where processes cannot share a store",
            hint="choose a directory on a local disk",
        )


def file_system_type(path: Path) -> str:
    """The type of the file system that a directory lies on, as in ``/proc/self/mountinfo``.

    Found by mount ID, since device numbers are not unique there (btrfs, overlays).

    Source: proc(5), ``/proc/pid/mountinfo`` and ``/proc/pid/fdinfo``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    finally:
        os.close(descriptor)
    mount = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
    table = Path("/proc/self/mountinfo")
    # A newline in a path is escaped, a carriage return is not.
    with table.open(encoding="utf-8", errors="replace", newline="\n") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(" - ")
            if fields.split()[0] == mount:
                return rest.split()[0]
    return "unknown"
