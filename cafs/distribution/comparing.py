"""What differs between two trees, file by file; and trees made from nothing but indexes.

Both trees are walked side by side, directory by directory, in the order of names: memory is that of
a path. Times do not count: they differ wherever something was built anew.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from cafs.distribution.layers import LayerPlanter
from cafs.distribution.recording import LAYER, replay
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.model.digest import Digest
from cafs.model.identity import derived_tree, indexed_tree, raw_stream
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.store.trees.index_import import import_index
from cafs.store.trees.trees import Trees

Find = Callable[[Digest], Path | None]
"""Gives the file of an index; None where nobody has it."""
_PAGE: Final = 512


@dataclass(frozen=True, slots=True)
class Node:
    """What a path is, as far as it counts: ``digest`` is raw, empty where it is not known."""

    kind: Kind
    size: int
    mode: int
    digest: bytes
    target: bytes | None


class Change(msgspec.Struct, frozen=True):
    """A path that differs: ``old`` is None where it is new, ``new`` where it is gone."""

    path: bytes
    old: Node | None
    new: Node | None


def compare(trees: Trees, old: TreeRecord, new: TreeRecord) -> Iterator[Change]:
    """What differs, by path; what is in a directory that is new or gone, too. Blocks.

    Raises:
        StorageError: a tree's records are damaged, or went.
    """
    # One for each directory from the root to where we are: trees may be deeper than Python's stack.
    walks = [(_pairs(trees, (old, ROOT), (new, ROOT)), b"")]
    while walks:
        pairs, above = walks[-1]
        pair = next(pairs, None)
        if pair is None:
            walks.pop()
            continue
        name, a, b = pair
        path = above + name
        nodes = _node(trees, old, a), _node(trees, new, b)
        if nodes[0] != nodes[1]:
            yield Change(path, *nodes)
        inner = _inside(a), _inside(b)
        if inner != (None, None):
            walks.append((_pairs(trees, (old, inner[0]), (new, inner[1])), path + b"/"))


_Place = tuple[TreeRecord, int | None]
"""A tree, and a directory in it; None for one that is not there."""
_Child = tuple[bytes, int, Entry]
"""A name, and the number and the entry of what it means: of a hard link, the file's."""
_Pair = tuple[bytes, _Child | None, _Child | None]
"""A name, and what it is in either tree."""


def _pairs(trees: Trees, old: _Place, new: _Place) -> Iterator[_Pair]:
    """What two directories have, side by side."""
    ours, theirs = _children(trees, *old), _children(trees, *new)
    left, right = next(ours, None), next(theirs, None)
    while True:
        names = [child[0] for child in (left, right) if child is not None]
        if not names:
            return
        name = min(names)
        a = left if left is not None and left[0] == name else None
        b = right if right is not None and right[0] == name else None
        yield name, a, b
        left = left if a is None else next(ours, None)
        right = right if b is None else next(theirs, None)


def _children(trees: Trees, record: TreeRecord, parent: int | None) -> Iterator[_Child]:
    after = None
    while parent is not None:
        page = trees.children(record.number, parent, after, _PAGE)
        for number, entry in page:
            if entry.kind is Kind.HARD_LINK:
                yield entry.name, entry.link, trees.entry(record.number, entry.link)
            else:
                yield entry.name, number, entry
        if len(page) < _PAGE:
            return
        after = page[-1][0]


def _inside(child: _Child | None) -> int | None:
    """The number of a directory; None for all else."""
    return child[1] if child is not None and child[2].kind is Kind.DIRECTORY else None


def _node(trees: Trees, record: TreeRecord, child: _Child | None) -> Node | None:
    if child is None:
        return None
    entry = child[2]
    digest = entry.sha256
    if not digest and entry.kind is Kind.FILE and entry.size:
        # Of a zip the digests are those of its segments, which are its members.
        segment = trees.segment_at(record.number, entry.stream, entry.offset)
        if segment is not None and (segment.start, segment.length) == (entry.offset, entry.size):
            digest = segment.sha256
    size = entry.size if entry.kind is Kind.FILE else 0
    return Node(entry.kind, size, entry.mode, digest, entry.target)


def tree_from_indexes(
    trees: Trees, parts: Sequence[Part], find: Find, *, image: bool, limits: Limits, name: str
) -> TreeRecord | None:
    """The tree of an archive or an image, from indexes alone; None where one cannot be had. Blocks.

    Args:
        trees: where it is made.
        parts: the blob, or the layers, lowest first.
        find: finds index files.
        image: whether it is one.
        limits: what it may ask of us.
        name: what errors call it.

    Raises:
        ContentError: an index is wrong.
        StorageError: the store cannot be written.
    """
    making = LAYER if image else ARCHIVE
    records: list[TreeRecord] = []
    for part in parts:
        record = _record(trees, part, find, making, limits)
        if record is None:
            return None
        records.append(record)
    if not image:
        return records[0]
    # It has no streams, so it is no tree that anybody may read: it has a name of its own.
    identity = derived_tree(tuple(each.identity for each in records), "compared")
    known = trees.find(identity)
    if known is not None:
        return known
    with trees.writer(identity) as writer:
        planter = LayerPlanter(writer, limits=limits)
        for number, record in enumerate(records):
            planter.begin(number, name=f"{name}: layer {number + 1}")
            for member in replay(trees, record):
                planter.plant(member)
        planter.finish()
        return writer.publish((), None)


def _record(
    trees: Trees, part: Part, find: Find, making: Making, limits: Limits
) -> TreeRecord | None:
    """The record of one part: as a mount knows it by that index, or made now."""
    digest, index, size = part.digest, part.index, part.size
    if digest is None or index is None or size is None:
        return None
    raw = raw_stream(digest)
    identity = indexed_tree(making.identity(raw), index)
    known = trees.find(identity)
    if known is not None:
        return known
    file = find(index)
    if file is None:
        return None
    return import_index(
        trees,
        identity,
        file,
        raw=raw,
        expected=index,
        digest=digest,
        size=size,
        mark=making.mark,
        limits=limits,
    )
