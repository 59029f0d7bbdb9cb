"""What a tree looks like, planted or extracted, in one form that tests can compare."""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from cafs.codec import tar, zip as zip_codec, zip_content
from cafs.codec.zip_end import Directory, locate
from cafs.model.identity import TreeIdentity
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind, Member
from cafs.model.record import Segment
from cafs.store.db.environment import Environment
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees.planting import Planter
from cafs.store.trees.tree_writing import TreeWriter

TABLES = dict.fromkeys(
    (
        "entries",
        "names",
        "segments",
        "windows",
        "contents",
        "members",
        "numbers",
        "trees",
        "drafts",
        "counters",
    ),
    1,
)

KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}


@dataclass(frozen=True)
class Node:
    """A node as a reader sees it. ``also`` is the first path of the same file."""

    kind: Kind
    mode: int
    mtime_ns: int
    size: int
    content: bytes
    target: bytes | None
    links: int
    also: bytes


@contextmanager
def tree_writer(directory: Path) -> Iterator[TreeWriter]:
    """A writer of the store, in an index of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    environment = Environment(directory, TABLES, synced=False, make_room=lambda: False)
    try:
        with TreeWriter(TreeTables(environment), TreeIdentity("0" * 64)) as writer:
            yield writer
    finally:
        environment.close()


class Planted:
    """A tree that a test plants, and reads back from the records."""

    def __init__(self, writer: TreeWriter, *, limits: Limits | None = None, strip: int = 0) -> None:
        self.writer = writer
        self.planter = Planter(writer, name="test", limits=limits, strip=strip)

    def tar(self, data: bytes) -> dict[bytes, Node]:
        """Plant a tar and show its tree."""
        for member in tar.members(BytesIO(data).read, name="test"):
            self.planter.plant(member)
        self.planter.finish()
        return self.nodes(lambda entry: content_of(entry, data))

    def zip(self, data: bytes) -> dict[bytes, Node]:
        """Plant a zip and show its tree."""
        found = locate(data, len(data))
        assert isinstance(found, Directory)
        contents = {}
        source = BytesIO(data)
        source.seek(found.offset)
        for member, segment in zip_codec.members(source.read, found, name="test"):
            self.planter.plant(member)
            if segment.length:
                contents[segment.start] = segment_content(data, segment)
        self.planter.finish()
        return self.nodes(lambda entry: contents[entry.offset] if entry.size else b"")

    def plant(self, *members: Member) -> dict[bytes, Node]:
        """Plant members and show the tree, without content."""
        for member in members:
            self.planter.plant(member)
        self.planter.finish()
        return self.nodes(lambda entry: b"")

    def nodes(self, content: Callable[[Entry], bytes]) -> dict[bytes, Node]:
        """All nodes by path; the root is empty."""
        self.writer.flush()
        nodes: dict[bytes, Node] = {}
        first: dict[int, bytes] = {}
        paths = {b"": ROOT} | dict(self._paths(ROOT, b""))
        for path in sorted(paths):
            number = paths[path]
            entry = self.writer.entry(number)
            if entry.kind is Kind.HARD_LINK:
                number = entry.link
                entry = self.writer.entry(number)
            target = entry.target
            if entry.kind is Kind.SYMLINK and target is None:
                target = content(entry)
            has_content = entry.kind is Kind.FILE
            nodes[path] = Node(
                kind=entry.kind,
                mode=entry.mode,
                mtime_ns=entry.mtime_ns,
                size=entry.size if has_content else 0,
                content=content(entry) if has_content else b"",
                target=target,
                links=entry.links,
                also=first.setdefault(number, path),
            )
        return nodes

    def _paths(self, number: int, path: bytes) -> Iterator[tuple[bytes, int]]:
        for name, child in list(self.writer.children(number)):
            below = path + b"/" + name if path else name
            yield below, child
            if self.writer.entry(child).kind is Kind.DIRECTORY:
                yield from self._paths(child, below)


def content_of(entry: Entry, stream: bytes) -> bytes:
    """What a reader of an entry gets from its stream."""
    if entry.sparse is None:
        return stream[entry.offset : entry.offset + entry.size]
    whole = bytearray(entry.size)
    at = entry.offset
    for piece in entry.sparse:
        whole[piece.offset : piece.offset + piece.length] = stream[at : at + piece.length]
        at += piece.length
    return bytes(whole)


def segment_content(data: bytes, segment: Segment) -> bytes:
    """Decode a zip member from the file's bytes, checked."""
    local = data[segment.input_start :]
    start = zip_content.content_start(local)
    inflater = zip_content.inflate(segment.codec, length=segment.length)
    out = b"".join(inflater.pieces(local[start : start + segment.input_length]))
    inflater.finish()
    assert zlib.crc32(out) == segment.crc32
    return out


def extracted(root: Path) -> dict[bytes, Node]:
    """All nodes below a real directory, in the same form."""
    top = os.fsencode(root)
    paths = [b""]
    for directory, directories, files in os.walk(top):
        paths += [os.path.relpath(os.path.join(directory, n), top) for n in directories + files]
    nodes: dict[bytes, Node] = {}
    first: dict[tuple[int, int], bytes] = {}
    for path in sorted(paths):
        full = top + b"/" + path if path else top
        status = os.lstat(full)
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        is_file = kind is Kind.FILE
        nodes[path] = Node(
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if is_file else 0,
            content=Path(os.fsdecode(full)).read_bytes() if is_file else b"",
            target=os.readlink(full) if kind is Kind.SYMLINK else None,
            links=1 if kind is Kind.DIRECTORY else status.st_nlink,
            also=first.setdefault((status.st_dev, status.st_ino), path),
        )
    return nodes
