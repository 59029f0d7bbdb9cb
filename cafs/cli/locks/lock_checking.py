"""``cafs lock --check``: whether the lock is that of the settings, and of the bytes."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.cli.exits import USAGE
from cafs.cli.failing import expected, report
from cafs.cli.interruptible import run_async
from cafs.cli.locks.lock_files import wrong_index
from cafs.cli.locks.lock_making import bars, locate, new_entry, pinned
from cafs.cli.locks.lock_scratch import scratch_of
from cafs.cli.saying import say
from cafs.cli.telling import board, draws
from cafs.cli.withholding import withheld
from cafs.errors import CafsError, SettingsError
from cafs.settings.heeding import check as check_entry
from cafs.settings.lockfile import (
    LARGE,
    Lock,
    LockedPart,
    LockEntry,
    index_file,
    lock_file,
    read_lock,
)
from cafs.settings.wishing import Wish, named, project_of, wishes

if TYPE_CHECKING:
    from cafs.cli.options import Flags
    from cafs.distribution.locking import Locker, Reports
    from cafs.model.digest import Digest
    from cafs.model.spec import Platform
    from cafs.settings.values import Settings

_WRONG: Final = 4
"""The exit code for bytes that are not what they should be."""
_Wrong = Callable[["Digest", int], str]
"""Says what is wrong with the index file of a digest and a size."""


class Problem(msgspec.Struct, frozen=True):
    """Something that does not match: of which entry, what, and with which exit code.

    ``told`` says that people know it: it was said when it failed.
    """

    name: str
    platform: str
    what: str
    code: int = USAGE
    told: bool = False


def check(
    flags: "Flags",
    names: Sequence[str],
    platforms: "Sequence[Platform]",
    *,
    full: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Hold the lock against cafs.toml and against its index files; with ``full``, the bytes too.

    Asks nobody unless ``full`` is given.

    Returns:
        0 when all is well, 2 when the lock is not that of the settings, else 4 when an index file
        or bytes are wrong; with ``full`` the code of the first failure, where one could not be had.
    """
    project = flags.load_project()
    loaded = project.settings
    file = lock_file(project_of(loaded))
    found = read_lock(file)
    lock = found or Lock()
    wanted = named(wishes(project, lock, platforms), names)
    # Layers that images share have one index, which is hashed once.
    wrong: _Wrong = cache(partial(wrong_index, file))
    problems = list(_against_settings(file, lock, wanted, wrong, whole=not names))
    if full:
        drawn = draws() and not quiet and not as_json
        reading = partial(_against_bytes, loaded, file, lock, wanted, drawn=drawn)
        with withheld(quiet=quiet) as names_told:
            found_wrong = run_async(reading)
            names_told.update(each.name for each in found_wrong)
        problems += found_wrong
    _tell(lock, file, wanted, problems, as_json)
    if not problems and not quiet and not as_json:
        say(f"{file.name} matches {project_of(loaded).name}: {len(wanted)} entries")
    seen = [each.code for each in problems if not each.told]
    failed = [each.code for each in problems if each.told]
    return USAGE if USAGE in seen else next(iter(failed), max(seen, default=0))


def _against_settings(
    file: Path, lock: Lock, wanted: list[Wish], wrong: _Wrong, *, whole: bool
) -> Iterator[Problem]:
    for wish in wanted:
        entry = wish.entry(lock, file.parent)
        name, platform = _place(wish, entry)
        if entry is None:
            older = any(each.platform in {"", wish.platform} for each in lock.of(name))
            what = "was locked for other settings" if older else "is not locked"
            yield Problem(name, platform, f"{what}: run cafs lock {name}")
            continue
        try:
            check_entry(wish.spec, entry, file)
        except SettingsError as error:
            yield Problem(name, platform, error.line)
        yield from _against_files(entry, wrong)
    known = {wish.spec.name for wish in wanted}
    for entry in lock.entries if whole else ():
        if entry.name not in known:
            yield Problem(
                entry.name, entry.platform, "is locked, and not in the settings: run cafs lock"
            )


def _against_files(entry: LockEntry, wrong: _Wrong) -> Iterator[Problem]:
    for digest, length in entry.indexes.items():
        if length <= LARGE and (what := wrong(digest, length)):
            fix = f"cafs lock {entry.name} makes it anew"
            yield Problem(entry.name, entry.platform, f"{what}: {fix}", _WRONG)


async def _against_bytes(
    loaded: "Settings", file: Path, lock: Lock, wanted: list[Wish], *, drawn: bool
) -> list[Problem]:
    """Compare the bytes with what is locked; what could not be had is told at once.

    What the store lacks is fetched, and nobody is asked for the rest: it was checked when it came.
    """
    from cafs.assemble.system import open_system
    from cafs.distribution.locking import Locker
    from cafs.model.limits import Limits

    entries = [(wish, wish.entry(lock, file.parent)) for wish in wanted]
    there = [(wish, entry) for wish, entry in entries if entry is not None]
    problems: list[Problem] = []
    async with (
        open_system(loaded, description="lock", eager=True) as system,
        scratch_of(system) as top,
    ):
        locker = Locker(system.store, system.resolver, system.fetcher, Limits())
        with board(len(there), quiet=not drawn, as_json=False) as reports:
            for number, (wish, entry) in enumerate(there):
                folder = top / str(number)
                folder.mkdir()
                reading = partial(_compared, file, locker, wish, entry, folder)
                try:
                    with bars(reports, wish.title) as told:
                        problems += await reading(told=told)
                except (CafsError, BaseExceptionGroup) as error:
                    known = expected(error)
                    if known is None:
                        raise
                    problem = Problem(
                        *_place(wish, entry),
                        known.line,
                        report(known, of=wish.spec.name),
                        told=True,
                    )
                    problems.append(problem)
    return problems


async def _compared(
    file: Path, locker: "Locker", wish: Wish, entry: LockEntry, folder: Path, *, told: "Reports"
) -> list[Problem]:
    """How the bytes that one entry locks differ from it, be they here or fetched for this.

    Raises:
        CafsError: it could not be had.
    """
    import trio

    located = await locate(locker, pinned(wish, entry), folder, told)
    fresh = new_entry(wish, located, file.parent)
    found = partial(_differences, file, entry, fresh, located.indexes)
    return await trio.to_thread.run_sync(found)


def _differences(
    file: Path, entry: LockEntry, fresh: LockEntry, indexes: "dict[Digest, Path]"
) -> list[Problem]:
    """How what was read differs from what is locked. Blocks: indexes are read."""
    whats: list[str] = []
    image = entry.named is not None
    if entry.digest != fresh.digest:
        whats.append(f"is {fresh.digest}, and not {entry.digest}")
    elif len(entry.parts) != len(fresh.parts):
        whats.append(f"has {len(fresh.parts)} layers, and not {len(entry.parts)}")
    elif image and entry.size != fresh.size:
        whats.append(f"its manifest has {fresh.size} bytes, and not {entry.size}")
    else:
        pairs = zip(entry.parts, fresh.parts, strict=True)
        for number, (old, new) in enumerate(pairs, 1):
            part = f"layer {number}" if image else "content"
            what = _difference(file, old, new, indexes)
            whats += [f"{part}{what}"] if what else []
    return [Problem(entry.name, entry.platform, what, _WRONG) for what in whats]


def _difference(file: Path, old: LockedPart, new: LockedPart, indexes: "dict[Digest, Path]") -> str:
    """How a part differs, to stand behind what it is; empty where it does not."""
    if (old.digest, old.size) != (new.digest, new.size):
        return f" is {new.digest} ({new.size} bytes), and not {old.digest} ({old.size})"
    if old.contents != new.contents:
        return ": its table of contents is another"
    if old.index is None and new.index is not None:
        # So it is with a file that an older version has locked.
        return " is locked without its index: cafs lock --upgrade makes it"
    if old.index != new.index and not _same(file, old, new.index, indexes):
        return f": its index is {new.index}, and not {old.index}"
    if old.index == new.index and old.index_size != new.index_size:
        return f": its index has {new.index_size} bytes, and not {old.index_size}"
    return ""


def _same(file: Path, old: LockedPart, new: "Digest | None", indexes: "dict[Digest, Path]") -> bool:
    """Whether two indexes say the same: how well they are packed is no difference."""
    if old.index is None or new is None or wrong_index(file, old.index, old.index_size or 0):
        return False
    return _said(index_file(file, old.index)) == _said(indexes[new])


def _said(path: Path) -> "Digest":
    from cafs.codec.index_pieces import what_it_says
    from cafs.codec.windows import unpack
    from cafs.store.disk.plain_files import open_plain

    with open_plain(path) as file:
        length = os.fstat(file.fileno()).st_size
        return what_it_says(file.read, length, name=str(path), unpack=unpack)


def _place(wish: Wish, entry: LockEntry | None) -> tuple[str, str]:
    """What an entry is called, or one that should be there: its name and platform."""
    if entry is not None:
        return entry.name, entry.platform
    return wish.spec.name, "" if wish.anywhere else wish.platform


def _tell(
    lock: Lock, file: Path, wanted: list[Wish], problems: list[Problem], as_json: bool
) -> None:
    """Say what does not match; to a program also what does."""
    if as_json:
        places = [_place(wish, wish.entry(lock, file.parent)) for wish in wanted]
        wrong = {(each.name, each.platform) for each in problems}
        for name, platform in places:
            if (name, platform) not in wrong:
                _tell_facts(name, platform, "right", None)
    for each in problems:
        if as_json:
            other = "unknown" if each.told else "stale"
            state = "wrong" if each.code == _WRONG else other
            _tell_facts(each.name, each.platform, state, each.what)
        elif not each.told:
            about = f" ({each.platform})" if each.platform else ""
            say(f"{each.name}{about}: {each.what}")


def _tell_facts(name: str, platform: str, state: str, why: str | None) -> None:
    import msgspec

    facts = {"name": name, "platform": platform or None, "state": state, "why": why}
    say(msgspec.json.encode(facts))
