"""Makes a tree out of an index file that a lock names.

The file may lie in a checkout, or come from a server: it is hashed before anything in it is
believed, and hashed once more while it is read, since a file can be written to in between. What its
digest vouches for is checked all the same (``codec/index_reading.py``). The tree becomes visible
last, whole, and is never taken for one that a pass has made: it has no digest, and its stream says
that somebody vouches for it.
"""

from collections.abc import Callable
from io import BytesIO, FileIO
from pathlib import Path
from typing import Final

from cafs.codec.index_file import ZIP
from cafs.codec.index_reading import IndexReader
from cafs.errors import DigestMismatchError, MalformedError
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey, TreeIdentity, indexed_stream
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord, TreeStream
from cafs.store.disk.files import storage_error
from cafs.store.disk.plain_files import NoPlainFileError, open_plain
from cafs.store.trees.tree_importing import TreeImporter
from cafs.store.trees.trees import Trees

_READ: Final = 1 << 20
_ANEW: Final = "it was made of something else than what is locked: cafs lock makes it anew"
Beat = Callable[[], object]


def import_index(
    trees: Trees,
    identity: TreeIdentity,
    file: Path | bytes,
    *,
    raw: StreamKey,
    expected: Digest,
    digest: Digest,
    size: int,
    mark: str,
    limits: Limits | None = None,
    beat: Beat = lambda: None,
) -> TreeRecord:
    """Make the tree that an index says an archive, or a layer's record, is.

    Blocks: for a worker thread; no transaction takes longer than 50 ms. What is broken off leaves
    nothing.

    Args:
        trees: of the store.
        identity: what the tree is to be called; the one that was called so is replaced.
        file: the index.
        raw: the stream of the blob that it is of.
        expected: the digest that the index must have, a sha256.
        digest: the digest of the blob.
        size: its bytes.
        mark: of the ``Making`` that the tree must be of.
        limits: what the archive may ask of us.
        beat: called every few milliseconds; what it raises ends the import.

    Raises:
        DigestMismatchError: it is another file.
        MalformedError: it is no file, or no index, or of another blob or making, or says what
            cannot be.
        UnsupportedError: an index of another format version.
        StorageError: it cannot be read, or the store cannot be written.
    """
    name = f"index {expected}"
    try:
        with _opened(file, name) as source:
            length = _check(source, expected, beat, name)
            source.seek(0)
            reader = IndexReader(source.read, length, name=name, limits=limits)
            _check_subject(reader, digest, size, mark, name)
            stream = TreeStream(
                key=indexed_stream(raw, expected),
                size=reader.header.decoded,
                raw=raw,
                part=0,
                rules=ZIP if reader.header.compression == ZIP else "segments",
                vouched=True,
            )
            with trees.importer(identity, name) as writer:
                _read(reader, writer, beat)
                _compare(reader.finish(), expected, f"{name}: while it was read")
                return writer.publish((stream,), None)
    except OSError as error:
        raise storage_error(error, name) from error


def _opened(file: Path | bytes, name: str) -> BytesIO | FileIO:
    if isinstance(file, bytes):
        return BytesIO(file)
    try:
        return open_plain(file)
    except NoPlainFileError as error:
        raise MalformedError(f"{name}: {file} {error.strerror}") from error


def _check(source: BytesIO | FileIO, expected: Digest, beat: Beat, name: str) -> int:
    """The bytes of a file that has the digest."""
    hasher = Hasher()
    while data := source.read(_READ):
        hasher.update(data)
        beat()
    _compare(hasher.digest(), expected, name)
    return hasher.size


def _compare(actual: Digest, expected: Digest, name: str) -> None:
    if actual != expected:
        raise DigestMismatchError(name, expected=str(expected), actual=str(actual))


def _check_subject(reader: IndexReader, digest: Digest, size: int, mark: str, name: str) -> None:
    header = reader.header
    if (header.blob, header.size) != (digest, size):
        raise MalformedError(
            f"{name}: it is of {header.blob} ({header.size} bytes), not of {digest} ({size} bytes)",
            hint=_ANEW,
        )
    if header.mark != mark:
        said, wanted = header.mark or "an archive", mark or "an archive"
        raise MalformedError(f"{name}: it is of {said!r}, not of {wanted!r}", hint=_ANEW)


def _read(reader: IndexReader, writer: TreeImporter, beat: Beat) -> None:
    for page in reader.entries():
        writer.add_page(page)
        beat()
    for segments in reader.segments():
        for segment, window in segments:
            writer.add_segment(0, segment, window)
        beat()
