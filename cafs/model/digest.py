"""Digests: algorithm and raw hash, text ``sha256:<hex>``.

sha256 is canonical: blobs in the store are named by it. The other algorithms are accepted as claims
and map to the canonical digest once the content has been verified. md5 and sha1 are ``weak``:
enough to notice damage, not enough to name content for others.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final, Protocol, Self

import msgspec
from typing_extensions import override

from cafs.errors import InvalidReferenceError

CANONICAL: Final = "sha256"
SIZES: Final = {"sha256": 32, "sha512": 64, "sha384": 48, "sha1": 20, "md5": 16}
"""Accepted algorithms, strongest use first, with the length of the raw hash in bytes."""
_SHORT: Final = 12
"""Hex digits that are shown of one that is shown in part."""
_LONGEST: Final = 200
"""Characters of a text that may be a digest: sha512 has 135."""
_WEAK: Final = frozenset({"sha1", "md5"})
_HEX: Final = re.compile(r"[0-9a-f]*")


class _Hash(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class Digest(msgspec.Struct, frozen=True):
    """An algorithm and a raw hash of that algorithm's length."""

    algorithm: str
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse unknown algorithms and hashes of the wrong length."""
        size = SIZES.get(self.algorithm)
        if size is None:
            raise InvalidReferenceError(
                f"unknown digest algorithm {self.algorithm!r}", hint=f"one of {', '.join(SIZES)}"
            )
        if len(self.raw) != size:
            raise InvalidReferenceError(
                f"a {self.algorithm} digest has {2 * size} hex digits, not {2 * len(self.raw)}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``<algorithm>:<lower-case hex>``.

        Raises:
            InvalidReferenceError: unknown algorithm, wrong length, or not lower-case hex.
        """
        if len(text) > _LONGEST:
            raise InvalidReferenceError(f"{text[:_LONGEST] + '…'!r}: no digest is so long")
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise InvalidReferenceError(f"{text!r} is no digest", hint="sha256:<hex>")
        if not _HEX.fullmatch(digits):
            raise InvalidReferenceError(f"{text!r}: the hash is not lower-case hex")
        if len(digits) % 2:
            raise InvalidReferenceError(f"{text!r}: the hash has {len(digits)} hex digits")
        return cls(algorithm, bytes.fromhex(digits))

    @classmethod
    def parse_integrity(cls, text: str) -> Self:
        """Parse an integrity string: ``sha256:<hex>`` or SRI ``sha512-<base64>``.

        Base64 is strict, and must be spelled canonically (Y-s10: one hash, one spelling).

        Raises:
            InvalidReferenceError: neither form.

        Source:
            W3C Subresource Integrity §3.5, without options.
        """
        if ":" in text:
            return cls.parse(text)
        algorithm, dash, encoded = text.partition("-")
        if not dash:
            raise InvalidReferenceError(
                f"{text!r} is no integrity string", hint="sha256:<hex> or sha512-<base64>"
            )
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidReferenceError(f"{text!r}: the hash is not base64") from error
        if base64.b64encode(raw).decode() != encoded:
            raise InvalidReferenceError(f"{text!r}: the base64 is not canonical")
        return cls(algorithm, raw)

    @property
    def hex(self) -> str:
        """The hash in lower-case hex."""
        return self.raw.hex()

    @property
    def short(self) -> str:
        """For people: enough to see that it is another, and to find it by."""
        return f"{self.algorithm}:{self.hex[:_SHORT]}…"

    @property
    def of_nothing(self) -> bool:
        """Whether it is what no bytes have."""
        return self == digest_of(b"", self.algorithm)

    @property
    def integrity(self) -> str:
        """The SRI form, ``sha512-<base64>``."""
        return f"{self.algorithm}-{base64.b64encode(self.raw).decode()}"

    @property
    def canonical(self) -> bool:
        """Whether blobs are named by this algorithm."""
        return self.algorithm == CANONICAL

    @property
    def weak(self) -> bool:
        """Whether collisions can be made: never an alias that others may rely on."""
        return self.algorithm in _WEAK

    @override
    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher:
    """Hashes one run of bytes with several algorithms at once; sha256 is always among them.

    Concurrency: one caller at a time. ``update`` releases the GIL for large buffers, and belongs in
    a thread for anything above a few KiB.
    """

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        names = {CANONICAL, *algorithms}
        self._hashes: dict[str, _Hash] = {
            name: hashlib.new(name, usedforsecurity=False) for name in names
        }
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""
        for each in self._hashes.values():
            each.update(data)
        self.size += len(data)

    def digest(self, algorithm: str = CANONICAL) -> Digest:
        """The digest of all bytes so far.

        Raises:
            KeyError: an algorithm that was not asked for at construction.
        """
        return Digest(algorithm, self._hashes[algorithm].digest())


def digest_of(data: bytes, algorithm: str = CANONICAL) -> Digest:
    """The digest of bytes in memory."""
    return Digest(algorithm, hashlib.new(algorithm, data, usedforsecurity=False).digest())


EMPTY: Final = digest_of(b"")
"""The digest of no bytes (B-17): the one blob that exists without ever having been written."""
