"""Asking: a request in httpcore's words. Pure functions; no network, no clock.

Bytes are asked for as they are (``Accept-Encoding: identity``), ranges only of a version that can
be named, and of each condition its strongest form alone.
"""

from typing import Final

import httpcore

from cafs.transport.interfaces import Request
from cafs.transport.urls import Origin, target_of

_ANY: Final = "*/*"
_AS_IT_IS: Final = "identity"


def message(request: Request, *, number: str, user_agent: str) -> httpcore.Request:
    """The request in httpcore's words, without limits.

    Args:
        request: what is asked.
        number: names this request to whoever reads the server's log.
        user_agent: what the server is told of who asks.

    Raises:
        InvalidReferenceError: its URL must not reach the network.
    """
    origin = Origin.of(request.url)
    url = httpcore.URL(
        scheme=origin.scheme,
        host=origin.spelled,
        port=None if origin.usual else origin.port,
        target=target_of(request.url),
    )
    usual = [
        ("Host", origin.authority),
        ("Accept", _ANY),
        ("Accept-Encoding", _AS_IT_IS),
        ("User-Agent", user_agent),
        ("X-Request-ID", number),
    ]
    given = {name.lower() for name, _ in request.headers}
    lines = [line for line in usual if line[0].lower() not in given]
    lines += [*conditions(request), *request.headers]
    if request.body:
        lines.append(("Content-Length", str(len(request.body))))
    return httpcore.Request(
        request.method,
        url,
        headers=[(name.encode(), value.encode()) for name, value in lines],
        content=request.body,
    )


def conditions(request: Request) -> list[tuple[str, str]]:
    """Range and the conditional headers.

    A range of a version that only a weak validator names is not asked for at all: the server could
    not say that the version is another, so it is made to send the whole, which stands alone.

    A version that has an ETag is asked for by that alone. Most servers ignore the date beside it,
    as they must; those that look at the date first would call a version unchanged that another one
    of the same second has replaced.

    Source: RFC 9110 §13.1.3, §13.1.5, §13.2.2.
    """
    lines: list[tuple[str, str]] = []
    version = request.if_range
    strong = (version.etag or version.last_modified) if version and version.strong else ""
    if request.span is not None and (strong or version is None or not version.text):
        lines.append(("Range", f"bytes={request.span.start}-{request.span.stop - 1}"))
        if strong:
            lines.append(("If-Range", strong))
    known = request.if_changed
    if known is not None and known.etag:
        lines.append(("If-None-Match", known.etag))
    elif known is not None and known.last_modified:
        lines.append(("If-Modified-Since", known.last_modified))
    return lines
