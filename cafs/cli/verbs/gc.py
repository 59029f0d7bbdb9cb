"""``cafs gc``: remove what the store has no use for, and make room where there is too much."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.locks.needing import never
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.settings.values import Settings
    from cafs.store.space.findings import Terms
    from cafs.store.space.purging import Outcome

_ORDER: Final = (
    "upload",
    "partial",
    "blob",
    "stream",
    "file",
    "quarantine",
    "reference",
    "tree",
    "document",
    "excess",
)
"""What a finding may be, in the order in which it is looked for."""


@click.command("gc", short_help="Remove what the store has no use for.")
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--older-than",
    metavar="TIME",
    help="Also what nobody has used for so long, as '24h'.  [default: partials after 168h]",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@options.with_settings("config", "store", *options.ROOM, locked=never)
@options.as_json
def command(
    *,
    dry: bool,
    older_than: str | None,
    quiet: bool,
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Remove what the store has no use for, then what is beyond its quota.

    Of no use are partials that nobody goes on with, files that no record names, and trees and
    documents of what is gone. What is pinned, in use, or shown by a live mount stays; mounts and
    prefetches go on meanwhile. With --older-than everything that nobody has used for so long goes
    too, to the minute: it is fetched again when it is wanted. When another cafs gc is at work, this
    one does nothing.

    With --json: one object for each thing, and one for all at the end.
    """
    import time

    from cafs.store.space.findings import AGE_S, Terms

    age_s = AGE_S if older_than is None else _age_s(older_than)
    terms = Terms(age_s=age_s, unused=older_than is not None, dry=dry, now_ns=time.time_ns())
    telling = _Telling(quiet=quiet, as_json=as_json, dry=dry)
    return run_async(_gc, loaded, terms, telling)


def _age_s(text: str) -> float:
    """How old what is to go is.

    Raises:
        UsageError: no duration.
    """
    from cafs.errors import UsageError
    from cafs.settings import units

    try:
        return 0.0 if text in {"0", "0s"} else units.duration_s(text)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from error


async def _gc(loaded: "Settings", terms: "Terms", telling: "_Telling") -> int:
    from cafs.store.store import open_store

    async with open_store(loaded.store) as store, store.housekeeping.alone() as alone:
        if not alone:
            click.echo("another cafs gc is at work on this store", err=True)
            return 0
        with telling.progress():
            told = await store.housekeeping.collect(terms, telling.tell)
            await store.housekeeping.make_room(terms, loaded.bounds, telling.tell, told=told)
    return telling.end()


class _Telling:
    """What is told of a collection, and how it went."""

    def __init__(self, *, quiet: bool, as_json: bool, dry: bool) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._dry = dry
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._errors: list[str] = []
        self._shown: Callable[[str], None] = _nowhere

    def tell(self, outcomes: "Sequence[Outcome]") -> None:
        """Tell of what was dealt with; in a worker thread."""
        for each in outcomes:
            if each.error:
                self._errors.append(f"{each.finding.kind} {each.finding.name}: {each.error}")
            elif each.removed or self._dry:
                self._counts[each.finding.kind] += 1
                self._bytes[each.finding.kind] += each.finding.size
            if self._as_json:
                self._line(each)
            elif self._dry and not self._quiet:
                self._would(each)
        self._shown(f"{self._counts.total()} removed")

    def _line(self, outcome: "Outcome") -> None:
        import msgspec

        found = outcome.finding
        facts = {
            "kind": found.kind,
            "name": found.name,
            "digest": None if found.digest is None else str(found.digest),
            "bytes": found.size,
            "reason": found.reason,
            "removed": outcome.removed,
            "error": outcome.error or None,
        }
        say(msgspec.json.encode(facts))

    def _would(self, outcome: "Outcome") -> None:
        from cafs.cli.sizes import size

        found = outcome.finding
        which = f" ({found.apart})" if found.apart else ""
        say(f"{size(found.size):>10}  {found.kind} {found.name}{which}: {found.reason}")

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show on a terminal how far it is."""
        if self._quiet or self._as_json or self._dry or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status("looking") as status:
            self._shown = status.update
            yield

    def end(self) -> int:
        """Tell of all together; the exit code."""
        from cafs.cli.exits import exit_code
        from cafs.cli.failing import lament
        from cafs.errors import StorageError

        total = sum(self._bytes.values())
        if self._as_json:
            import msgspec

            facts = {
                "removed": 0 if self._dry else self._counts.total(),
                "found": self._counts.total(),
                "bytes": total,
                "failed": len(self._errors),
            }
            say(msgspec.json.encode(facts))
        elif not self._quiet:
            self._sum_up(total)
        for error in self._errors:
            lament(error, "")
        return exit_code(StorageError) if self._errors else 0

    def _sum_up(self, total: int) -> None:
        from cafs.cli.sizes import size

        for kind in _ORDER:
            if self._counts[kind] and not self._dry:
                say(f"{self._counts[kind]:>8} {kind:<10} {size(self._bytes[kind]):>10}")
        verb = "would be freed" if self._dry else "freed"
        say(f"{size(total)} {verb}")


def _nowhere(_text: str) -> None:
    """Progress that nobody sees."""
