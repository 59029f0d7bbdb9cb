"""Merging: the layers of an image become one tree, each layer's bytes one of its streams."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from cafs.concurrency import in_order
from cafs.distribution.indexing import Indexing
from cafs.distribution.layers import LayerPlanter
from cafs.distribution.recording import LAYER, replay
from cafs.distribution.trees import Trees
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.model.identity import TreeIdentity, image_tree, merged_tree
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.resolved import Part
from cafs.store.store import Store

_AT_ONCE: Final = 3
"""Layers that are fetched and recorded at once: each is several requests and a thread already."""


class Merger:
    """Builds the trees of images.

    Concurrency: any number of tasks; images that share layers share their records.
    """

    def __init__(
        self, store: Store, fetcher: Fetcher, trees: Trees, limits: Limits, indexing: Indexing
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._trees = trees
        self._limits = limits
        self._indexing = indexing

    async def merge(
        self, parts: Sequence[Part], layers: Sequence[Content], patience: Patience, *, name: str
    ) -> TreeRecord:
        """The tree of an image.

        Args:
            parts: the layers, lowest first.
            layers: the raw bytes of each.
            patience: bounds the time in which no layer gets on.
            name: what people call the image.

        Raises:
            CafsError: what the first layer that failed raised.

        Cancellation: layers that others wait for go on, and so does each for a while.
        """
        found = self._trees.find(image_tree([layer.key for layer in layers]))
        if found is not None and self._whole(found):
            return found
        records = await self._record_all(parts, layers, patience)
        identity = merged_tree([record.identity for record in records])
        build = partial(self._build, identity, records, name)
        return await self._trees.derive(identity, build)

    def _whole(self, image: TreeRecord) -> bool:
        """Whether what says how an image's streams are decoded is still in the store."""
        planted = {TreeIdentity(each.planted) for each in image.streams if each.planted}
        return all(self._store.trees.find(each) is not None for each in planted)

    async def _record_all(
        self, parts: Sequence[Part], layers: Sequence[Content], patience: Patience
    ) -> tuple[TreeRecord, ...]:
        return await in_order(
            lambda number: self._record(parts[number], layers[number], patience),
            len(layers),
            at_once=_AT_ONCE,
        )

    async def _record(self, part: Part, layer: Content, patience: Patience) -> TreeRecord:
        record = await self._indexing.tree(part, layer, LAYER, patience, name=layer.name)
        return record or await self._fetcher.plant(
            layer,
            name=layer.name,
            media_type="",
            patience=patience,
            limits=self._limits,
            making=LAYER,
        )

    def _build(
        self, identity: TreeIdentity, records: Sequence[TreeRecord], name: str
    ) -> TreeRecord:
        """Apply the layers, in a worker thread."""
        trees = self._store.trees
        with trees.writer(identity) as writer:
            planter = LayerPlanter(writer, limits=self._limits)
            for number, record in enumerate(records):
                planter.begin(number, name=f"{name}: layer {number + 1}")
                for member in replay(trees, record):
                    planter.plant(member)
            planter.finish()
            return writer.publish(_streams(records), None)


def _streams(records: Sequence[TreeRecord]) -> tuple[TreeStream, ...]:
    return tuple(
        replace(stream, part=number, planted=record.identity if stream.rules == "segments" else "")
        for number, record in enumerate(records)
        for stream in record.streams
    )
