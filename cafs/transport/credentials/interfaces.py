"""What a place of credentials is: it is asked about a URL, and says what it has."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

from cafs.transport.credentials.credential import Finding
from cafs.transport.urls import Origin

_REPOSITORY: Final = re.compile(r"(.*?)/(manifests|blobs|tags|referrers)/")


@dataclass(frozen=True, slots=True)
class Asked:
    """What credentials are wanted for.

    ``url`` is without query and fragment, which may be secrets. ``registry`` says that it is one of
    a registry of images.
    """

    url: str
    origin: Origin
    registry: bool

    @classmethod
    def of(cls, url: str) -> Self:
        """What is wanted for an http(s) URL.

        Raises:
            InvalidReferenceError: another scheme, no host, userinfo, a port that is none.
        """
        origin = Origin.of(url)
        path = urlsplit(url).path
        return cls(f"{origin}{path}", origin, is_registry(path))


def is_registry(path: str) -> bool:
    """Whether a path is one of the registry protocol.

    Source: OCI distribution-spec, "Endpoints".
    """
    return path == "/v2/" or (path.startswith("/v2/") and repository_of(path) is not None)


def repository_of(path: str) -> str | None:
    """The path of the repository that a path lies in, None where it lies in none."""
    found = _REPOSITORY.match(path)
    return None if found is None else found[1]


class Keyring(Protocol):
    """A place where credentials may be.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def look(self, asked: Asked) -> Finding:
        """Look for the credentials of a URL. Nothing is remembered between calls.

        Returns:
            What was found. Where this place has nothing to do with the host, no look is told.

        Raises:
            UnusableError: what should be there cannot be had.

        Cancellation: no effect.
        """
