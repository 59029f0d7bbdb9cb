"""Collecting: what in a store is of no use any more, found without changing anything.

In this order, each step after the one before has been carried out:

* uploads and partials that nobody has touched for long (B-24), and, with an age that somebody asked
  for, all that nobody has used for so long (R-36): ``aging``;
* files that no record names, and what has been in quarantine for long: ``strays``;
* what refs meant, where nothing of that is here any more;
* trees that nobody means and no live mount shows (B-25), and what only they were decoded to;
* pieces of a file that is here as a whole too, which no live mount shows;
* documents of what is gone.

What is held, pinned, or attached in a live mount stays. All of this goes on beside whoever reads,
writes and fetches: each finding is looked at again by who removes it (``purging``).
"""

from collections.abc import Iterator
from typing import Final

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.record import TreeRecord
from cafs.model.resolved import Resolved
from cafs.store.space.aging import Aging
from cafs.store.space.belonging import apart, shown
from cafs.store.space.findings import Finding, Kind, Terms, when
from cafs.store.space.parts import Parts
from cafs.store.space.strays import Strays
from cafs.store.tables.documents import place_of
from cafs.store.tables.references import source_of

_DIGITS: Final = 12
"""Of a tree's identity, for people: enough to see that it is another."""


class Collector:
    """Finds what is of no use in one store, once.

    Everything here blocks; it belongs in worker threads, one at a time.
    """

    def __init__(self, parts: Parts, terms: Terms) -> None:
        """Look at what live mounts show.

        Raises:
            StorageError: the store cannot be read.
        """
        self._parts = parts
        self._terms = terms
        self._attached = parts.attachments.trees(parts.mounts.live())
        self._shown = {
            stream.key
            for tree in parts.trees.all()
            if tree.number in self._attached
            for stream in tree.streams
        }
        self._named: set[StreamKey] = set()
        self._orphaned: set[StreamKey] = set()
        self._forgotten: set[bytes] = set()
        self.aging = Aging(parts, terms, self._shown)
        self.strays = Strays(parts, terms)

    def steps(self) -> Iterator[Iterator[Finding]]:
        """The steps, in their order; the next is to be begun when what one finds has been removed.

        Raises:
            StorageError: the store cannot be read.
            OSError: likewise.
        """
        yield self.aging.uploads()
        yield self.aging.items()
        yield self.strays.files()
        yield self.strays.scratch()
        yield self.strays.quarantine()
        yield self._references()
        yield self._trees()
        yield self._decoded()
        yield self._doubled()
        yield self._documents()

    def _references(self) -> Iterator[Finding]:
        parts = self._parts
        for place, resolved in parts.references.all():
            old = resolved.resolved_ns < self._terms.cutoff_ns
            if not old or parts.pins.has_ref(source_of(place)) or self._is_here(resolved):
                continue
            self._forgotten.add(place)
            reason = f"of {when(resolved.resolved_ns)}, and nothing of it is here"
            yield Finding(
                Kind.REFERENCE,
                shown(resolved),
                0,
                reason,
                place,
                digest=resolved.digest,
                apart=apart(resolved),
            )

    def _is_here(self, resolved: Resolved) -> bool:
        return any(not self.aging.is_gone(each) for each in self._parts.belongings.items(resolved))

    def _meanings(self) -> Iterator[Resolved]:
        """What refs mean and meant, as far as that stays on record."""
        for place, resolved in self._parts.references.all():
            if place not in self._forgotten:
                yield resolved
        yield from self._parts.mounts.meanings()

    def _meant(self, among: set[StreamKey]) -> set[StreamKey]:
        """Those of some streams that are parts of what a ref means."""
        return {
            key
            for resolved in (self._meanings() if among else ())
            for part in resolved.parts
            for key in self._parts.belongings.keys(part)
            if key in among
        }

    def _trees(self) -> Iterator[Finding]:
        trees = self._parts.trees
        meant = self._meant({stream.raw for tree in trees.all() for stream in tree.streams})
        for tree in trees.all():
            if self._is_wanted(tree, meant):
                self._named |= {stream.key for stream in tree.streams}
                continue
            self._orphaned |= {stream.key for stream in tree.streams if stream.rules}
            reason = "no ref means it, and no live mount shows it"
            made = "several layers" if tree.digest is None else tree.digest.short
            name = f"{tree.identity[:_DIGITS]}, {tree.count} entries"
            yield Finding(Kind.TREE, name, 0, reason, tree, digest=tree.digest, apart=f"of {made}")
        for number in trees.left():
            if number not in self._attached:
                reason = "left by a crash, or another has taken its place"
                yield Finding(Kind.TREE, f"draft {number}", 0, reason, number)

    def _is_wanted(self, tree: TreeRecord, meant: set[StreamKey]) -> bool:
        """Whether a ref means a tree, a live mount shows it, or a path may lead to it by digest.

        With a tree that is shown goes the one that it was derived from: that has the segments.
        """
        if tree.number in self._attached or any(each.key in self._shown for each in tree.streams):
            return True
        raws = {stream.raw for stream in tree.streams}
        return raws <= meant or all(map(self._has, raws))

    def _has(self, key: StreamKey) -> bool:
        items = self._parts.belongings.of_stream(key)
        return any(not self.aging.is_gone(item) for item in items)

    def _decoded(self) -> Iterator[Finding]:
        """What was decoded for trees that are gone."""
        parts = self._parts
        if not self._terms.dry:  # somebody may have come to mean what was to go
            self._named |= {each.key for tree in parts.trees.all() for each in tree.streams}
        lost = dict(self._lost())
        meant = self._meant(set(lost))
        for key, last_ns in lost.items():
            if key not in meant:
                item, size = Item.stream(key), parts.ledger.present(key).total
                reason = "decoded for a tree that is gone"
                yield Finding(Kind.STREAM, str(item), size, reason, item, last_ns)

    def _lost(self) -> Iterator[tuple[StreamKey, int]]:
        """Whole streams that no tree has, with their last uses."""
        parts = self._parts
        for key, record in parts.ledger.all():
            if record.digest is not None or key in self._named or key in self.aging.uploading:
                continue
            item = Item.stream(key)
            use = parts.uses.last(item)
            if use is None or not parts.ledger.whole(key, record) or self.aging.protected(item):
                continue
            old = key in self._orphaned or use.last_ns < self._terms.grace_ns
            if old and not self.aging.is_told(item):
                yield key, use.last_ns

    def _doubled(self) -> Iterator[Finding]:
        """Pieces of files that are here as they are, where no mount lived to let go of them."""
        parts = self._parts
        for tree in parts.trees.all():
            stream = tree.streams[0] if len(tree.streams) == 1 else None
            # What has a root and nothing else is a file, or an archive of which nothing is read.
            if stream is None or tree.count != 1 or not stream.rules or stream.key in self._shown:
                continue
            item = Item.stream(stream.key)
            use, size = parts.uses.last(item), parts.ledger.present(stream.key).total
            raw = list(parts.belongings.of_stream(stream.raw))
            here = any(each.digest is not None and not self.aging.is_gone(each) for each in raw)
            spare = here and size and not self.aging.protected(item)
            if spare and use is not None and not self.aging.is_told(item):
                reason = "pieces of a file that is here as a whole"
                yield Finding(Kind.STREAM, str(item), size, reason, item, use.last_ns)

    def _documents(self) -> Iterator[Finding]:
        parts = self._parts
        useless: dict[bytes, Digest | None] = {}
        for place, known in parts.documents.all():
            canonical = None if known.digest is None else parts.records.canonical(known.digest)
            old = known.fetched_s * 1e9 < self._terms.cutoff_ns
            if old and (canonical is None or self.aging.is_gone(Item.blob(canonical))):
                useless[place] = known.digest
        for resolved in self._meanings() if useless else ():
            for part in resolved.parts:
                for url in part.urls:
                    useless.pop(place_of(url), None)
        for place, digest in useless.items():
            name = "of content that is not known" if digest is None else f"of {digest}"
            yield Finding(Kind.DOCUMENT, name, 0, "what it is of is gone", place)
