"""What the test origin serves: bytes, a file, or generated content of any size.

A body is read by offset, so nothing larger than one piece is ever in memory.
"""

import hashlib
from abc import abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Final, Protocol

from typing_extensions import override

_POOL: Final = 1_048_573
"""A prime just below 1 MiB: no two aligned pieces of generated content look alike below 1 TiB."""


class Body(Protocol):
    """Content by offset. Offsets and sizes are bytes.

    Concurrency: any number of threads.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in all."""

    @property
    @abstractmethod
    def tag(self) -> str:
        """Text that is another one when the content is another one; the default ETag."""

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """The bytes of ``[offset, offset + length)``; short only at the end."""


@dataclass(frozen=True, slots=True)
class Literal(Body):
    """Bytes in memory."""

    content: bytes

    @property
    @override
    def size(self) -> int:
        return len(self.content)

    @property
    @override
    def tag(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:32]

    @override
    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


@dataclass(frozen=True, slots=True)
class File(Body):
    """A file, read anew each time."""

    path: Path

    @property
    @override
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    @override
    def tag(self) -> str:
        status = self.path.stat()
        return f"{status.st_mtime_ns:x}-{status.st_size:x}"

    @override
    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


@dataclass(frozen=True, slots=True)
class Generated(Body):
    """Deterministic, incompressible content: the same size and seed give the same bytes."""

    length: int
    seed: int = 0

    @property
    @override
    def size(self) -> int:
        return self.length

    @property
    @override
    def tag(self) -> str:
        return f"generated-{self.seed:x}-{self.length:x}"

    @override
    def read(self, offset: int, length: int) -> bytes:
        pool = _pool(self.seed)
        pieces = []
        stop = min(offset + length, self.length)
        while offset < stop:
            start = offset % _POOL
            piece = pool[start : start + stop - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def sha256(self) -> str:
        """The digest of the whole, in hex."""
        whole = hashlib.sha256()
        for offset in range(0, self.length, _POOL):
            whole.update(self.read(offset, _POOL))
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Corrupted(Body):
    """Another body with one byte flipped."""

    inner: Body
    at: int

    @property
    @override
    def size(self) -> int:
        return self.inner.size

    @property
    @override
    def tag(self) -> str:
        return self.inner.tag

    @override
    def read(self, offset: int, length: int) -> bytes:
        content = self.inner.read(offset, length)
        place = self.at - offset
        if not 0 <= place < len(content):
            return content
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@dataclass(frozen=True, slots=True)
class Joined(Body):
    """Bodies laid end to end."""

    parts: tuple[Body, ...]
    stops: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Add up where each part ends."""
        object.__setattr__(self, "stops", tuple(accumulate(part.size for part in self.parts)))

    @property
    @override
    def size(self) -> int:
        return self.stops[-1] if self.stops else 0

    @property
    @override
    def tag(self) -> str:
        return hashlib.sha256(" ".join(part.tag for part in self.parts).encode()).hexdigest()[:32]

    @override
    def read(self, offset: int, length: int) -> bytes:
        pieces = []
        stop = min(offset + length, self.size)
        place = bisect_right(self.stops, offset)
        while offset < stop:
            part = self.parts[place]
            start = self.stops[place] - part.size
            piece = part.read(offset - start, min(stop, self.stops[place]) - offset)
            pieces.append(piece)
            offset += len(piece)
            place += 1
        return b"".join(pieces)


@lru_cache(maxsize=8)
def _pool(seed: int) -> bytes:
    return hashlib.shake_128(f"cafs {seed}".encode()).digest(_POOL)


def body_of(content: "bytes | Path | Body") -> Body:
    """The body for bytes or a path; a body stays itself."""
    match content:
        case bytes():
            return Literal(content)
        case Path():
            return File(content)
        case _:
            return content
