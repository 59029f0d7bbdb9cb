"""What a verification tells: a line for each thing that was wrong, and how far it is."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.cli.saying import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

HEALED: Final = "healed"
DAMAGED: Final = "damaged"
_PAGE: Final = 4096
"""Bytes of a page of records, near enough for a bar."""


class Verdict(msgspec.Struct, frozen=True):
    """Something that was wrong.

    ``item`` is a digest, ``stream:<key>``, or a part of the store (``index``, ``recent``,
    ``files``). ``state`` is ``healed`` or ``damaged``; ``why`` says how, or why not.
    """

    item: str
    what: str
    lost: int
    state: str
    why: str


class Board:
    """Where a verification tells. Bytes and items are counted until ``close``.

    Args:
        as_json: for programs.
        quiet: only of what is wrong.
        bars: draws; None where nobody would see it.
    """

    def __init__(self, *, as_json: bool, quiet: bool, bars: "Bars | None") -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._bars = bars
        self._task = None if bars is None else bars.add_task("", total=None)
        self.last = ""
        """What is to be said when the bar has gone."""
        self.healed = 0
        self.damaged = 0

    def far(self, what: str, done: int, total: int) -> None:
        """Tell how many bytes of how many are done of something; of records, how many pages."""
        if self._as_json and not self._quiet:
            _print({"doing": what, "checked": done, "total": total, "done": False})
        elif self._bars is not None and self._task is not None:
            unit = _PAGE if what == "records" else 1
            self._bars.update(
                self._task, description=what, completed=done * unit, total=total * unit or None
            )

    def tell(self, verdict: Verdict) -> None:
        """Tell what was wrong."""
        if verdict.state == HEALED:
            self.healed += 1
        else:
            self.damaged += 1
        if self._as_json:
            _print(msgspec.structs.asdict(verdict))
            return
        line = f"{verdict.item}: {verdict.what}: {verdict.state}"
        self._line(f"{line}: {verdict.why}" if verdict.why else line)

    def note(self, text: str) -> None:
        """Tell of something that is nothing wrong, nor looked at; people only."""
        if not self._as_json and not self._quiet:
            self._line(text)

    def end(self, checked: int, items: int, seed: int | None) -> None:
        """Tell what was checked in all; ``seed`` is that of a sample."""
        if self._as_json:
            facts = {
                "checked": checked,
                "items": items,
                "healed": self.healed,
                "damaged": self.damaged,
                "seed": seed,
                "done": True,
            }
            _print(facts)
        elif not self._quiet:
            self.last = self._summary(checked, items, seed)

    def _summary(self, checked: int, items: int, seed: int | None) -> str:
        from cafs.cli.sizes import size

        sample = "" if seed is None else f", a sample (--seed {seed} takes it again)"
        wrong = self.healed + self.damaged
        told = f"{wrong} wrong, {self.healed} healed" if wrong else "nothing is wrong"
        things = "1 item" if items == 1 else f"{items} items"
        return f"{size(checked)} in {things} verified{sample}: {told}"

    def _line(self, line: str) -> None:
        """A line for people; the bar stands aside."""
        if self._bars is not None and sys.stdout.isatty():
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            say(line)


@contextmanager
def board(*, as_json: bool, quiet: bool) -> Iterator[Board]:
    """A board; with a bar on a terminal."""
    dumb = os.environ.get("TERM") in {"dumb", "unknown"}
    if as_json or quiet or dumb or not sys.stderr.isatty():
        made = Board(as_json=as_json, quiet=quiet, bars=None)
        yield made
    else:
        from rich.console import Console
        from rich.progress import Progress

        from cafs.cli.telling import columns

        with Progress(*columns(), console=Console(stderr=True), transient=True) as bars:
            made = Board(as_json=as_json, quiet=quiet, bars=bars)
            yield made
    if made.last:
        say(made.last)


def _print(facts: Mapping[str, object]) -> None:
    import msgspec

    say(msgspec.json.encode(facts))
