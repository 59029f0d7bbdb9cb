"""A file system over a real store: trees planted by hand, refs that do what a test says."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from typing_extensions import override

from cafs.distribution.interfaces import OpenTree
from cafs.distribution.policy import HostPolicy
from cafs.errors import CafsError, NotFoundError
from cafs.fetch.content.exposing import Exposures
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey, TreeIdentity, located_stream
from cafs.model.member import ROOT, Entry, Kind, Piece
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.ref import ArchiveRef, BlobRef, Ref
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.span import Span
from cafs.model.spec import RefSpec
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from cafs.vfs.attributes import Appearance, Attributes
from cafs.vfs.filesystem import FileSystem
from cafs.vfs.interfaces import Digests, Refs
from cafs.vfs.opening import Told, nothing

MINE = Appearance(uid=1000, gid=1001)
ALLOWED = HostPolicy(frozenset({"files.example", "127.0.0.1:5000"}))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One node of a tree that a test describes by path."""

    kind: Kind = Kind.FILE
    data: bytes = b""
    mode: int = 0o644
    mtime_ns: int = 0
    target: bytes | None = None
    link: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    pieces: tuple[Piece, ...] | None = None
    device: int = 0
    sha256: bytes = b""


def directory(mode: int = 0o755) -> Item:
    return Item(kind=Kind.DIRECTORY, mode=mode)


def symlink(target: bytes) -> Item:
    return Item(kind=Kind.SYMLINK, mode=0o777, target=target)


def key_of(data: bytes) -> StreamKey:
    return StreamKey(hashlib.sha256(b"stream" + data).hexdigest())


@dataclass
class Stored(Content):
    """Content whose bytes are in the store already; counts the reads."""

    store: Store
    stream_key: StreamKey
    length: int
    reads: int = 0

    @property
    @override
    def name(self) -> str:
        return "stored"

    @property
    @override
    def size(self) -> int:
        return self.length

    @property
    @override
    def key(self) -> StreamKey:
        return self.stream_key

    @override
    def present(self) -> int:
        stream = self.store.streams.find(self.stream_key)
        return stream.present().total if stream is not None else 0

    @override
    def digest(self) -> Digest | None:
        return None

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        return

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        self.reads += 1
        stream = self.store.streams.find(self.stream_key)
        data = await stream.read(offset, length) if stream is not None else None
        if data is None:
            raise NotFoundError("the stored bytes are gone")
        return data


async def stored(
    store: Store, data: bytes, key: StreamKey | None = None, source: Digest | None = None
) -> Stored:
    """Put bytes into the store as a stream, which comes from that blob."""
    key = key or key_of(data)
    stream = await store.streams.open(key, len(data), source)
    if data:
        await stream.write(0, data)
    return Stored(store, key, len(data))


async def plant(
    store: Store,
    name: str,
    items: Mapping[bytes, Item],
    *,
    checked: bool = True,
    vouched: bool = False,
) -> OpenTree:
    """Plant a tree: parents before children, in the order of ``items``.

    ``checked`` says whether what it was decoded from has been checked as a whole; ``vouched`` that
    an index says what it is.
    """
    identity = TreeIdentity(hashlib.sha256(name.encode()).hexdigest())
    data = b"".join(_packed(item) for item in items.values())
    content = await stored(store, data, source=digest_of(b"raw") if checked else None)
    stream = TreeStream(
        key=content.key, size=len(data), raw=content.key, part=0, rules="", vouched=vouched
    )
    record = await trio.to_thread.run_sync(partial(_write, store, identity, items, stream))
    return OpenTree(record, ROOT, (content,))


def _packed(item: Item) -> bytes:
    if item.pieces is None:
        return item.data
    return b"".join(item.data[each.offset : each.offset + each.length] for each in item.pieces)


def _write(
    store: Store, identity: TreeIdentity, items: Mapping[bytes, Item], stream: TreeStream
) -> TreeRecord:
    with store.trees.writer(identity) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        numbers = {b"": ROOT}
        offset = 0
        for path, item in items.items():
            parent, _, name = path.rpartition(b"/")
            linked = [other for other in items.values() if other.link == (item.link or path)]
            number = writer.add(
                Entry(
                    name=name,
                    parent=numbers[parent],
                    kind=item.kind,
                    mode=item.mode,
                    mtime_ns=item.mtime_ns,
                    size=len(item.data),
                    offset=offset,
                    target=item.target,
                    link=numbers[item.link] if item.link else 0,
                    links=1 + len(linked),
                    xattrs=item.xattrs,
                    sparse=item.pieces,
                    device=item.device,
                    sha256=item.sha256,
                )
            )
            numbers[path] = number
            offset += len(_packed(item))
        return writer.publish((stream,), None)


@dataclass
class PlantedRefs(Refs):
    """Opens what a test planted; fails as a test wants; counts what was asked.

    ``trees`` and ``files`` are by name of the ref, or by its canonical text for one that was named
    by path.
    """

    trees: dict[str, OpenTree] = field(default_factory=dict)
    files: dict[str, Content] = field(default_factory=dict)
    meanings: dict[str, Resolved] = field(default_factory=dict)
    failing: dict[str, CafsError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @override
    def shape(self, spec: RefSpec) -> Shape:
        return Shape.FILE if isinstance(spec.ref, BlobRef) else Shape.TREE

    @override
    async def tree(self, spec: RefSpec, patience: Patience) -> OpenTree:
        return self.trees[self._ask(spec)]

    @override
    async def file(self, spec: RefSpec, patience: Patience) -> Content:
        content = self.files[self._ask(spec)]
        # From now on it is known what the ref means, with its size.
        self.meanings.setdefault(_label(spec), meaning(spec, part_of(content.size)))
        return content

    @override
    def peek(self, spec: RefSpec) -> Resolved | None:
        return self.meanings.get(_label(spec))

    @override
    def error(self, spec: RefSpec) -> str | None:
        failure = self.failing.get(_label(spec))
        return failure.line if failure is not None else None

    @override
    async def doubt(self, spec: RefSpec) -> None:
        self.asked.append(f"doubt {_label(spec)}")

    def _ask(self, spec: RefSpec) -> str:
        label = _label(spec)
        self.asked.append(label)
        if label in self.failing:
            raise self.failing[label]
        return label


def _label(spec: RefSpec) -> str:
    return spec.name or spec.ref.canonical


@dataclass
class PlantedDigests(Digests):
    """Content by digest, as a test says."""

    contents: dict[Digest, Content] = field(default_factory=dict)
    trees: dict[Digest, OpenTree] = field(default_factory=dict)

    @override
    async def blob_content(self, digest: Digest, patience: Patience) -> Content:
        if digest not in self.contents:
            raise NotFoundError(f"{digest}: nothing here knows it")
        return self.contents[digest]

    @override
    async def check(self, digest: Digest, patience: Patience) -> None:
        if digest not in self.contents and digest not in self.trees:
            raise NotFoundError(f"{digest}: nothing here knows it")

    @override
    async def blob_tree(self, digest: Digest, patience: Patience) -> OpenTree:
        if digest not in self.trees:
            raise NotFoundError(f"{digest}: nothing here knows it")
        return self.trees[digest]


def archive(name: str) -> RefSpec:
    return RefSpec(name=name, ref=ArchiveRef(f"https://files.example/{name}.tar"))


def blob(name: str) -> RefSpec:
    return RefSpec(name=name, ref=BlobRef(f"https://files.example/{name}.bin"))


def meaning(spec: RefSpec, part: Part) -> Resolved:
    shape = Shape.FILE if isinstance(spec.ref, BlobRef) else Shape.TREE
    return Resolved(
        ref=spec.ref.canonical, shape=shape, digest=part.digest, parts=(part,), resolved_ns=1
    )


def part_of(size: int | None, digest: Digest | None = None) -> Part:
    return Part(
        media_type="application/octet-stream",
        size=size,
        digest=digest,
        urls=("https://files.example/x",),
    )


async def blob_part(store: Store, data: bytes, *, pinned: bool) -> tuple[Part, Stored]:
    """A part whose bytes are local, under the key that its kind of part has."""
    part = part_of(len(data), digest_of(data) if pinned else None)
    return part, await stored(store, data, located_stream(part))


@dataclass
class World:
    """A file system of a mount, and what stands behind it."""

    store: Store
    mount: int
    refs: PlantedRefs
    digests: PlantedDigests
    filesystem: FileSystem

    async def walk(self, path: str | bytes, start: int = 1) -> Attributes:
        """Look up a path, component by component."""
        raw = path.encode() if isinstance(path, str) else path
        found = await self.filesystem.attributes(start)
        for name in filter(None, raw.split(b"/")):
            found = await self.filesystem.lookup(found.inode, name)
        if found.attributes_ttl_s == 0 and not self.filesystem.is_control(found.inode):
            # What is out of date already is asked for before it is used, as by a kernel.
            found = await self.filesystem.attributes(found.inode)
        return found

    async def names(self, path: str | bytes, limit: int = 100) -> list[bytes]:
        """List a directory, ``limit`` names at a time."""
        inode = (await self.walk(path)).inode
        return await self.pages(inode, limit)

    async def pages(self, inode: int, limit: int) -> list[bytes]:
        names: list[bytes] = []
        after = 0
        while page := await self.filesystem.list(inode, after, limit):
            assert len(page) <= limit
            names += [each.name for each in page]
            after = page[-1].cookie
        return names

    async def text(self, path: str, name: str) -> str | None:
        """One of our extended attributes, as text."""
        value = await self.filesystem.xattr((await self.walk(path)).inode, name.encode())
        return value.decode() if value is not None else None


def ad_hoc(ref: Ref) -> RefSpec:
    return RefSpec(name="", ref=ref)


def counting() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield b'{"n": %d}' % number


def make_filesystem(
    store: Store,
    mount: int,
    refs: Refs,
    digests: Digests,
    *,
    specs: Sequence[RefSpec],
    view: str = "/",
    appearance: Appearance = MINE,
    policy: HostPolicy = ALLOWED,
    exposures: Exposures | None = None,
    told: Told = nothing,
) -> FileSystem:
    """A file system with statuses that differ each time."""
    statuses = counting()
    return FileSystem(
        store=store,
        mount=mount,
        refs=refs,
        digests=digests,
        policy=policy,
        specs=specs,
        ad_hoc=ad_hoc,
        appearance=appearance,
        version="1.2.3",
        status=lambda: next(statuses),
        inflight=lambda: b"[]",
        view=view,
        exposures=exposures,
        told=told,
    )


@asynccontextmanager
async def running_world(
    path: Path,
    specs: Sequence[RefSpec] = (),
    *,
    view: str = "/",
    appearance: Appearance = MINE,
    exposures: Exposures | None = None,
    told: Told = nothing,
) -> AsyncIterator[World]:
    """Open a store in a directory, and a mount in it."""
    async with open_store(path) as store:
        mount = await store.mounts.open(new_key(), "test")
        refs, digests = PlantedRefs(), PlantedDigests()
        filesystem = make_filesystem(
            store,
            mount,
            refs,
            digests,
            specs=specs,
            view=view,
            appearance=appearance,
            exposures=exposures,
            told=told,
        )
        yield World(store, mount, refs, digests, filesystem)
