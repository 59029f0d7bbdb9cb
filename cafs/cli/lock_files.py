"""The files of a lock: cafs.lock, and the index files beside it."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cafs.errors import StorageError
from cafs.model.digest import digest_of
from cafs.settings.lock_writing import alone, lock_text, refuse_outside, write_whole
from cafs.settings.lockfile import (
    LARGE,
    Lock,
    LockEntry,
    index_directory,
    index_file,
    read_lock,
)

if TYPE_CHECKING:
    from cafs.model.digest import Digest

_ATTRIBUTES: Final = b"*.idx binary\n"


def is_right(path: Path, digest: "Digest") -> bool:
    """Whether a file has a digest; not, when it cannot be read."""
    try:
        return digest_of(path.read_bytes()) == digest
    except OSError:
        return False


def at_hand(file: Path, entry: LockEntry, large: Path | None) -> bool:
    """Whether the index files of an entry are where they should be.

    Args:
        file: the lock file.
        entry: one of its entries.
        large: where large ones are wanted, None where nobody wants them.
    """
    for digest, length in entry.indexes.items():
        if length <= LARGE:
            place = index_file(file, digest)
        elif large is not None:
            place = large / f"{digest.hex}.idx"
        else:
            continue
        if not is_right(place, digest):
            return False
    return True


def keep_index(file: Path, digest: "Digest", source: Path, large: Path | None) -> Path | None:
    """Put an index where it belongs; None for a large one that nobody wants. Blocks.

    Raises:
        SettingsError: the way there leads out of the project.
        StorageError: it cannot be written.
    """
    is_large = source.stat().st_size > LARGE
    place = index_file(file, digest)
    if is_large:
        if large is None:
            return None
        place = large / place.name
    else:
        refuse_outside(place, file.parent)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{place.parent}: {error.strerror}") from error
    attributes = place.parent / ".gitattributes"
    if not is_large and not attributes.exists():
        refuse_outside(attributes, file.parent)
        write_whole(attributes, _ATTRIBUTES)
    write_whole(place, source.read_bytes())
    return place


def replace_entries(
    file: Path, made: Iterable[LockEntry], *, names: Collection[str], whole: Collection[str]
) -> list[LockEntry]:
    """Write a lock, and remove the index files that it names no more.

    What others have written there meanwhile stays. Blocks.

    Args:
        file: the lock file.
        made: entries that are new, or are to stay.
        names: the refs of the project; entries of others go.
        whole: refs of which ``made`` has every entry; others that are there go.

    Returns:
        The entries that went, with nothing in their place.

    Raises:
        SettingsError: the file that is there is none of ours, or leads out of the project.
        StorageError, DeadlineError: it cannot be written.
    """
    for path in (file, index_directory(file)):
        refuse_outside(path, file.parent)
    fresh = {(each.name, each.platform): each for each in made}
    with alone(file):
        before = read_lock(file)
        entries = dict(fresh)
        gone = []
        for each in (before or Lock()).entries:
            place = (each.name, each.platform)
            if each.name not in names or (each.name in whole and place not in fresh):
                gone.append(each)
            else:
                entries.setdefault(place, each)
        lock = Lock(tuple(entries.values()))
        if before is not None or lock.entries:
            text = lock_text(lock).encode()
            if not file.exists() or file.read_bytes() != text:
                write_whole(file, text)
        _prune(file, lock)
    return gone


def _prune(file: Path, lock: Lock) -> None:
    """Remove index files that nothing names; what is not ours stays."""
    folder = index_directory(file)
    wanted = {f"{digest.hex}.idx" for digest in lock.indexes()}
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
        raise StorageError(f"{folder}: {error.strerror}") from error
