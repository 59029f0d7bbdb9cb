"""Files that a lock has an index of: shown by the piece, and checked by the piece.

A file with a pin is read whole before its first byte is given. Where a lock names an index of it,
as ``cafs lock`` makes for each that is not small, each slice of it has a digest of its own, for
which the lock vouches; so only what is read is fetched. All else is as with an archive: what the
index says comes to be verified once all of the file is here, or is thrown away.
"""

from cafs.distribution.indexing import Indexing
from cafs.distribution.naming import title
from cafs.distribution.promoting import Promoting, Source
from cafs.distribution.stronger import held, stronger_pins
from cafs.distribution.vouching import voucher_of
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import FILE
from cafs.model.identity import indexed_stream, indexed_tree
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.store import Store


class Files:
    """Opens what indexes say of files.

    Concurrency: any number of tasks; those that need the same index share one reading of it.
    """

    def __init__(
        self, store: Store, fetcher: Fetcher, indexing: Indexing, promoting: Promoting
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._indexing = indexing
        self._promoting = promoting

    async def held(self, spec: RefSpec, part: Part) -> Part:
        """The part by the pin that the settings give it; as ``stronger.held``."""
        return await held(self._store, spec, part)

    async def by_pieces(
        self, spec: RefSpec, part: Part, raw: Content, patience: Patience
    ) -> Content | None:
        """The file as its index has it; None where it must be read whole before it is read.

        Args:
            spec: the ref.
            part: names an index.
            raw: the file as it is, by the digest that the lock says.
            patience: bounds the time in which nothing comes of the index.

        Raises:
            DisownedError: the index was found to be wrong after this mount had read by it.
            CafsError: the store cannot be written.

        Cancellation: as ``Indexing.vouched``.
        """
        if part.index is None:
            return None
        exposure = self._fetcher.exposures.find(indexed_stream(raw.key, part.index))
        if exposure is not None:
            exposure.check()
        if raw.digest() is None:
            record = await self._indexing.vouched(part, raw, FILE, patience, name=title(spec))
        else:
            # What it says is asked for no more, but may have been believed before.
            record = self._store.trees.find(indexed_tree(FILE.identity(raw.key), part.index))
        if record is None:
            return None
        (stream,) = record.streams
        if not stream.vouched:
            return self._fetcher.decoded(record, 0, raw, FILE)
        content = self._fetcher.decoded(record, 0, raw, FILE, voucher_of(part, stream))
        source = Source(part, raw, stronger_pins(spec))
        return self._promoting.watched(record, 0, source, FILE, content)
