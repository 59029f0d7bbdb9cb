"""Laziness: says in plain words why all of a part must come before any of it can be read.

One place makes the sentence, so that a mount logs what ``cafs inspect`` says. Pure.
"""

from dataclasses import dataclass, replace
from typing import Final

from cafs.codec.sniffing import Compression, Format, expected_by_name
from cafs.fetch.interfaces import Content, Ranges
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.store.blobs.intake import LARGEST

_ZIP: Final = Format.ZIP.value
_TAR: Final = Format.TAR.value
_KINDS: Final = {"+gzip": "gzip", ".tar.gzip": "gzip", "+zstd": "zstd", ".tar": _TAR}
"""How media types of layers end, and what that means."""
_ONE: Final = {
    "zstd": "zstd with one frame",
    "xz": "xz with one block",
    "bzip2": "bzip2 with one block",
    "gzip": "gzip without a place to begin at but its start",
}
_ALL: Final = "whoever reads any of it reads all of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides whether a part can be read lazily.

    ``kind`` is what an archive is ("gzip", "zip", "tar", …), empty where nothing tells; None for
    what is no archive. ``ranges`` says whether its source gives byte ranges, None where nobody has
    asked. ``versioned`` says that two answers can be known to be of one version: by a pin, or by a
    strong validator. ``checked`` says that no byte is handed out before the whole was checked.
    ``small`` says that it comes in one request anyway. ``indexed`` says that it is known what lies
    where in it, and ``segments`` in how many pieces it can be decoded, None where all of it lies as
    it is.
    """

    kind: str | None
    ranges: bool | None
    versioned: bool
    checked: bool
    small: bool = False
    indexed: bool = False
    segments: int | None = None


def reason(facts: Facts) -> str:
    """Why nothing of a part can be read before all of it has come; empty where that is not so."""
    if facts.ranges is False:
        return f"its source gives no byte ranges: {_ALL}"
    if not facts.versioned:
        return f"its source tells no version of it (no strong ETag): {_ALL}, in one answer"
    if facts.small:
        return "it is small: all of it comes in one request"
    if facts.segments is None:
        return _undivided(facts)
    if facts.segments <= 1 and facts.kind != _ZIP:
        return f"{_ONE.get(facts.kind or '', 'decoded in one piece')}: {_ALL}"
    return ""


def _undivided(facts: Facts) -> str:
    """Of what lies as it is, or of which nobody says how it can be decoded."""
    if facts.kind is None:
        what, instead = "a file", "verify = provisional reads it as it comes"
    elif facts.kind == _ZIP:
        what, instead = "a zip", "lock it"
    elif facts.indexed and not facts.checked:
        return ""
    else:
        kind = facts.kind or "an archive"
        return f"{kind} without an index: lock it, or everyone reads all of it once"
    if not facts.checked:
        return ""
    return f"{what} with a pin and no index: nothing is read before all was checked; {instead}"


def facts_of(part: Part, raw: Content, ranges: Ranges | None) -> Facts:
    """What is known of an archive, or of a layer, before anything says what lies where in it.

    Args:
        part: what was promised.
        raw: its bytes.
        ranges: the same by range, None where they come only all at once.
    """
    whole = raw.digest() is not None
    lacking = ranges is None and not whole
    return Facts(
        kind=kind_of(part),
        ranges=part.ranges and not (lacking and raw.size > LARGEST),
        versioned=whole or part.digest is not None or part.validator.strong,
        checked=raw.checked(),
        small=lacking and raw.size <= LARGEST,
    )


def facts_with(facts: Facts, record: TreeRecord, segments: int) -> Facts:
    """The facts, now that a tree says what lies where; ``segments`` is how many it has."""
    raw = all(not stream.rules for stream in record.streams)
    kind = _ZIP if any(stream.rules == "zip" for stream in record.streams) else facts.kind
    return replace(facts, kind=kind, indexed=True, segments=None if raw else segments)


def kind_of(part: Part) -> str:
    """What an archive calls itself: by its URL, or by its media type; empty where none tells."""
    for url in part.urls:
        found = expected_by_name(url.partition("?")[0])
        if found is not None:
            return found.value if found is not Compression.NONE else _TAR
    for end, kind in _KINDS.items():
        if part.media_type.endswith(end):
            return kind
    return ""
