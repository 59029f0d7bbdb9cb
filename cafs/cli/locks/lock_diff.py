"""``cafs lock --diff``: what differs between two locks, down to single files."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cafs.cli.interruptible import run_async
from cafs.cli.locks.lock_files import wrong_index
from cafs.cli.locks.lock_telling import title, warn
from cafs.cli.saying import say
from cafs.errors import ContentError, NotFoundError
from cafs.settings.lockfile import Lock, LockEntry, index_file, read_lock

if TYPE_CHECKING:
    from cafs.distribution.comparing import Change, Node
    from cafs.model.digest import Digest
    from cafs.model.record import TreeRecord
    from cafs.settings.values import Settings
    from cafs.store.store import Store

Pair = tuple[LockEntry | None, LockEntry | None]


def show(loaded: "Settings", old: Path, new: Path, *, as_json: bool) -> int:
    """Say what differs; 0 however much that is.

    Raises:
        NotFoundError: there is no such file.
        SettingsError: it is no lock.
        StorageError: the store, in which the indexes are read, cannot be used.
    """
    changed = [pair for pair in _pairs(_read(old), _read(new)) if pair[0] != pair[1]]
    if changed:
        run_async(_show, loaded, changed, (old, new), as_json)
    return 0


def _read(file: Path) -> Lock:
    found = read_lock(file)
    if found is None:
        raise NotFoundError(f"{file}: there is no such file")
    return found


def _pairs(old: Lock, new: Lock) -> list[Pair]:
    """What stands for the same in both, by name and platform."""
    ours = {(each.name, each.platform): each for each in old.entries}
    theirs = {(each.name, each.platform): each for each in new.entries}
    return [(ours.get(key), theirs.get(key)) for key in sorted({*ours, *theirs})]


async def _show(
    loaded: "Settings", changed: list[Pair], files: tuple[Path, Path], as_json: bool
) -> None:
    import trio

    from cafs.store.store import open_store

    async with open_store(loaded.store) as store:
        for pair in changed:
            _tell_entry(pair, as_json)
            if pair[0] is not None and pair[1] is not None:
                both = (pair[0], pair[1])
                await trio.to_thread.run_sync(_compare, store, both, files, as_json)


def _compare(
    store: "Store", pair: tuple[LockEntry, LockEntry], files: tuple[Path, Path], as_json: bool
) -> None:
    """Say which files differ, where both are known by their indexes."""
    from cafs.distribution.comparing import compare

    old, new = pair
    if [part.digest for part in old.parts] == [part.digest for part in new.parts]:
        return
    if old.is_file or new.is_file:
        return  # there are no files in it: its digest tells all
    try:
        trees = [_tree(store, each, files) for each in pair]
    except ContentError as error:
        warn(f"{title(new)}: {error.line}")
        return
    if trees[0] is None or trees[1] is None:
        if old.indexes and new.indexes and not as_json:
            say("  its files are not known: an index is not at hand")
        return
    for change in compare(store.trees, trees[0], trees[1]):
        _tell_change(new, change, as_json)


def _tree(store: "Store", entry: LockEntry, files: tuple[Path, Path]) -> "TreeRecord | None":
    from cafs.distribution.comparing import tree_from_indexes
    from cafs.model.limits import Limits
    from cafs.model.resolved import Part

    def find(index: "Digest") -> Path | None:
        wrong = []
        for file in files:
            what = wrong_index(file, index, entry.indexes[index])
            if not what:
                return index_file(file, index)
            if os.path.lexists(index_file(file, index)):
                wrong.append(what)
        for each in dict.fromkeys(wrong):
            warn(f"{title(entry)}: {each}")
        return store.blobs.file(index)

    parts = [
        Part(
            media_type=each.media_type,
            size=each.size,
            digest=each.digest,
            urls=(),
            index=each.index,
        )
        for each in entry.parts
    ]
    if not entry.indexes:
        return None
    image = entry.named is not None
    return tree_from_indexes(
        store.trees, parts, find, image=image, limits=Limits(), name=title(entry)
    )


def _tell_entry(pair: Pair, as_json: bool) -> None:
    old, new = pair
    entry = new or old
    if entry is None:
        raise AssertionError("a pair has at least one")
    state = "added" if old is None else "removed" if new is None else "changed"
    was, now = (None if each is None else str(each.digest) for each in pair)
    if as_json:
        import msgspec

        facts = {
            "name": entry.name,
            "platform": entry.platform or None,
            "state": state,
            "was": was,
            "digest": now,
        }
        say(msgspec.json.encode(facts))
        return
    text = f"{was} → {now}" if state == "changed" and was != now else now or was
    about = "" if was != now or state != "changed" else ": the same bytes, locked otherwise"
    say(f"{title(entry)}: {state} {text}{about}")


def _tell_change(entry: LockEntry, change: "Change", as_json: bool) -> None:
    old, new = change.old, change.new
    if as_json:
        import msgspec

        facts = {
            "name": entry.name,
            "platform": entry.platform or None,
            "path": change.path.decode(errors="replace"),
            "state": "added" if old is None else "removed" if new is None else "changed",
            "was": _facts(old),
            "now": _facts(new),
        }
        say(msgspec.json.encode(facts))
        return
    path = change.path.decode(errors="surrogateescape")
    if sys.stdout.isatty():
        # A name in an archive must not be able to give orders to the terminal.
        path = "".join(each if each.isprintable() else "?" for each in path)
    sign = "+" if old is None else "-" if new is None else "~"
    say(f"  {sign} {path}  {', '.join(_words(old, new))}".rstrip())


def _facts(node: "Node | None") -> dict[str, object] | None:
    if node is None:
        return None
    return {
        "kind": node.kind.name.lower(),
        "size": node.size,
        "mode": node.mode,
        "digest": f"sha256:{node.digest.hex()}" if node.digest else None,
        "target": None if node.target is None else node.target.decode(errors="replace"),
    }


def _words(old: "Node | None", new: "Node | None") -> Iterator[str]:
    """How a path differs, in a few words."""
    from cafs.cli.sizes import size
    from cafs.model.member import Kind

    if old is None or new is None:
        node = new or old
        if node is not None and node.kind is Kind.FILE:
            yield size(node.size)
        elif node is not None:
            yield node.kind.name.lower().replace("_", " ")
        return
    if old.kind is not new.kind:
        words = (each.kind.name.lower().replace("_", " ") for each in (old, new))
        yield " → ".join(words)
        return
    if old.size != new.size:
        yield f"{size(old.size)} → {size(new.size)}"
    elif old.digest != new.digest:
        yield "other content"
    if old.mode != new.mode:
        yield f"mode {old.mode:04o} → {new.mode:04o}"
    if old.target != new.target:
        yield "other target"
