"""What of a mounted image was read: which segments that is, and how many bytes they are packed.

What was read is what the kernel has of each file in its page cache: what programs asked for, and
what the kernel itself reads ahead. What cafs fetched or decoded ahead of that does not count.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.span import Span, SpanSet
from cafs.store.store import Store, open_store
from cafs.testing.residency import resident


@dataclass(frozen=True, slots=True)
class Touched:
    """What was read of an image's tree.

    ``read`` is bytes of files, ``segments`` how many lie under them, ``packed`` their bytes in the
    layers. ``decoded`` is the bytes in the layers of all segments that the store has.
    """

    read: int
    segments: int
    packed: int
    decoded: int


def touched(store: Path, root: Path) -> Touched:
    """What was read of the one image in a store, which is mounted at ``root``; opens its files.

    Raises:
        LookupError: the store has no image whose layers have segments.
    """
    return trio.run(_touched, store, root)


async def _touched(path: Path, root: Path) -> Touched:
    async with open_store(path) as store:
        return await trio.to_thread.run_sync(_measure, store, root)


def _measure(store: Store, root: Path) -> Touched:
    record = _image(store)
    streams = [_Stream(store, each) for each in record.streams]
    read = 0
    for where, entry in _files(store, record):
        stream = streams[entry.stream]
        if not stream.has_some_of(entry):
            continue
        found = _mapped(entry, resident(root / os.fsdecode(where)))
        read += found.total
        for span in found:
            stream.touch(span)
    every = [each for stream in streams for each in stream.touched.values()]
    return Touched(
        read,
        len(every),
        sum(each.input_length for each in every),
        sum(stream.decoded() for stream in streams),
    )


class _Stream:
    """One stream of the image, and what of it was touched."""

    def __init__(self, store: Store, what: TreeStream) -> None:
        self._trees = store.trees
        planted = store.trees.find(TreeIdentity(what.planted))
        if planted is None:
            raise LookupError("the store does not say how the image is decoded")
        self._tree = planted.number
        stream = store.streams.find(what.key)
        self.present = SpanSet() if stream is None else stream.present()
        self.touched: dict[int, Segment] = {}

    def has_some_of(self, entry: Entry) -> bool:
        """Whether any byte of a file is there: else nobody has read it."""
        return any(
            self.present.intersection(Span(at, at + run.length)) for run, at in _content(entry)
        )

    def touch(self, span: Span) -> None:
        for each in self._trees.segments(self._tree, 0, span):
            self.touched[each.start] = each

    def decoded(self) -> int:
        found = {
            each.start: each
            for span in self.present
            for each in self._trees.segments(self._tree, 0, span)
        }
        return sum(each.input_length for each in found.values())


def _image(store: Store) -> TreeRecord:
    for record in store.trees.all():
        if record.streams and all(each.planted for each in record.streams):
            return record
    raise LookupError("the store has no image whose layers have segments")


def _files(store: Store, record: TreeRecord) -> Iterator[tuple[bytes, Entry]]:
    """The files of a tree, each once, with paths from its root."""
    paths: dict[int, bytes] = {ROOT: b""}
    for number, (entry, named) in enumerate(store.trees.rows(record.number)):
        if number == ROOT or not named:
            continue
        above = paths.get(entry.parent)
        if above is None:
            continue  # in a directory that another one has replaced
        path = above + b"/" + entry.name if above else entry.name
        if entry.kind is Kind.DIRECTORY:
            paths[number] = path
        elif entry.kind is Kind.FILE and entry.size and not entry.link:
            yield path, entry


def _content(entry: Entry) -> Iterator[tuple[Span, int]]:
    """Where in the file its bytes lie, and where in the stream each run of them begins."""
    if entry.sparse is None:
        yield Span(0, entry.size), entry.offset
        return
    at = entry.offset
    for piece in entry.sparse:
        yield Span(piece.offset, piece.offset + piece.length), at
        at += piece.length


def _mapped(entry: Entry, pages: SpanSet) -> SpanSet:
    """Where in its stream these pages of a file lie."""
    return SpanSet(
        Span(at + each.start - run.start, at + each.stop - run.start)
        for run, at in _content(entry)
        for each in pages.intersection(run)
    )
