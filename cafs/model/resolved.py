"""What a ref means: the parts to fetch, and how they make a file or a tree."""

import enum
from dataclasses import dataclass

import msgspec

from cafs.model.digest import Digest
from cafs.model.validator import UNKNOWN_VERSION, Validator


class Shape(enum.StrEnum):
    """How a ref appears in the mount."""

    FILE = "file"
    TREE = "tree"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """Where a layer has a table of contents, and what it must be; from its manifest.

    ``kind`` is "estargz" or "zstd:chunked". ``digest`` is that of the table: of eStargz decoded, of
    zstd:chunked as it lies there. ``start`` and ``length`` are where it lies in the raw bytes, and
    ``size`` what it decodes to; zeros where the end of the raw bytes tells (eStargz).
    """

    kind: str
    digest: Digest
    start: int = 0
    length: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One blob that a ref needs, and where it can be had.

    ``digest`` is the pin, or what is known since the content was seen whole; None otherwise.
    ``size`` is bytes, None when nobody told. ``urls`` are in the order in which they are tried, and
    hold no secrets. ``validator`` is the version that was located (of the first URL); it is empty
    for content with a pin. ``ranges`` says that byte ranges can be asked for. ``located_ns`` is,
    where no validator tells versions apart, when this one was located, since the epoch; else 0.
    ``at`` is the URL that was asked for the first URL, where the settings map that to others; else
    empty. ``index`` is the digest of the index that a lock names for it, and ``index_size`` its
    bytes; ``contents`` is its table of contents, where the manifest names one.
    """

    media_type: str
    size: int | None
    digest: Digest | None
    urls: tuple[str, ...]
    validator: Validator = UNKNOWN_VERSION
    ranges: bool = True
    located_ns: int = 0
    at: str = ""
    index: Digest | None = None
    contents: Contents | None = None
    index_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The meaning of a ref at one time.

    ``ref`` is the canonical text. ``digest`` is that of the blob, or of the image's platform
    manifest. ``parts`` has one part for a blob or an archive, and the layers, lowest first, for an
    image. ``resolved_ns`` is when, since the epoch. ``named`` is the digest of what an image's name
    means: its index, where it has one; None for all else.
    """

    ref: str
    shape: Shape
    digest: Digest | None
    parts: tuple[Part, ...]
    resolved_ns: int
    named: Digest | None = None
