"""What a transport is: one verb, a request, a response.

A transport answers for one URL at a time. It does not retry, keeps no documents and knows no
digests: wrappers (``retrying``, ``redirecting``, ``authenticating``) and the layers above do. Spans
are half-open byte ranges of the representation, sizes are bytes.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from cafs.errors import CafsError
from cafs.model.span import Span
from cafs.model.validator import UNKNOWN_VERSION, Validator


@dataclass(frozen=True, slots=True)
class Request:
    """A read of one URL.

    ``span`` asks for a byte range; None for all. ``if_range`` makes the range conditional: the
    whole is sent when the version is another one (If-Range). ``if_changed`` asks for nothing when
    the version is still that one (If-None-Match, If-Modified-Since). ``headers`` are added as they
    are; what proves who asks among them never crosses to another host. ``body`` is sent with the
    question, and never to where a redirect leads. ``document`` is what the last
    answer for this URL told to keep for the next question; it is its transport's own, and says by
    being there that the content of that answer is at hand.
    """

    url: str
    span: Span | None = None
    if_range: Validator | None = None
    if_changed: Validator | None = None
    # Headers may hold a token, which no repr may show.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    method: str = "GET"
    attempts: int | None = None
    failed: Callable[[CafsError], None] | None = field(default=None, compare=False, repr=False)
    document: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a response before its body.

    ``span`` is where the body lies in the whole; for a whole response it is ``[0, total)``, or None
    when the length is not known. ``total`` is the size of the whole, None when it is not told.
    ``unchanged`` is the answer to ``if_changed``; such a response has no body. ``ranges`` says that
    byte ranges can be asked for. ``max_age_s`` is how long the answer may be used without asking
    (R-15, with its bugs mended: ``no-store`` and ``no-cache`` win); 0 when it may not. ``headers``
    are lower-case. ``peer`` is the address of the connection's other end; empty where there is none
    (a file) or where it says nothing about the source (a proxy).
    """

    url: str
    status: int
    validator: Validator = UNKNOWN_VERSION
    span: Span | None = None
    total: int | None = None
    unchanged: bool = False
    ranges: bool = False
    max_age_s: int = 0
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    peer: str = ""


class Response(Protocol):
    """A response whose head has come and whose body has not. Close it, always.

    Concurrency: one task at a time; the task may change between calls.
    """

    @property
    @abstractmethod
    def head(self) -> Head:
        """The head, checked against the request."""

    @property
    def document(self) -> str:
        """What the transport wants to be told when the URL is asked again, empty for nothing.

        It may come as late as the end of the body. Only its transport knows what it means.
        """
        return ""

    @abstractmethod
    async def receive(self) -> bytes:
        """The next bytes of the body, at most 1 MiB; empty at its end.

        Raises:
            DeadlineError: no bytes for the transport's stall limit.
            UnreachableError: the connection broke, or ended before the announced length.

        Cancellation: the position in the body is lost; close the response.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection; a second call does nothing.

        Cancellation: closes all the same.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Transport(Protocol):
    """Opens URLs of the schemes that it was made for.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def open(self, request: Request) -> Response:
        """Ask, and return once the head has come.

        The status is one of 200, 206, 304; every other is raised. A 206 answers the span that was
        asked for (from its start; its stop may be the end of the whole).

        Raises:
            NotFoundError: 404, 410, or no such file.
            CredentialsError: 401, 403.
            UnreachableError: no connection, 429 or 5xx.
            DeadlineError: no head within the transport's limits.
            RefusedError: any other status, a 206 that is not the span asked for.
            PolicyError: a redirect to where it may not go.

        Cancellation: no effect; the connection is closed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is pooled. Responses that are still open break."""
