"""S3: ``s3://bucket/key``, by obstore, which is installed with the extra ``s3``. Its only door.

Credentials, region and endpoint are obstore's own affair: ``AWS_*`` variables, web identities,
containers and machines of the cloud; a profile of ``~/.aws`` is read here, since it does not know
those. Whatever obstore can cancel it cannot cancel here: it works in threads of its own number.
"""

import math
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import trio
from typing_extensions import override

from cafs.errors import (
    CafsError,
    CredentialsError,
    DeadlineError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UnsupportedError,
)
from cafs.model.address import shown
from cafs.model.pacing import Pacing
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.heads import max_age_s
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.urls import split

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import S3Config, S3Store

_PIECE: Final = 256 << 10
_MOST: Final = 1 << 20
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_STATUSES: Final = frozenset(HTTPStatus)
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,40})</Code>")
"""What is said beside a status: whether the bucket is missing or the key, and why it is denied."""
_SIZE: Final = re.compile(r"<ActualObjectSize>([0-9]{1,18})<")
_NO_CREDENTIALS: Final = re.compile(r"169\.254\.|/latest/api/token|InstanceCredential")
"""Where credentials are looked for last: in the machine of a cloud. Elsewhere nobody answers."""
_EXPIRED: Final = re.compile(r"<Code>(?:ExpiredToken|InvalidToken|TokenRefreshRequired)</Code>")
"""What is said, with 400, of a session that is over."""
_DENIED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_UNSATISFIABLE: Final = 416
_SERVER_ERRORS: Final = 500


class S3Transport(Transport):
    """Answers for ``s3:`` URLs.

    Args:
        environ: the variables that obstore looks at too.
        pacing: how long to wait for what.

    Concurrency: any number of tasks; those above the number of connections wait for a thread.
    """

    def __init__(self, environ: Mapping[str, str], pacing: Pacing) -> None:
        self._environ = environ
        self._pacing = pacing
        self._threads = trio.CapacityLimiter(pacing.connections)
        self._stores: dict[str, S3Store] = {}
        self._making = threading.Lock()

    @override
    async def open(self, request: Request) -> Response:
        """Ask for an object, or a part of it.

        Raises:
            UnsupportedError: obstore is not installed.
            CafsError: as ``Transport.open``.
        """
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        limit_s = self._pacing.connect_s + self._pacing.first_byte_s
        return await self._thread(request, limit_s)

    @override
    async def aclose(self) -> None:
        self._stores.clear()
        await trio.lowlevel.checkpoint()

    async def _thread(self, request: Request, limit_s: float) -> Response:
        try:
            with trio.fail_after(limit_s):
                return await trio.to_thread.run_sync(
                    self._open, request, limiter=self._threads, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            what = f"GET {shown(request.url)}: no answer within {limit_s:g} s"
            raise DeadlineError(what) from error

    def _open(self, request: Request) -> Response:
        try:
            import obstore  # noqa: PLC0415 - an extra; and it costs more than all the rest to load
            from obstore.exceptions import NotModifiedError  # noqa: PLC0415
        except ImportError as error:
            raise UnsupportedError(
                f"{shown(request.url)}: S3 is not installed", hint="pip install 'cafs[s3]'"
            ) from error
        parts = split(request.url)
        key = unquote(parts.path.removeprefix("/"))
        span = request.span
        try:
            result = obstore.get(self._store(parts.netloc), key, options=_options(request))
        except NotModifiedError:
            version = request.if_changed or Validator()
            return _S3Response(Head(request.url, 304, version, unchanged=True), None, self)
        except CafsError:
            raise
        except Exception as error:
            failure = _failure(request.url, error)
            if isinstance(failure, CredentialsError):
                # Those of a profile may be others by now: a session's keys last for some hours.
                self._stores.pop(parts.netloc, None)
            empty = isinstance(failure, RefusedError) and failure.total == 0
            if span is not None and span.start == 0 and empty:
                # As for http: no part of nothing can be had, all of it can.
                return _S3Response(_empty(request.url), None, self)
            raise failure from error
        return _S3Response(_head(request, result), result, self)

    def _store(self, bucket: str) -> "S3Store":
        from obstore.store import S3Store  # noqa: PLC0415 - as above

        from cafs.transport.s3_profile import profile  # noqa: PLC0415 - loads a parser

        with self._making:
            store = self._stores.get(bucket)
            if store is None:
                endpoint = self._environ.get("AWS_ENDPOINT_URL_S3") or self._environ.get(
                    "AWS_ENDPOINT_URL", ""
                )
                config: S3Config = {}
                config.update(profile(self._environ))  # type: ignore[typeddict-item]
                store = S3Store(
                    bucket,
                    config=config,
                    # Retries are made where it is known who waits.
                    retry_config={"max_retries": 0},
                    client_options={
                        "allow_http": endpoint.startswith("http://"),
                        "connect_timeout": timedelta(seconds=self._pacing.connect_s),
                        "read_timeout": timedelta(seconds=self._pacing.stall_s),
                        "timeout": timedelta(days=1),
                    },
                )
                self._stores[bucket] = store
        return store

    async def piece(self, pieces: Iterator[object], url: str) -> bytes:
        """The next bytes of a body; empty at its end."""
        limit_s = self._pacing.stall_s
        try:
            with trio.fail_after(limit_s):
                return await trio.to_thread.run_sync(
                    _next, pieces, url, limiter=self._threads, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            raise DeadlineError(f"GET {shown(url)}: no bytes for {limit_s:g} s") from error


class _S3Response(Response):
    def __init__(self, head: Head, result: "GetResult | None", transport: S3Transport) -> None:
        self._head = head
        self._transport = transport
        self._pieces: Iterator[object] | None = (
            None if result is None else iter(result.stream(min_chunk_size=_PIECE))
        )
        self._rest = b""
        self._left = math.inf if head.span is None else head.span.length
        self._closed = False

    @property
    @override
    def head(self) -> Head:
        return self._head

    @override
    async def receive(self) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError(f"{shown(self._head.url)}: closed")
        if not self._rest and self._pieces is not None:
            self._rest = await self._transport.piece(self._pieces, self._head.url)
            self._left -= len(self._rest)
            if self._left < 0 or (not self._rest and 0 < self._left < math.inf):
                raise UnreachableError(f"GET {shown(self._head.url)}: not as long as announced")
        piece, self._rest = self._rest[:_MOST], self._rest[_MOST:]
        return piece

    @override
    async def aclose(self) -> None:
        self._closed = True
        self._pieces = None
        self._rest = b""


def _options(request: Request) -> "GetOptions":
    options: GetOptions = {}
    if request.span is not None:
        options["range"] = (request.span.start, request.span.stop)
    if request.if_changed is not None and request.if_changed.etag:
        options["if_none_match"] = request.if_changed.etag
    return options


def _head(request: Request, result: "GetResult") -> Head:
    meta, attributes = result.meta, result.attributes
    start, stop = result.range
    if request.span is not None and start != request.span.start:
        raise RefusedError(f"GET {shown(request.url)}: asked for {request.span}, got from {start}")
    return Head(
        url=request.url,
        status=200 if request.span is None else 206,
        validator=Validator(etag=meta["e_tag"] or ""),
        span=Span(start, stop),
        total=meta["size"],
        ranges=True,
        max_age_s=max_age_s(str(attributes.get("Cache-Control", ""))),
        content_type=str(attributes.get("Content-Type", "")),
    )


def _empty(url: str) -> Head:
    return Head(url=url, status=200, span=Span(0, 0), total=0, ranges=True)


def _next(pieces: Iterator[object], url: str) -> bytes:
    try:
        piece = next(pieces, b"")
    except Exception as error:
        raise _failure(url, error) from error
    return bytes(memoryview(piece))  # type: ignore[arg-type]  # obstore's Bytes is a buffer


def _failure(url: str, error: Exception) -> CafsError:
    """Our error for one of obstore's."""
    text = str(error)
    line = text.split("\n", 1)[0].split(": <?xml", 1)[0]
    kind = type(error).__name__
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    what = f"GET {shown(url)}: {_told(text, line, status)}"
    if isinstance(error, FileNotFoundError):
        return NotFoundError(what)
    if isinstance(error, ValueError) or kind == "InvalidPathError":
        return InvalidReferenceError(what)
    denied = kind in {"PermissionDeniedError", "UnauthenticatedError"} or status in _DENIED
    if denied or _EXPIRED.search(text) or _NO_CREDENTIALS.search(line):
        return CredentialsError(
            what, hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if status == _UNSATISFIABLE:
        size = _SIZE.search(text)
        return RefusedError(what, total=int(size[1]) if size else None)
    if not status or status == _TOO_MANY or status >= _SERVER_ERRORS:
        return UnreachableError(what)
    hint = "is AWS_REGION the bucket's region?" if status < 400 else ""  # noqa: PLR2004 - redirects
    return RefusedError(what, hint=hint)


def _told(text: str, line: str, status: int) -> str:
    """What happened, for people: what the server said, or obstore's own first line."""
    if _NO_CREDENTIALS.search(line):
        return "no keys in variables or in a profile, and this machine has none"
    if not status:
        return line
    code = _CODE.search(text)
    phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
    return f"{status} {phrase}".strip() + (f" ({code[1]})" if code else "")
