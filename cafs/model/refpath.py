"""Mount paths of refs: where a ref appears below ``ref/``, and what such a path means.

::

    docker/<host>[+<port>]/<repo…>@<tag>            or @sha256-<hex>
    appc/<name…>@<version>[,label=value…]
    archive/https/<host>[+<port>]/<path…>@          likewise archive/http, blob/https, blob/http

- ``@`` ends a ref: the first component that contains it (docker, appc) or ends with it (URLs).
- ``@``, ``:``, ``?``, ``%``, control bytes and whatever else would be ambiguous or illegal in a
  component are percent-encoded. A URL's own ``%`` is too, so a URL's ``%20`` is ``%2520`` here: the
  path says exactly which URL is asked for.
- A canonical path has no ``:``, because a path with one cannot stand in ``PATH``. The usual
  spellings (``host:5000``, ``repo:tag``, ``repo@sha256:…``, defaults left out) are aliases of it.
- No component is longer than 255 bytes. What does not fit needs a name, and so does every
  ``file:`` URL, because a path must not make the mount read other files of this machine, and every
  other URL that is not http(s), because no host is named by it that settings could allow.
"""

import re
from posixpath import relpath
from typing import Final, assert_never
from urllib.parse import quote, unquote, urlsplit

import msgspec

from cafs.errors import InvalidReferenceError
from cafs.model.address import DEFAULT_PORTS, authority, tidied
from cafs.model.digest import SIZES, Digest
from cafs.model.docker_ref import DEFAULT_REGISTRY, REGISTRY_ALIASES
from cafs.model.ref import AppcRef, ArchiveRef, BlobRef, DigestRef, DockerRef, Ref

MAX_COMPONENT: Final = 255
"""Bytes in one component of a path (NAME_MAX)."""
_URL_TYPES: Final[dict[str, type[ArchiveRef] | type[BlobRef]]] = {
    "archive": ArchiveRef,
    "blob": BlobRef,
}
KINDS: Final = ("appc", "archive", "blob", "docker")
"""The directories below ``ref/`` that hold refs which are named by path."""
_SEGMENT_SAFE: Final = "!$&'()*+,;="
_DIGEST: Final = re.compile(
    "|".join(f"{name}[-:][0-9a-f]{{{2 * size}}}" for name, size in SIZES.items())
)
_DOCKER_WORD: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_APPC_WORD: Final = re.compile(r"[a-z0-9]+(?:[-._~][a-z0-9]+)*")


class Partial(msgspec.Struct, frozen=True):
    """A directory on the way to refs. ``components`` is its canonical path below ``ref/``."""

    components: tuple[bytes, ...]


class Complete(msgspec.Struct, frozen=True):
    """The path of a ref, canonically spelled."""

    ref: Ref


class Alias(msgspec.Struct, frozen=True):
    """Another spelling: a symlink. ``target`` is relative to the directory that holds it."""

    target: str


class Absent(msgspec.Struct, frozen=True):
    """Nothing can be there."""


Step = Partial | Complete | Alias | Absent


def path_of(ref: Ref) -> str:
    """The canonical path of a ref below ``ref/``, ASCII, without a leading slash.

    Raises:
        InvalidReferenceError: the ref has no path and needs a name: a ``file:`` URL, a component
            over 255 bytes, a URL with an empty segment inside, a digest.
    """
    path = "/".join(_components(ref))
    for component in path.split("/"):
        if not component or len(component) > MAX_COMPONENT:
            what = f"longer than {MAX_COMPONENT} bytes" if component else "empty"
            raise InvalidReferenceError(
                f"{ref.shown}: a component of its path would be {what}",
                hint="give it a name in cafs.toml",
            )
    return path


def step(components: tuple[bytes, ...]) -> Step:
    """What a path below ``ref/`` means so far; its first component is one of ``KINDS``.

    Aliases on the way are followed, as the kernel does. The path ends where the ref ends: anything
    below a complete ref is absent here.
    """
    at: tuple[str, ...] = ()
    found: Step = Partial(())
    for component in components:
        match found:
            case Alias(target):
                at = _follow(at, target)
                found = step(tuple(word.encode() for word in at))
                if not isinstance(found, Partial):
                    return Absent()
            case Partial(canonical):
                at = tuple(word.decode() for word in canonical)
            case Complete() | Absent():
                return Absent()
            case _:
                assert_never(found)
        found = _step(at, component.decode("utf-8", "surrogateescape"))
    return found


def _components(ref: Ref) -> list[str]:
    match ref:
        case DockerRef():
            return ["docker", _host(ref.registry), f"{ref.repository}@{_docker_version(ref)}"]
        case AppcRef():
            labels = "".join(f",{_word(name)}={_word(value)}" for name, value in ref.ranked)
            return ["appc", f"{ref.name}@{_word(ref.version or '')}{labels}"]
        case ArchiveRef() | BlobRef():
            return _url_components(ref)
        case DigestRef():
            raise InvalidReferenceError(
                f"{ref.shown} has no path below ref/",
                hint=f"digest/{ref.digest.algorithm}/{ref.digest.hex}",
            )
        case _:
            assert_never(ref)


def _url_components(ref: ArchiveRef | BlobRef) -> list[str]:
    parts = urlsplit(ref.url)
    if parts.scheme not in DEFAULT_PORTS:
        what = "files" if parts.scheme == "file" else f"{parts.scheme}: URLs"
        raise InvalidReferenceError(
            f"{ref.shown}: {what} are not read by path", hint="give it a name in cafs.toml"
        )
    *inner, last = parts.path.split("/")[1:]
    if parts.query:
        last += f"?{parts.query}"
    segments = [_segment(segment) for segment in (*inner, last)]
    return [ref.kind, parts.scheme, _host(parts.netloc), *segments[:-1], f"{segments[-1]}@"]


def _host(place: str) -> str:
    """``[::1]:5000`` as a component: the port after ``+``, other colons encoded."""
    port = re.search(r":([0-9]+)\Z", place)
    host = place[: port.start()] if port and not place.endswith("]") else place
    return quote(host, safe="[]") + (f"+{port[1]}" if host != place and port else "")


def _segment(text: str) -> str:
    return quote(text, safe=_SEGMENT_SAFE, errors="surrogateescape")


def _word(text: str) -> str:
    """A label or its value: ``,`` and ``=`` stand between them."""
    return quote(text, safe="", errors="surrogateescape")


def _docker_version(ref: DockerRef) -> str:
    if ref.digest is not None:
        return f"{ref.digest.algorithm}-{ref.digest.hex}"
    tag = str(ref.tag)
    # Such tags exist: registries without the referrers API keep signatures under them.
    return tag.replace("-", "%2D", 1) if _DIGEST.fullmatch(tag) else tag


def _follow(at: tuple[str, ...], target: str) -> tuple[str, ...]:
    words = list(at)
    for word in target.split("/"):
        if word == "..":
            words.pop()
        else:
            words.append(word)
    return tuple(words)


def _step(at: tuple[str, ...], word: str) -> Step:
    """One component further from a canonical directory."""
    try:
        match at:
            case ():
                return Partial((word.encode(),)) if word in KINDS else Absent()
            case ("docker", *_):
                return _docker(at, word)
            case ("appc", *_):
                return _appc(at, word)
            case _:
                return _url(at, word)
    except InvalidReferenceError:
        # The text is no ref and no way to one, and for a path that means: no such file.
        return Absent()


def _directory(at: tuple[str, ...], word: str, canonical: str) -> Step:
    """The directory ``canonical`` in ``at``, or an alias when ``word`` spells it otherwise."""
    if max(map(len, canonical.split("/"))) > MAX_COMPONENT:
        return Absent()
    if word == canonical:
        return Partial(tuple(each.encode() for each in (*at, word)))
    return Alias(canonical)


def _ref(at: tuple[str, ...], word: str, ref: Ref) -> Step:
    """The ref, or an alias of its path when ``word`` in ``at`` is another one."""
    path = path_of(ref)
    if path == "/".join((*at, word)):
        return Complete(ref)
    # With slashes in front, or relpath would ask for the working directory.
    return Alias(relpath(f"/{path}", f"/{'/'.join(at)}"))


def _docker(at: tuple[str, ...], word: str) -> Step:
    registry, *repository = at[1:] or (None,)
    if "@" not in word:
        if registry is None:
            host = _docker_host(word)
            if host is not None:
                return _directory(at, word, host)
        if ":" not in word:
            plain = unquote(word)
            if not _DOCKER_WORD.fullmatch(plain):
                return Absent()
            return _directory(at, word, plain if registry else f"{DEFAULT_REGISTRY}/{plain}")
    head, _, version = word.partition("@")
    name, colon, tag = head.partition(":")
    digest = _DIGEST.fullmatch(version)
    if colon and version and not digest:
        return Absent()
    place = DEFAULT_REGISTRY if registry is None else _authority(registry)
    ref = DockerRef(
        place,
        "/".join((*repository, unquote(name))),
        tag if colon else unquote(version) or None,
        Digest.parse(version.replace("-", ":", 1)) if digest else None,
    )
    return _ref(at, word, ref)


def _docker_host(word: str) -> str | None:
    """The canonical component for a registry; None when the word is an image's or a namespace's.

    A word with a colon and no dot is an image with a tag (``debian:12``): a registry of such a name
    is spelled with its ``+``. ``localhost:5000`` alone is more often a registry.
    """
    plain = unquote(word)
    looks = "+" in plain or "." in plain or plain.startswith("[")
    if not looks and plain.partition(":")[0] != "localhost":
        return None
    place = _authority(word)
    return _host(DEFAULT_REGISTRY if place in REGISTRY_ALIASES else place)


def _authority(word: str) -> str:
    """The ``host[:port]`` that a component spells, with ``+`` or with ``:``."""
    return authority(unquote(word).replace("+", ":", 1))


def _appc(at: tuple[str, ...], word: str) -> Step:
    end = re.search(r"[@:,]", word)
    if end is None:
        plain = unquote(word)
        return _directory(at, word, plain) if _APPC_WORD.fullmatch(plain) else Absent()
    tail = word[end.start() :] if end[0] == "," else word[end.end() :]
    version, *pairs = tail.split(",")
    labels = [("version", unquote(version))] if version else []
    for pair in pairs:
        label, equals, value = pair.partition("=")
        if not equals:
            return Absent()
        labels.append((unquote(label), unquote(value, errors="surrogateescape")))
    name = "/".join((*at[1:], unquote(word[: end.start()])))
    return _ref(at, word, AppcRef(name, tuple(labels)))


def _url(at: tuple[str, ...], word: str) -> Step:
    match at:
        case (_,):
            scheme = word.lower().removesuffix(":")
            return _directory(at, word, scheme) if scheme in DEFAULT_PORTS else Absent()
        case (_, scheme):
            host = word.removesuffix("@")
            place = _authority(host).removesuffix(f":{DEFAULT_PORTS[scheme]}")
            return (
                Alias(f"{_host(place)}/@") if word != host else _directory(at, word, _host(place))
            )
        case _:
            return _url_segment(at, word)


def _url_segment(at: tuple[str, ...], word: str) -> Step:
    kind, scheme, host, *segments = at
    # A path has no fragment, so a '#' can only be part of a name.
    plain = unquote(word.removesuffix("@"), errors="surrogateescape").replace("#", "%23")
    if not word.endswith("@"):
        text = tidied(plain)
        if "?" in plain or "/" in plain or text in {"", ".", ".."}:
            return Absent()
        return _directory(at, word, _segment(text))
    inner = "".join(f"/{unquote(segment)}" for segment in segments)
    return _ref(at, word, _URL_TYPES[kind](f"{scheme}://{_authority(host)}{inner}/{plain}"))
