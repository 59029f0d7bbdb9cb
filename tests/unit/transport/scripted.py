"""A transport that does what a test says, and notes what it was asked."""

from collections.abc import Callable
from dataclasses import replace

from typing_extensions import override

from cafs.errors import CafsError
from cafs.transport.answers import ChallengeError, RedirectError
from cafs.transport.interfaces import Head, Request, Response, Transport

Step = CafsError | Head | Callable[[Request], Head] | None
"""An error to raise, a head to answer with, or None for a plain 200."""


class Answered(Response):
    """A response from memory."""

    def __init__(self, head: Head, body: bytes = b"") -> None:
        self._head = head
        self._body = body
        self.closed = False

    @property
    @override
    def head(self) -> Head:
        return self._head

    @override
    async def receive(self) -> bytes:
        body, self._body = self._body, b""
        return body

    @override
    async def aclose(self) -> None:
        self.closed = True


def answered(request: Request, peer: str = "", body: bytes = b"") -> Answered:
    """A plain 200."""
    return Answered(Head(url=request.url, status=200, peer=peer), body)


class Scripted(Transport):
    """Takes one step for each request; the last one again and again."""

    def __init__(self, steps: list[Step], *, peer: str = "", body: bytes = b"") -> None:
        self._steps = list(steps)
        self._body = body
        self.peer = peer
        self.requests: list[Request] = []
        self.responses: list[Answered] = []
        self.closed = 0

    @override
    async def open(self, request: Request) -> Response:
        self.requests.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, RedirectError | ChallengeError):
            step.url = request.url
        if isinstance(step, CafsError):
            raise step
        if step is None:
            response = answered(request, self.peer, self._body)
        else:
            head = step if isinstance(step, Head) else step(request)
            response = Answered(replace(head, url=request.url), self._body)
        self.responses.append(response)
        return response

    @override
    async def aclose(self) -> None:
        self.closed += 1
