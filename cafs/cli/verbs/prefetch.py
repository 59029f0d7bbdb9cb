"""``cafs prefetch``: fetch refs whole, before anybody reads."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.failing import expected, report
from cafs.cli.interruptible import run_async
from cafs.cli.telling import Board, Report, board
from cafs.errors import BudgetError, CafsError, StorageError

if TYPE_CHECKING:
    import trio

    from cafs.assemble.system import System
    from cafs.cli.mounts.live import LiveMount
    from cafs.fetch.prefetching import Haul
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings

_REPORT_S: Final = 0.2
"""Between two reports of progress: often enough for a bar to move."""
_PASSES: Final = 4
"""Archives that are opened at once: it is work for processors."""
_RESOLVING: Final = 16
"""Refs that are looked up while others are fetched."""


@click.command("prefetch", short_help="Fetch refs whole, before anybody reads.")
@click.argument("refs", nargs=-1)
@options.with_settings(*options.SOURCES, *options.ROOM, "limit")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    loaded: "Settings",
    quiet: bool,
    as_json: bool,
) -> int:
    """Fetch REFS whole into the store, and open their archives, so that reading waits for nothing.

    REFS are names from cafs.toml (all of them when none is given) or refs written out. A mount
    that is live sees what has been fetched at once, and readers come first. Several refs are
    fetched at once, over as many connections as help; --limit bounds the rate. A ref that fails
    does not keep the others from coming; the exit code is that of the first failure.

    With --json: one object a line, {"ref", "downloaded", "total", "done", "error"}, in bytes; lines
    of several refs are mixed.
    """
    from cafs.cli.completing import complete
    from cafs.cli.withholding import withheld

    words = complete(loaded, refs)
    with withheld(quiet=quiet) as failed:
        return run_async(_prefetch, loaded, words, quiet, as_json, failed)


async def _prefetch(
    loaded: "Settings", words: tuple[str, ...], quiet: bool, as_json: bool, failed: set[str]
) -> int:
    """Fetch the refs, several at once; a failed one does not keep the others from coming.

    Returns:
        The exit code of the first failure, in the order of the refs, 0 without one. The names of
        those that failed are put into ``failed``.
    """
    from cafs.assemble.system import open_system
    from cafs.cli.choosing import chosen
    from cafs.cli.mounts.reaching import PREFETCH, heard
    from cafs.store.tenancy import visiting

    specs = chosen(loaded, words)
    live = _live(loaded)
    tenancy = None
    if live is not None:
        tenancy = partial(visiting, description="prefetch", key=live.key)
    async with (
        open_system(loaded, description="prefetch", tenancy=tenancy, eager=True) as system,
        heard(system, PREFETCH, None),
    ):
        with board(len(specs), quiet=quiet, as_json=as_json) as reports:
            codes = await _fetch_all(system, specs, reports)
    failed.update(_name(specs[number]) for number in codes)
    return codes[min(codes)] if codes else 0


def _live(loaded: "Settings") -> "LiveMount | None":
    """The live mount of this store, whose refs mean what they mean there.

    Where it cannot be told whether there is one, there is none: a prefetch needs no mount.
    """
    from cafs.cli.mounts.live import all_mounts

    mounts = [] if loaded.mount_point is None else all_mounts(loaded.mount_point).mounts
    last = next(reversed(mounts), None)
    return last if last and last.alive and Path(last.store) == loaded.store else None


def _name(spec: "RefSpec") -> str:
    """What people call a ref."""
    return spec.name or spec.ref.shown


async def _fetch_all(
    system: "System", specs: "Sequence[RefSpec]", reports: Board
) -> dict[int, int]:
    """Fetch refs side by side, begun in their order; the exit codes of those that failed.

    Enough are begun to keep as many requests under way as prefetches may make: some ask what a ref
    is while others fetch.

    Raises:
        StorageError, BudgetError: the next one would fail likewise.

    Cancellation: what has been fetched stays.
    """
    import trio

    codes: dict[int, int] = {}
    passes = trio.CapacityLimiter(_PASSES)
    left = iter(enumerate(specs))

    async def work() -> None:
        for number, spec in left:
            try:
                with reports(_name(spec)) as progress:
                    await _fetch(system, spec, progress, passes, haul)
            except (StorageError, BudgetError):
                raise
            except (CafsError, BaseExceptionGroup) as error:
                known = expected(error)
                if known is None:
                    raise
                codes[number] = report(known, of=_name(spec))

    async with system.fetcher.haul() as haul, trio.open_nursery() as nursery:
        for _ in range(system.settings.pacing.prefetch_connections + _RESOLVING):
            nursery.start_soon(work)
    return codes


async def _fetch(
    system: "System",
    spec: "RefSpec",
    report: Report,
    passes: "trio.CapacityLimiter",
    haul: "Haul",
) -> None:
    """Fetch a ref whole, and open its tree, with a report a few times a second.

    Raises:
        CafsError: a part could not be fetched.

    Cancellation: what has been fetched stays.
    """
    from cafs.fetch.interfaces import Patience, Priority
    from cafs.fetch.progress import Progress
    from cafs.model.resolved import Shape

    resolver, patience = system.resolver, Patience(spec.deadline_s, Priority.PREFETCH)
    resolved = await resolver.resolve(spec, patience)
    numbers = range(len(resolved.parts))
    contents = [await resolver.part(spec, number, patience) for number in numbers]
    await haul.bring(contents, Progress(report, _REPORT_S), patience)
    if resolved.shape is Shape.TREE:
        async with passes:
            tree = await resolver.tree(spec, patience)
        await haul.keep(tree.contents, of=contents, name=_name(spec))
