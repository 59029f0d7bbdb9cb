"""A table of contents that a manifest pins: read in pieces, and held against its digest."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from cafs.codec import estargz
from cafs.codec.decoding import Read, decoder
from cafs.codec.sniffing import Compression
from cafs.errors import CafsError, DigestMismatchError, MalformedError
from cafs.fetch.content.bridging import Intake
from cafs.model.digest import Digest, Hasher
from cafs.model.limits import Limits
from cafs.model.resolved import Contents
from cafs.model.span import Span

_PIECE: Final = 1 << 20


class TableMismatchError(DigestMismatchError):
    """A layer has another table of contents than its manifest says."""

    def __init__(self, name: str, span: Span, *, expected: Digest, actual: object) -> None:
        super().__init__(name, expected=expected, actual=actual)
        self.what = (
            f"{name}: the table of contents at bytes {span.start}-{span.stop - 1} is {actual}, "
            f"where the manifest says {expected}"
        )
        self.hint = "the registry serves another layer than the manifest is of"
        self.args = (self.what,)


class Wrong(Exception):  # noqa: N818 - who makes the tree hands on the error in it
    """What was read is not what it must be: it may be right when it is fetched again."""

    def __init__(self, span: Span, error: CafsError) -> None:
        super().__init__(error)
        self.span = span
        self.error = error


class PinnedTable(msgspec.Struct, frozen=True):
    """A table of contents, and how its bytes, which lie at ``span``, are had."""

    contents: Contents
    span: Span
    name: str
    limits: Limits
    pull: Callable[[int, int], Awaitable[bytes]]

    def check(self) -> None:
        """Hold all of it against its digest. In a thread.

        Raises:
            Wrong: it is another one.
        """
        raw, text = Hasher(), Hasher()
        intake = self._intake(raw)
        try:
            if self.contents.kind == estargz.KIND:
                _drain(_hashing(self._text(intake.read), text))
            intake.drain()
        except MalformedError as error:
            raise self._wrong(f"damaged ({error.what})") from error
        self._compare(raw, text)

    def use(self, use: Callable[[Read], int]) -> int:
        """Have the JSON used, hashing everything as it goes by. In a thread.

        Raises:
            Wrong: it is another than the one that was checked.
            CafsError: as ``use``.
        """
        raw, text = Hasher(), Hasher()
        intake = self._intake(raw)
        read = _hashing(self._text(intake.read), text)
        used = use(read)
        _drain(read)
        intake.drain()
        self._compare(raw, text)
        return used

    def _intake(self, hasher: Hasher | None) -> Intake:
        return Intake(self._pulled, hasher, offset=self.span.start)

    def _text(self, read: Read) -> Read:
        name = f"{self.name}: table of contents"
        if self.contents.kind == estargz.KIND:
            return estargz.TableText(read, name=name, limits=self.limits).read
        return decoder(Compression.ZSTD, read, name, self.limits).read

    async def _pulled(self, offset: int, length: int) -> bytes:
        return await self.pull(offset, min(length, self.span.stop - offset))

    def _compare(self, raw: Hasher, text: Hasher) -> None:
        found = (text if self.contents.kind == estargz.KIND else raw).digest()
        if found != self.contents.digest:
            raise self._wrong(found)

    def _wrong(self, found: object) -> Wrong:
        expected = self.contents.digest
        error = TableMismatchError(self.name, self.span, expected=expected, actual=found)
        # The footer of eStargz may have been wrong, too.
        more = estargz.FOOTER if self.contents.kind == estargz.KIND else 0
        return Wrong(Span(self.span.start, self.span.stop + more), error)


def _hashing(read: Read, hasher: Hasher) -> Read:
    def hashed(size: int) -> bytes:
        data = read(size)
        hasher.update(data)
        return data

    return hashed


def _drain(read: Read) -> None:
    while read(_PIECE):
        pass
