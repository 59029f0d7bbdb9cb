"""Refs to images in a registry: ``[HOST[:PORT]/]NAME[:TAG][@DIGEST]`` (R-21)."""

import re
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from cafs.errors import InvalidReferenceError
from cafs.model.address import authority, is_loopback
from cafs.model.digest import Digest

DEFAULT_REGISTRY: Final = "registry-1.docker.io"
"""Where images live whose name has no host."""
REGISTRY_ALIASES: Final = frozenset({"docker.io", "index.docker.io"})
"""Other names of the default registry that people write."""
# The published pattern lets the separator be empty, which matches the same names and backtracks
# exponentially; here a run of hyphens has at least one.
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_MAX_REPOSITORY: Final = 255
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def is_registry(word: str) -> bool:
    """Whether the first component of an image's name is a host (R-21)."""
    return "." in word or ":" in word or word == "localhost"


@dataclass(frozen=True, slots=True)
class DockerRef:
    """An image in a registry. Defaults are filled in, so exactly one of tag and digest is set.

    ``registry`` is ``host`` or ``host:port``; ``repository`` the whole path ("library/debian").
    A digest beats a tag, which then is dropped (R-21).

    Raises:
        InvalidReferenceError: a part that its grammar does not allow.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        """Fill in the defaults, refuse what no registry accepts."""
        registry = authority(self.registry)
        if not is_registry(registry):
            raise InvalidReferenceError(
                f"{self.registry!r} is no registry",
                hint="a registry's name has a dot or a port, or is localhost",
            )
        if registry in REGISTRY_ALIASES:
            registry = DEFAULT_REGISTRY
        repository = self.repository
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _MAX_REPOSITORY:
            raise InvalidReferenceError(
                f"{self.repository!r} is no repository name",
                hint="lower-case letters, digits, and single '.', '_', '-' between them",
            )
        tag = None if self.digest is not None else "latest" if self.tag is None else self.tag
        if tag is not None and not _TAG.fullmatch(tag):
            raise InvalidReferenceError(f"{self.repository}: {tag!r} is no tag")
        object.__setattr__(self, "registry", registry)
        object.__setattr__(self, "repository", repository)
        object.__setattr__(self, "tag", tag)

    @classmethod
    def parse(cls, text: str) -> "DockerRef":
        """Parse ``[HOST[:PORT]/]NAME[:TAG][@DIGEST]`` (R-21).

        Raises:
            InvalidReferenceError: not of that form.
        """
        name, at, digest = text.partition("@")
        first, slash, rest = name.partition("/")
        registry = DEFAULT_REGISTRY
        if slash and is_registry(first):
            registry, name = first, rest
        repository, colon, tag = name.partition(":")
        return cls(
            registry, repository, tag if colon else None, Digest.parse(digest) if at else None
        )

    @property
    def base_url(self) -> str:
        """``https://registry``; a registry on a loopback address is spoken to by http."""
        return f"{'http' if is_loopback(self.registry) else 'https'}://{self.registry}"

    @property
    def reference(self) -> str:
        """What the registry is asked for: the digest's text, or the tag."""
        return str(self.digest) if self.digest is not None else str(self.tag)

    @property
    def canonical(self) -> str:
        """The ``cimd:`` text with every default written out."""
        return f"cimd:docker:v=0:{self.registry}/{self.repository}{self._suffix}"

    @property
    def short(self) -> str:
        """The name without defaults, as ``docker pull`` takes it."""
        bare = self.repository.removeprefix("library/")
        if self.registry != DEFAULT_REGISTRY or is_registry(self.repository.partition("/")[0]):
            name = f"{self.registry}/{self.repository}"
        else:
            name = self.repository if "/" in bare else bare
        return name if self.tag == "latest" else name + self._suffix

    @property
    def friendly(self) -> str:
        """``docker://`` and the short name."""
        return f"docker://{self.short}"

    @property
    def shown(self) -> str:
        """The short form; nothing in it is secret."""
        return self.friendly

    @property
    def host(self) -> str | None:
        """The registry, ``host`` or ``host:port``."""
        return self.registry

    @property
    def _suffix(self) -> str:
        return f"@{self.digest}" if self.digest is not None else f":{self.tag}"

    @override
    def __str__(self) -> str:
        return self.friendly
