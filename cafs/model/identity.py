"""Identities of streams and trees: texts that say what the bytes are, hashed to fixed keys.

A raw stream is named by its digest, or by URL, validator and size where there is no pin. A decoded
stream belongs to its raw stream *and* to the rules that decoded it, because other rules can give
other bytes. A tree belongs to what it was built from, and how.
"""

import hashlib
from collections.abc import Sequence
from typing import NewType

from cafs.model.digest import Digest
from cafs.model.resolved import Part

StreamKey = NewType("StreamKey", str)
"""64 hex digits: the sha256 of a stream's identity."""

TreeIdentity = NewType("TreeIdentity", str)
"""64 hex digits: the sha256 of a tree's identity."""

INDEX_VERSION = 1
"""Version of the rules by which archives become streams and trees. Raise it when they change."""


def _hashed(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def raw_stream(digest: Digest) -> StreamKey:
    """The stream of a blob's own bytes."""
    return StreamKey(_hashed("raw", str(digest)))


def located_stream(part: Part) -> StreamKey:
    """The stream of a part: by its pin, else by where it was found and in which version.

    Without a validator every answer of the source is a version of its own. Two servers may call two
    things by one version: so the one that was asked counts, where it is another than the URL's.
    """
    if part.digest is not None:
        return raw_stream(part.digest)
    version = part.validator.text or str(part.located_ns)
    at = (part.at,) if part.at else ()
    return StreamKey(_hashed("located", part.urls[0], version, str(part.size), *at))


def decoded_stream(raw: StreamKey, rules: str) -> StreamKey:
    """What ``rules`` ("gzip", "zip", …) make of a raw stream."""
    return StreamKey(_hashed("decoded", raw, rules, str(INDEX_VERSION)))


def unchecked_stream(raw: StreamKey, file: bytes, generation: int) -> StreamKey:
    """What a raw stream goes by in what is made of it before it was checked.

    It is bound to one incarnation of the stream: other bytes of the same name are another.
    """
    return StreamKey(_hashed("unchecked", raw, file.hex(), str(generation)))


def archive_tree(raw: StreamKey) -> TreeIdentity:
    """The tree of one archive."""
    return TreeIdentity(_hashed("archive", raw, str(INDEX_VERSION)))


def derived_tree(sources: tuple[TreeIdentity, ...], rules: str) -> TreeIdentity:
    """The tree that ``rules`` ("layers", "strip=1", …) make of other trees, in order."""
    return TreeIdentity(_hashed("derived", *sources, rules, str(INDEX_VERSION)))


def file_tree(raw: StreamKey) -> TreeIdentity:
    """The tree of a file that is shown as it is: it has a root only, and the file's segments."""
    return TreeIdentity(_hashed("file", raw, str(INDEX_VERSION)))


def indexed_tree(made: TreeIdentity, index: Digest) -> TreeIdentity:
    """The tree that an index says is ``made``, of an archive, a file, or of a layer's record.

    Whoever made the index may have lied: so it is never the tree itself.
    """
    return TreeIdentity(_hashed("indexed", made, str(index)))


def indexed_stream(raw: StreamKey, index: Digest) -> StreamKey:
    """What an index, or a table of contents, says that a raw stream decodes to."""
    return StreamKey(_hashed("indexed", raw, str(index), str(INDEX_VERSION)))


def layer_record(raw: StreamKey) -> TreeIdentity:
    """The record of an image layer with those raw bytes: its members, applied to nothing yet."""
    return derived_tree((archive_tree(raw),), "members")


def image_tree(layers: Sequence[StreamKey]) -> TreeIdentity:
    """The tree of an image, by the raw streams of its layers, lowest first."""
    return merged_tree([layer_record(key) for key in layers])


def merged_tree(records: Sequence[TreeIdentity]) -> TreeIdentity:
    """The tree of an image, by the records of its layers, lowest first."""
    return derived_tree(tuple(records), "layers")
