"""Aging: which uploads, partials and, where somebody asked for it, whole items are too old.

The age counts from the last use, not from the beginning (B-24): who resumes an old upload may
finish it. A time that is not known is no reason to keep anything for ever, since what has no use on
record gets one when the store is opened.
"""

from collections.abc import Iterator

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.space.findings import Finding, Kind, Terms, when
from cafs.store.space.parts import Parts
from cafs.store.tables.counters import charge
from cafs.store.tables.uses import Rank, Use


class Aging:
    """Finds what is too old, once; ``shown`` are the streams of trees that live mounts show.

    Everything here blocks; it belongs in worker threads, one at a time.
    """

    def __init__(self, parts: Parts, terms: Terms, shown: set[StreamKey]) -> None:
        self._parts = parts
        self._terms = terms
        self._shown = shown
        self.uploading = {upload.key for upload in parts.uploads.all()}

    def uploads(self) -> Iterator[Finding]:
        """Uploads that nobody writes and nobody has written to for long."""
        parts = self._parts
        for upload in parts.uploads.all():
            use = parts.uses.last(Item.stream(upload.key))
            last = max(upload.started_ns, 0 if use is None else use.last_ns)
            if not upload.active and last < self._terms.cutoff_ns:
                reason = f"not written to since {when(last)}"
                yield Finding(Kind.UPLOAD, upload.id, upload.size, reason, upload.id)
        for place in parts.uploads.unreadable():
            reason = "its record cannot be read: nobody can resume it"
            yield Finding(Kind.UPLOAD, place.hex(), 0, reason, place)

    def items(self) -> Iterator[Finding]:
        """Partials, or all items, that nobody has used for long."""
        for use in self._parts.uses.older(self._terms.cutoff_ns):
            found = self.verdict(use)
            if found is not None:
                yield found

    def verdict(self, use: Use) -> Finding | None:
        """Whether an item goes because of its age."""
        item, key = use.item, use.item.stream_key
        if use.last_ns >= self._terms.cutoff_ns or self.protected(item):
            return None
        return self._blob(use) if key is None else self._stream(use, key)

    def _blob(self, use: Use) -> Finding | None:
        digest = use.item.digest
        record = None if digest is None else self._parts.records.get(digest)
        if record is None or not self._terms.unused:
            return None
        return self._finding(Kind.BLOB, use, charge(record.size))

    def _stream(self, use: Use, key: StreamKey) -> Finding | None:
        ledger = self._parts.ledger
        record = ledger.record(key)
        if record is None or record.digest is not None or key in self.uploading:
            return None
        whole = ledger.whole(key, record)
        if not self._terms.unused and (whole or key in self._shown):
            return None
        kind = Kind.STREAM if whole else Kind.PARTIAL
        return self._finding(kind, use, ledger.present(key).total)

    def _finding(self, kind: Kind, use: Use, size: int) -> Finding:
        reason = f"not used since {when(use.last_ns)}"
        if use.rank is Rank.PRECIOUS:
            reason += ", and nothing here knows a source of it"
        return Finding(kind, str(use.item), size, reason, use.item, use.last_ns)

    def protected(self, item: Item) -> bool:
        """Whether an item is pinned, or in use now."""
        parts = self._parts
        return parts.pins.pinned(item) or parts.uses.just(item) or parts.holds.held(item)

    def may_go(self, finding: Finding) -> bool:
        """Whether nobody has used, held or pinned an item since it was found."""
        item = finding.handle
        if not isinstance(item, Item) or self.protected(item):
            return False
        use = self._parts.uses.last(item)
        return use is not None and use.last_ns == finding.last_ns

    def is_gone(self, item: Item) -> bool:
        """Whether nothing of an item is here; in a dry run, whether nothing would be."""
        if self._terms.dry and self.is_told(item):
            return True
        return not self._parts.belongings.present(item)

    def is_told(self, item: Item) -> bool:
        """Whether a dry run has told of an item as too old."""
        use = self._parts.uses.last(item)
        return self._terms.dry and use is not None and self.verdict(use) is not None
