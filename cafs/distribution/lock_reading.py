"""Reading what is to be locked: a pass over each archive, layer or file; all its bytes are here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from cafs.codec.index_file import ZIP
from cafs.concurrency import in_order
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.fetch.progress import Passage, Progress, folded
from cafs.model.address import shown
from cafs.model.identity import StreamKey
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.store.store import Store

Report = Callable[[int, int], None]
"""``fn(bytes so far, bytes in all)``."""
REPORT_S: Final = 0.2
"""Between two reports."""
_AT_ONCE: Final = 2
"""Layers that are read at once: each is a thread that decodes and hashes."""


def unheard(_done: int, _total: int) -> None:
    """Tell nobody."""


class Archive(msgspec.Struct, frozen=True):
    """One archive, one layer or one file, all of whose bytes are here."""

    content: Content
    part: Part

    @property
    def name(self) -> str:
        """Its URL: the suffix says what its bytes must be."""
        urls = self.part.urls
        return shown(urls[0].partition("?")[0]) if urls else self.content.name


class LockReader:
    """Makes passes, and tells how far they are: raw bytes, and what members of zips decode to.

    Concurrency: any number of tasks.
    """

    def __init__(self, store: Store, fetcher: Fetcher, limits: Limits) -> None:
        self._store = store
        self._fetcher = fetcher
        self._limits = limits

    async def read_all(
        self, archives: Sequence[Archive], making: Making, patience: Patience, report: Report
    ) -> tuple[TreeRecord, ...]:
        """Make a pass over each; the records, in their order.

        Raises:
            CafsError: that of the first that failed; as ``Fetcher.plant``.

        Cancellation: a pass goes on for a while.
        """
        progress = Progress(report, REPORT_S)
        progress.start(sum(archive.content.size for archive in archives))
        whole = False
        try:
            records = await in_order(
                lambda number: self.read(archives[number], making, patience, progress),
                len(archives),
                at_once=_AT_ONCE,
            )
            whole = True
        finally:
            progress.finish(whole=whole)
        return records

    async def read(
        self,
        archive: Archive,
        making: Making,
        patience: Patience,
        progress: Progress,
        key: StreamKey | None = None,
    ) -> TreeRecord:
        """Make a pass, unless one was made; ``key`` gives what it makes another name.

        Raises:
            CafsError: as ``Fetcher.plant``, and as ``Fetcher.prefetch``.

        Cancellation: the pass goes on for a while.
        """
        raw = archive.content
        passage = Passage(progress, raw.size, beyond=patience.pulse)
        record = await self._fetcher.plant(
            raw,
            name=archive.name if making is ARCHIVE else raw.name,
            media_type=archive.part.media_type,
            patience=replace(patience, pulse=passage),
            limits=self._limits,
            making=making,
            key=key,
        )
        passage.finish()
        zips = [number for number, each in enumerate(record.streams) if each.rules == ZIP]
        members = [self._fetcher.decoded(record, number, raw, making) for number in zips]
        if members:
            # Of a zip only what has been decoded has a digest.
            decoding = Progress(folded(progress), REPORT_S)
            await self._fetcher.prefetch(members, decoding, patience)
            await self._store.members.flush()
        return record
