"""Strays: files, and bytes in them, that no record names, and what has been in quarantine for long.

Those that a process which has died had for itself are such too.

Only files of the store's own forms are strays, in the directories where it puts them: whatever else
lies there is none of its business (B-24, non-uuid directories and other ones).
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.disk import scratch
from cafs.store.space.findings import Finding, Kind, Terms, when
from cafs.store.space.parts import Parts
from cafs.store.streams.sweeping import sweep, unrecorded
from cafs.store.tables.counters import charge

_STREAM: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{16})(\.[0-9a-f]{16})?")
_BLOB: Final = re.compile(r"[0-9a-f]{64}")
_BLOCK: Final = 512
"""Bytes of what ``stat`` counts as a block."""


class Strays:
    """Finds and removes strays of one store.

    Everything here blocks; it belongs in worker threads.
    """

    def __init__(self, parts: Parts, terms: Terms) -> None:
        self._parts = parts
        self._terms = terms

    def files(self) -> Iterator[Finding]:
        """Files of streams and blobs that no record names, and that nobody has just made.

        Of those of streams that are on record, those with bytes that are not.
        """
        root = self._parts.layout.root
        for folder, form in ((root / "streams", _STREAM), (root / "blobs" / CANONICAL, _BLOB)):
            for below, names in _below(folder):
                ours = [name for name in names if form.fullmatch(name)]
                for path in map(below.joinpath, self._unrecorded(ours)):
                    if self._is_stray(path):
                        name = str(path.relative_to(root))
                        yield Finding(Kind.FILE, name, _blocks(path), "no record names it", path)
                    elif count := self._left(path):
                        name = str(path.relative_to(root))
                        reason = "left in it by a crash, no record names them"
                        yield Finding(Kind.FILE, name, count, reason, path)

    def scratch(self) -> Iterator[Finding]:
        """What processes that have died had for themselves."""
        root = self._parts.layout.root
        for path in scratch.left(root):
            name = str(path.relative_to(root))
            yield Finding(Kind.FILE, name, _blocks(path), "who made it has died", path)

    def _unrecorded(self, names: list[str]) -> list[str]:
        """Names without those of blobs that are on record: nearly all files of a store are such."""
        blobs = {name for name in names if _BLOB.fullmatch(name)}
        known = self._parts.records.recorded({_digest(name) for name in blobs})
        return [name for name in names if name not in blobs or _digest(name) not in known]

    def _is_stray(self, path: Path) -> bool:
        named = _STREAM.fullmatch(path.name)
        if named is None:
            known = self._parts.records.get(_digest(path.name)) is not None
        else:
            record = self._parts.ledger.record(StreamKey(named[1]))
            file = None if record is None or record.digest is not None else record.file.hex()
            known = file == named[2] and named[3] is None
        return not known and 0 < _touched_ns(path) < self._terms.grace_ns

    def _left(self, path: Path) -> int:
        """Bytes that lie in a stream's file, are on no record, and that nobody has just written."""
        named = _STREAM.fullmatch(path.name)
        if named is None or not 0 < _touched_ns(path) < self._terms.grace_ns:
            return 0
        try:
            return unrecorded(self._parts.ledger, StreamKey(named[1]), path)
        except FileNotFoundError:
            return 0

    def quarantine(self) -> Iterator[Finding]:
        """What was put into quarantine long ago, each with its note."""
        for path in sorted(self._parts.layout.quarantine.iterdir()):
            whose = path.with_name(path.name.removesuffix(".json"))
            touched = _touched_ns(path)
            if path != whose and whose.exists():
                continue  # its note goes with it
            if 0 < touched < self._terms.cutoff_ns:
                reason = f"there since {when(touched)}"
                yield Finding(Kind.QUARANTINE, path.name, _charged(path), reason, path)

    def remove(self, finding: Finding, path: Path) -> bool:
        """Remove a stray, if it still is one; whether it was.

        Raises:
            OSError: the disk failed.
        """
        if finding.kind is Kind.QUARANTINE:
            _discard(path)
            return True
        if path.parent.name == scratch.FOLDER:
            return scratch.remove(path)
        if named := _STREAM.fullmatch(path.name):
            # The random name of a stream's file is never used again: nobody makes it ours now.
            if self._is_stray(path):
                return _unlink(path)
            return bool(self._left(path)) and sweep(self._parts.ledger, StreamKey(named[1]), path)
        with self._parts.holds.claim([(Item.blob(_digest(path.name)), None)]) as [ours]:
            return ours and self._is_stray(path) and _unlink(path)


def _digest(name: str) -> Digest:
    return Digest(CANONICAL, bytes.fromhex(name))


def _below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders of a folder, and the names of the files in each: there may be thousands."""
    for below in sorted(folder.iterdir()):
        if _is_folder(below):
            with os.scandir(below) as entries:
                yield below, sorted(entry.name for entry in entries if entry.is_file())


def _is_folder(path: Path) -> bool:
    """Whether it is a directory that is here: what a link leads to is not the store's."""
    return path.is_dir() and not path.is_symlink()


def _touched_ns(path: Path) -> int:
    """When a file was written, named or linked last; 0 when it has gone."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    return max(info.st_mtime_ns, info.st_ctime_ns)


def _charged(path: Path) -> int:
    """Bytes for which a file and its note, or all files below a directory, count."""
    return sum(charge(each.st_size) for each in _found(path, path.with_name(f"{path.name}.json")))


def _blocks(path: Path) -> int:
    """Bytes that the disk gives back for a file, or for all files below a directory.

    Most of a stream's file may be a hole; and one may be another name of what stays.
    """
    return sum(each.st_blocks * _BLOCK for each in _found(path) if each.st_nlink == 1)


def _found(*paths: Path) -> Iterator[os.stat_result]:
    """What the system says of files, and of those below directories; of what has gone, nothing."""
    for path in paths:
        for each in path.rglob("*") if _is_folder(path) else (path,):
            with suppress(FileNotFoundError):
                info = each.lstat()
                if stat.S_ISREG(info.st_mode):
                    yield info


def _unlink(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def _discard(path: Path) -> None:
    """Remove a file, or a directory with all below it, and its note."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
