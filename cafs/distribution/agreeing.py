"""Agreeing: whether what somebody vouched for is what a pass over the bytes has found.

An index says what a pass finds, entry by entry: so the two trees are the same, number by number. A
table of contents only names what is in a layer, laid out as it likes: so it is compared path by
path, and each piece of a file by its digest. Times do not count there, which tables round.

All of this blocks: it belongs in a thread.
"""

import hashlib
import os
from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

import msgspec
from msgspec.structs import replace

from cafs.codec.estargz import LANDMARKS, TABLE
from cafs.model.member import ROOT, Entry, Kind, Piece
from cafs.model.record import TreeRecord
from cafs.store.trees.trees import Trees

_PRIVATE: Final = frozenset({TABLE, *LANDMARKS})
"""What is in an eStargz layer for its readers, and in no table of contents."""


class DisagreementError(Exception):
    """What was vouched for is something else; the text says what, first of all."""


class Chunk(msgspec.Struct, frozen=True):
    """Bytes of what the pass has decoded, and the raw sha256 that they must have; empty: zeros."""

    start: int
    length: int
    sha256: bytes
    path: str


def against_index(trees: Trees, own: TreeRecord, vouched: TreeRecord) -> Iterator[Chunk]:
    """Compare a tree out of an index with that of a pass; what is left to be hashed is given.

    Raises:
        DisagreementError: they differ.
    """
    pairs = zip_longest(trees.rows(own.number), trees.rows(vouched.number), fillvalue=None)
    for number, (ours, theirs) in enumerate(pairs):
        if ours is None or theirs is None:
            named = ours or theirs
            name = os.fsdecode(named[0].name) if named is not None else ""
            where = "the archive" if ours is not None else "the index"
            raise DisagreementError(f"only {where} has entry {number}, {name!r}")
        if ours[1] != theirs[1] or not _same(ours[0], theirs[0]):
            raise DisagreementError(f"entry {number}, {os.fsdecode(ours[0].name)!r}, is another")
    known = {(one.start, one.length): one.sha256 for one, _ in trees.all_segments(own.number, 0)}
    for segment, _ in trees.all_segments(vouched.number, 0):
        digest = known.get((segment.start, segment.length))
        if not digest:
            yield Chunk(segment.start, segment.length, segment.sha256, "")
        elif digest != segment.sha256:
            stop = segment.start + segment.length
            raise DisagreementError(f"bytes {segment.start}-{stop - 1} of its content are others")


def _same(ours: Entry, theirs: Entry) -> bool:
    known = ours.sha256 if theirs.sha256 else b""
    return replace(ours, sha256=known) == theirs


class _Found(msgspec.Struct, frozen=True):
    """What a path is, as a digest of all that counts; where its content begins, and its digest."""

    facts: bytes
    offset: int
    sha256: bytes
    plain: bool


def against_table(trees: Trees, own: TreeRecord, vouched: TreeRecord) -> Iterator[Chunk]:
    """Compare a layer's record out of a table of contents with that of a pass; as above.

    Memory: some 200 bytes a path.

    Raises:
        DisagreementError: they differ.
    """
    found = {
        path: _Found(_facts(entry), entry.offset, entry.sha256, entry.sparse is None)
        for path, entry in _paths(trees, own)
    }
    for path, entry in _paths(trees, vouched):
        shown = os.fsdecode(path)
        ours = found.pop(path, None)
        if ours is None:
            raise DisagreementError(f"there is no {shown!r} in the layer")
        if ours.facts != _facts(entry):
            raise DisagreementError(f"{shown!r} is another in the layer")
        if entry.kind is Kind.FILE and entry.size:
            yield from _pieces(trees, vouched, entry, ours, shown)
    left = next((path for path in found if path not in _PRIVATE), None)
    if left is not None:
        raise DisagreementError(f"it does not name {os.fsdecode(left)!r}, which is in the layer")


def _pieces(
    trees: Trees, vouched: TreeRecord, entry: Entry, ours: _Found, shown: str
) -> Iterator[Chunk]:
    """What a file's content must be, piece by piece; between its pieces it is zeros."""
    reached = 0
    at = entry.offset
    for piece in (Piece(0, entry.size),) if entry.sparse is None else entry.sparse:
        yield from _zeros(ours, reached, piece.offset, shown)
        reached = piece.offset
        while reached < piece.offset + piece.length:
            segment = trees.segment_at(vouched.number, 0, at)
            if segment is None or segment.start != at or not segment.sha256:
                raise DisagreementError(f"it does not say what byte {reached} of {shown!r} is")
            if segment.length == entry.size and segment.sha256 != ours.sha256:
                raise DisagreementError(f"{shown!r} has other content in the layer")
            if segment.length < entry.size:
                yield _chunk(ours, reached, segment.length, segment.sha256, shown)
            at += segment.length
            reached += segment.length
        if reached != piece.offset + piece.length:
            raise DisagreementError(f"it says more of {shown!r} than there is")
    yield from _zeros(ours, reached, entry.size, shown)


def _zeros(ours: _Found, start: int, stop: int, shown: str) -> Iterator[Chunk]:
    if start < stop:
        yield _chunk(ours, start, stop - start, b"", shown)


def _chunk(ours: _Found, offset: int, length: int, sha256: bytes, shown: str) -> Chunk:
    if not ours.plain:
        raise DisagreementError(f"{shown!r} is sparse in the layer")
    return Chunk(ours.offset + offset, length, sha256, shown)


def _facts(entry: Entry) -> bytes:
    size = entry.size if entry.kind is Kind.FILE else 0
    said = (
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        size,
        entry.target,
        entry.device,
        sorted(entry.xattrs),
    )
    return hashlib.blake2b(repr(said).encode(), digest_size=16).digest()


def _paths(trees: Trees, record: TreeRecord) -> Iterator[tuple[bytes, Entry]]:
    """Every path that a member has stated, and what it means at last."""
    heads: dict[int, bytes] = {ROOT: b""}
    for number, (entry, bound) in enumerate(trees.rows(record.number)):
        path = b"" if number == ROOT else heads[entry.parent] + entry.name
        if number != ROOT:
            heads[number] = path + b"/"
        if bound and entry.links and number != ROOT:
            yield path, entry
