"""``[ref.<name>]`` tables as ref specs."""

from dataclasses import dataclass
from typing import Final

from cafs.errors import CafsError, SettingsError
from cafs.model.address import file_path, normalised
from cafs.model.digest import Digest
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref, parse_ref
from cafs.model.spec import Pull, RefSpec
from cafs.settings import units
from cafs.settings.document import Document
from cafs.settings.places import real, within
from cafs.settings.schema import MACHINE_FILES, Voice
from cafs.settings.values import OnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a read tries, and how often a source is asked. None is not said."""

    deadline_s: float | None = None
    on_error: OnError | None = None
    pull: Pull | None = None


SILENT: Final = Terms()
"""Nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A ref as its table says it, and the terms of that table."""

    spec: RefSpec
    terms: Terms


def drafts(document: Document) -> list[Draft]:
    """Every ref of a file, in its order.

    Raises:
        SettingsError: a value that is wrong, or that this kind of ref cannot have.
    """
    return [_draft(document, name) for name in document.refs()]


def _draft(document: Document, name: str) -> Draft:
    key = f"ref.{name}"
    text = document.text(f"{key}.from")
    if text is None:
        raise document.wrong(f"{key}.from", "is missing", hint='from = "https://…"')
    try:
        ref = parse_ref(text, base=document.directory)
    except CafsError as error:
        raise document.wrong(f"{key}.from", error.what, hint=error.hint) from error
    if isinstance(ref, ArchiveRef | BlobRef):
        _refuse_outside(document, f"{key}.from", ref.url)
    _refuse_misplaced(document, key, ref)
    spec = RefSpec(
        name=name,
        ref=ref,
        integrity=_integrity(document, f"{key}.integrity", ref),
        strip=document.count(f"{key}.strip") or 0,
        subdir=document.parsed(f"{key}.subdir", units.inner_path) or "",
        mirrors=_mirrors(document, f"{key}.mirrors"),
        platform=document.parsed(f"{key}.platform", units.platform),
    )
    return Draft(spec=spec, terms=terms(document, key))


def terms(document: Document, key: str) -> Terms:
    """The terms in one table.

    Raises:
        SettingsError: a wrong value, naming file and key.
    """
    return Terms(
        deadline_s=document.parsed(f"{key}.deadline", units.duration_s),
        on_error=document.parsed(f"{key}.on-error", units.on_error),
        pull=document.parsed(f"{key}.pull", units.pull),
    )


def _refuse_misplaced(document: Document, key: str, ref: Ref) -> None:
    """Refuse what would do nothing for this kind of ref."""
    is_file = isinstance(ref, BlobRef | DigestRef)
    by_url = isinstance(ref, ArchiveRef | BlobRef | DigestRef)
    misplaced = {
        "strip": ("a single file has no paths to strip", is_file),
        "subdir": ("a single file has no directories", is_file),
        "mirrors": ("mirrors are for refs to URLs", not by_url),
        "platform": ("platforms are for images", not isinstance(ref, DockerRef)),
    }
    for word, (what, wrong) in misplaced.items():
        if wrong and document.has(f"{key}.{word}"):
            hint = "archive+… reads it as an archive" if isinstance(ref, BlobRef) else ""
            hint = hint if word in {"strip", "subdir"} else ""
            raise document.wrong(f"{key}.{word}", f"{what}; this is {ref.shown}", hint=hint)


def _integrity(document: Document, key: str, ref: Ref) -> Digest | None:
    """The pin, which must not contradict a digest that the ref itself names."""
    text = document.text(key)
    if text is None:
        return None
    own = ref.digest if isinstance(ref, DigestRef | DockerRef) else None
    try:
        pin = Digest.parse_integrity(text)
    except CafsError as error:
        raise document.wrong(key, error.what, hint=error.hint) from error
    if own is not None and own.algorithm == pin.algorithm and own != pin:
        raise document.wrong(key, f"{pin} is another digest than that of {ref.shown}")
    return pin


def _mirrors(document: Document, key: str) -> tuple[str, ...]:
    mirrors: list[str] = []
    for text in document.texts(key):
        try:
            url = normalised(text, base=document.directory)
        except CafsError as error:
            raise document.wrong(key, error.what, hint=error.hint) from error
        _refuse_outside(document, key, url)
        mirrors.append(url)
    return tuple(mirrors)


def _refuse_outside(document: Document, key: str, url: str) -> None:
    """A project's files lie below it, wherever its symlinks lead; a user's may lie anywhere."""
    path = file_path(url)
    if path is None or document.origin.voice is not Voice.PROJECT:
        return
    if not within(real(path), document.directory):
        raise SettingsError(
            document.origin.name,
            key,
            f"{path} lies outside the project",
            hint=f"a ref to a file elsewhere belongs in {MACHINE_FILES}",
        )
