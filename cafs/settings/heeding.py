"""What of a lock holds for which ref: an entry counts for the settings that it was made for.

An entry that was made for something else is left alone, and said so: the ref is asked for as if it
were not locked. One that was made for these settings and contradicts them is an error: somebody has
changed it by hand. Whom to ask for the bytes is said by the settings alone, whatever the lock says.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from cafs.distribution.platforms import normalised, own_platform
from cafs.errors import SettingsError
from cafs.model.address import file_path, shown
from cafs.model.digest import Digest
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref, shown_canonical
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.settings.lockfile import Lock, LockedPart, LockEntry
from cafs.settings.values import OBEYING

_DIGITS: Final = 16
"""Of what stands for a query: it tells two apart, and says nothing of either."""
_SHOWN: Final = 5
"""Refs of a note that are named."""


class Heeded(msgspec.Struct, frozen=True):
    """Specs with what is locked of them, and a line for each reason why entries do not count."""

    specs: tuple[RefSpec, ...]
    notes: tuple[str, ...]


def heed(
    specs: Iterable[RefSpec],
    lock: Lock,
    file: Path,
    *,
    names: frozenset[str],
    allowed: Callable[[str], bool],
) -> Heeded:
    """Fill in what is locked.

    Args:
        specs: all refs.
        lock: what the lock file has.
        file: the lock file.
        names: the refs that the project's file defines; a lock is about no others.
        allowed: says which URLs beside those of the settings a layer may be asked for at.

    Raises:
        SettingsError: an entry contradicts the settings that it was made for.
    """
    found: list[RefSpec] = []
    left: dict[str, list[str]] = {}
    for spec in specs:
        entries = lock.of(spec.name) if spec.name in names and spec.pull in OBEYING else ()
        entry = entry_for(spec, entries, file.parent)
        if entry is not None:
            check(spec, entry, file)
            spec = replace(spec, locked=_resolved(spec, entry, allowed))  # noqa: PLW2901
        elif entries:
            left.setdefault(_lacking(spec, entries, file.parent), []).append(spec.name)
        found.append(spec)
    return Heeded(tuple(found), tuple(_note(file, *each) for each in left.items()))


def entry_for(spec: RefSpec, entries: Sequence[LockEntry], base: Path) -> LockEntry | None:
    """The entry that was made for a spec; None when there is none.

    Args:
        spec: the ref.
        entries: those of its name.
        base: the directory of the lock.
    """
    fitting = [each for each in entries if made_for(spec, each, base)]
    if not isinstance(spec.ref, DockerRef):
        return fitting[0] if fitting else None
    platforms = {each.platform: each for each in fitting}
    return platforms.get(platform_of(spec)) or (
        platforms.get("") if spec.platform is None else None
    )


def made_for(spec: RefSpec, entry: LockEntry, base: Path) -> bool:
    """Whether an entry was made for what the settings say of a ref, on whichever platform."""
    said = (*ref_texts(spec.ref, base), str(spec.integrity or ""))
    return said == (entry.ref, entry.query, entry.integrity)


def platform_of(spec: RefSpec) -> str:
    """The platform that an image is wanted for."""
    return str(normalised(spec.platform) if spec.platform is not None else own_platform())


def ref_texts(ref: Ref, base: Path) -> tuple[str, str]:
    """How a lock writes a ref down, and what stands for the query that it does not write down.

    A file below ``base`` is written relative to it, so that the lock holds in every clone.
    """
    if not isinstance(ref, ArchiveRef | BlobRef):
        return ref.canonical, ""
    path = file_path(ref.url)
    if path is not None and path.is_relative_to(base):
        return f"{ref.kind}+{_inside(path, base)}", ""
    if "?" not in ref.url:
        return ref.canonical, ""
    digits = hashlib.sha256(ref.canonical.encode()).hexdigest()[:_DIGITS]
    return shown_canonical(ref), digits


def entry_of(
    spec: RefSpec, resolved: Resolved, base: Path, *, platform: str, size: int, media_type: str
) -> LockEntry:
    """The entry for what a ref means.

    Args:
        spec: the ref.
        resolved: what it means; its digests are canonical, its sizes known.
        base: the directory of the lock.
        platform: for which it means that; empty for all.
        size: of the blob, or of the image's manifest.
        media_type: of the same.

    Raises:
        ValueError: a digest or a size is not known.
    """
    ref, query = ref_texts(spec.ref, base)
    if resolved.digest is None:
        raise ValueError(f"{spec.name}: it is not known what it is")
    return LockEntry(
        name=spec.name,
        platform=platform,
        ref=ref,
        query=query,
        integrity=str(spec.integrity or ""),
        named=(resolved.named or resolved.digest) if isinstance(spec.ref, DockerRef) else None,
        digest=resolved.digest,
        size=size,
        media_type=plain(media_type),
        parts=tuple(_locked(part, base) for part in resolved.parts),
    )


def plain(media_type: str) -> str:
    """What a source calls its content, as far as it is one line of printable ASCII."""
    fine = media_type.isascii() and media_type.isprintable() and media_type
    return media_type if fine else "application/octet-stream"


def _locked(part: Part, base: Path) -> LockedPart:
    if part.digest is None or part.size is None:
        raise ValueError("a part whose digest or size is not known")
    return LockedPart(
        digest=part.digest,
        size=part.size,
        media_type=plain(part.media_type),
        index=part.index,
        index_size=part.index_size,
        contents=part.contents,
        urls=tuple(dict.fromkeys(_shown(url, base) for url in part.urls)),
    )


def _shown(url: str, base: Path) -> str:
    path = file_path(url)
    if path is not None and path.is_relative_to(base):
        return _inside(path, base)
    return shown(url).removesuffix("?…")


def _inside(path: Path, base: Path) -> str:
    """The relative URL of a file below a directory."""
    return f"file:{quote(bytes(path.relative_to(base)))}"


def check(spec: RefSpec, entry: LockEntry, file: Path) -> None:
    """Refuse an entry that names other bytes than the settings do.

    Raises:
        SettingsError: naming file and key.
    """
    image = isinstance(spec.ref, DockerRef)
    own = spec.ref.digest if isinstance(spec.ref, DockerRef | DigestRef) else None
    said = entry.named if image else entry.digest
    for pin in (own, spec.integrity):
        if pin is None:
            continue
        # Of other algorithms only this is known before the bytes are.
        hollow = said is not None and pin.of_nothing != said.of_nothing
        if hollow or (pin.canonical and pin != said):
            key = f"{entry.key}.{'named' if image else 'digest'}"
            what = f"{said} is not what {spec.name} must be, {pin}"
            raise SettingsError(str(file), key, what, hint=f"cafs lock {spec.name}")
    if image != (entry.named is not None):
        what = "this is no image" if entry.named is not None else "this is an image"
        raise SettingsError(str(file), entry.key, what, hint=f"cafs lock {spec.name}")


def _resolved(spec: RefSpec, entry: LockEntry, allowed: Callable[[str], bool]) -> Resolved:
    """The meaning that an entry gives to a ref."""
    is_file = isinstance(spec.ref, BlobRef | DigestRef)
    return Resolved(
        ref=spec.ref.canonical,
        shape=Shape.FILE if is_file else Shape.TREE,
        digest=entry.digest,
        parts=tuple(_part(spec, part, allowed) for part in entry.parts),
        resolved_ns=0,
        named=entry.named,
    )


def _part(spec: RefSpec, part: LockedPart, allowed: Callable[[str], bool]) -> Part:
    return Part(
        media_type=part.media_type,
        size=part.size,
        digest=_pin(spec, part),
        urls=_urls(spec, part, allowed),
        index=part.index,
        index_size=part.index_size,
        contents=part.contents,
    )


def _pin(spec: RefSpec, part: LockedPart) -> Digest:
    """What the bytes are held against: of a file what the settings say, where that is stronger.

    Where an index has its pieces, the lock vouches for them, until all of it is held against that.
    """
    own = spec.ref.digest if isinstance(spec.ref, DigestRef) else spec.integrity
    is_file = isinstance(spec.ref, BlobRef | DigestRef) and part.index is None
    return own if is_file and own is not None and not own.weak else part.digest


def _urls(spec: RefSpec, part: LockedPart, allowed: Callable[[str], bool]) -> tuple[str, ...]:
    """Where the settings say that a part is; of a layer, also where its manifest said that."""
    match spec.ref:
        case ArchiveRef() | BlobRef():
            return (spec.ref.url, *spec.mirrors)
        case DockerRef():
            bases = (spec.ref.base_url, *(each.rstrip("/") for each in spec.mirrors))
            own = [f"{base}/v2/{spec.ref.repository}/blobs/{part.digest}" for base in bases]
            return tuple(dict.fromkeys([*own, *filter(allowed, part.urls)]))
        case _:
            return spec.mirrors


def _lacking(spec: RefSpec, entries: Sequence[LockEntry], base: Path) -> str:
    """The platform that a lock does not have of a ref; empty where it was made for another ref."""
    if isinstance(spec.ref, DockerRef) and any(made_for(spec, each, base) for each in entries):
        return platform_of(spec)
    return ""


def _note(file: Path, platform: str, names: Sequence[str]) -> str:
    """One line for all refs that are not locked for the same reason: what to do, and for which."""
    shown = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else names
    refs = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    what = f"has no {platform} of" if platform else "is older than the settings of"
    flag = f" --platform {platform}" if platform else ""
    only = f" {' '.join(names)}" if len(names) <= _SHOWN else ""
    return f"{file.name} {what} {refs}: run cafs lock{flag}{only}"
