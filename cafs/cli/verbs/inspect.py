"""``cafs inspect``: say whether a ref can be read lazily, and what reading some of it costs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.distribution.inspecting import Index, Inspection, Looked, Reading
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings

_SOURCES: Final = {
    "pass": "a pass that was made here",
    "contents": "its table of contents",
}
_SHOWN: Final = 5
"""Paths that are not there, which are named to people."""


@click.command("inspect", short_help="Say whether a ref can be read lazily, and what that costs.")
@click.argument("ref")
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option(
    "--paths",
    "listed",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Paths too, one a line; - is standard input.",
)
@options.with_settings(*options.SOURCES)
@options.as_json
def command(
    *, ref: str, paths: tuple[str, ...], listed: Path | None, loaded: "Settings", as_json: bool
) -> int:
    """Say how REF can be read: what it means, whether a part of it can be had alone, or why not.

    REF is a name from cafs.toml, or a ref written out. With PATHs, from the root that it shows, it
    is said what reading these files would cost, from an empty store and from this one; a directory
    stands for all files below it. Of the content nothing is fetched but what says where files are.

    \b
    cafs inspect toolchain
    cafs inspect toolchain bin/gcc lib
    strace -fe trace=openat … | cut … | cafs inspect toolchain --paths -
    """
    from cafs.cli.completing import complete
    from cafs.cli.interruptible import run_async
    from cafs.cli.withholding import withheld

    (word,) = complete(loaded, [ref])
    with withheld(quiet=False):
        return run_async(_inspect, loaded, word, paths, _read(listed), as_json)


def _read(listed: Path | None) -> tuple[str, ...]:
    """The paths of a list."""
    from cafs.errors import UsageError

    if listed is None:
        return ()
    try:
        raw = sys.stdin.buffer.read() if str(listed) == "-" else listed.read_bytes()
    except OSError as error:
        raise UsageError(f"{listed}: {error.strerror}") from error
    lines = raw.decode(errors="surrogateescape").split("\n")
    return tuple(line for line in lines if line)


async def _inspect(
    loaded: "Settings", word: str, paths: tuple[str, ...], listed: tuple[str, ...], as_json: bool
) -> int:
    from cafs.assemble.system import open_system
    from cafs.cli.choosing import chosen
    from cafs.errors import NotFoundError
    from cafs.fetch.interfaces import Patience

    [spec] = chosen(loaded, [word])
    async with open_system(loaded, description="inspect") as system:
        inspector, patience = system.inspector(), Patience(spec.deadline_s)
        found = await inspector.inspect(spec, (*paths, *listed), patience)
    if as_json:
        import msgspec

        say(msgspec.json.encode(_facts(spec, found)))
    else:
        for line in _lines(spec, found):
            say(line)
    lacking = set(paths) & set(found.reading.missing if found.reading is not None else ())
    if lacking:
        # Of a list that somebody has recorded, not all need be there.
        raise NotFoundError(f"{word}: no {min(lacking)!r} there")
    return 0


def _facts(spec: "RefSpec", found: "Inspection") -> dict[str, object]:
    from cafs.model.ref import shown_canonical

    resolved = found.resolved
    return {
        "name": spec.name,
        "ref": shown_canonical(spec.ref),
        "shape": resolved.shape.value,
        "digest": str(resolved.digest) if resolved.digest else None,
        "locked": spec.locked is not None,
        "lazy": not any(each.why for each in found.parts),
        "parts": [_part_facts(each) for each in found.parts],
        "reading": None if found.reading is None else _reading_facts(found.reading),
    }


def _part_facts(looked: "Looked") -> dict[str, object]:
    from cafs.model.address import shown

    part, index = looked.part, looked.index
    return {
        "mediaType": part.media_type,
        "size": part.size,
        "digest": str(part.digest) if part.digest else None,
        "urls": [shown(url) for url in part.urls],
        "present": looked.present,
        "ranges": looked.ranges,
        "lazy": not looked.why,
        "why": looked.why or None,
        "elsewhere": looked.elsewhere or None,
        "index": None
        if index is None
        else {
            "source": index.source,
            "place": index.place or None,
            "segments": index.segments,
            "median": index.median,
            "decoded": index.decoded,
            "entries": index.entries,
        },
    }


def _reading_facts(reading: "Reading") -> dict[str, object]:
    estimate = reading.estimate
    facts: dict[str, object] = {
        "files": None,
        "size": None,
        "segments": None,
        "packed": None,
        "empty": None,
        "here": None,
        "missing": [_readable(path) for path in reading.missing],
    }
    if estimate is not None:
        facts |= {"files": reading.files, "size": reading.size}
        facts |= {"segments": estimate.segments, "packed": estimate.packed}
        for name, cost in (("empty", estimate.empty), ("here", estimate.here)):
            facts[name] = {"bytes": cost.fetched, "requests": cost.requests}
    return facts


def _lines(spec: "RefSpec", found: "Inspection") -> Iterator[str]:
    from cafs.model.ref import shown_canonical

    resolved, count = found.resolved, len(found.parts)
    locked = ", locked" if spec.locked is not None else ""
    name = spec.name or spec.ref.shown
    yield f"{name}: {resolved.shape.value} {shown_canonical(spec.ref)}{locked}"
    yield f"  digest {resolved.digest or 'not known until it has been read whole'}"
    for number, looked in enumerate(found.parts):
        yield from _part_lines(looked, f"layer {number + 1} of {count}: " if count > 1 else "")
    if found.reading is not None:
        yield from _reading_lines(found.reading)


def _part_lines(looked: "Looked", title: str) -> Iterator[str]:
    from cafs.cli.sizes import size

    part = looked.part
    total = "size not told" if part.size is None else size(part.size)
    yield f"  {title}{total}, {part.media_type}, {size(looked.present)} of it here"
    told = {True: "gives byte ranges", False: "gives no byte ranges", None: "was not asked"}
    yield f"    its source {told[looked.ranges]}"
    yield f"    {_lazy_line(looked)}"
    if looked.elsewhere and not looked.why:
        yield f"    not lazy for an empty store: {looked.elsewhere}"
        yield "    cafs lock gives the index of this store to others"
    if looked.index is not None:
        yield f"    {_index_line(looked.index)}"


def _lazy_line(looked: "Looked") -> str:
    if looked.why:
        return f"not lazy: {looked.why}"
    here = " in this store, which has an index of its own" if looked.elsewhere else ""
    return f"lazy{here}: only what is read is fetched"


def _index_line(index: "Index") -> str:
    from cafs.cli.sizes import size

    place = f" ({index.place})" if index.place else ""
    source = _SOURCES.get(index.source, "the lock's index")
    pieces = "as it lies there"
    if index.segments:
        pieces = f"in {_counted(index.segments, 'segment')} of {size(index.median)} (median)"
    entries = "1 entry" if index.entries == 1 else f"{index.entries:,} entries"
    held = f"{entries}, {size(index.decoded)} {pieces}"
    return f"{held}; known from {source}{place}"


def _reading_lines(reading: "Reading") -> Iterator[str]:
    from cafs.cli.sizes import size

    estimate = reading.estimate
    if estimate is None:
        yield "  reading these paths: not known before all of it was read once"
        return
    of = f", {_counted(estimate.segments, 'segment')}" if estimate.segments else ""
    packed = f" of {size(estimate.packed)}" if estimate.packed else ""
    yield f"  reading {_counted(reading.files, 'file')} of {size(reading.size)}{of}{packed}"
    for name, cost in (("an empty store", estimate.empty), ("this store", estimate.here)):
        yield f"    from {name}: {size(cost.fetched)} in {_counted(cost.requests, 'request')}"
    if reading.missing:
        named = ", ".join(map(_readable, reading.missing[:_SHOWN]))
        more = len(reading.missing) - _SHOWN
        yield f"    not there: {named}{f' and {more:,} more' if more > 0 else ''}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _readable(text: str) -> str:
    """Text that JSON, and a terminal, can show."""
    plain = text.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in plain)
