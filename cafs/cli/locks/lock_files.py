"""The files of a lock: cafs.lock, and the index files beside it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.errors import StorageError
from cafs.model.limits import INDEX_LIMIT
from cafs.settings.lock_writing import (
    alone,
    copy_whole,
    lock_text,
    refuse_outside,
    sweep,
    try_writing,
    write_whole,
)
from cafs.settings.lockfile import (
    LARGE,
    Lock,
    LockEntry,
    index_directory,
    index_file,
    read_lock,
)
from cafs.settings.wishing import wishes
from cafs.store.disk.plain_files import what_is_wrong

if TYPE_CHECKING:
    from cafs.cli.options import Flags
    from cafs.model.digest import Digest

_ATTRIBUTES: Final = b"*.idx binary\n"


def wrong_index(file: Path, digest: "Digest", size: int) -> str:
    """What is wrong with an index file beside a lock, with its path; empty for a right one. Blocks.

    Args:
        file: the lock file.
        digest: of the index.
        size: its bytes.
    """
    return _wrong(index_file(file, digest), digest, size, file.parent)


def _wrong(path: Path, digest: "Digest", size: int, inside: Path | None) -> str:
    try:
        return what_is_wrong(path, digest, size=size, most=INDEX_LIMIT, inside=inside)
    except FileNotFoundError:
        return f"{path}: there is no such file"


def at_hand(file: Path, entry: LockEntry, large: Path | None) -> bool:
    """Whether the index files of an entry are where they should be.

    Args:
        file: the lock file.
        entry: one of its entries.
        large: where large ones are wanted, None where nobody wants them.
    """
    for digest, length in entry.indexes.items():
        if length <= LARGE:
            wrong = wrong_index(file, digest, length)
        elif large is not None:
            wrong = _wrong(large / f"{digest.hex}.idx", digest, length, None)
        else:
            continue
        if wrong:
            return False
    return True


def _keep_beside(file: Path, digest: "Digest", source: Path) -> None:
    """Put an index beside its lock."""
    place = index_file(file, digest)
    attributes = place.parent / ".gitattributes"
    for each in (place, attributes):
        refuse_outside(each, file.parent)
    _make(place.parent)
    if not attributes.exists():
        write_whole(attributes, _ATTRIBUTES)
    copy_whole(place, source)


def _keep_large(folder: Path, digest: "Digest", source: Path) -> None:
    _make(folder)
    copy_whole(folder / f"{digest.hex}.idx", source)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}") from error


def project_refs(flags: "Flags") -> set[str]:
    """The names of the refs that the project's file has now. Blocks.

    Raises:
        SettingsError: it is wrong.
    """
    return {each.spec.name for each in wishes(flags.load_project(), Lock(), ())}


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a lock.

    ``made`` are entries that are new, or others now. ``kept`` are the places (name and platform) of
    those that stay as they are. ``names`` gives the refs of the project, asked while nobody else
    writes there, so that what somebody has just added is among them: entries of others go, and what
    was made for one that has been removed meanwhile is not written.
    ``whole`` are refs of which ``made`` and ``kept`` say all: others that are there go. ``indexes``
    are the files of the indexes that ``made`` names, by digest, and ``large`` is where those go
    that are too large to lie beside the lock, None where nobody wants them.
    """

    made: Sequence[LockEntry] = ()
    kept: Collection[tuple[str, str]] = ()
    names: Callable[[], Collection[str]]
    whole: Collection[str] = ()
    indexes: "Mapping[Digest, Path]" = msgspec.field(default_factory=dict)
    large: Path | None = None


def refuse_unwritable(file: Path) -> None:
    """Find out whether a lock can be written, before much is read for it. Blocks.

    Raises:
        SettingsError: it leads out of the project.
        StorageError: it cannot be written.
    """
    for path in (file, index_directory(file)):
        refuse_outside(path, file.parent)
    try_writing(file)


def replace_entries(file: Path, changes: Changes) -> list[LockEntry]:
    """Write a lock, put its index files beside it, and remove those that it names no more.

    All of it is done while nobody else writes this lock: whoever writes it prunes. What others have
    written there meanwhile stays, also in the place of what was to be kept. Blocks.

    Returns:
        The entries that went, with nothing in their place, and those that were made in vain.

    Raises:
        SettingsError: the file that is there is none of ours, or leads out of the project.
        StorageError, DeadlineError: it cannot be written.
    """
    for path in (file, index_directory(file)):
        refuse_outside(path, file.parent)
    large = {digest for digest, path in changes.indexes.items() if path.stat().st_size > LARGE}
    if changes.large is not None:
        for digest in large:  # nobody prunes there, and it may take longer than others wait
            _keep_large(changes.large, digest, changes.indexes[digest])
    with alone(file):
        before = read_lock(file)
        lock, gone = _changed(before or Lock(), changes)
        wanted = lock.indexes()
        for digest, source in changes.indexes.items():
            if digest in wanted and digest not in large:
                _keep_beside(file, digest, source)
        if before is not None or lock.entries:
            text = lock_text(lock).encode()
            if not file.exists() or file.read_bytes() != text:
                write_whole(file, text)
        _prune(file, lock)
    return gone


def _changed(before: Lock, changes: Changes) -> tuple[Lock, list[LockEntry]]:
    """What a lock becomes, and what is not in it; for one who is alone with it."""
    fresh = {(each.name, each.platform): each for each in changes.made}
    names = changes.names()
    entries = {place: each for place, each in fresh.items() if each.name in names}
    gone = [each for each in fresh.values() if each.name not in names]
    for each in before.entries:
        place = (each.name, each.platform)
        known = place in fresh or place in changes.kept
        if each.name not in names:
            gone += [] if place in fresh else [each]
        elif each.name in changes.whole and not known:
            gone.append(each)
        else:
            entries.setdefault(place, each)
    return Lock(tuple(entries.values())), gone


def _prune(file: Path, lock: Lock) -> None:
    """Remove index files that nothing names; what is not ours stays."""
    folder = index_directory(file)
    wanted = {f"{digest.hex}.idx" for digest in lock.indexes()}
    sweep(folder)
    try:
        for each in list(folder.glob("*.idx")):
            if each.name not in wanted:
                each.unlink(missing_ok=True)
        if not wanted and {each.name for each in folder.iterdir()} <= {".gitattributes"}:
            (folder / ".gitattributes").unlink(missing_ok=True)
            folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror}") from error
