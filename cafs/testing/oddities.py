"""Answers that no correct origin gives, and some that few do. Faults, as in ``faults``.

What goes wrong there is the line, or the machine; here it is the server's idea of HTTP.
"""

import base64
import gzip
import hashlib
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from typing_extensions import override

from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, Resource, text_answer
from cafs.testing.bodies import Generated, Joined, Literal
from cafs.testing.faults import Fault

_LONG: Final = 1 << 40
_BOUNDARY: Final = "between-the-parts"


def _retold(answer: Answer, name: str, value: str) -> Answer:
    """The answer with another value of a header."""
    kept = tuple(line for line in answer.headers if line[0] != name)
    return replace(answer, headers=(*kept, (name, value)))


def _partial(answer: Answer) -> bool:
    return answer.status == HTTPStatus.PARTIAL_CONTENT


@dataclass(frozen=True, slots=True)
class LessThanAsked(Fault):
    """A 206 of at most so many bytes, and its Content-Range says so."""

    most: int = 1

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        span = answer.span
        if not _partial(answer) or span.length <= self.most:
            return answer
        less = Span(span.start, span.start + self.most)
        place = f"bytes {less.start}-{less.stop - 1}/{answer.body.size}"
        return replace(_retold(answer, "Content-Range", place), span=less)


@dataclass(frozen=True, slots=True)
class OtherTotal(Fault):
    """A 206 whose Content-Range tells another size of the whole, so many bytes more."""

    more: int = 1

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if not _partial(answer):
            return answer
        place = f"bytes {answer.span.start}-{answer.span.stop - 1}/{answer.body.size + self.more}"
        return _retold(answer, "Content-Range", place)


@dataclass(frozen=True, slots=True)
class SeveralParts(Fault):
    """A 206 as multipart/byteranges, though one range was asked for."""

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if not _partial(answer):
            return answer
        place = dict(answer.headers)["Content-Range"]
        part = answer.body.read(answer.span.start, answer.span.length)
        body = b"--%b\r\nContent-Range: %b\r\n\r\n%b\r\n--%b--\r\n" % (
            _BOUNDARY.encode(),
            place.encode(),
            part,
            _BOUNDARY.encode(),
        )
        kind = ("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}")
        return Answer(answer.status, (kind,), Literal(body), Span(0, len(body)))


@dataclass(frozen=True, slots=True)
class Unsatisfiable(Fault):
    """416 to every range that does not begin at 0; ``total`` is what it says of the whole."""

    total: int | None = None

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        asked = ask.header("range")
        if asked is None or asked.startswith("bytes=0-"):
            return answer
        place = () if self.total is None else (("Content-Range", f"bytes */{self.total}"),)
        return text_answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no\n", place)


@dataclass(frozen=True, slots=True)
class Endless(Fault):
    """A body that goes on after its end, in chunks."""

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if answer.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return answer
        right = answer.body.read(answer.span.start, answer.span.length)
        body = Joined((Literal(right), Generated(_LONG)))
        return replace(answer, body=body, span=Span(0, body.size), chunked=True)


@dataclass(frozen=True, slots=True)
class Coded(Fault):
    """The body is compressed, whatever was accepted."""

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if answer.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return answer
        body = gzip.compress(answer.body.read(answer.span.start, answer.span.length), mtime=0)
        coded = _retold(answer, "Content-Encoding", "gzip")
        return replace(coded, body=Literal(body), span=Span(0, len(body)), chunked=True)


@dataclass(frozen=True, slots=True)
class Digested(Fault):
    """A digest is told: by ``field``, of the right bytes, even where a fault after it damages them.

    ``field`` is Repr-Digest, Content-Digest (RFC 9530) or Digest (RFC 3230); ``algorithm`` is
    spelled as there. ``wrong`` tells that of other bytes.
    """

    field: str = "Repr-Digest"
    algorithm: str = "sha-256"
    wrong: bool = False

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if answer.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return answer
        span = answer.span if self.field == "Content-Digest" else Span(0, answer.body.size)
        content = answer.body.read(span.start, span.length) + b"!" * self.wrong
        raw = hashlib.new(self.algorithm.replace("-", "").lower(), content).digest()
        text = base64.b64encode(raw).decode()
        value = text if self.field == "Digest" else f":{text}:"
        return _retold(answer, self.field, f"{self.algorithm}={value}")


@dataclass(frozen=True, slots=True)
class NewAge(Fault):
    """Another Cache-Control than before."""

    cache_control: str = "max-age=1000"

    @override
    def hold(self, resource: Resource) -> Resource:
        return replace(resource, cache_control=self.cache_control)


@dataclass(frozen=True, slots=True)
class NoHead(Fault):
    """HEAD is not known here."""

    @override
    def strikes(self, ask: Ask) -> bool:
        return ask.method == "HEAD"

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return text_answer(HTTPStatus.METHOD_NOT_ALLOWED, "GET\n", (("Allow", "GET"),))
