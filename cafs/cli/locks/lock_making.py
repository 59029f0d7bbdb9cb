"""Making a lock: what is not locked is read whole, and then everything is written at once."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cafs.cli.failing import expected, report
from cafs.cli.interruptible import run_async
from cafs.cli.locks.lock_files import (
    Changes,
    at_hand,
    project_refs,
    refuse_unwritable,
    replace_entries,
)
from cafs.cli.locks.lock_scratch import put, scratch_of
from cafs.cli.locks.lock_telling import hinted, tell, tell_failed, tell_gone, warn
from cafs.cli.telling import Board, Report, board, draws
from cafs.cli.withholding import withheld
from cafs.errors import BudgetError, CafsError, SettingsError, StorageError
from cafs.model.ref import DockerRef
from cafs.settings.heeding import check, entry_of
from cafs.settings.lockfile import LARGE, Lock, LockEntry, lock_file, read_lock
from cafs.settings.wishing import Wish, named, project_of, unheard, wishes

if TYPE_CHECKING:
    from cafs.assemble.system import System
    from cafs.cli.options import Flags
    from cafs.distribution.locking import Located, Locker, Reports
    from cafs.model.digest import Digest
    from cafs.model.spec import Platform, RefSpec
    from cafs.settings.values import Settings
    from cafs.store.store import Store


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line; ``together``: what fails keeps the others out."""

    names: tuple[str, ...] = ()
    platforms: "tuple[Platform, ...]" = ()
    upgrade: bool = False
    large: Path | None = None
    quiet: bool = False
    as_json: bool = False
    together: bool = False


class _Run(msgspec.Struct):
    """One run: what there was, and what has been found out so far.

    ``kept`` are the places of entries that stay as they are. ``indexes`` are the files of the
    indexes that ``made`` names.
    """

    order: Order
    loaded: "Settings"
    file: Path
    old: Lock
    kept: set[tuple[str, str]] = msgspec.field(default_factory=set)
    indexes: "dict[Digest, Path]" = msgspec.field(default_factory=dict)
    made: list[LockEntry] = msgspec.field(default_factory=list)
    failed: set[str] = msgspec.field(default_factory=set)
    code: int = 0

    def entry(self, wish: Wish) -> LockEntry | None:
        """What was locked for these settings, unless it contradicts them, or is to move on."""
        entry = None if self.order.upgrade else wish.entry(self.old, self.file.parent)
        try:
            if entry is not None:
                check(wish.spec, entry, self.file)
        except SettingsError:
            return None
        return entry

    def tell(self, entry: LockEntry) -> None:
        """Say what has become of an entry."""
        before = self._before(entry.name, entry.platform)
        tell(entry, before, self.order.as_json, self.order.quiet)

    def fail(self, error: CafsError, wish: Wish) -> None:
        """Say why there is no entry; the first failure is the run's."""
        code = report(hinted(error, wish.spec), of=wish.spec.name)
        self.code = self.code or code
        self.failed.add(wish.spec.name)
        if self.order.as_json:
            platform = "" if wish.anywhere else wish.platform
            before = self._before(wish.spec.name, platform)
            tell_failed(wish.spec.name, platform, before, error.line)

    def _before(self, name: str, platform: str) -> LockEntry | None:
        """What was locked."""
        return next((each for each in self.old.of(name) if each.platform == platform), None)

    def leave(self, rest: list[Wish]) -> None:
        """Say what is not tried any more."""
        self.failed |= {each.spec.name for each in rest}
        if rest:
            warn(f"not tried: {', '.join(each.title for each in rest)}")


def make(flags: "Flags", order: Order) -> int:
    """Lock refs.

    Returns:
        The exit code of the first failure, 0 without one. What did not fail is locked.

    Raises:
        CafsError: nothing could be locked.
    """
    project = flags.load_project()
    loaded = project.settings
    file = lock_file(project_of(loaded))
    old = read_lock(file) or Lock()
    every = wishes(project, old, order.platforms)
    wanted = named(every, order.names)
    for name, platform in unheard(wanted, order.platforms):
        warn(f"{name}: is not locked for {platform}: {project_of(loaded)} names other platforms")
    run = _Run(order, loaded, file, old)
    with withheld(quiet=order.quiet) as told:
        run_async(_make, run, wanted, flags)
        told.update(run.failed)
    return run.code


async def _make(run: _Run, wanted: list[Wish], flags: "Flags") -> None:
    """Find out, write, and let the store know what it has been read for."""
    import trio

    from cafs.fetch.interfaces import Patience

    unmade = []
    for wish in wanted:
        entry = run.entry(wish)
        if entry is not None and at_hand(run.file, entry, run.order.large):
            run.kept.add((entry.name, entry.platform))
            run.tell(entry)
        else:
            unmade.append(wish)
    touched = {each.spec.name for each in wanted}
    async with AsyncExitStack() as stack:
        system: System | None = None
        if unmade:
            from cafs.assemble.system import open_system

            await trio.to_thread.run_sync(refuse_unwritable, run.file)
            opening = open_system(run.loaded, description="lock", eager=True)
            system = await stack.enter_async_context(opening)
            folder = await stack.enter_async_context(scratch_of(system))
            await _locate_all(run, system, unmade, folder)
        if run.failed and run.order.together:
            return
        await trio.to_thread.run_sync(_write, run, flags, touched)
        if system is not None:
            for spec in flags.load().refs:
                if spec.locked is not None and spec.name in touched:
                    await system.resolver.resolve(spec, Patience(spec.deadline_s))


def _write(run: _Run, flags: "Flags", touched: set[str]) -> None:
    """Write the lock, and say then what has become of it. Blocks."""
    changes = Changes(
        made=run.made,
        kept=run.kept,
        names=partial(project_refs, flags),
        whole=touched - run.failed,
        indexes=run.indexes,
        large=run.order.large,
    )
    every = replace_entries(run.file, changes)
    for entry in run.made:
        if entry not in every:
            run.tell(entry)
    for gone in every:
        tell_gone(gone, run.order.as_json, run.order.quiet)


async def _locate_all(run: _Run, system: "System", unmade: list[Wish], top: Path) -> None:
    """Read the refs whole, one after the other; one that fails does not keep the others out.

    Index files are written below ``top``. Where there is no room, the next ones would fail
    likewise: they are not tried.
    """
    from cafs.distribution.locking import Locker
    from cafs.model.limits import Limits

    locker = Locker(system.store, system.resolver, system.fetcher, Limits())
    drawn = draws() and not run.order.quiet and not run.order.as_json
    with board(len(unmade), quiet=not drawn, as_json=False) as reports:
        for number, wish in enumerate(unmade):
            folder = top / str(number)
            folder.mkdir()
            try:
                spec = pinned(wish, run.entry(wish))
                with bars(reports, wish.title) as told:
                    located = await locate(locker, spec, folder, told)
                await _keep(run, system.store, wish, located)
            except (CafsError, BaseExceptionGroup) as error:
                known = expected(error)
                if known is None:
                    raise
                run.fail(known, wish)
                if isinstance(known, StorageError | BudgetError):
                    run.leave(unmade[number + 1 :])
                    break
            else:
                run.made.append(new_entry(wish, located, run.file.parent))


@contextmanager
def bars(reports: Board, name: str) -> "Iterator[Reports]":
    """A bar for what is fetched of a ref, and one for what is read of it, once that has begun."""
    from cafs.distribution.locking import Reports

    with reports(name) as fetched, ExitStack() as later:
        made: list[Report] = []

        def read(done: int, total: int) -> None:
            if not made:
                made.append(later.enter_context(reports(f"{name}: indexing", stage=True)))
            made[0](done, total)

        yield Reports(fetched, read)


def pinned(wish: Wish, entry: LockEntry | None) -> "RefSpec":
    """The ref as it is asked for: what is locked, and is not to move, by its digest."""
    if entry is None:
        return wish.spec
    return replace(wish.spec, integrity=entry.named or entry.digest)


async def locate(locker: "Locker", spec: "RefSpec", folder: Path, told: "Reports") -> "Located":
    """Find out what a ref means, within its own deadline."""
    from cafs.fetch.interfaces import Patience, Priority

    return await locker.locate(spec, folder, told, Patience(spec.deadline_s, Priority.PREFETCH))


def new_entry(wish: Wish, located: "Located", base: Path) -> LockEntry:
    """The entry for what was found out."""
    everywhere = wish.anywhere and isinstance(wish.spec.ref, DockerRef) and not located.bound
    return entry_of(
        wish.spec,
        located.resolved,
        base,
        platform="" if everywhere else wish.platform,
        size=located.size,
        media_type=located.media_type,
    )


async def _keep(run: _Run, store: "Store", wish: Wish, located: "Located") -> None:
    """Keep index files for the lock, large ones in the store too; say what is missing."""
    import trio

    for digest, path in located.indexes.items():
        run.indexes[digest] = path
        if path.stat().st_size <= LARGE:
            continue
        await put(store, digest, path)
        if run.order.large is not None:
            continue
        del run.indexes[digest]
        await trio.Path(path).unlink()
        if not run.loaded.index_urls:
            warn(
                f"{wish.title}: its index is too large to lie beside cafs.lock: write it with "
                f"cafs lock --large DIR {wish.spec.name}, and say where it can be had as "
                "lock.index-url; until then every store makes its own by reading all of it"
            )
