"""The registry protocol: manifests and configurations by tag or digest, and where blobs are.

Everything that a digest names is checked against it here; a tag's answer is checked against the
digest that the registry says it has. Authentication is the transport's.

Source: OCI distribution-spec, "Pull".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from cafs.distribution.interfaces import Note
from cafs.distribution.manifests import ACCEPTED, MANIFEST_LIMIT
from cafs.distribution.trying import first_answer
from cafs.errors import (
    DigestMismatchError,
    InvalidReferenceError,
    MalformedError,
    NotFoundError,
    RefusedError,
    SizeMismatchError,
)
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest, digest_of
from cafs.model.mapping import Route, straight
from cafs.transport.interfaces import Head, Request, Response, Transport

_ACCEPT: Final = (("Accept", ", ".join(ACCEPTED)),)
_DIGEST_HEADER: Final = "docker-content-digest"


class Document(msgspec.Struct, frozen=True):
    """A small JSON document with its true digest."""

    descriptor: Descriptor
    data: bytes


@dataclass(frozen=True, slots=True)
class Repository:
    """Where an image's documents and blobs are: ``https://host``, and its path there.

    ``name`` is what messages call the image. ``note`` is told why asking takes longer. ``attempts``
    is how often each question is asked at most, None as often as is usual.
    """

    base_url: str
    path: str
    name: str
    note: Note | None = field(default=None, compare=False)
    attempts: int | None = None

    def manifest_url(self, reference: str) -> str:
        """The URL of the manifest with a tag or a digest."""
        return f"{self.base_url}/v2/{self.path}/manifests/{reference}"

    def blob_url(self, digest: Digest) -> str:
        """The URL of a blob."""
        return f"{self.base_url}/v2/{self.path}/blobs/{digest}"


class Registry:
    """Asks registries. Documents are at most ``MANIFEST_LIMIT`` bytes.

    Args:
        transport: asks; it authenticates and retries.
        route: says which URLs to ask instead of a URL.

    Concurrency: any number of tasks.
    """

    def __init__(self, transport: Transport, route: Route = straight) -> None:
        self._transport = transport
        self._route = route

    async def tagged(self, repository: Repository, tag: str) -> Document:
        """The manifest that a tag means now.

        Raises:
            NotFoundError: no such repository, or no such tag.
            DigestMismatchError: not what the registry says that it is.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        request = Request(repository.manifest_url(tag), headers=_ACCEPT)

        def check(head: Head, data: bytes) -> Document:
            return _checked(head, data, _said_digest(head), repository.name)

        return await self._get(request, repository, check)

    async def head(self, repository: Repository, tag: str) -> Digest | None:
        """The digest of what a tag means now, without the document.

        None when the registry does not say, or knows no HEAD.

        Raises:
            NotFoundError: no such repository, or no such tag.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        request = Request(repository.manifest_url(tag), headers=_ACCEPT, method="HEAD")

        async def ask(url: str, attempts: int | None) -> Digest | None:
            async with await self._open(request, url, attempts, repository) as response:
                return _said_digest(response.head)

        try:
            return await first_answer(self._route(request.url), ask)
        except RefusedError:
            return None  # a GET, which is what is asked next, says why, or answers

    async def manifest(self, repository: Repository, digest: Digest) -> Document:
        """The manifest with a digest.

        Raises:
            NotFoundError: the registry has none with that digest.
            DigestMismatchError: the registry sent another one.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        request = Request(repository.manifest_url(str(digest)), headers=_ACCEPT)

        def check(head: Head, data: bytes) -> Document:
            return _checked(head, data, digest, repository.name)

        return await self._get(request, repository, check)

    async def configuration(self, repository: Repository, descriptor: Descriptor) -> Document:
        """The configuration of an image.

        Raises:
            NotFoundError: the registry does not have it.
            DigestMismatchError, SizeMismatchError: the registry sent another one.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        request = Request(repository.blob_url(descriptor.digest))

        def check(head: Head, data: bytes) -> Document:
            if len(data) != descriptor.size:
                raise SizeMismatchError(request.url, expected=descriptor.size, actual=len(data))
            return _checked(head, data, descriptor.digest, repository.name)

        return await self._get(request, repository, check)

    async def _open(
        self, request: Request, url: str, attempts: int | None, repository: Repository
    ) -> Response:
        attempts = repository.attempts if attempts is None else attempts
        try:
            return await self._transport.open(
                replace(request, url=url, attempts=attempts, failed=repository.note)
            )
        except NotFoundError as error:
            raise NotFoundError(f"{repository.name}: the registry has no such image") from error

    async def _get(
        self, request: Request, repository: Repository, check: Callable[[Head, bytes], Document]
    ) -> Document:
        """The document that ``check`` finds right, of the first place that has such a one."""

        async def ask(url: str, attempts: int | None) -> Document:
            async with await self._open(request, url, attempts, repository) as response:
                return check(response.head, await _body(response, f"{repository.name}: {url}"))

        return await first_answer(self._route(request.url), ask)


async def _body(response: Response, name: str) -> bytes:
    pieces = bytearray()
    while piece := await response.receive():
        pieces += piece
        if len(pieces) > MANIFEST_LIMIT:
            raise MalformedError(f"{name} is larger than {MANIFEST_LIMIT} bytes")
    return bytes(pieces)


def _said_digest(head: Head) -> Digest | None:
    """What the registry says; a header that is no digest says nothing, nor does a weak one.

    By a weak one nothing could be found again, neither here nor there.
    """
    text = head.headers.get(_DIGEST_HEADER, "")
    try:
        said = Digest.parse(text) if text else None
    except InvalidReferenceError:
        return None
    return None if said is None or said.weak else said


def _checked(head: Head, data: bytes, expected: Digest | None, name: str) -> Document:
    """The document, when it is what it should be. Its descriptor holds the expected digest."""
    actual = digest_of(data, expected.algorithm) if expected is not None else digest_of(data)
    if expected is not None and actual != expected:
        raise DigestMismatchError(f"{name}: the manifest", expected=expected, actual=actual)
    media_type = head.content_type.partition(";")[0].strip() or OCTETS
    return Document(Descriptor(media_type, actual, len(data)), data)
