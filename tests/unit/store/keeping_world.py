"""Refs and what they have in a store, as fetching them would have left it."""

import hashlib
import time
from pathlib import Path

import trio

from cafs.model.digest import Digest, digest_of
from cafs.model.identity import (
    StreamKey,
    TreeIdentity,
    archive_tree,
    decoded_stream,
    located_stream,
    raw_stream,
)
from cafs.model.item import Item
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.resolved import Part, Resolved, Shape
from cafs.store.store import Store

HOUR_NS = 3600 * 10**9
WEEK_NS = 168 * HOUR_NS
KIB = 1 << 10


def body(name: str, length: int = 10 * KIB) -> bytes:
    """Bytes of their own for each name."""
    seed = hashlib.sha256(name.encode()).digest()
    return (seed * (length // len(seed) + 1))[:length]


def later(ns: int) -> int:
    """The time then, in ns since the epoch."""
    return time.time_ns() + ns


async def blob(store: Store, data: bytes, media_type: str = "") -> Digest:
    """A blob as it comes from a source."""
    digest = digest_of(data)
    taken = await store.blobs.take(
        raw_stream(digest), data, media_type=media_type, claims=(digest,), name="test"
    )
    known = taken or store.blobs.stat(digest)
    assert known is not None
    return known.digest


async def stream(store: Store, key: StreamKey, data: bytes, size: int | None = None) -> Item:
    """A stream that begins with these bytes."""
    opened = await store.streams.open(key, size)
    await opened.write(0, data)
    return Item.stream(key)


def part(data: bytes, url: str = "https://example.com/x") -> Part:
    """A part with a pin."""
    return Part(media_type="", size=len(data), digest=digest_of(data), urls=(url,))


def meaning(*parts: Part, ref: str = "cimd:blob:v=0:x", digest: Digest | None = None) -> Resolved:
    """What a ref of these parts means."""
    shape = Shape.FILE if len(parts) == 1 else Shape.TREE
    return Resolved(
        ref=ref, shape=shape, digest=digest, parts=tuple(parts), resolved_ns=time.time_ns()
    )


async def file_ref(store: Store, source: str, data: bytes) -> Digest:
    """A ref to a file that was read whole."""
    digest = await blob(store, data)
    await store.references.record(source, meaning(part(data)))
    return digest


async def archive_ref(store: Store, source: str, data: bytes, decoded: bytes) -> TreeRecord:
    """A ref to an archive that was read whole, and what it decodes to."""
    await file_ref(store, source, data)
    return await planted(store, located_stream(part(data)), decoded)


async def planted(store: Store, raw: StreamKey, decoded: bytes) -> TreeRecord:
    """The tree of an archive, and what it decodes to."""
    key = decoded_stream(raw, "gzip")
    await stream(store, key, decoded, len(decoded))
    streams = (TreeStream(key=key, size=len(decoded), raw=raw, part=0, rules="tar"),)
    return tree(store, archive_tree(raw), streams)


def tree(store: Store, identity: TreeIdentity, streams: tuple[TreeStream, ...]) -> TreeRecord:
    """A tree with one file."""
    with store.trees.writer(identity) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        writer.add(Entry(name=b"a", parent=ROOT, kind=Kind.FILE, mode=0o644, size=5))
        return writer.publish(streams, None)


def everything(store: Store) -> dict[str, bytes]:
    """Every file of the store that is no record: whole names, and what they hold."""
    folders = ("blobs", "streams", "quarantine")
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for folder in folders
        for path in sorted(Path(store.path / folder).rglob("*"))
        if path.is_file()
    }


async def rest(store: Store) -> None:
    """Let what this process has just used be no longer in use: else it is for two seconds."""
    await trio.to_thread.run_sync(store.uses.flush)
    store.uses._before.clear()
