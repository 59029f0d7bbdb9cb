"""What is known of a node without asking any source: digest, trust, how much of it is local."""

from collections.abc import Iterable
from typing import Final

import msgspec
from cachetools import LRUCache

from cafs.fetch.content.member import span_of
from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey, file_tree, indexed_tree, located_stream
from cafs.model.member import Entry, Kind
from cafs.model.record import Attachment, TreeRecord, TreeStream
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.span import Span
from cafs.model.trust import Need, Trust
from cafs.store.store import Store
from cafs.vfs.namespace import DigestBlob, Node, TreeBlob
from cafs.vfs.opening import Opening, Shown
from cafs.vfs.places import Named, Places, Planted
from cafs.vfs.planted import PlantedTrees
from cafs.vfs.reading import stored_span

_TREES: Final = 256
"""Records of trees that are kept at hand: finding one by its number looks at each."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a node; None for what is not.

    ``checksum`` is the raw sha256 of its content, once verified. ``present`` of ``size`` bytes are
    local; ``size`` None says that it is not known how many there are. ``media_type`` is what its
    source calls it.
    """

    digest: Digest | None = None
    checksum: bytes | None = None
    present: int = 0
    size: int | None = None
    trust: Trust | None = None
    media_type: str | None = None


class Knowing:
    """Says what the store and a mount's resolutions know of nodes.

    Concurrency: synchronous; the store is asked in short read transactions.
    """

    def __init__(
        self, store: Store, opening: Opening, planted: PlantedTrees, places: Places
    ) -> None:
        self._store = store
        self._opening = opening
        self._planted = planted
        self._places = places
        self._trees: LRUCache[int, TreeRecord] = LRUCache(_TREES)

    def of(self, place: Named | Planted) -> Known:
        """What is known of a node.

        Raises:
            SourceChangedError: its tree has left the store.
        """
        if isinstance(place, Planted):
            entry = self._planted.entry(place.at, place.number)
            return self._entry(place, entry) if entry.kind is Kind.FILE else Known()
        if not isinstance(place.node, Shown):
            return Known()
        if isinstance(place.node, DigestBlob):
            return self._blob(place.node.digest)
        if self._opening.shape(place.node) is Shape.TREE:
            return self._tree(place, place.node)
        return self._file(place.node)

    def _blob(self, digest: Digest) -> Known:
        blob = self._store.blobs.stat(digest)
        if blob is None:
            return self._member(digest)
        return Known(
            digest=blob.digest,
            checksum=blob.digest.raw,
            present=blob.size,
            size=blob.size,
            trust=Trust.VERIFIED,
            media_type=blob.media_type,
        )

    def _member(self, digest: Digest) -> Known:
        """What is known of content that an archive has."""
        for place in self._store.members.find(digest):
            key = place.tree.streams[place.stream].key
            stream = self._store.streams.find(key)
            checked = stream is not None and stream.behind() == place.tree.digest
            span = span_of(place)
            return Known(
                digest=digest,
                checksum=digest.raw,
                present=self._local(key, span) if checked else 0,
                size=span.length,
                trust=Trust.VERIFIED,
            )
        return Known()

    def _file(self, node: Shown) -> Known:
        resolved = self._opening.peek(node)
        if resolved is None:
            return Known()
        (part, *_) = resolved.parts
        blob = self._verified(part)
        unchecked = self._opening.unchecked(node)
        if blob is not None and (unchecked is None or unchecked.pardoned):
            return Known(
                digest=blob.digest,
                checksum=blob.checksum,
                present=blob.present,
                size=blob.size,
                trust=self._trust(node, resolved),
                media_type=part.media_type,
            )
        pieces = self._pieces(part)
        present = self._local(located_stream(part) if pieces is None else pieces.key)
        trust = Trust.PROVISIONAL if present else None
        if pieces is not None:
            trust = self._so_far(node, _decoded(self._trust(node, resolved), (pieces,)))
        return Known(
            digest=part.digest,
            present=present,
            size=part.size,
            trust=trust,
            media_type=part.media_type,
        )

    def _pieces(self, part: Part) -> TreeStream | None:
        """What a file is read by, where an index has been believed that a lock names."""
        if part.index is None:
            return None
        made = file_tree(located_stream(part))
        record = self._store.trees.find(indexed_tree(made, part.index))
        return None if record is None else record.streams[0]

    def _verified(self, part: Part) -> Known | None:
        """The blob that a part turned out to be, when it is local."""
        stream = self._store.streams.find(located_stream(part))
        digest = stream.digest() if stream is not None else None
        digest = digest or part.digest
        if digest is None:
            return None
        known = self._blob(digest)
        return known if known.size is not None else None

    def _tree(self, place: Named, node: Shown) -> Known:
        resolved = self._opening.peek(node)
        digest = resolved.digest if resolved is not None else None
        if isinstance(node, TreeBlob):
            digest = self._blob(node.digest).digest
        at = self._places.tree_at(place.path)
        tree = self._record(at) if at is not None else None
        if tree is None:
            return Known(digest=digest)
        streams = tree.streams
        return Known(
            digest=digest,
            present=sum(self._local(stream.key) for stream in streams),
            size=sum(stream.size for stream in streams),
            trust=self._so_far(node, _decoded(self._trust(node, resolved), streams)),
        )

    def _entry(self, place: Planted, entry: Entry) -> Known:
        trust = self._so_far(place.node, self._trust(place.node, self._opening.peek(place.node)))
        tree = self._record(place.at)
        if tree is not None and tree.streams and tree.streams[entry.stream].vouched:
            return self._vouched(tree.streams[entry.stream], entry, trust)
        if tree is None or not entry.size:
            size = None if tree is None else 0
            return Known(checksum=entry.sha256 or None, size=size, trust=trust)
        span, key = stored_span(entry), tree.streams[entry.stream].key
        present = self._local(key, span)
        stream = self._store.streams.find(key)
        checked = stream is not None and self._need(tree).met(stream.behind())
        if present and not checked and self._checked_since(place, tree.streams[entry.stream]):
            present = 0  # it is decoded again, from what was checked, when it is read
        elif present and not checked:
            # It was decoded from what has not been checked as a whole.
            trust = Trust.PROVISIONAL
        raw = entry.sha256 or self._store.members.digest_at(tree.number, entry.stream, span.start)
        sure = checked or (not present and trust in {Trust.VERIFIED, Trust.WEAK})
        return Known(
            digest=Digest(CANONICAL, raw) if raw and sure else None,
            checksum=raw if raw and sure else None,
            present=present,
            size=span.length,
            trust=trust,
        )

    def _vouched(self, what: TreeStream, entry: Entry, trust: Trust | None) -> Known:
        """What is known of a file that an index says is there.

        Its digest is not: nobody here has hashed it in content that was checked as a whole.
        """
        span = stored_span(entry)
        present = self._local(what.key, span) if entry.size else 0
        return Known(present=present, size=span.length, trust=_decoded(trust, (what,)))

    def _so_far(self, node: Node, trust: Trust | None) -> Trust | None:
        """The trust in what a ref shows, names and sizes too: less while that is not checked."""
        unchecked = self._opening.unchecked(node)
        return trust if unchecked is None or unchecked.pardoned else Trust.PROVISIONAL

    def _checked_since(self, place: Planted, stream: TreeStream) -> bool:
        """Whether what a ref showed before it was checked has been found right."""
        spec, resolved = self._opening.spec(place.node), self._opening.peek(place.node)
        if spec is None or resolved is None or spec.verify == "block":
            return False
        unchecked = self._opening.unchecked(place.node)
        return unchecked is None and self._verified(resolved.parts[stream.part]) is not None

    def _need(self, tree: TreeRecord) -> Need:
        """What must stand behind a stream of a tree, so that it is what was hashed."""
        return Need(verified=True, source=tree.digest)

    def _record(self, at: Attachment) -> TreeRecord | None:
        """The record of an attached tree, whoever opened it; None when it is no longer there."""
        if at.tree is None:
            return None
        record = self._trees.get(at.tree) or self._store.trees.numbered(at.tree)
        if record is not None and not any(stream.vouched for stream in record.streams):
            self._trees[at.tree] = record  # what is vouched for may be verified in a moment
        return record

    def _trust(self, node: object, resolved: Resolved | None) -> Trust | None:
        """What stands behind content that has passed the gate."""
        if isinstance(node, TreeBlob | DigestBlob):
            return Trust.VERIFIED
        if resolved is None:
            return None
        pins = [part.digest for part in resolved.parts]
        if any(pin is None for pin in pins):
            return Trust.PROVISIONAL
        # An image's layers are what its manifest says, and that is what the index says.
        pins += (resolved.digest, resolved.named)
        weak = any(pin is not None and pin.weak for pin in pins)
        return Trust.WEAK if weak else Trust.VERIFIED

    def _local(self, key: StreamKey, span: Span | None = None) -> int:
        """Bytes of a stream that are local; of a span of it, when one is given."""
        stream = self._store.streams.find(key)
        if stream is None:
            return 0
        present = stream.present()
        return present.total if span is None else present.intersection(span).total


def _decoded(trust: Trust | None, streams: Iterable[TreeStream]) -> Trust | None:
    """What stands behind streams of a tree, where ``trust`` is what does behind the raw content."""
    vouched = trust in {Trust.VERIFIED, Trust.WEAK} and any(one.vouched for one in streams)
    return Trust.VOUCHED if vouched else trust
