"""cafs.lock: exactly which bytes the refs of a cafs.toml mean. The values, and how they are read.

One table a ref, ``[ref.NAME]``; what depends on a platform has one for each of them,
``[ref.NAME.platform."linux/amd64"]``. Nothing in it leads anywhere: sources are those that
cafs.toml names, and ``urls`` say only which of them served the bytes. Writing is in
``lock_writing``, what of it holds for which ref in ``heeding``. Format: docs/formats.md.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import CafsError, SettingsError
from cafs.model.digest import Digest
from cafs.model.limits import INDEX_LIMIT, Limits
from cafs.model.resolved import Contents
from cafs.settings import units
from cafs.settings.document import Table, tables
from cafs.settings.schema import REF_NAME, Origin, Voice

VERSION: Final = 1
MOST: Final = 16 << 20
"""Bytes of a lock file at most: an image of 4096 layers takes some 2 MiB."""
LARGE: Final = 4 << 20
"""Bytes of an index that lies beside the lock, at most: larger ones do not belong among sources."""
_LAYERS: Final = 4096
_LARGEST: Final = Limits().size
"""Bytes of a blob at most."""
_TOP: Final = ("version", "ref")
_PART: Final = ("digest", "size", "media-type", "index", "index-size", "contents", "urls")
_ENTRY: Final = ("ref", "query", "integrity", "named", *_PART, "layer")
_CONTENTS: Final = ("kind", "digest", "start", "length", "size")
_QUERY: Final = re.compile(r"[0-9a-f]{16}")
_FILES: Final = ("cimd:blob:", "blob+", "cimd:digest:")
"""How the refs begin that are one file, and no tree."""
_MADE: Final = "restore it, or remove it and run cafs lock"


class LockedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One blob: its sha256, bytes, and what its source called it.

    ``index`` is the digest of its index and ``index_size`` that one's bytes, None where it has
    none. ``contents`` is the table of contents that an image's manifest names. ``urls`` served it;
    they hold no secrets.
    """

    digest: Digest
    size: int
    media_type: str
    index: Digest | None = None
    index_size: int | None = None
    contents: Contents | None = None
    urls: tuple[str, ...] = ()


class LockEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a ref means, on one platform where that matters; else ``platform`` is empty.

    ``ref``, ``query`` and ``integrity`` are what the settings said of it, as texts. ``named`` is
    the digest of what an image's name means: its index, where it has one. ``digest``, ``size`` and
    ``media_type`` are those of the blob, or of the image's manifest, ``parts`` the blob itself, or
    the layers, lowest first.
    """

    name: str
    platform: str = ""
    ref: str
    query: str = ""
    integrity: str = ""
    named: Digest | None = None
    digest: Digest
    size: int
    media_type: str
    parts: tuple[LockedPart, ...]

    @property
    def indexes(self) -> dict[Digest, int]:
        """The indexes that it names, with their bytes."""
        return {part.index: part.index_size or 0 for part in self.parts if part.index is not None}

    @property
    def is_file(self) -> bool:
        """Whether it is one file, and no tree."""
        return self.ref.startswith(_FILES)

    @property
    def key(self) -> str:
        """The dotted key of its table."""
        where = f'.platform."{self.platform}"' if self.platform else ""
        return f"ref.{self.name}{where}"


class Lock(msgspec.Struct, frozen=True):
    """The entries of a lock, sorted by name and platform, which together are unique."""

    entries: tuple[LockEntry, ...] = ()

    def of(self, name: str) -> tuple[LockEntry, ...]:
        """The entries of a ref."""
        return tuple(each for each in self.entries if each.name == name)

    def indexes(self) -> dict[Digest, int]:
        """The indexes that it names, with their bytes."""
        return {index: size for each in self.entries for index, size in each.indexes.items()}


def lock_file(project_file: Path) -> Path:
    """Where the lock of a project file is: cafs.lock beside cafs.toml."""
    return project_file.with_suffix(".lock")


def index_directory(file: Path) -> Path:
    """Where the index files of a lock are: cafs.lock.d beside it."""
    return file.with_name(f"{file.name}.d")


def index_file(file: Path, digest: Digest) -> Path:
    """Where an index of a lock is, unless it is too large."""
    return index_directory(file) / f"{digest.hex}.idx"


def read_lock(file: Path) -> Lock | None:
    """Read a lock file. None when it does not exist.

    Raises:
        SettingsError: it cannot be read, or is not what ``cafs lock`` writes; it names file and
            key.
    """
    if file.exists() and not file.is_file():  # a FIFO would be waited for
        raise SettingsError(str(file), "", "is no file", hint=_MADE)
    values = tables(file, most=MOST, hint=_MADE)
    if values is None:
        return None
    top = Table(values, origin=Origin(str(file), Voice.PROJECT), directory=file.parent)
    if (version := top.value("version")) != VERSION:
        what = "is missing" if version is None else f"{version!r} is not known"
        newer = f"this cafs knows version {VERSION}; a newer one may have written it"
        raise top.wrong("version", what, hint=_MADE if version is None else newer)
    try:
        _known(top, _TOP)
        refs = top.below("ref")
        entries = [entry for name in refs for entry in _entries(name, refs)]
    except SettingsError as error:
        # Nobody has written it by hand: which word was meant, or how one is written, helps nobody.
        error.hint = _MADE
        raise
    return Lock(tuple(sorted(entries, key=lambda each: (each.name, each.platform))))


def _entries(name: str, refs: Table) -> list[LockEntry]:
    if not REF_NAME.fullmatch(name):
        raise refs.wrong(name, f"{name!r} is no name for a ref")
    table = refs.below(name)
    if not table.has("platform"):
        return [_entry(name, "", table)]
    _known(table, ("platform",))
    platforms = table.below("platform")
    return [_entry(name, _platform(platforms, each), platforms.below(each)) for each in platforms]


def _platform(platforms: Table, text: str) -> str:
    try:
        return str(units.platform(text))
    except ValueError as error:
        raise platforms.wrong(text, str(error)) from error


def _entry(name: str, platform: str, table: Table) -> LockEntry:
    _known(table, _ENTRY)
    query = table.text("query") or ""
    if query and not _QUERY.fullmatch(query):
        raise table.wrong("query", f"{query!r} is no 16 hex digits")
    layered = table.has("layer")
    if layered != table.has("named"):
        raise table.wrong("layer", "an image has it, and named; others have neither")
    for word in ("index", "index-size", "contents", "urls") if layered else ():
        if table.has(word):
            raise table.wrong(word, "belongs to a layer")
    whole = _part(table)
    return LockEntry(
        name=name,
        platform=platform,
        ref=_needed(table, "ref"),
        query=query,
        integrity=_integrity(table),
        named=_digest(table, "named") if table.has("named") else None,
        digest=whole.digest,
        size=whole.size,
        media_type=whole.media_type,
        parts=_layers(table) if layered else (whole,),
    )


def _layers(table: Table) -> tuple[LockedPart, ...]:
    values = table.value("layer")
    if not isinstance(values, list) or len(values) > _LAYERS:
        raise table.wrong("layer", f"must be at most {_LAYERS} tables")
    layers = []
    for number, each in enumerate(values):
        name = table.key(f"layer[{number}]")
        if not isinstance(each, dict):
            raise SettingsError(table.origin.name, name, "must be a table")
        layer = Table(each, origin=table.origin, directory=table.directory, name=name)
        _known(layer, _PART)
        layers.append(_part(layer))
    return tuple(layers)


def _part(table: Table) -> LockedPart:
    digest = _digest(table, "digest")
    size = table.count("size", most=_LARGEST)
    if size is None:
        raise table.wrong("size", "is missing")
    if (size == 0) != digest.of_nothing:
        raise table.wrong("size", f"{size} is not how many bytes have the digest {digest}")
    if table.has("index") != table.has("index-size"):
        raise table.wrong("index-size", "stands with index, and never alone")
    return LockedPart(
        digest=digest,
        size=size,
        media_type=_needed(table, "media-type"),
        index=_digest(table, "index") if table.has("index") else None,
        index_size=table.count("index-size", most=INDEX_LIMIT),
        contents=_contents(table) if table.has("contents") else None,
        urls=table.texts("urls"),
    )


def _contents(table: Table) -> Contents:
    inner = table.below("contents")
    _known(inner, _CONTENTS)
    start, length, size = (inner.count(word) or 0 for word in ("start", "length", "size"))
    digest = _digest(inner, "digest")
    return Contents(
        kind=_needed(inner, "kind"), digest=digest, start=start, length=length, size=size
    )


def _needed(table: Table, key: str) -> str:
    text = table.text(key)
    if not text:
        raise table.wrong(key, "is missing")
    return text


def _digest(table: Table, key: str) -> Digest:
    """A canonical digest: blobs are named by no other."""
    text = _needed(table, key)
    try:
        digest = Digest.parse(text)
    except CafsError as error:
        raise table.wrong(key, error.what) from error
    if not digest.canonical:
        raise table.wrong(key, f"{text} is no sha256")
    return digest


def _integrity(table: Table) -> str:
    """What the settings say: of any algorithm."""
    if not table.has("integrity"):
        return ""
    text = _needed(table, "integrity")
    try:
        return str(Digest.parse(text))
    except CafsError as error:
        raise table.wrong("integrity", error.what) from error


def _known(table: Table, words: Sequence[str]) -> None:
    for word in table:
        if word not in words:
            raise table.wrong(word, "unknown key")
