"""``cafs verify``: check that the store has what it should, and have again what it has lost."""

import logging
import math
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from cafs.cli import options
from cafs.cli.absent import is_absent, told as absent
from cafs.cli.interruptible import run_async
from cafs.cli.locks.needing import of_refs
from cafs.cli.saying import say
from cafs.cli.verdicts import DAMAGED, HEALED, Board, Verdict, board

if TYPE_CHECKING:
    from cafs.distribution.repairing import Repairer
    from cafs.fetch.interfaces import Patience
    from cafs.model.item import Item
    from cafs.settings.values import Settings
    from cafs.store.health.checking import Found
    from cafs.store.health.verifying import Progress, Scope
    from cafs.store.health.walking import Walked
    from cafs.store.store import Store

_SEEDS: Final = 1 << 32
_WRONG: Final = 4
"""The exit code of wrong content (``exits``)."""


def _needs_lock(*, refs: tuple[str, ...], repair: bool, **_values: object) -> bool:
    """What is fetched again is asked for where refs say; else only words may be refs."""
    return repair or of_refs(refs=refs)


@click.command("verify", short_help="Check what the store has, and repair it.")
@click.argument("refs", metavar="[REF|DIGEST]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch again what turns out to be wrong.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Check this share of the bytes, another one each time.",
)
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Take a sample again.")
@options.with_settings(*options.SOURCES, locked=_needs_lock)
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    repair: bool,
    sample: float | None,
    seed: int | None,
    loaded: "Settings",
    quiet: bool,
    as_json: bool,
) -> int:
    """Check everything in the store, or what it has of REFs or DIGESTs.

    Blobs are hashed, all other bytes are held against their sums, records against files. What is
    wrong is taken out, so that nobody reads it: what is read afterwards is fetched again. With
    --repair it is fetched now, from whatever the settings and the store's own records name.

    The records themselves are looked through first, by a process that may die of it. If they are
    damaged, and nobody else uses the store, they are made anew from the blobs.

    \b
    It works while mounts are live. The exit code is 4 when something is wrong and not healed.
    With --json: one object a line; see docs/json.md.
    """
    if seed is not None and sample is None:
        raise click.UsageError("--seed is of a --sample")
    if sample is not None and math.isnan(sample):
        raise click.UsageError("--sample: not a number")
    if is_absent(loaded.store):
        return _nothing(loaded, as_json=as_json, quiet=quiet)
    if sample is not None and seed is None:
        seed = secrets.randbelow(_SEEDS)
    wish = _Wish(loaded, refs, repair=repair, percent=sample or 100.0, seed=seed)
    logging.getLogger("cafs.store").addHandler(logging.NullHandler())  # the board tells it
    with board(as_json=as_json, quiet=quiet) as told:
        return run_async(_verify, wish, told)


def _nothing(loaded: "Settings", *, as_json: bool, quiet: bool) -> int:
    """Tell that there is no store, which is nothing wrong, and make none."""
    if as_json:
        with board(as_json=True, quiet=quiet) as told:
            told.end(0, 0, None)
    elif not quiet:
        say(absent(loaded.store))
    return 0


class _Wish(msgspec.Struct, frozen=True):
    """What was asked for. ``seed`` is that of a sample, None without one."""

    loaded: "Settings"
    words: tuple[str, ...]
    repair: bool
    percent: float
    seed: int | None


async def _verify(wish: _Wish, told: Board) -> int:
    from cafs.store.db.transactions import BrokenEnvironmentError
    from cafs.store.health.recovery import LOSSES
    from cafs.store.health.verifying import Scope
    from cafs.store.health.walking import examine

    loaded = wish.loaded
    walked = await examine(loaded.store, lambda done, of: told.far("records", done, of))
    damaged = [each for each in walked if each.damage]
    async with AsyncExitStack() as stack:
        try:
            store, repairer = await _open(loaded, stack, repair=wish.repair)
        except BrokenEnvironmentError:
            return _in_use(loaded, damaged, told)
        for each in damaged:
            why = f"made anew from the blobs; {LOSSES}"
            if each.path.name != "index":
                why = "begun anew"
            told.tell(Verdict(each.path.name, each.damage, 0, HEALED, why))
        for each in walked:
            for lost in await store.verifier.redress(each.path, each.broken):
                told.tell(Verdict(each.path.name, lost, 0, HEALED, "removed"))
        items = _items(loaded, store, wish.words) if wish.words else None
        if items is None:
            await _adopt(store, told)
        scope = Scope(items=items, percent=wish.percent, seed=wish.seed or 0)
        progress = await _check(loaded, store, scope, repairer, told)
        told.end(progress.checked, progress.items, wish.seed)
    return _WRONG if told.damaged else 0


async def _open(
    loaded: "Settings", stack: AsyncExitStack, *, repair: bool
) -> "tuple[Store, Repairer | None]":
    """The store alone, or with all that fetches.

    Raises:
        BrokenEnvironmentError: it is damaged, and others use it.
        CafsError: it cannot be opened.
    """
    from cafs.store.store import open_store

    if not repair:
        return await stack.enter_async_context(open_store(loaded.store)), None
    from cafs.assemble.system import open_system
    from cafs.distribution.repairing import Repairer

    system = await stack.enter_async_context(open_system(loaded, description="verify"))
    return system.store, Repairer(system.store, system.resolver, loaded.refs, loaded.ad_hoc)


def _in_use(loaded: "Settings", damaged: "list[Walked]", told: Board) -> int:
    """The records are damaged, and others use the store: say what has to be done."""
    from cafs.cli.mounts import live

    places = [
        each.mount_point
        for each in live.all_mounts().mounts
        if each.alive and Path(each.store) == loaded.store
    ]
    who = ", ".join(places) or "whoever uses the store"
    verb = f"cafs unmount {places[0]}" if len(places) == 1 else f"end {who}"
    for each in damaged:
        why = f"others use the store; {verb}, and then: cafs verify"
        told.tell(Verdict(each.path.name, each.damage, 0, DAMAGED, why))
    if not damaged:
        told.tell(Verdict("index", "it has just been found damaged", 0, DAMAGED, "verify again"))
    return _WRONG


async def _adopt(store: "Store", told: Board) -> None:
    """Files against records: blobs that lost their record have it again."""
    done = await store.verifier.adopt()
    if done.blobs:
        what = f"{_count(done.blobs, 'blob')} without a record"
        told.tell(Verdict("files", what, 0, HEALED, "hashed, and recorded again"))
    if done.aside:
        what = f"{_count(done.aside, 'file')} among the blobs with other content than the name says"
        told.tell(Verdict("files", what, 0, HEALED, "put into quarantine"))
    for path in done.foreign:
        told.note(f"{path}: lies among the blobs, and is no file: left alone")


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _items(loaded: "Settings", store: "Store", words: tuple[str, ...]) -> "frozenset[Item]":
    """What the store has of refs and digests.

    Raises:
        NotFoundError: it has nothing of one of them.
        UsageError: as ``chosen``.
    """
    from cafs.cli.completing import completed
    from cafs.cli.mounts.kept import blob_of, kept
    from cafs.errors import NotFoundError

    found: set[Item] = set()
    for each in kept(loaded, completed(loaded, store, words)):
        if each.spec is None:
            if each.digest is not None:
                found.add(blob_of(store, each.digest))
            continue
        resolved = store.references.latest(each.spec.source)
        also = [] if each.spec.integrity is None else [each.spec.integrity]
        items = set() if resolved is None else store.belongings.items(resolved, also)
        if not items:
            raise NotFoundError(f"{each.name}: the store has nothing of it")
        found |= items
    return frozenset(found)


async def _check(
    loaded: "Settings",
    store: "Store",
    scope: "Scope",
    repairer: "Repairer | None",
    told: Board,
) -> "Progress":
    from cafs.fetch.interfaces import Patience, Priority

    wrong: list[Found] = []

    def found(each: "Found") -> None:
        wrong.append(each)
        if repairer is None:
            why = "what reads it fetches it again; --repair does so now"
            told.tell(Verdict(str(each.item), each.what, each.lost.total, DAMAGED, why))

    def report(progress: "Progress") -> None:
        told.far("bytes", progress.checked, progress.total)

    if repairer is None:
        return await store.verifier.verify(scope, found=found, report=report)
    progress = await store.verifier.verify(
        scope, found=found, report=report, prefer=repairer.prefer
    )
    patience = Patience(loaded.deadline_s, Priority.PREFETCH)
    # What is decoded is made of what is raw, which may be wrong too.
    for each in sorted(wrong, key=lambda each: each.item.digest is None):
        told.tell(await _repaired(repairer, each, patience))
    return progress


async def _repaired(repairer: "Repairer", each: "Found", patience: "Patience") -> Verdict:
    from cafs.errors import BudgetError, CafsError, StorageError

    try:
        how = await repairer.repair(each, patience)
    except (StorageError, BudgetError):
        raise
    except CafsError as error:
        return Verdict(str(each.item), each.what, each.lost.total, DAMAGED, error.line)
    return Verdict(str(each.item), each.what, each.lost.total, HEALED, how)
