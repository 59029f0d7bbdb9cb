"""Refs: names for content that is somewhere else, and the texts that name them.

The canonical text is ``cimd:TYPE:v=0:DATA``; the short forms that people write parse to the same
values. A ref that exists is valid and normalised, and two refs are equal exactly when their
canonical texts are. A short name from cafs.toml is no ref: whoever has the settings looks it up.

Mount paths of refs are in ``cafs.model.refpath``.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote_plus, unquote_plus

import msgspec
from typing_extensions import override

from cafs.errors import InvalidReferenceError, UnsupportedError
from cafs.model.address import (
    SCHEME,
    SCHEMES,
    comparable,
    enabling,
    host_of,
    last_segment,
    normalised,
    quoted,
    shown,
)
from cafs.model.appc_ref import AppcRef
from cafs.model.digest import SIZES, Digest
from cafs.model.docker_ref import DockerRef
from cafs.model.nearest import nearest_hint
from cafs.model.schemes import unknown_scheme

__all__ = [
    "AppcRef",
    "ArchiveRef",
    "BlobRef",
    "DigestRef",
    "DockerRef",
    "Ref",
    "archive_by_name",
    "parse_ref",
]

_ARCHIVE_NAME: Final = re.compile(
    r".+\.(?:tar(?:\.(?:gz|zst|xz|bz2))?|tgz|taz|tzst|txz|tbz2?|aci|crate|gem"
    r"|zip|jar|war|ear|whl|egg|nupkg|vsix|xpi|apk)",
    re.IGNORECASE | re.DOTALL,
)
_VERSION: Final = re.compile(r"(?:v=)?([0-9]{1,10})")
_UINT32_MAX: Final = 2**32 - 1
_LATER: Final = frozenset({"base64", "oci", "oci-image-layout", "oci-layout", "resource", "sbr"})
"""Known words of the grammar that this version has no handler for."""
_SUPPORTED: Final = "archive, blob, docker, appc and digest refs are supported"


@dataclass(frozen=True, slots=True, eq=False)
class _UrlRef:
    """Content at a URL. ``url`` is normalised, its query in the order in which it was written."""

    url: str
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", normalised(self.url, schemes=None))

    @property
    def cimd(self) -> str:
        """The ``cimd:`` text with the URL exactly as it will be asked for (R-18)."""
        return f"cimd:{self.kind}:v=0:{quote_plus(self.url, safe='')}"

    @property
    def canonical(self) -> str:
        """The ``cimd:`` text with the query sorted: equal refs have equal text (R-18)."""
        return f"cimd:{self.kind}:v=0:{quote_plus(comparable(self.url), safe='')}"

    @property
    def friendly(self) -> str:
        """The URL, with ``archive+`` or ``blob+`` in front where its name says otherwise."""
        is_archive = archive_by_name(last_segment(self.url))
        return self.url if is_archive == (self.kind == "archive") else f"{self.kind}+{self.url}"

    @property
    def shown(self) -> str:
        """The short form as it may be shown: a query may hold secrets, so there is ``?…``."""
        return shown(self.friendly)

    @property
    def host(self) -> str | None:
        """``host`` or ``host:port``; None where the URL is not http(s)."""
        return host_of(self.url)

    @property
    def scheme(self) -> str:
        """The URL's scheme: who answers for it."""
        return self.url.partition(":")[0]

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _UrlRef) and self.canonical == other.canonical

    @override
    def __hash__(self) -> int:
        return hash(self.canonical)

    @override
    def __str__(self) -> str:
        return self.friendly


class ArchiveRef(_UrlRef):
    """An archive at a URL (http, https, file, s3, or a plugin's): a tree.

    Raises:
        InvalidReferenceError: not such a URL, or credentials in it.
    """

    __slots__ = ()
    kind: ClassVar[str] = "archive"


class BlobRef(_UrlRef):
    """The bytes at a URL (http, https, file, s3, or a plugin's): a file.

    Raises:
        InvalidReferenceError: not such a URL, or credentials in it.
    """

    __slots__ = ()
    kind: ClassVar[str] = "blob"


class DigestRef(msgspec.Struct, frozen=True):
    """The blob with a digest, wherever it may be found: a file."""

    digest: Digest

    @property
    def canonical(self) -> str:
        """The ``cimd:`` text."""
        return f"cimd:digest:v=0:{self.digest}"

    @property
    def friendly(self) -> str:
        """``sha256:<hex>``."""
        return str(self.digest)

    @property
    def shown(self) -> str:
        """The short form; nothing in it is secret."""
        return self.friendly

    @property
    def host(self) -> str | None:
        """None: a digest names no place."""
        return None

    @override
    def __str__(self) -> str:
        return self.friendly


Ref = ArchiveRef | BlobRef | DockerRef | AppcRef | DigestRef
"""Each has ``canonical``, ``friendly``, ``shown`` and ``host``."""


def shown_canonical(ref: Ref) -> str:
    """The canonical text as it may be shown: with ``?…`` for a query, and then it is no ref."""
    if not isinstance(ref, ArchiveRef | BlobRef) or "?" not in ref.url:
        return ref.canonical
    return f"{type(ref)(ref.url.partition('?')[0]).canonical}?…"


def archive_by_name(name: str) -> bool:
    """Whether a file's name says that it is an archive; ``.gz`` alone is a compressed file."""
    return _ARCHIVE_NAME.fullmatch(name) is not None


def parse_ref(text: str, *, base: Path | None = None, schemes: Collection[str] | None = ()) -> Ref:
    """Parse a ``cimd:`` text or one of the short forms.

    Short forms: ``docker://IMAGE``, ``docker:IMAGE``, ``http(s)://…``, ``s3://…`` and ``file:…``
    (an archive if the name says so, else a blob), ``archive+URL``, ``blob+URL``,
    ``appc:NAME[:VERSION][,k=v]…``, ``sha256:<hex>``.

    Args:
        text: the ref. A bare name is none.
        base: absolute directory that relative ``file:`` URLs start from.
        schemes: those of plugins that are enabled, which URLs may have too; None for any, where
            who is enabled is looked at later.

    Raises:
        InvalidReferenceError: no ref.
        UnsupportedError: a form that is known, and that this version cannot read.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon:
        raise InvalidReferenceError(
            f"{quoted(text)} is no ref",
            hint="a name must be defined in cafs.toml; an image is docker://NAME, a file file:PATH",
        )
    if text != text.strip():
        raise InvalidReferenceError(f"{quoted(text)}: there is white space around it")
    if scheme in SIZES:
        return DigestRef(Digest.parse(f"{scheme}:{rest}"))
    if scheme in _LATER:
        raise UnsupportedError(f"{quoted(text)}: {scheme} refs are not supported", hint=_SUPPORTED)
    forced, plus, url_scheme = scheme.partition("+")
    if plus and forced in _BY_URL and _readable(url_scheme, schemes):
        return _BY_URL[forced](normalised(f"{url_scheme}:{rest}", base=base, schemes=None))
    match scheme:
        case "cimd":
            return _parse_cimd(text, rest, schemes)
        case "docker":
            return DockerRef.parse(rest.removeprefix("//"))
        case "appc":
            return AppcRef.parse(rest)
        case _ if _readable(scheme, schemes):
            url = normalised(text, base=base, schemes=None)
            return ArchiveRef(url) if archive_by_name(last_segment(url)) else BlobRef(url)
        case _:
            raise unknown_scheme(text, scheme, schemes or ())


def _readable(scheme: str, schemes: Collection[str] | None) -> bool:
    if scheme in SCHEMES:
        return True
    return SCHEME.fullmatch(scheme) is not None if schemes is None else scheme in schemes


def _parse_cimd(text: str, opaque: str, schemes: Collection[str] | None) -> Ref:
    """``TYPE:v=UINT32:DATA[?query]`` (R-16), an unknown version refused."""
    opaque, hash_, _ = opaque.partition("#")
    if hash_:
        raise InvalidReferenceError(f"{quoted(text)}: a fragment means nothing here")
    opaque, mark, query = opaque.partition("?")
    words = opaque.split(":", 2)
    if len(words) < 3:  # noqa: PLR2004 - the three words of the docstring
        raise InvalidReferenceError(f"{quoted(text)} is malformed", hint="cimd:TYPE:v=0:DATA")
    kind, version, data = words
    if kind in _LATER:
        raise UnsupportedError(f"{quoted(text)}: {kind} refs are not supported", hint=_SUPPORTED)
    if kind not in _BY_TYPE:
        raise InvalidReferenceError(
            f"{quoted(text)}: there is no type {kind!r}", hint=nearest_hint(kind, _BY_TYPE)
        )
    number = _VERSION.fullmatch(version)
    if number is None or int(number[1]) > _UINT32_MAX:
        raise InvalidReferenceError(f"{quoted(text)}: {version!r} is no version", hint="v=0")
    if int(number[1]) != 0:
        raise InvalidReferenceError(
            f"{quoted(text)}: version {int(number[1])} of {kind} is not known", hint="v=0"
        )
    if mark and kind != "appc":
        raise InvalidReferenceError(
            f"{quoted(text)}: a query means nothing here", hint="the '?' of a URL is written %3F"
        )
    ref = _BY_TYPE[kind](data, query)
    if isinstance(ref, _UrlRef) and not _readable(ref.scheme, schemes):
        raise InvalidReferenceError(
            f"{quoted(text)}: scheme {ref.scheme!r} is not known", hint=enabling(ref.scheme)
        )
    return ref


def _url_data(data: str) -> str:
    return unquote_plus(data, errors="surrogateescape")


_BY_URL: Final[dict[str, Callable[[str], Ref]]] = {"archive": ArchiveRef, "blob": BlobRef}
_BY_TYPE: Final[dict[str, Callable[[str, str], Ref]]] = {
    "archive": lambda data, _: ArchiveRef(_url_data(data)),
    "aci-archive": lambda data, _: ArchiveRef(_url_data(data)),
    "blob": lambda data, _: BlobRef(_url_data(data)),
    "docker": lambda data, _: DockerRef.parse(data),
    "appc": AppcRef.parse_data,
    "digest": lambda data, _: DigestRef(Digest.parse(data)),
}
