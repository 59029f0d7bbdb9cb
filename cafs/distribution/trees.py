"""Opening trees: what strip and subdir make of them, and the contents of their streams."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from cafs.concurrency import Flights
from cafs.distribution.deriving import find_directory, strip_tree
from cafs.distribution.interfaces import OpenTree
from cafs.distribution.naming import title
from cafs.distribution.promoting import Promoting, Source
from cafs.distribution.stronger import stronger_pins
from cafs.distribution.vouching import voucher_of
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.model.identity import TreeIdentity, derived_tree
from cafs.model.member import ROOT
from cafs.model.record import TreeRecord
from cafs.model.ref import ArchiveRef
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.store import Store

Build = Callable[[], TreeRecord]
"""Builds and publishes a tree; blocks."""
RawContent = Callable[[int], Awaitable[Content]]
"""Opens the raw bytes of the part with a number."""


class Trees:
    """Builds derived trees once, and opens trees.

    Concurrency: any number of tasks.
    """

    def __init__(self, store: Store, fetcher: Fetcher, promoting: Promoting | None = None) -> None:
        self._store = store
        self._fetcher = fetcher
        self._promoting = promoting
        self._building: Flights[TreeRecord] = Flights()

    def find(self, identity: TreeIdentity) -> TreeRecord | None:
        """The tree with an identity, if the store has it; asks nobody.

        What its decoded streams lack is filled again when it is read.
        """
        return self._store.trees.find(identity)

    async def derive(self, identity: TreeIdentity, build: Build) -> TreeRecord:
        """The tree with an identity, built in a thread if need be; once for all who ask.

        Raises:
            CafsError: as ``build``.

        Cancellation: waits for the thread.
        """
        return await self._building.run(identity, lambda: self._derive(identity, build))

    async def open(
        self,
        spec: RefSpec,
        base: TreeRecord,
        raw: RawContent,
        making: Making = ARCHIVE,
        *,
        parts: Sequence[Part] = (),
    ) -> OpenTree:
        """Open a tree as the spec wants it.

        Args:
            spec: says what of the tree is shown.
            base: the tree of the archive, or of the image.
            raw: opens the parts that the tree's streams are in.
            making: what the passes over these parts made.
            parts: these parts, where somebody may vouch for what they are.

        Raises:
            NotFoundError: there is no such ``subdir``.
            CafsError: as ``raw``.

        Cancellation: waits for the thread.
        """
        record = base
        if spec.strip:
            identity = derived_tree((base.identity,), f"strip={spec.strip}")
            trees = self._store.trees
            record = await self.derive(
                identity, partial(strip_tree, trees, base, identity, spec.strip)
            )
        root = ROOT
        if spec.subdir:
            root = find_directory(self._store.trees, record, spec.subdir, name=title(spec))
        # Segments are recorded with the tree that was planted, not with those derived from it.
        contents: list[Content] = []
        # Of an image they are about its manifest, and not about a layer.
        pins = stronger_pins(spec) if isinstance(spec.ref, ArchiveRef) else ()
        for number, stream in enumerate(base.streams):
            source = await raw(stream.part)
            voucher = voucher_of(parts[stream.part], stream) if stream.vouched and parts else None
            content = self._fetcher.decoded(base, number, source, making, voucher)
            if voucher is not None and self._promoting is not None:
                part = Source(parts[stream.part], source, pins)
                content = self._promoting.watched(base, number, part, making, content)
            contents.append(content)
        return OpenTree(record, root, tuple(contents))

    async def _derive(self, identity: TreeIdentity, build: Build) -> TreeRecord:
        found = self.find(identity)
        return await trio.to_thread.run_sync(build) if found is None else found
