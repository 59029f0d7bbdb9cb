"""Archives: one blob that is shown as a tree."""

from collections.abc import Iterator
from dataclasses import replace

from typing_extensions import override

from cafs.codec.sniffing import HEAD, Format, expected_by_name, sniff
from cafs.distribution.blob import BlobHandler
from cafs.distribution.files import Files
from cafs.distribution.indexing import Indexing
from cafs.distribution.interfaces import OpenTree
from cafs.distribution.naming import title
from cafs.distribution.parts import UrlParts
from cafs.distribution.trees import Trees
from cafs.fetch.content.provisional import ProvisionalContent
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import ARCHIVE
from cafs.model.address import shown
from cafs.model.digest import Digest
from cafs.model.identity import (
    StreamKey,
    archive_tree,
    located_stream,
    raw_stream,
    unchecked_stream,
)
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part, Resolved
from cafs.model.spec import RefSpec
from cafs.store.store import Store


class Archives:
    """Finds the tree of an archive, or makes it: as an index says, or by a pass.

    Concurrency: any number of tasks; those that need the same tree share one pass.
    """

    def __init__(
        self, store: Store, fetcher: Fetcher, trees: Trees, limits: Limits, indexing: Indexing
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._trees = trees
        self._limits = limits
        self._indexing = indexing

    def find(self, part: Part) -> TreeRecord | None:
        """The archive's tree, when the store has it; asks nobody.

        The same bytes go by several names: by the digest that the settings give, as the canonical
        blob, and, before any digest was known, by the place where they were located. A tree by any
        of them will do, though what it was decoded to is damaged or gone: that is decoded again for
        it when it is read, while another tree would have other inodes.
        """
        found = self._trees.find(archive_tree(located_stream(part)))
        if found is not None or part.digest is None:
            return found
        known = self._store.blobs.stat(part.digest)
        digest = part.digest if known is None else known.digest
        for key in self._others(part, digest):
            found = self._trees.find(archive_tree(key))
            if found is not None and found.digest == digest:
                return found
        return None

    async def plant(self, raw: Content, part: Part, patience: Patience) -> TreeRecord:
        """Make the archive's tree. Errors call it by its URL, whose suffix the bytes must match.

        Raises:
            CafsError: as ``Indexing.tree`` and ``Fetcher.plant``.

        Cancellation: the pass goes on for a while, or for others.
        """
        name = _name_of(raw, part)
        found = await self._indexing.tree(part, raw, ARCHIVE, patience, name=raw.name)
        return found or await self._fetcher.plant(
            raw,
            name=name,
            media_type=part.media_type,
            patience=patience,
            limits=self._limits,
        )

    async def vouched(self, raw: Content, part: Part, patience: Patience) -> TreeRecord | None:
        """The archive's tree as the index that a lock names has it; None where there is none.

        Raises:
            CafsError: as ``Indexing.tree``.

        Cancellation: as there.
        """
        return await self._indexing.vouched(part, raw, ARCHIVE, patience, name=raw.name)

    def _others(self, part: Part, digest: Digest) -> Iterator[StreamKey]:
        if digest.canonical:
            yield raw_stream(digest)
        if part.validator.text:
            yield located_stream(replace(part, digest=None))

    async def plant_early(
        self, raw: ProvisionalContent, part: Part, patience: Patience
    ) -> TreeRecord | None:
        """Make the tree of a zip from ranges that nobody has checked yet.

        It has a name that nobody else asks for. None where there is nothing to gain: a tar is read
        whole in any case, what an index describes is read by its pieces, and what was checked
        already is read as that.

        Raises:
            CafsError: as ``Fetcher.plant``.

        Cancellation: the pass goes on for a while, or for others.
        """
        name = _name_of(raw, part)
        if part.index is not None or expected_by_name(name) not in {None, Format.ZIP}:
            return None
        head = await raw.read(0, HEAD, patience)
        of = await raw.settled()
        if of is None or sniff(head) is not Format.ZIP:
            return None
        key = unchecked_stream(raw.key, of.file, of.generation)
        return await self._fetcher.plant(
            raw,
            name=name,
            media_type=part.media_type,
            patience=patience,
            limits=self._limits,
            key=key,
        )


class ArchiveHandler(BlobHandler):
    """Refs to one archive.

    Concurrency: any number of tasks.
    """

    def __init__(self, parts: UrlParts, archives: Archives, trees: Trees, files: Files) -> None:
        super().__init__(parts, files)
        self._archives = archives
        self._trees = trees

    @override
    async def open_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        part = resolved.parts[0]
        pinned = await self._files.held(spec, part)
        if spec.verify == "provisional":
            early = await self._open_early(spec, pinned, patience)
            if early is not None:
                return early
        raw = await self._parts.content(part, patience, name=title(spec))
        if pinned != part:
            # Of what the pin means nothing is known here. For pieces the lock vouches, for no more.
            record = await self._archives.vouched(raw, part, patience)
            if record is not None:
                return await self._opened(spec, record, raw, part)
            part = replace(pinned, index=None, index_size=None)
            raw = await self._parts.content(part, patience, name=title(spec))
        record = self._archives.find(part)
        if record is None:
            record = await self._archives.plant(raw, part, patience)
        return await self._opened(spec, record, raw, part)

    async def _opened(
        self, spec: RefSpec, record: TreeRecord, raw: Content, part: Part
    ) -> OpenTree:
        async def content(_: int) -> Content:
            return raw

        return await self._trees.open(spec, record, content, parts=(part,))

    async def _open_early(self, spec: RefSpec, part: Part, patience: Patience) -> OpenTree | None:
        """Open a zip that has not been checked yet; None where it is opened as any other."""
        raw = await self._parts.content(part, patience, name=title(spec), verify=spec.verify)
        if not isinstance(raw, ProvisionalContent):
            return None
        record = await self._archives.plant_early(raw, part, patience)
        if record is None:
            return None

        async def content(_: int) -> Content:
            return raw

        return await self._trees.open(spec, record, content)


def _name_of(raw: Content, part: Part) -> str:
    """What errors call an archive: its URL, whose suffix its bytes must match."""
    return shown(part.urls[0].partition("?")[0]) if part.urls else raw.name
