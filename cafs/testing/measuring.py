"""Timing by alternation, medians, and the table of ratios."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of ours and of the reference, in s, and what the origin counted, in bytes.

    ``without_s`` is ours without a keeper. What does not apply is None.
    """

    name: str
    ours_s: float | None = None
    reference_s: float | None = None
    without_s: float | None = None
    sent: int | None = None
    needed: int | None = None
    requests: int | None = None
    note: str = ""


def seconds(command: Sequence[str], directory: Path | None = None) -> float:
    """Run a command to its end, its output thrown away; the seconds that it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)
    return time.perf_counter() - started


def output(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def anonymous(pid: int) -> int:
    """Bytes of a process that no file backs; 0 when it has ended.

    Source: proc(5), /proc/pid/status: RssAnon, in KiB.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = text.partition("RssAnon:")[2].split()
    return 1024 * int(found[0]) if found else 0


def alternating(run: Callable[[int], float], rounds: int, sides: int = 2) -> tuple[float, ...]:
    """Medians of ``run(0)``, ``run(1)`` and so on, called in turn, after one of each to warm up.

    A single round is not measured in earnest, and nothing is warmed up for it.
    """
    if rounds > 1:
        for side in range(sides):
            run(side)
    return in_turn(run, rounds, sides)


def in_turn(run: Callable[[int], float], rounds: int, sides: int = 2) -> tuple[float, ...]:
    """As ``alternating``, for what warms itself up or needs to be cold."""
    passes = [[run(side) for side in range(sides)] for _ in range(rounds)]
    return tuple(map(median, zip(*passes, strict=True)))


def table(title: str, rows: Sequence[Measured]) -> str:
    """The rows for people: milliseconds, ratios to the reference, bytes, requests.

    The time without a keeper is there as a ratio to the reference, or to ours where there is none.
    """
    head = f"{'cafs ms':>10}{'ref. ms':>10}{'ratio':>8}{'keeperless':>12}"
    head += f"{'fetched':>12}{'/needed':>9}{'req.':>6}"
    lines = [f"{title:<36}{head}"]
    for row in rows:
        cells = [f"{row.name:<36}"]
        cells += [_number(time_s, 1e3, 10) for time_s in (row.ours_s, row.reference_s)]
        cells.append(_ratio(row.ours_s, row.reference_s, 8))
        cells.append(_ratio(row.without_s, row.reference_s or row.ours_s, 12))
        cells.append(f"{row.sent:>12}" if row.sent is not None else " " * 12)
        cells.append(_ratio(row.sent, row.needed, 9))
        cells.append(f"{row.requests:>6}" if row.requests is not None else " " * 6)
        lines.append(f"{''.join(cells).rstrip()}{'  ' if row.note else ''}{row.note}")
    return "\n".join(lines) + "\n\n"


def _number(value: float | None, scale: float, width: int) -> str:
    return " " * width if value is None else f"{value * scale:>{width}.2f}"


def _ratio(value: float | None, of: float | None, width: int) -> str:
    return " " * width if value is None or not of else f"{value / of:>{width}.2f}"
