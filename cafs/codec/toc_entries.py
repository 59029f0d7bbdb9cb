"""The entries of a table of contents: JSON as eStargz and zstd:chunked share it, one by one.

Both grew out of one format, and say the same things by the same names. A table of a million entries
is some 350 MB of JSON, so it is never decoded as a whole, but some hundred entries at a time: up to
what looks like the end of one. Whether it is one is seen from what comes before it, which is JSON
then; else it lies in a text, and the text of one entry after another is cut out, and decoded alone.

Source: estargz/types.go (TOCEntry) of containerd's stargz-snapshotter;
pkg/chunked/internal/compression.go (FileMetadata) of containers/storage.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec

from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits

Read = Callable[[int], bytes]
"""Returns the next bytes, at most as many as asked for, none only at the end."""

VERSION: Final = 1
ENTRY_BYTES: Final = 1024
"""Bytes of JSON for each member that the limits allow; real entries have some 300."""
_PIECE: Final = 1 << 20
_HEAD_BYTES: Final = 64 << 10
"""Bytes of what stands before the entries, and behind them, at most."""
_SOME: Final = 64 << 10
"""Bytes of entries that are decoded together, at most."""
_LOOKS: Final = 64
"""Braces that are looked at, backwards, for one that ends an entry."""

_DEEP: Final = 2
"""Objects inside objects of an entry, at most; attributes are one."""

_SPACE: Final = rb"[ \t\n\r]*+"
_TEXT: Final = rb'"(?>(?:[^"\\]++|\\.)*)"'


def _object(deep: int) -> bytes:
    """A pattern: an object with objects in it, so deep.

    Nothing is tried twice, whatever the text is. Groups are atomic, not possessive: Python before
    3.11.5 gets possessive groups wrong that have a choice in them.
    """
    inner = b"|" + _object(deep - 1) if deep else b""
    return rb'\{(?>(?:[^{}"]++|%b%b)*)\}' % (_TEXT, inner)


_OBJECT: Final = _object(_DEEP)
_FIRST: Final = re.compile(rb"%b(?:(\])|(?=[^ \t\n\r\]]))" % _SPACE)
"""What stands before the first entry, or the end where there is none."""
_ENTRY: Final = re.compile(rb"%b(%b)%b([,\]])" % (_SPACE, _OBJECT, _SPACE), re.DOTALL)
"""An entry and what follows it."""
_ENTRIES: Final = re.compile(rb"(?>(?:%b%b%b,)*)\Z" % (_SPACE, _OBJECT, _SPACE), re.DOTALL)
_BETWEEN: Final = re.compile(rb"\}%b(,)%b(?=\{)" % (_SPACE, _SPACE))
"""What stands between two entries, and nowhere else but in texts, and in what no entry has."""
_HEAD: Final = re.compile(
    rb'\s*+\{\s*+(?>(?:(?!"entries")%b\s*+:\s*+(?:%b|[-+.\w]++)\s*+,\s*+)*)'
    rb'"entries"\s*+:\s*+(null|\[)' % (_TEXT, _TEXT),
    re.DOTALL,
)

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Small = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]


class TocEntry(msgspec.Struct, rename="camel", gc=False):
    """One entry, as it is spelled; what is not said is empty, or 0.

    ``offset`` is where the chunk begins in the layer, ``end_offset`` where the file's last one ends
    (zstd:chunked). ``inner_offset`` are bytes that the member decodes to before the chunk
    (eStargz).
    """

    name: str
    type: str
    size: Count = 0
    modtime: str = ""
    link_name: str = ""
    mode: Count = 0
    uid: int = 0
    gid: int = 0
    xattrs: dict[str, str] | None = None
    digest: str = ""
    dev_major: Small = 0
    dev_minor: Small = 0
    offset: Count = 0
    inner_offset: Count = 0
    end_offset: Count = 0
    chunk_offset: Count = 0
    chunk_size: Count = 0
    chunk_digest: str = ""
    chunk_type: str = ""


class _Around(msgspec.Struct):
    """What stands around the entries."""

    version: int
    entries: list[Any] | None = None


_DECODER: Final = msgspec.json.Decoder(tuple[TocEntry])
"""Of one in a list, so that as much may stand inside one as where several are decoded."""
_SOME_DECODER: Final = msgspec.json.Decoder(list[TocEntry])
_WRONG: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def toc_entries(read: Read, *, name: str, limits: Limits) -> Iterator[TocEntry]:
    """The entries of a table, in their order; all of it is read.

    Memory: some MiB, and what one entry takes.

    Args:
        read: the JSON. Its errors pass through unchanged.
        name: what errors call the table.
        limits: ``header_bytes`` bounds an entry, ``members`` their number, chunks not counted.

    Raises:
        MalformedError: it is no such JSON, or more than the limits allow.
        UnsupportedError: it is of another version.
    """
    text = _Text(read, name, limits.members * ENTRY_BYTES)
    head = text.match(_HEAD, _HEAD_BYTES)
    if head[1] == b"[" and text.match(_FIRST, limits.header_bytes)[1] is None:
        yield from _entries(text, limits)
    tail = text.rest(_HEAD_BYTES)
    try:
        around = msgspec.json.decode(head[0][: -len(head[1])] + b"[]" + tail, type=_Around)
    except _WRONG as error:
        raise MalformedError(f"{name}: no table of contents: {error}") from error
    if around.version != VERSION or around.entries:
        raise UnsupportedError(
            f"{name}: a table of contents of version {around.version}; this cafs knows {VERSION}"
        )


def _entries(text: "_Text", limits: Limits) -> Iterator[TocEntry]:
    follows = b","
    while follows == b",":
        yield from text.some(min(_SOME, limits.header_bytes))
        entry, follows = text.one(limits.header_bytes)
        yield entry


class _Text:
    """Text that is read on as far as a pattern needs it.

    Concurrency: one caller at a time.
    """

    def __init__(self, read: Read, name: str, most: int) -> None:
        self._read = read
        self._name = name
        self._left = most
        self._text = b""
        self._at = 0
        self._odd = 0

    def some(self, most: int) -> list[TocEntry]:
        """Entries that come next, in no more than ``most`` bytes; never the very last.

        They are such as ``one`` would return one by one. Empty where it is not easily told where
        one ends, nor for as many bytes behind that: what is looked at in vain is so once.
        """
        start = self._at
        stop = min(len(self._text), start + most)
        if self._odd > 0 or start == stop:
            return []
        end = self._end(start, stop)
        if end is not None:
            try:
                found = _SOME_DECODER.decode(b"[%b]" % self._text[start : end.start() + 1])
            except _WRONG:
                found = []
            if found and self._are_flat(found, start, end.end(1)):
                self._at = end.end(1)
                return found
        self._odd = stop - start
        return []

    def _end(self, start: int, stop: int) -> re.Match[bytes] | None:
        """The last place in a part of the text that looks like one between two entries."""
        until = stop
        for _ in range(_LOOKS):
            stop = self._text.rfind(b"}", start, stop)
            if stop < 0:
                return None
            found = _BETWEEN.match(self._text, stop, until)
            if found is not None:
                return found
        return None

    def _are_flat(self, found: list[TocEntry], start: int, stop: int) -> bool:
        """Whether entries have objects in them no deeper than they may; seldom is that searched."""
        known = len(found) + sum(entry.xattrs is not None for entry in found)
        if self._text.count(b"{", start, stop) - known <= _DEEP:
            return True
        return _ENTRIES.match(self._text, start, stop) is not None

    def one(self, most: int) -> tuple[TocEntry, bytes]:
        """The entry that comes next, and what follows it: a comma, or a bracket.

        Raises:
            MalformedError: it is none, or one of more than ``most`` bytes.
        """
        match = self.match(_ENTRY, most)
        try:
            (entry,) = _DECODER.decode(b"[%b]" % match[1])
        except _WRONG as error:
            raise MalformedError(f"{self._name}: an entry cannot be read: {error}") from error
        return entry, match[2]

    def match(self, pattern: re.Pattern[bytes], most: int) -> re.Match[bytes]:
        """What comes next, if it is of that form and no longer than ``most`` bytes.

        Raises:
            MalformedError: it is not.
        """
        while (match := pattern.match(self._text, self._at)) is None:
            if len(self._text) - self._at > most or not self._more():
                raise MalformedError(f"{self._name}: no table of contents, or one that is cut off")
        if match.end() - self._at > most:
            raise MalformedError(f"{self._name}: an entry of more than {most} bytes")
        self._odd -= match.end() - self._at
        self._at = match.end()
        return match

    def rest(self, most: int) -> bytes:
        """All that follows.

        Raises:
            MalformedError: it is longer than ``most`` bytes.
        """
        while len(self._text) - self._at <= most:
            if not self._more():
                return self._text[self._at :]
        raise MalformedError(f"{self._name}: more than {most} bytes behind the entries")

    def _more(self) -> bool:
        data = self._read(_PIECE)
        self._left -= len(data)
        if self._left < 0:
            raise MalformedError(f"{self._name}: a table of contents without end")
        self._text, self._at = self._text[self._at :] + data, 0
        return bool(data)
