"""Planting: makes the trees of archives, once for all who ask, and opens what they decode to."""

from functools import partial
from typing import Final

from cafs.fetch.content.blob import BlobContent
from cafs.fetch.content.either import EitherContent
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.content.heeded import HeededContent
from cafs.fetch.content.planted import PlantedContent
from cafs.fetch.content.provisional import ProvisionalContent
from cafs.fetch.content.ranged import RangedContent
from cafs.fetch.content.raw_ranges import CheckedRanges
from cafs.fetch.content.segmented import SegmentedContent
from cafs.fetch.content.vouching import Voucher
from cafs.fetch.content.zipped import VouchedZipContent, ZipContent
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.work import Works
from cafs.fetch.interfaces import Content, Patience, Ranges
from cafs.fetch.passes.first_pass import LINGER_S, PASSES, FirstPass, complete_tree
from cafs.fetch.passes.making import Making
from cafs.labour import Threads
from cafs.model.identity import StreamKey
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.trust import Need
from cafs.store.store import Store

_LIMITS: Final = Limits()
_RAW: Final = (BlobContent, GatedContent, ProvisionalContent, RangedContent)


def ranges_of(raw: Content) -> Ranges | None:
    """The bytes of raw content by range, which have passed no gate; None where it has none."""
    return raw.ranges() if isinstance(raw, _RAW) else None


class Planting:
    """Trees of archives, and the contents of their streams.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(
        self, store: Store, means: Means, works: Works[None], passes: Works[TreeRecord]
    ) -> None:
        self._store = store
        self._means = means
        self._works = works
        self._passes = passes
        self._threads = Threads(PASSES)

    def decoded(
        self,
        record: TreeRecord,
        stream: int,
        raw: Content,
        making: Making,
        voucher: Voucher | None = None,
    ) -> Content:
        """The content of one stream of a tree; ``raw`` is that of the part that it comes from.

        ``making`` is what the pass made that wrote the stream; ``voucher`` says, for errors, who
        vouches for it instead.
        """
        what = record.streams[stream]
        if not what.rules:
            return raw
        store, works, means = self._store, self._works, self._means
        if what.rules == "zip" and not what.vouched:
            zipped = ZipContent(store, record, stream, raw, works=works, means=means)
            return HeededContent(zipped, raw) if isinstance(raw, ProvisionalContent) else zipped
        if what.rules != "tar":
            kind = VouchedZipContent if what.rules == "zip" else SegmentedContent
            ranges = ranges_of(raw) or CheckedRanges(raw)
            pieces = kind(
                store,
                record,
                stream,
                raw,
                ranges,
                works=works,
                means=means,
                noun=making.noun,
                voucher=voucher,
            )
            return EitherContent(pieces, raw) if making.opaque else pieces
        plant = partial(self._replant, raw, making, what.raw)
        need = Need(verified=raw.checked(), source=record.digest)
        return PlantedContent(
            self._store.streams, what, raw.name, plant, self._means.metrics, need=need
        )

    async def plant(
        self,
        raw: Content,
        *,
        name: str,
        media_type: str,
        patience: Patience,
        limits: Limits,
        making: Making,
        key: StreamKey,
    ) -> TreeRecord:
        """Make the tree of an archive, or take it from the store. All who ask share one pass.

        Args:
            raw: the archive, as ``content`` gave it.
            name: what errors call it; its suffix must not contradict the bytes.
            media_type: what the source calls it, for errors.
            patience: bounds the time in which no byte comes.
            limits: on what it may hold.
            making: what the pass makes of the members.
            key: what the archive goes by in the tree. The same bytes may have another name by now
                than when the tree was made.

        Raises:
            MalformedError: damaged, hostile, or something else than its name says.
            UnsupportedError: no archive.
            TypeError: ``raw`` is not from ``content``.
            CafsError: as ``Content.ensure``.

        Cancellation: the pass goes on for five minutes, or for others.
        """
        if not isinstance(raw, _RAW):
            raise TypeError(f"{name}: a pass needs raw content, not {type(raw).__name__}")
        identity = making.identity(key)
        found = complete_tree(self._store, identity)
        if found is not None:
            return found
        one = FirstPass(
            raw,
            self._store,
            making=making,
            key=key,
            name=name,
            media_type=media_type,
            limits=limits,
            threads=self._threads,
            shortage=self._means.shortage,
        )
        return await self._passes.join(
            ("pass", identity), name, one.run, patience, linger_s=LINGER_S
        )

    async def _replant(
        self, raw: Content, making: Making, key: StreamKey, patience: Patience
    ) -> None:
        await self.plant(
            raw,
            name=raw.name,
            media_type="",
            patience=patience,
            limits=_LIMITS,
            making=making,
            key=key,
        )
