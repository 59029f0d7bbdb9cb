"""Records of trees, attachments and mounts: what the store keeps, as values."""

from dataclasses import dataclass

import msgspec

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, TreeIdentity


class Segment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a decoded stream that can be decoded and checked alone.

    ``start`` and ``length`` are in the decoded stream; ``input_start`` and ``input_length`` in the
    raw one. (zip: the local header lies at ``input_start``; it must be read to know where behind it
    the ``input_length`` bytes of compressed content begin.) ``codec`` is the method ("store",
    "deflate", …), ``crc32`` the archive's own checksum, None where it has none.

    ``sha256`` is the raw digest of the decoded bytes, empty where nobody says. ``state`` is what a
    codec must know to begin in the middle, as ``codec/points.py`` has it. ``skip`` bytes of what
    the input decodes to come before ``start``, and are no part of it.
    """

    start: int
    length: int
    input_start: int
    input_length: int
    codec: str
    crc32: int | None = None
    sha256: bytes = b""
    state: int = 0
    skip: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeStream:
    """One stream that a tree's entries lie in.

    ``key`` names the stream, ``size`` is bytes, ``raw`` names what it is decoded from (the same
    key for content that lies in the raw bytes as it is), ``part`` is the number of that part in the
    ref. ``rules`` is empty for raw content; "tar" for one that a pass has written whole; "zip"
    for the members of a zip; "segments" for one with segments that are decoded on demand, be it
    that a pass has written it.

    ``planted`` names the tree whose stream 0 has these segments; empty for the tree itself.
    ``vouched`` says that whoever named the index, or the table of contents, answers for them:
    nobody here has checked the raw content as a whole.
    """

    key: StreamKey
    size: int
    raw: StreamKey
    part: int
    rules: str
    planted: str = ""
    vouched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRecord:
    """A published tree: its number, how many entries it has (the root included), its streams.

    ``digest`` is that of the raw blob, when the pass saw it whole.
    """

    number: int
    identity: TreeIdentity
    count: int
    streams: tuple[TreeStream, ...]
    digest: Digest | None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is attached in a mount: the inode numbers ``[first, first + count)``.

    ``path`` is the path below the mount, without a leading slash, "" being its root. ``tree`` is
    the tree's number, and ``root`` the entry that ``path`` shows; None for a node of the namespace
    itself. ``content`` is a snapshot's bytes, None for everything else.
    """

    first: int
    count: int
    path: str
    tree: int | None = None
    root: int = 0
    content: bytes | None = None
