"""Writes cafs.lock: the same entries are the same bytes, and two who write wait for each other."""

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from cafs.errors import DeadlineError, SettingsError, StorageError, StorageFullError
from cafs.model.resolved import Contents
from cafs.settings.lockfile import VERSION, Lock, LockedPart, LockEntry
from cafs.settings.places import real, within

_HEAD: Final = (
    "# Which bytes the refs of cafs.toml mean. Written by cafs lock; commit it with cafs.toml.\n"
)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_WAIT_S: Final = 10.0
"""How long one who writes waits for another: writing takes milliseconds."""
_POLL_S: Final = 0.02
_PIECE: Final = 1 << 20
_DRAFT: Final = ".cafs-"
"""Between the name of a file and the random end of one that is to take its place."""
_DRAFTS: Final = re.compile(rf"\.(.+){re.escape(_DRAFT)}[a-z0-9_]{{8}}", re.DOTALL)
"""The names of such. Source: CPython, tempfile._RandomNameSequence."""


def lock_text(lock: Lock) -> str:
    """The lock as a file has it: sorted, one fact a line."""
    tables = [_entry(each) for each in sorted(lock.entries, key=lambda e: (e.name, e.platform))]
    return "\n".join([f"{_HEAD}version = {VERSION}\n", *tables])


def _entry(entry: LockEntry) -> str:
    key = f"ref.{_word(entry.name)}"
    if entry.platform:
        key += f".platform.{_text(entry.platform)}"
    layered = entry.named is not None
    facts = [
        ("ref", _text(entry.ref)),
        ("query", _text(entry.query) if entry.query else ""),
        ("integrity", _text(entry.integrity) if entry.integrity else ""),
        ("named", _text(str(entry.named)) if entry.named else ""),
        ("digest", _text(str(entry.digest))),
        ("size", str(entry.size)),
        ("media-type", _text(entry.media_type)),
        *([] if layered else _where(entry.parts[0])),
    ]
    pieces = [f"[{key}]\n{_lines(facts)}"]
    if layered and not entry.parts:
        pieces[0] += "layer = []\n"
    pieces += [f"[[{key}.layer]]\n{_lines(_facts(part))}" for part in entry.parts if layered]
    return "\n".join(pieces)


def _facts(part: LockedPart) -> list[tuple[str, str]]:
    return [
        ("digest", _text(str(part.digest))),
        ("size", str(part.size)),
        ("media-type", _text(part.media_type)),
        *_where(part),
    ]


def _where(part: LockedPart) -> list[tuple[str, str]]:
    return [
        ("index", _text(str(part.index)) if part.index else ""),
        ("index-size", str(part.index_size) if part.index else ""),
        ("contents", _contents(part.contents) if part.contents else ""),
        ("urls", f"[{', '.join(map(_text, part.urls))}]" if part.urls else ""),
    ]


def _contents(contents: Contents) -> str:
    facts = f"kind = {_text(contents.kind)}, digest = {_text(str(contents.digest))}"
    numbers = {"start": contents.start, "length": contents.length, "size": contents.size}
    return f"{{{facts}{''.join(f', {key} = {each}' for key, each in numbers.items() if each)}}}"


def _lines(facts: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in facts if value)


def _word(name: str) -> str:
    """A key without quotes where that may be."""
    return _text(name) if "." in name else name


def _text(text: str) -> str:
    """A basic string: what JSON escapes, TOML does likewise, and DEL too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Nobody else writes this file, or those that belong to it, inside the block.

    What one who was killed while he wrote it has left beside it is removed.

    What is locked is the directory: it is always there, and nothing has to be cleaned up. Blocks.

    Raises:
        DeadlineError: somebody else is at it for 10 s.
        StorageError: the directory cannot be opened.
    """
    try:
        descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"{file.parent}: {error.strerror}") from error
    try:
        limit = time.monotonic() + _WAIT_S
        while not _taken(descriptor):
            if time.monotonic() > limit:
                raise DeadlineError(f"{file}: somebody else is writing it", hint="try again")
            time.sleep(_POLL_S)
        sweep(file.parent, file.name)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what was to take the place of files in a directory; for one who is alone there.

    Only what has the whole form of it is: what else begins like that is somebody's.

    Args:
        folder: may be missing.
        name: of the only file whose drafts are meant; None for all.

    Raises:
        StorageError: it cannot be removed, or the directory not be read.
    """
    try:
        for path in _drafts(folder, name):
            path.unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror}") from error


def _drafts(folder: Path, name: str | None) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            folder / each.name
            for each in entries
            if (draft := _DRAFTS.fullmatch(each.name))
            and name in {None, draft[1]}
            and each.is_file(follow_symlinks=False)
        ]


def refuse_outside(path: Path, project: Path) -> None:
    """Refuse to write where a clone's symlink leads out of the project.

    Raises:
        SettingsError: it does.
    """
    place = real(path)
    if not within(place, project):
        what = f"leads out of the project, to {place}"
        raise SettingsError(str(path), "", what, hint="nothing was written; remove the symlink")


def write_whole(file: Path, data: bytes) -> None:
    """Write a file so that it is the old one or the new one, whatever happens. Blocks.

    A symlink stays one: what it leads to is written.

    Raises:
        StorageError: it cannot be written; the old one is as it was.
    """
    _replace(file, lambda out: out.write(data))


def copy_whole(file: Path, source: Path) -> None:
    """Write a file as another one is, piece by piece; else as ``write_whole``.

    Raises:
        StorageError: it cannot be written, or the other not be read.
    """

    def copy(out: BinaryIO) -> None:
        with source.open("rb") as data:
            shutil.copyfileobj(data, out, _PIECE)

    _replace(file, copy)


def try_writing(file: Path) -> None:
    """Do what comes first when a file is written, and undo it. Blocks.

    Who asks for permissions only is told nothing of a disk that is read-only, full or gone.

    Raises:
        StorageError: it cannot be written.
    """
    place = real(file)
    try:
        descriptor, made = tempfile.mkstemp(prefix=f".{place.name}{_DRAFT}", dir=place.parent)
        os.close(descriptor)
        Path(made).unlink(missing_ok=True)  # who is alone there may have swept it away
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> StorageError:
    kind = StorageFullError if error.errno in _NO_SPACE else StorageError
    return kind(f"{file} cannot be written: {error.strerror}")


def _replace(file: Path, write: Callable[[BinaryIO], object]) -> None:
    place = real(file)
    made = ""
    try:
        mode = place.stat().st_mode & 0o777 if place.exists() else 0o666 & ~_umask()
        descriptor, made = tempfile.mkstemp(prefix=f".{place.name}{_DRAFT}", dir=place.parent)
        with open(descriptor, "wb") as out:  # noqa: PTH123 - a descriptor, not a path
            write(out)
            out.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(made).replace(place)
        made = ""
        _sync(place.parent)
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        if made:
            with suppress(OSError):
                Path(made).unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """What this process takes away from the mode of files."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
