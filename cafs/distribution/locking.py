"""Locking: finds out what a ref means, by reading every byte of it once.

Whoever locks makes a first pass over each archive and each layer, so that the tree, its index and
all digests are what the bytes are, and not what anybody says. A single file is cut into slices, so
that it has an index too, unless it is small. What the store has is not fetched again, and not read
again where a pass was made here before.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from cafs.distribution.lock_reading import REPORT_S, Archive, LockReader, Report, unheard
from cafs.distribution.manifests import OCI_MANIFEST
from cafs.distribution.naming import title
from cafs.distribution.recording import LAYER
from cafs.distribution.resolver import Resolver
from cafs.errors import MalformedError, NotFoundError, StorageError, UnsupportedError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.cutting import SLICE
from cafs.fetch.passes.making import ARCHIVE, FILE, Making
from cafs.fetch.progress import Progress
from cafs.model.digest import Digest
from cafs.model.identity import TreeIdentity, decoded_stream
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.ref import DockerRef
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.model.validator import UNKNOWN_VERSION
from cafs.store.disk.files import storage_error
from cafs.store.store import Store
from cafs.store.trees.index_export import IncompleteTreeError, export_index

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What a ref means, with nothing left open.

    ``resolved`` has sha256 digests, sizes and indexes. ``size`` and ``media_type`` are those of the
    blob, or of the image's manifest. ``bound`` says that another platform may get something else.
    ``indexes`` are the files that were written, by digest.
    """

    resolved: Resolved
    size: int
    media_type: str
    bound: bool
    indexes: dict[Digest, Path]


@dataclass(frozen=True, slots=True)
class Reports:
    """Told how far locking is: what has come of all that must, then what was read of it."""

    fetched: Report = unheard
    read: Report = unheard


class Locker:
    """Reads refs whole, and says what they are.

    Args:
        store: where the bytes go.
        resolver: asks what refs mean.
        fetcher: fetches, and makes the passes.
        limits: on what an archive may hold.

    Concurrency: any number of tasks.
    """

    def __init__(self, store: Store, resolver: Resolver, fetcher: Fetcher, limits: Limits) -> None:
        self._store = store
        self._resolver = resolver
        self._fetcher = fetcher
        self._limits = limits
        self._reader = LockReader(store, fetcher, limits)

    async def locate(
        self, spec: RefSpec, folder: Path, reports: Reports, patience: Patience
    ) -> Located:
        """Find out what a ref means now.

        Args:
            spec: the ref; its source is asked as ``spec.pull`` says.
            folder: where index files are written; it is the caller's.
            reports: told how far it is.
            patience: bounds the time without progress.

        Raises:
            UnsupportedError: it is larger than what a lock may say.
            CafsError: as ``Resolver.resolve``, ``Fetcher.prefetch`` and ``Fetcher.plant``.

        Cancellation: what has been fetched stays; a pass goes on for a while.
        """
        asked = replace(spec, locked=None, strip=0, subdir="")
        resolved = await self._resolver.resolve(asked, patience)
        # What a table of contents says is not taken for what the bytes are.
        bare = tuple(replace(part, index=None, contents=None) for part in resolved.parts)
        bare_resolved = replace(resolved, parts=bare)
        contents = await self._open(asked, bare_resolved, patience)
        self._refuse_too_large(contents, title(spec))
        await self._fetcher.prefetch(contents, Progress(reports.fetched, REPORT_S), patience)
        wholes = [
            self._whole(part, content, title(spec))
            for part, content in zip(resolved.parts, contents, strict=True)
        ]
        making = self._making(spec, resolved.shape, wholes)
        if making is None:
            return self._located(spec, replace(resolved, parts=tuple(wholes)), {})
        # By its digest, as everybody who has the lock will call it: so the tree is theirs too.
        known = tuple(
            replace(each, validator=UNKNOWN_VERSION, located_ns=0, at="", contents=None)
            for each in wholes
        )
        contents = await self._open(asked, replace(resolved, parts=known), patience)
        indexes: dict[Digest, Path] = {}
        archives = [Archive(*each) for each in zip(contents, wholes, strict=True)]
        records = await self._reader.read_all(archives, making, patience, reports.read)
        for number, (record, archive) in enumerate(zip(records, archives, strict=True)):
            path = folder / f"{number}.idx"
            index = await self._index(record, archive, making, path, patience)
            indexes[index] = path
            wholes[number] = replace(archive.part, index=index, index_size=path.stat().st_size)
        return self._located(spec, replace(resolved, parts=tuple(wholes)), indexes)

    def _refuse_too_large(self, contents: Sequence[Content], name: str) -> None:
        """Nothing is fetched that a lock could not say."""
        largest = max((content.size for content in contents), default=0)
        if largest > self._limits.size:
            what = f"{name}: {largest} bytes; {self._limits.size} are the most that can be locked"
            raise UnsupportedError(what)

    def _making(self, spec: RefSpec, shape: Shape, parts: Sequence[Part]) -> Making | None:
        """What a pass makes of each part; None where there is nothing to be made.

        A file of one slice comes in one request anyway.
        """
        if shape is not Shape.FILE:
            return LAYER if isinstance(spec.ref, DockerRef) else ARCHIVE
        return FILE if (parts[0].size or 0) > SLICE else None

    async def _open(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> list[Content]:
        """The contents of all parts."""
        return [
            await self._resolver.reopen(spec, resolved, number, patience)
            for number in range(len(resolved.parts))
        ]

    def _whole(self, part: Part, content: Content, name: str) -> Part:
        """A part with what is known now that all of it has come."""
        digest = content.digest() or part.digest
        known = None if digest is None else self._store.blobs.stat(digest)
        digest = digest if known is None else known.digest
        if digest is None or not digest.canonical:
            raise StorageError(f"{name}: what was fetched left the store", hint="try again")
        return replace(part, digest=digest, size=content.size)

    async def _index(
        self,
        record: TreeRecord,
        archive: Archive,
        making: Making,
        path: Path,
        patience: Patience,
    ) -> Digest:
        """Write the index of what a pass has made.

        A tree that does not tell all was made before all of the bytes were here, or by a version
        that kept less of it. A mount may use it, so it stays as it is: a pass is made for us alone.
        """
        try:
            return await self._export(record, archive.part, making, path)
        except IncompleteTreeError as error:
            _LOG.info("lock.again: %s: %s", archive.name, error.line)
        key = decoded_stream(archive.content.key, f"lock {os.urandom(8).hex()}")
        try:
            own = await self._reader.read(archive, making, patience, Progress(unheard), key)
            return await self._export(own, archive.part, making, path)
        finally:
            with trio.CancelScope(shield=True):
                await self._drop(making.identity(key))

    async def _drop(self, identity: TreeIdentity) -> None:
        """Let go of a tree that nobody else knows, and of what it was decoded to."""
        record = self._store.trees.find(identity)
        if record is None:
            return
        await self._store.trees.delete(identity)
        for each in record.streams:
            stream = self._store.streams.find(each.key) if each.rules else None
            if stream is not None:
                await stream.discard()

    async def _export(self, record: TreeRecord, part: Part, making: Making, path: Path) -> Digest:
        digest, size = part.digest, part.size
        if digest is None or size is None:
            raise TypeError("a part that is not whole")

        def export() -> Digest:
            try:
                with path.open("wb") as out:
                    return export_index(
                        self._store.trees, record, out, digest=digest, size=size, mark=making.mark
                    )
            except OSError as error:
                raise storage_error(error, str(path)) from error

        return await trio.to_thread.run_sync(export)

    def _located(
        self,
        spec: RefSpec,
        resolved: Resolved,
        indexes: dict[Digest, Path],
    ) -> Located:
        if not isinstance(spec.ref, DockerRef):
            (part,) = resolved.parts
            return Located(
                resolved=replace(resolved, digest=part.digest, named=None),
                size=part.size or 0,
                media_type=part.media_type,
                bound=False,
                indexes=indexes,
            )
        if resolved.digest is None or resolved.named is None:
            raise MalformedError(f"{title(spec)}: it has no manifest")
        manifest = self._store.blobs.stat(resolved.digest)
        named = self._store.blobs.stat(resolved.named)
        if manifest is None or named is None:
            raise NotFoundError(f"{title(spec)}: its manifest left the store", hint="try again")
        return Located(
            resolved=replace(resolved, digest=manifest.digest, named=named.digest),
            size=manifest.size,
            media_type=_manifest_type(manifest.media_type),
            bound=spec.platform is not None or manifest.digest != named.digest,
            indexes=indexes,
        )


def _manifest_type(said: str) -> str:
    """The type of a manifest; a registry that says nothing of use means that of OCI."""
    return said if said.endswith("+json") else OCI_MANIFEST
