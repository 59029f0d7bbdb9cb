"""Content of a stream that a first pass has written whole: the tar inside a tar.gz."""

from collections.abc import Awaitable, Callable

from typing_extensions import override

from cafs.errors import SourceChangedError
from cafs.fetch.content.reading import read_or_make
from cafs.fetch.interfaces import Content, Patience
from cafs.metrics import Metrics
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.record import TreeStream
from cafs.model.span import Span
from cafs.model.trust import Need
from cafs.store.streams.stream import Stream
from cafs.store.streams.streams import Streams


class PlantedContent(Content):
    """Reads the decoded stream; where it has been removed from the store, the pass runs again.

    ``need`` is what must stand behind the stream: a pass writes it before the raw content has
    passed its gate, and one that runs again may decode other bytes than the first.

    Concurrency: as ``Content``.
    """

    def __init__(
        self,
        streams: Streams,
        what: TreeStream,
        name: str,
        plant: Callable[[Patience], Awaitable[object]],
        metrics: Metrics,
        *,
        need: Need,
    ) -> None:
        self._streams = streams
        self._what = what
        self._name = name
        self._plant = plant
        self._metrics = metrics
        self._need = need
        self._stream = streams.find(what.key)

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def size(self) -> int:
        return self._what.size

    @property
    @override
    def key(self) -> StreamKey:
        return self._what.key

    @override
    def present(self) -> int:
        stream = self._streams.find(self.key)
        return 0 if stream is None else stream.present().total

    @override
    def digest(self) -> Digest | None:
        """None: what is known is the digest of the compressed bytes."""
        return None

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        self._stream = self._streams.find(self.key)
        wanted = span.clamp(self.size)
        if self._stream is None or not self._ready(self._stream, wanted):
            await self._plant(patience)
            self._stream = self._streams.find(self.key)
            if self._stream is not None and not self._need.met(self._stream.behind()):
                raise SourceChangedError(
                    f"{self.name}: it has other content at its source now", hint="mount anew"
                )

    def _ready(self, stream: Stream, wanted: Span) -> bool:
        return self._need.met(stream.behind()) and stream.present(wanted).covers(wanted)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        return await read_or_make(
            self,
            self._local,
            offset,
            length,
            patience,
            streams=self._streams,
            metrics=self._metrics,
        )

    async def _local(self, span: Span) -> bytes | None:
        if self._stream is None:
            return None
        return await self._stream.read(span.start, span.length, self._need)
