"""Belonging: which items and trees the store has for what a ref means.

Of a file those are its bytes; of an archive its bytes, its tree, and what that decodes to; of an
image the same for each layer, and the manifests that led to them. What is not there is left out:
each answer is for the moment.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import CafsError
from cafs.model.digest import Digest
from cafs.model.identity import (
    StreamKey,
    TreeIdentity,
    archive_tree,
    decoded_stream,
    file_tree,
    image_tree,
    indexed_tree,
    layer_record,
    located_stream,
    raw_stream,
    unchecked_stream,
)
from cafs.model.item import Item
from cafs.model.record import TreeRecord
from cafs.model.ref import DockerRef, parse_ref
from cafs.model.resolved import Part, Resolved
from cafs.store.disk.door import file_size, open_file
from cafs.store.disk.layout import Layout
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.counters import charge
from cafs.store.tables.ledger import Ledger
from cafs.store.trees.trees import Trees

_MANIFEST: Final = 4 << 20
"""Bytes of a manifest at most; what is larger is none."""
_VERSION: Final = 32
"""Characters that are shown of what a source calls a version."""
_NESTED: Final = 4
"""Indexes inside indexes at most."""


class _Named(msgspec.Struct):
    digest: str = ""


class _Manifest(msgspec.Struct):
    """What a manifest, or an index, names (B-25); layers are the parts of what a ref means."""

    manifests: list[_Named] = []
    config: _Named | None = None


class Belongings:
    """Knows what belongs to what.

    Concurrency: any number of threads and processes. Blocks for microseconds a record, and to read
    an image's manifests.
    """

    def __init__(self, layout: Layout, ledger: Ledger, records: BlobRecords, trees: Trees) -> None:
        self._layout = layout
        self._ledger = ledger
        self._records = records
        self._trees = trees

    def items(self, resolved: Resolved, also: Iterable[Digest] = ()) -> set[Item]:
        """What the store has of a meaning; ``also`` are digests that the ref insists on.

        With its parts go what was decoded from them, be it as a pass here or as an index says, and
        the indexes themselves.
        """
        streams = [key for part in resolved.parts for key in self.keys(part)]
        streams += [decoded_stream(key, "pass") for key in streams]
        streams += [stream.key for tree in self.trees(resolved) for stream in tree.streams]
        found = {item for key in dict.fromkeys(streams) for item in self.of_stream(key)}
        indexes = [part.index for part in resolved.parts]
        documents = [resolved.digest, _said(resolved), *indexes, *also]
        return found | self.named(each for each in documents if each is not None)

    def named(self, digests: Iterable[Digest]) -> set[Item]:
        """The blobs that digests mean, and what these name as manifests do."""
        return {item for digest in digests for item in self._listed(digest, _NESTED)}

    def keys(self, part: Part) -> list[StreamKey]:
        """The streams as which a part's bytes may be here: each name that they go by."""
        keys = [located_stream(part)]
        if part.digest is not None:
            if part.validator.text:
                keys.append(located_stream(replace(part, digest=None)))
            canonical = self._records.canonical(part.digest)
            if canonical is not None:
                keys.append(raw_stream(canonical))
        return list(dict.fromkeys(keys))

    def trees(self, resolved: Resolved) -> list[TreeRecord]:
        """The trees that were made of a meaning's parts, without those derived from them."""
        names: list[TreeIdentity] = []
        for part in resolved.parts:
            indexes = _indexes(part)
            for key in self.keys(part):
                made = (archive_tree(key), layer_record(key), file_tree(key))
                names += made
                names += [indexed_tree(one, index) for one in made for index in indexes]
                names += [archive_tree(each) for each in self._unchecked(key)]
        # What an image's tree is decoded from says nothing that the records of its layers do not.
        names.append(image_tree([located_stream(part) for part in resolved.parts]))
        return [tree for name in names if (tree := self._trees.find(name)) is not None]

    def _unchecked(self, key: StreamKey) -> Iterator[StreamKey]:
        """What a raw stream goes by in what was made of it before it was checked, be it since."""
        record = self._ledger.record(key)
        if record is not None:
            for generation in {record.generation, max(0, record.generation - 1)}:
                yield unchecked_stream(key, record.file, generation)

    def of_stream(self, key: StreamKey) -> Iterator[Item]:
        """The item in which a stream's bytes lie: itself, or the blob that it has become."""
        record = self._ledger.record(key)
        if record is not None:
            yield Item.stream(key) if record.digest is None else Item.blob(record.digest)

    def present(self, item: Item) -> int:
        """Bytes that are there of an item."""
        if item.stream_key is not None:
            return self._ledger.present(item.stream_key).total
        record = None if item.digest is None else self._records.get(item.digest)
        if record is None or item.digest is None:
            return 0
        actual = file_size(self._layout.blob(item.digest))
        return record.size if actual == record.size else 0

    def taken(self, item: Item) -> int:
        """Bytes that an item takes, as they count against the quota: of a blob, those of blocks."""
        count = self.present(item)
        return count if item.digest is None else charge(count)

    def _listed(self, digest: Digest, depth: int) -> set[Item]:
        """A blob, and those that it names as an image's manifest or index does."""
        canonical = self._records.canonical(digest)
        record = None if canonical is None else self._records.get(canonical)
        if canonical is None or record is None:
            return set()
        found = {Item.blob(canonical)}
        if not depth or record.size > _MANIFEST or "json" not in record.media_type:
            return found
        try:
            said = msgspec.json.decode(_read(self._layout.blob(canonical)), type=_Manifest)
            named = [*said.manifests, *([said.config] if said.config is not None else [])]
            others = [Digest.parse(each.digest) for each in named if each.digest]
        except (OSError, msgspec.MsgspecError, CafsError, RecursionError):
            return found  # no manifest, or one that is damaged: it names nothing
        for each in others:
            found |= self._listed(each, depth - 1)
        return found


def _indexes(part: Part) -> list[Digest]:
    """The digests of what may have said what a part decodes to."""
    contents = None if part.contents is None else part.contents.digest
    return [each for each in (part.index, contents) if each is not None]


def _said(resolved: Resolved) -> Digest | None:
    """The digest that an image's ref has itself: of an index, or of a manifest."""
    try:
        ref = parse_ref(resolved.ref, schemes=None)
    except CafsError:
        return None
    return ref.digest if isinstance(ref, DockerRef) else None


def shown(resolved: Resolved) -> str:
    """The ref of a meaning for people; its query may hold secrets."""
    try:
        return parse_ref(resolved.ref, schemes=None).shown
    except CafsError:
        return "a ref that cannot be read"


def apart(resolved: Resolved) -> str:
    """What tells a meaning from others of the same ref, for people: what it is, and by whose word.

    A ref has one for each pin with which it was asked for, one for each lock, and older ones.
    """
    said = ["no digest is known" if resolved.digest is None else resolved.digest.short]
    versions = [part.validator.text for part in resolved.parts if part.validator.text]
    if versions or any(part.located_ns for part in resolved.parts):
        said.append("not pinned")
    if versions and resolved.digest is None:
        said.append(f"version {_printable(versions[0])}")
    if any(part.index is not None for part in resolved.parts):
        said.append("with an index")
    return ", ".join(said)


def _printable(version: str) -> str:
    """As much of a version as tells two apart: it is what a source has said."""
    return ascii(version.strip('W/"')[:_VERSION])[1:-1]


def _read(path: Path) -> bytes:
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()
