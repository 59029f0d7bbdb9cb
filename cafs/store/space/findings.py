"""Findings: what in a store is of no use any more, and by which terms that is looked for."""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from cafs.model.digest import Digest
from cafs.model.item import Item
from cafs.model.record import TreeRecord

AGE_S: Final = 168 * 3600.0
"""How long a partial may lie there untouched (B-24)."""
GRACE_NS: Final = 3600 * 10**9
"""How long what no record names may be somebody's who is about to write one."""


class Kind(enum.StrEnum):
    """What a finding is."""

    UPLOAD = "upload"
    PARTIAL = "partial"
    BLOB = "blob"
    STREAM = "stream"
    FILE = "file"
    QUARANTINE = "quarantine"
    REFERENCE = "reference"
    TREE = "tree"
    DOCUMENT = "document"
    EXCESS = "excess"
    """What is of use, and more than there may be."""


Handle: TypeAlias = Item | Path | bytes | str | int | TreeRecord
"""What a finding is removed by."""


class Finding(msgspec.Struct, frozen=True):
    """Something of no use any more: its name and why, for people; bytes that it takes.

    ``size`` is, of what counts against the quota, how much of that; of files that no record names,
    what the disk gives back. ``last_ns`` is, of an item, when it was used last. ``digest`` is that
    of what a reference meant, or a tree was made of, where it is known; ``apart`` tells it from
    others of the same name, for people.
    """

    kind: Kind
    name: str
    size: int
    reason: str
    handle: Handle
    last_ns: int = 0
    digest: Digest | None = None
    apart: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one collection goes by.

    ``age_s`` is how long what is to go must have been left alone; ``unused`` that this goes for
    everything, not for partials alone. ``dry`` says that nothing is removed between two steps.
    ``now_ns`` is the time, since the epoch.
    """

    age_s: float = AGE_S
    unused: bool = False
    dry: bool = False
    now_ns: int

    @property
    def cutoff_ns(self) -> int:
        """What was used before this is old; ns since the epoch."""
        return self.now_ns - int(self.age_s * 1e9)

    @property
    def grace_ns(self) -> int:
        """What was touched before this is of nobody who is about to record it."""
        return self.now_ns - GRACE_NS


def when(ns: int) -> str:
    """A time for people, in UTC."""
    return f"{datetime.fromtimestamp(ns / 1e9, tz=UTC):%Y-%m-%d %H:%M}"
