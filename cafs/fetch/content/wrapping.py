"""Content around other content: it is that, but for what is done before and after a read."""

from collections.abc import Callable

from typing_extensions import override

from cafs.fetch.interfaces import Content
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span


class WrappedContent(Content):
    """Says of itself what the content in it says.

    Concurrency: as ``Content``.
    """

    def __init__(self, decoded: Content) -> None:
        self._decoded = decoded

    @property
    @override
    def name(self) -> str:
        return self._decoded.name

    @property
    @override
    def size(self) -> int:
        return self._decoded.size

    @property
    @override
    def key(self) -> StreamKey:
        return self._decoded.key

    @override
    def present(self) -> int:
        return self._decoded.present()

    @override
    def lies(self, file: Callable[[], Span]) -> None:
        self._decoded.lies(file)

    @override
    def digest(self) -> Digest | None:
        return self._decoded.digest()
