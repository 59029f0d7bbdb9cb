"""How the test origin answers when nothing is wrong: ranges, conditions, validators.

Pure functions from a question and a resource to an answer. Source: RFC 9110 (13 conditional
requests, 14 range requests).
"""

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from cafs.model.span import Span
from cafs.testing.bodies import Body, Literal

Headers = tuple[tuple[str, str], ...]
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it came. ``path`` is still percent-encoded; header names are lower-case."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()
    base: str = ""
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Resource:
    """Something to serve. ``etag`` is with its quotes; ``last_modified`` is s since the epoch."""

    body: Body
    etag: str | None = None
    last_modified: int | None = None
    cache_control: str | None = None
    content_type: str = "application/octet-stream"
    ranges: bool = True
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and how badly it is to be sent.

    ``span`` is the part of the body that is sent, and announced unless ``chunked``. Then, in the
    order in which they strike: ``delay_s`` and ``hang`` before the head, ``head_interval_s``
    between the bytes of the head, ``rate`` (bytes/s; ``shared`` by all responses or of this one
    alone), ``stall_after`` and ``cut_after`` (bytes of
    this body) in the body; ``reset`` makes a cut an RST.
    """

    status: int
    headers: Headers = ()
    body: Body = field(default_factory=lambda: Literal(b""))
    span: Span = field(default_factory=lambda: Span(0, 0))
    chunked: bool = False
    delay_s: float = 0
    hang: bool = False
    head_interval_s: float = 0
    rate: float | None = None
    shared: bool = False
    stall_after: int | None = None
    cut_after: int | None = None
    reset: bool = False


def text_answer(status: int, text: str, headers: Headers = ()) -> Answer:
    """A short answer in plain text."""
    content = text.encode()
    kind = () if any(name == "Content-Type" for name, _ in headers) else _TEXT
    return Answer(status, kind + headers, Literal(content), Span(0, len(content)))


_TEXT: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)


def answer(ask: Ask, resource: Resource | None) -> Answer:
    """What a correct origin answers. The body is given for HEAD too; the sender leaves it out."""
    if resource is None:
        return text_answer(HTTPStatus.NOT_FOUND, f"{ask.path}: not found\n")
    if ask.method not in {"GET", "HEAD"}:
        allowed: Headers = (("Allow", "GET, HEAD"),)
        return text_answer(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n", allowed)
    headers = _metadata(resource)
    if _unchanged(ask, resource):
        return Answer(HTTPStatus.NOT_MODIFIED, headers)
    size = resource.body.size
    kind: Headers = (("Content-Type", resource.content_type),)
    span = _wanted(ask, resource, size)
    if span is None:
        return Answer(HTTPStatus.OK, kind + headers, resource.body, Span(0, size))
    if span.length == 0:
        unsatisfied = (*headers, ("Content-Range", f"bytes */{size}"))
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, unsatisfied)
    place = ("Content-Range", f"bytes {span.start}-{span.stop - 1}/{size}")
    return Answer(HTTPStatus.PARTIAL_CONTENT, (*kind, *headers, place), resource.body, span)


def _metadata(resource: Resource) -> Headers:
    headers = list(resource.headers)
    if resource.ranges:
        headers.append(("Accept-Ranges", "bytes"))
    if resource.etag is not None:
        headers.append(("ETag", resource.etag))
    if resource.last_modified is not None:
        headers.append(("Last-Modified", _date(resource.last_modified)))
    if resource.cache_control is not None:
        headers.append(("Cache-Control", resource.cache_control))
    return tuple(headers)


def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _unchanged(ask: Ask, resource: Resource) -> bool:
    listed = ask.header("if-none-match")
    if listed is not None:
        tags = {tag.strip().removeprefix("W/") for tag in listed.split(",")}
        return resource.etag is not None and (
            "*" in tags or resource.etag.removeprefix("W/") in tags
        )
    since = ask.header("if-modified-since")
    return (
        since is not None
        and resource.last_modified is not None
        and since == _date(resource.last_modified)
    )


def _wanted(ask: Ask, resource: Resource, size: int) -> Span | None:
    """The span asked for; None for all of it, an empty one when it cannot be satisfied."""
    asked = _RANGE.fullmatch(ask.header("range") or "")
    if ask.method != "GET" or asked is None or not resource.ranges or not _same(ask, resource):
        return None
    first, last = asked.groups()
    if not first and not last:
        return None
    if not first:
        return Span(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return Span(int(first), max(int(first), int(last or size) + 1)).clamp(size)


def _same(ask: Ask, resource: Resource) -> bool:
    """Whether If-Range lets the range stand; the comparison is the strong one."""
    condition = ask.header("if-range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == resource.etag and not condition.startswith("W/")
    return resource.last_modified is not None and condition == _date(resource.last_modified)
