"""Indexing: decides how the tree of an archive, or the record of a layer, comes to be.

In this order:

1. a pass was made here: its tree is what the bytes are;
2. a lock names an index: it says what a pass would find, and the lock vouches for it;
3. the image's manifest names a table of contents: the manifest vouches for that;
4. otherwise a pass is made, over all of the bytes. Why it must be is logged.

What somebody vouches for never goes by the name of what a pass has made (``indexed_tree``), so a
pass that is made later finds nothing to trust in it.
"""

import logging
from functools import partial
from typing import Final

import trio
from cachetools import LRUCache

from cafs.concurrency import Flights
from cafs.distribution.index_source import IndexSource
from cafs.distribution.laziness import facts_of, facts_with, reason
from cafs.distribution.tables import Subject, Tables
from cafs.errors import (
    ContentError,
    DigestMismatchError,
    StorageError,
    StorageFullError,
    UnsupportedError,
)
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.first_pass import complete_tree
from cafs.fetch.passes.making import Making
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, TreeIdentity, indexed_stream, indexed_tree
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.resolved import Contents, Part
from cafs.store.store import Store
from cafs.store.trees.index_import import import_index

_IMPORTS: Final = 2
"""Indexes that are read at once: each is a thread that writes to the store."""
_TOLD: Final = 1024
"""Parts of which it is remembered that it was logged why they are not lazy."""
_LOG: Final = logging.getLogger("cafs.distribution")


class Indexing:
    """Finds the tree of a part, or has it told by who vouches for it.

    Args:
        store: where trees are.
        fetcher: fetches tables of contents.
        limits: on what an archive may hold.
        indexes: has the indexes that a lock names; None where there is no lock.

    Concurrency: any number of tasks; those that need the same tree share one making of it.
    """

    def __init__(
        self, store: Store, fetcher: Fetcher, limits: Limits, indexes: IndexSource | None = None
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._limits = limits
        self._indexes = indexes
        self._tables = Tables(store, fetcher, limits)
        self._making: Flights[TreeRecord | None] = Flights()
        self._threads = trio.CapacityLimiter(_IMPORTS)
        self._told: LRUCache[StreamKey, None] = LRUCache(_TOLD)

    async def tree(
        self, part: Part, raw: Content, making: Making, patience: Patience, *, name: str
    ) -> TreeRecord | None:
        """The tree that ``making`` makes of a part; None where a pass must be made.

        Args:
            part: says who vouches for what.
            raw: the part's bytes.
            making: what a pass would make.
            patience: bounds the time in which nothing comes of what must be fetched.
            name: what errors call the part.

        Raises:
            DigestMismatchError: a table of contents is another than was promised.
            CafsError: as ``Content.ensure``, of what must be fetched; the store cannot be written.

        Cancellation: nothing is published; one of those who wait for the same goes on.
        """
        subject = Subject(raw, making, name)
        found = complete_tree(self._store, making.identity(raw.key))
        if found is None:
            found = await self.vouched(part, raw, making, patience, name=name)
        contents = part.contents
        if found is None and contents is not None and not self._refuted(raw, contents.digest):
            found = await self._tabled(subject, contents, patience)
        if found is None or any(stream.rules == "tar" for stream in found.streams):
            self._tell(part, raw, found, name)
        return found

    async def vouched(
        self, part: Part, raw: Content, making: Making, patience: Patience, *, name: str
    ) -> TreeRecord | None:
        """The tree that the index says which a lock names; None where there is none to be had.

        The arguments are those of ``tree``. That an index is wrong, or nowhere, stops nobody: it is
        logged, and the bytes themselves say what they are.

        Raises:
            CafsError: the store cannot be written.

        Cancellation: as ``tree``.
        """
        index = part.index
        if index is None or self._refuted(raw, index):
            return None
        return await self._indexed(Subject(raw, making, name), part, index, patience)

    def _refuted(self, raw: Content, digest: Digest) -> bool:
        """Whether what an index, or a table of contents, says was found to be wrong here."""
        exposure = self._fetcher.exposures.find(indexed_stream(raw.key, digest))
        return exposure is not None and bool(exposure.wrong)

    def _tell(self, part: Part, raw: Content, whole: TreeRecord | None, name: str) -> None:
        """Log why all of a part must come before any of it can be read, once.

        ``whole`` is the tree of what can be decoded in one piece only.
        """
        facts = facts_of(part, raw, self._fetcher.ranges(raw))
        why = reason(facts if whole is None else facts_with(facts, whole, 1))
        if why and raw.key not in self._told:
            self._told[raw.key] = None
            _LOG.info("lazy.no: %s: %s", name, why)

    async def _indexed(
        self, subject: Subject, part: Part, index: Digest, patience: Patience
    ) -> TreeRecord | None:
        if part.digest is None or not part.digest.canonical:
            _LOG.warning("lazy.no: %s: an index is of no use without its sha256", subject.name)
            return None
        identity = indexed_tree(subject.making.identity(subject.raw.key), index)
        bring = partial(self._import, identity, subject, part.digest, index, patience)
        return self._known(identity) or await self._making.run(identity, bring)

    async def _tabled(
        self, subject: Subject, contents: Contents, patience: Patience
    ) -> TreeRecord | None:
        identity = indexed_tree(subject.making.identity(subject.raw.key), contents.digest)
        make = partial(self._tables.tree, identity, contents, subject, patience)
        return self._known(identity) or await self._making.run(identity, make)

    def _known(self, identity: TreeIdentity) -> TreeRecord | None:
        return self._store.trees.find(identity)

    async def _import(
        self,
        identity: TreeIdentity,
        subject: Subject,
        digest: Digest,
        index: Digest,
        patience: Patience,
    ) -> TreeRecord | None:
        known = self._known(identity)
        if known is not None:
            return known
        for again in (True, False):
            file = None if self._indexes is None else await self._indexes.get(index, patience)
            if file is None or self._indexes is None:
                _LOG.warning("lazy.no: %s: nobody has its index %s", subject.name, index)
                return None
            read = partial(
                import_index,
                self._store.trees,
                identity,
                file,
                raw=subject.raw.key,
                expected=index,
                digest=digest,
                size=subject.raw.size,
                mark=subject.making.mark,
                limits=self._limits,
                beat=trio.from_thread.check_cancelled,
            )
            try:
                return await trio.to_thread.run_sync(read, limiter=self._threads)
            except StorageFullError:
                raise
            except (ContentError, UnsupportedError, StorageError) as error:
                # It was right when it was handed to us. Somebody may have replaced or removed it
                # since; then it may be had from elsewhere.
                moved = isinstance(error, DigestMismatchError | StorageError)
                if not (again and moved):
                    _LOG.warning("lazy.no: %s: %s", subject.name, error.line)
                    self._indexes.wrong(index, error)
                    return None
        return None
