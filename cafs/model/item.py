"""Items: what a store can keep or let go of by itself; a blob, or a stream that is none."""

from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A blob by its canonical digest, or a stream by its key.

    ``key`` is 33 bytes: ``b"b"`` and the digest, or ``b"s"`` and the stream's key.
    """

    key: bytes

    @classmethod
    def blob(cls, digest: Digest) -> Self:
        """The blob of a canonical digest."""
        if not digest.canonical:
            raise ValueError(f"{digest} is not canonical")
        return cls(b"b" + digest.raw)

    @classmethod
    def stream(cls, key: StreamKey) -> Self:
        """The stream of a key."""
        return cls(b"s" + bytes.fromhex(key))

    @property
    def digest(self) -> Digest | None:
        """The blob's digest, None of a stream."""
        return Digest(CANONICAL, self.key[1:]) if self.key[:1] == b"b" else None

    @property
    def stream_key(self) -> StreamKey | None:
        """The stream's key, None of a blob."""
        return StreamKey(self.key[1:].hex()) if self.key[:1] == b"s" else None

    @override
    def __str__(self) -> str:
        return str(self.digest) if self.digest is not None else f"stream:{self.key[1:].hex()}"
