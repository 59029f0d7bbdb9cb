"""``cafs prefetch``: fetch refs whole, before anybody reads."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from cafs.cli import options
from cafs.cli.failing import expected, report
from cafs.cli.saying import ReaderGoneError, say
from cafs.errors import BudgetError, CafsError, StorageError

if TYPE_CHECKING:
    from cafs.assemble import System
    from cafs.fetch.interfaces import Patience
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings

Report = Callable[[int, int], None]
"""``fn(downloaded, total)`` in bytes."""
_REPORT_S: Final = 0.2
"""Between two reports of progress: often enough for a bar to move."""


@click.command("prefetch", short_help="Fetch refs whole, before anybody reads.")
@click.argument("refs", nargs=-1)
@options.with_settings(*options.SOURCES, "limit")
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
    that is live sees what has been fetched at once, and readers come first. A ref that fails does
    not keep the others from coming; the exit code is that of the first failure.

    With --json: one object a line, {"ref", "downloaded", "total", "done"}, in bytes.
    """
    import trio

    return trio.run(_prefetch, loaded, refs, quiet, as_json)


async def _prefetch(loaded: "Settings", words: tuple[str, ...], quiet: bool, as_json: bool) -> int:
    """Fetch one ref after the other; a failed one does not keep the others from coming.

    Returns:
        The exit code of the first failure, 0 without one.
    """
    from cafs.assemble import open_system
    from cafs.cli.choosing import chosen
    from cafs.cli.live import find
    from cafs.cli.reaching import PREFETCH, heard
    from cafs.fetch.interfaces import Patience, Priority
    from cafs.store.tenancy import visiting

    specs = chosen(loaded, words)
    live = find(loaded.mount_point) if loaded.mount_point is not None else None
    shared = live is not None and live.alive and Path(live.store) == loaded.store
    tenancy = None
    if live is not None and shared:
        tenancy = partial(visiting, description="prefetch", key=live.key)
    codes: list[int] = []
    async with (
        open_system(loaded, description="prefetch", tenancy=tenancy) as system,
        heard(system.fetcher, PREFETCH, None),
    ):
        for spec in specs:
            patience = Patience(spec.deadline_s, Priority.PREFETCH)
            try:
                with _reporting(spec, quiet=quiet, as_json=as_json) as progress:
                    await _fetch(system, spec, patience, progress)
            except (StorageError, BudgetError):
                raise  # the next one would fail likewise
            except (CafsError, BaseExceptionGroup) as error:
                known = expected(error)
                if known is None:
                    raise
                codes.append(report(known))
    return next(iter(codes), 0)


async def _fetch(system: "System", spec: "RefSpec", patience: "Patience", report: Report) -> None:
    """Fetch a ref whole, and open its tree, with a report a few times a second.

    Raises:
        CafsError: a part could not be fetched.

    Cancellation: what has been fetched stays.
    """
    from cafs.fetch.progress import Progress
    from cafs.model.resolved import Shape

    resolver = system.resolver
    resolved = await resolver.resolve(spec, patience)
    numbers = range(len(resolved.parts))
    contents = [await resolver.part(spec, number, patience) for number in numbers]
    await system.fetcher.prefetch(contents, Progress(report, _REPORT_S), patience)
    if resolved.shape is Shape.TREE:
        await resolver.tree(spec, patience)


@contextmanager
def _reporting(spec: "RefSpec", *, quiet: bool, as_json: bool) -> Iterator[Report]:
    """A report for one ref: JSON lines, a bar on a terminal, else one line at the end."""
    name = spec.name or spec.ref.shown
    if as_json:
        yield from _lines(name)
    elif quiet:
        yield lambda _downloaded, _total: None
    elif sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}:
        yield from _bar(name)
    else:
        yield from _summary(name)


def _lines(name: str) -> Iterator[Report]:
    import msgspec

    last = (0, 0)
    heard = True

    def report(downloaded: int, total: int) -> None:
        nonlocal last, heard
        last = (downloaded, total)
        if heard:
            try:
                tell(done=False)
            except (ReaderGoneError, StorageError):
                heard = False  # the fetch goes on; the last line says it

    def tell(*, done: bool) -> None:
        facts = {"ref": name, "downloaded": last[0], "total": last[1], "done": done}
        say(msgspec.json.encode(facts))

    yield report
    tell(done=True)


def _bar(name: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from cafs.cli.sizes import size

    class RateColumn(ProgressColumn):
        """Bytes a second, in the units of the column before."""

        @override
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text(f"{size(rate)}/s" if rate is not None else "", style="progress.data.speed")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda downloaded, total: progress.update(task, completed=downloaded, total=total)


def _summary(name: str) -> Iterator[Report]:
    from cafs.cli.sizes import size

    last = (0, 0)

    def report(downloaded: int, total: int) -> None:
        nonlocal last
        last = (downloaded, total)

    yield report
    say(f"{name}: {size(last[0])} of {size(last[1])} local")
