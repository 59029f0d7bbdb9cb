"""Descriptors: all that is needed to fetch content and to check it."""

from dataclasses import dataclass
from typing import Final

from cafs.errors import InvalidReferenceError
from cafs.model.digest import Digest

OCTETS: Final = "application/octet-stream"
"""The media type of a blob of which nothing else is known (B-18)."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of a blob; size is bytes.

    Source: OCI image-spec, descriptor.md.
    """

    media_type: str
    digest: Digest
    size: int

    def __post_init__(self) -> None:
        """Refuse what no descriptor may be (B-1)."""
        if self.size < 0:
            raise InvalidReferenceError(f"{self.digest}: size {self.size} is negative")
        if not self.media_type:
            raise InvalidReferenceError(f"{self.digest}: empty media type")
