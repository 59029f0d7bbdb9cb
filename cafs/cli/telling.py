"""How far prefetches are, told to a person or to a program. Several may go on at once."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

from typing_extensions import override

from cafs.cli.failing import expected
from cafs.cli.saying import ReaderGoneError, drawing, say
from cafs.errors import CafsError, StorageError

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

Report = Callable[[int, int], None]
"""``fn(downloaded, total)`` in bytes."""
_BARS: Final = 6
"""Bars that are drawn at once, besides that of all refs together."""


class Board(Protocol):
    """Gives the report of a ref by its name; it ends well, or by the exception that passes through.

    ``stage`` is for what is done with a ref besides fetching it: drawn where bars are, told nowhere
    else, and not counted among the refs.
    """

    def __call__(self, name: str, *, stage: bool = False) -> AbstractContextManager[Report]:
        """The report of a ref, or of a stage of it."""


@contextmanager
def board(count: int, *, quiet: bool, as_json: bool) -> Iterator[Board]:
    """Where to tell of so many refs: JSON lines, bars on a terminal, else a line each at the end.

    Args:
        count: how many refs there are.
        quiet: nothing is told.
        as_json: for programs.
    """
    if as_json:
        yield _told_by(_lines)
    elif quiet:
        yield _told_by(_silence)
    elif draws():
        with _bars(count) as bars:
            yield bars
    else:
        yield _told_by(_summary)


def draws() -> bool:
    """Whether bars can be drawn: standard error is a terminal that knows how."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _told_by(tell: Callable[[str], AbstractContextManager[Report]]) -> Board:
    def board(name: str, *, stage: bool = False) -> AbstractContextManager[Report]:
        return _silence(name) if stage else tell(name)

    return board


@contextmanager
def _silence(_name: str) -> Iterator[Report]:
    yield lambda _downloaded, _total: None


@contextmanager
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

    def tell(*, done: bool, error: str | None = None) -> None:
        facts = {"ref": name, "downloaded": last[0], "total": last[1], "done": done}
        say(msgspec.json.encode(facts | {"error": error}))

    try:
        yield report
    except (CafsError, BaseExceptionGroup) as failure:
        known = expected(failure)
        if known is not None:
            with suppress(ReaderGoneError, StorageError):  # why it failed is said elsewhere too
                tell(done=False, error=known.line)
        raise
    tell(done=True)


@contextmanager
def _summary(name: str) -> Iterator[Report]:
    from cafs.cli.sizes import size

    last = (0, 0)

    def report(downloaded: int, total: int) -> None:
        nonlocal last
        last = (downloaded, total)

    yield report
    say(f"{name}: {size(last[0])} of {size(last[1])} local")


@contextmanager
def _bars(count: int) -> Iterator[Board]:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    console = Console(stderr=True)

    def above(line: str) -> None:
        console.print(Text.from_ansi(line), soft_wrap=True)

    with Progress(*columns(), console=console) as progress, drawing(above):
        yield _Bars(progress, count).bar


class _Bars:
    """A bar for each ref under way, and one for all of them where there are several."""

    def __init__(self, progress: "Progress", count: int) -> None:
        self._progress = progress
        self._count = count
        self._ended = 0
        self._sums = [0, 0]
        self._shown = 0
        self._all: TaskID | None = None
        if count > 1:
            self._all = progress.add_task(self._title(), total=None)

    @contextmanager
    def bar(self, name: str, *, stage: bool = False) -> Iterator[Report]:
        """The report of one ref, or of a stage; its bar goes when there are others to draw."""
        last = (0, 0)
        task: TaskID | None = None
        with ExitStack() as undo:
            if self._shown < _BARS:
                task = self._progress.add_task(name, total=None)
                self._shown += 1
                undo.callback(self._drop, task)

            def report(downloaded: int, total: int) -> None:
                nonlocal last
                if task is not None:
                    self._progress.update(task, completed=downloaded, total=total)
                if not stage:
                    self._add(downloaded - last[0], total - last[1])
                last = (downloaded, total)

            try:
                yield report
            finally:
                self._ended += not stage
                self._add(0, 0)

    def _add(self, downloaded: int, total: int) -> None:
        self._sums[0] += downloaded
        self._sums[1] += total
        if self._all is not None:
            done, known = self._sums
            self._progress.update(self._all, completed=done, total=known, description=self._title())

    def _drop(self, task: "TaskID") -> None:
        if self._count > _BARS:
            self._progress.remove_task(task)
            self._shown -= 1

    def _title(self) -> str:
        return f"{self._ended} of {self._count} refs"


def columns() -> "list[ProgressColumn]":
    """Those of a bar of bytes."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
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

    return [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        RateColumn(),
        TimeRemainingColumn(),
    ]
