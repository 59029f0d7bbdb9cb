"""Whether what a mount shows of an image is what tar unpacks of it, down to the last byte.

As ``rsync -c`` has it: kinds, modes, owners, times, links, devices, extended attributes, names, and
all contents; and beyond that, which names are one file. Contents are read in random order by
several readers, so that what is decoded and fetched for one meets what is for another. The top
itself is left out: the mode and the time of that are the mount's. Tables of contents of eStargz
have times rounded to seconds, and so are they compared.
"""

import os
import random
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from typing_extensions import override

from cafs.testing.command import Cafs
from cafs.testing.daemons import Logged
from cafs.testing.debian import FORMS, DebianImage, need, need_root
from cafs.testing.imaging import copy_lock, toml_of

_PIECE: Final = 1 << 20
_SHOWN: Final = 5
_OURS: Final = ("user.cafs.", "user.checksum.")
"""Extended attributes that no archive has."""
_SECOND_NS: Final = 10**9
_COARSE: Final = "estargz"
_AS_IT_IS: Final = ("--preserve-owner", "--suid", "--dev")


@dataclass(slots=True)
class Outcome:
    """What came of one form: what was compared, what differed, and what was fetched for it."""

    form: str
    entries: int = 0
    bytes: int = 0
    took_s: float = 0.0
    sent: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether all was the same."""
        return not self.wrong and self.entries > 0

    def count(self, sent: Sequence[Logged]) -> None:
        """Note what the registry sent for it."""
        self.sent, self.requests = sum(one.bytes_sent for one in sent), len(sent)

    @override
    def __str__(self) -> str:
        told = (
            f"{self.form}: {self.entries:,} entries, {self.bytes >> 20} MiB in {self.took_s:.1f} s;"
            f" fetched {self.sent >> 20} MiB in {self.requests:,} requests;"
            f" {len(self.wrong)} differ"
        )
        return "\n  ".join([told, *self.wrong[:_SHOWN]])


def compare_forms(
    directory: Path,
    *,
    readers: int,
    seed: int = 0,
    forms: Sequence[str] = FORMS,
    worlds: Callable[[Path], Cafs] = Cafs,
) -> Iterator[Outcome]:
    """Mount these forms of the image, each with an empty store; compare with what tar unpacks.

    ``worlds`` makes what it is mounted in, each below a directory.

    Raises:
        LackingError: something is not on this machine.
        subprocess.CalledProcessError: tar failed.
    """
    need_root()
    image = DebianImage(directory)
    image.make(forms)
    with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place, image.registry() as registry:
        scratch = Path(place)
        original = scratch / "original"
        original.mkdir()
        command = [need("tar"), "-xpf", str(image.tar), "-C", str(original), "--numeric-owner"]
        subprocess.run([*command, "--xattrs", "--xattrs-include=*"], check=True)
        locking = worlds(scratch / "locking")
        locking.project(toml_of(image.reference(registry, "plain")))
        locking.run("lock", timeout_s=600)
        for form in forms:
            world = worlds(scratch / form)
            if form == "plain":
                copy_lock(locking.directory, world.directory)
            text = toml_of(image.reference(registry, form))
            outcome, before = Outcome(form), len(registry.requests())
            with world.mount(text, *_AS_IT_IS) as mount:
                began = time.perf_counter()
                compare(original, mount.ref("debian"), outcome, readers=readers, seed=seed)
                outcome.took_s = time.perf_counter() - began
            outcome.count(registry.requests()[before:])
            yield outcome


def compare(original: Path, shown: Path, outcome: Outcome, *, readers: int, seed: int) -> None:
    """Compare two trees; what differs goes into the outcome. Each file is read once."""
    todo: list[str] = []
    links: dict[int, int] = {}
    for path in _walk(original, shown, outcome):
        outcome.entries += 1
        mine, theirs = (original / path).lstat(), (shown / path).lstat()
        exact = _SECOND_NS if outcome.form == _COARSE else 1
        outcome.wrong += [
            f"{path}: {what}" for what in _differences(original / path, shown / path, exact)
        ]
        if stat.S_ISREG(mine.st_mode):
            if links.setdefault(mine.st_ino, theirs.st_ino) != theirs.st_ino:
                outcome.wrong.append(f"{path}: another file than its other name")
            todo.append(path)
    random.Random(seed).shuffle(todo)  # noqa: S311 - no secret
    lock = threading.Lock()

    def read() -> None:
        while True:
            with lock:
                if not todo:
                    return
                path = todo.pop()
            count, what = _contents(original / path, shown / path)
            with lock:
                outcome.bytes += count
                outcome.wrong += [f"{path}: {what}"] if what else []

    _all_at_once([read] * readers)


def _all_at_once(work: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _walk(original: Path, shown: Path, outcome: Outcome) -> Iterator[str]:
    """Every path below the original; names that only one of them has are wrong."""
    pending = [""]
    while pending:
        path = pending.pop()
        if path:
            yield path
        if not stat.S_ISDIR((original / path).lstat().st_mode):
            continue
        names, there = ({each.name for each in (top / path).iterdir()} for top in (original, shown))
        outcome.wrong += [f"{path}/{name}: only in one of them" for name in names ^ there]
        pending += [f"{path}/{name}" if path else name for name in names & there]


def _differences(mine: Path, theirs: Path, exact_ns: int) -> Iterator[str]:
    """What of two nodes differs but for their contents; times only by ``exact_ns`` or more."""
    one, other = mine.lstat(), theirs.lstat()
    if abs(one.st_mtime_ns - other.st_mtime_ns) >= exact_ns:
        yield f"of {other.st_mtime_ns}, not {one.st_mtime_ns}"
    names = ["st_mode", "st_uid", "st_gid"]
    if stat.S_ISREG(one.st_mode):
        names += ["st_size", "st_nlink"]
    if stat.S_ISCHR(one.st_mode) or stat.S_ISBLK(one.st_mode):
        names.append("st_rdev")
    for name in names:
        if getattr(one, name) != getattr(other, name):
            yield f"{name} {getattr(other, name)}, not {getattr(one, name)}"
    if stat.S_ISLNK(one.st_mode) and mine.readlink() != theirs.readlink():
        yield f"leads to {theirs.readlink()}, not {mine.readlink()}"
    if _attributes(mine) != _attributes(theirs):
        yield f"has {_attributes(theirs)}, not {_attributes(mine)}"


def _attributes(path: Path) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(_OURS)
    }


def _contents(mine: Path, theirs: Path) -> tuple[int, str]:
    """How many bytes were compared, and what was wrong with them."""
    count = 0
    try:
        with mine.open("rb") as one, theirs.open("rb") as other:
            while True:
                left, right = one.read(_PIECE), other.read(_PIECE)
                if left != right:
                    return count, f"other bytes from {count} on"
                if not left:
                    return count, ""
                count += len(left)
    except OSError as error:
        return count, str(error)
