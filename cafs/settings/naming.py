"""``[ref.<name>]`` tables as ref specs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cafs.errors import CafsError, NotFoundError
from cafs.model.address import SCHEMES, file_path, normalised
from cafs.model.digest import Digest
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref, parse_ref
from cafs.model.spec import Platform, Pull, RefSpec, Verify
from cafs.settings import units
from cafs.settings.document import Document, Table
from cafs.settings.places import real, within
from cafs.settings.schema import MACHINE_FILES, Voice
from cafs.settings.values import OnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a read tries, how often a source is asked, when bytes are checked. None is not said."""

    deadline_s: float | None = None
    on_error: OnError | None = None
    pull: Pull | None = None
    verify: Verify | None = None


SILENT: Final = Terms()
"""Nothing is said."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A ref as its table says it, and the terms of that table.

    ``choices`` are what it is on each platform that its table names; empty where that has none.
    """

    spec: RefSpec
    terms: Terms
    choices: tuple[tuple[Platform, RefSpec], ...] = ()


def drafts(document: Document, schemes: Collection[str] = ()) -> list[Draft]:
    """Every ref of a file, in its order.

    Args:
        document: the file.
        schemes: those of plugins that are enabled.

    Raises:
        SettingsError: a value that is wrong, or that this kind of ref cannot have.
    """
    refs = document.below("ref")
    return [_draft(name, refs.below(name), schemes) for name in refs]


def _draft(name: str, table: Table, schemes: Collection[str]) -> Draft:
    if table.has("by-platform"):
        return _chosen(name, table, schemes)
    return Draft(spec=_spec(name, table, table, schemes), terms=terms(table))


def _chosen(name: str, table: Table, schemes: Collection[str]) -> Draft:
    """What a ref is on the platform that it is wanted for (Y-24); every choice is checked."""
    from cafs.distribution.platforms import (  # noqa: PLC0415 - rarely needed
        choose,
        normalised as canonical,
        own_platform,
    )

    for word in ("from", "integrity", "mirrors"):
        if table.has(word):
            raise table.wrong(
                word, "there is by-platform too", hint="write it below by-platform, or leave that"
            )
    entries = table.below("by-platform")
    offered: list[Platform] = []
    specs: list[RefSpec] = []
    for text in entries:
        try:
            platform = canonical(units.platform(text))
        except ValueError as error:
            raise entries.wrong(text, str(error)) from error
        if platform in offered:
            raise entries.wrong(text, f"{platform} is there twice")
        offered.append(platform)
        specs.append(_spec(name, entries.below(text), table, schemes))
    wanted = table.parsed("platform", units.platform) or own_platform()
    try:
        spec = specs[choose(offered, wanted, name="by-platform")]
    except NotFoundError as error:
        hint = error.hint if offered else 'by-platform."linux/amd64" = {from = "…"}'
        what = f"there is nothing for {wanted}"
        raise table.wrong("by-platform", what, hint=hint) from error
    choices = tuple(zip(offered, specs, strict=True))
    return Draft(spec=spec, terms=terms(table), choices=choices)


def _spec(name: str, entry: Table, ref_table: Table, schemes: Collection[str]) -> RefSpec:
    """The spec of a ref.

    Args:
        name: the ref's.
        entry: says where the content is: the ref's table, or what that has for one platform.
        ref_table: the ref's table; says what ``entry`` does not.
        schemes: those of plugins that are enabled.
    """
    ref = _ref(entry, schemes)
    how = {word: entry if entry.has(word) else ref_table for word in ("strip", "subdir")}
    _refuse_misplaced({"mirrors": entry, "platform": ref_table, **how}, ref, entry is not ref_table)
    return RefSpec(
        name=name,
        ref=ref,
        integrity=_integrity(entry, "integrity", ref),
        strip=how["strip"].count("strip") or 0,
        subdir=how["subdir"].parsed("subdir", units.inner_path) or "",
        mirrors=_mirrors(entry, "mirrors", schemes),
        platform=(
            ref_table.parsed("platform", units.platform) if isinstance(ref, DockerRef) else None
        ),
    )


def _ref(table: Table, schemes: Collection[str]) -> Ref:
    text = table.text("from")
    if text is None:
        raise table.wrong("from", "is missing", hint='from = "https://…"')
    try:
        ref = parse_ref(text, base=table.directory, schemes=schemes)
    except CafsError as error:
        raise table.wrong("from", error.what, hint=error.hint) from error
    if isinstance(ref, ArchiveRef | BlobRef):
        _refuse_outside(table, "from", ref.url)
    return ref


def terms(table: Table) -> Terms:
    """The terms in one table.

    Raises:
        SettingsError: a wrong value, naming file and key.
    """
    return Terms(
        deadline_s=table.parsed("deadline", units.duration_s),
        on_error=table.parsed("on-error", units.on_error),
        pull=table.parsed("pull", units.pull),
        verify=table.parsed("verify", units.verify),
    )


def _refuse_misplaced(tables: Mapping[str, Table], ref: Ref, by_platform: bool) -> None:
    """Refuse what would do nothing for this kind of ref.

    Args:
        tables: where each word may stand.
        ref: what the words are for.
        by_platform: whether the platform decides which ref it is.
    """
    is_file = isinstance(ref, BlobRef | DigestRef)
    by_url = isinstance(ref, ArchiveRef | BlobRef | DigestRef)
    misplaced = {
        "strip": ("a single file has no paths to strip", is_file),
        "subdir": ("a single file has no directories", is_file),
        "mirrors": ("mirrors are for refs to URLs", not by_url),
        "platform": ("platforms are for images", not (by_platform or isinstance(ref, DockerRef))),
    }
    for word, (what, wrong) in misplaced.items():
        if wrong and tables[word].has(word):
            hint = "archive+… reads it as an archive" if isinstance(ref, BlobRef) else ""
            hint = hint if word in {"strip", "subdir"} else ""
            raise tables[word].wrong(word, f"{what}; this is {ref.shown}", hint=hint)


def _integrity(table: Table, key: str, ref: Ref) -> Digest | None:
    """The pin, which must not contradict a digest that the ref itself names."""
    text = table.text(key)
    if text is None:
        return None
    own = ref.digest if isinstance(ref, DigestRef | DockerRef) else None
    try:
        pin = Digest.parse_integrity(text)
    except CafsError as error:
        raise table.wrong(key, error.what, hint=error.hint) from error
    if own is not None and own.algorithm == pin.algorithm and own != pin:
        raise table.wrong(key, f"{pin} is another digest than that of {ref.shown}")
    return pin


def _mirrors(table: Table, key: str, schemes: Collection[str]) -> tuple[str, ...]:
    mirrors: list[str] = []
    for text in table.texts(key):
        try:
            url = normalised(text, base=table.directory, schemes=(*SCHEMES, *schemes))
        except CafsError as error:
            raise table.wrong(key, error.what, hint=error.hint) from error
        _refuse_outside(table, key, url)
        mirrors.append(url)
    return tuple(mirrors)


def _refuse_outside(table: Table, key: str, url: str) -> None:
    """A project's files lie below it, wherever its symlinks lead; a user's may lie anywhere."""
    path = file_path(url)
    if path is None or table.origin.voice is not Voice.PROJECT:
        return
    if not within(real(path), table.directory):
        hint = f"a ref to a file elsewhere belongs in {MACHINE_FILES}"
        raise table.wrong(key, f"{path} lies outside the project", hint=hint)
