"""A guard at the test origin, for those who must say who they are: what opens can be changed."""

import base64
import threading
from dataclasses import dataclass, field
from http import HTTPStatus

from typing_extensions import override

from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.faults import Fault


def basic(user: str, password: str) -> str:
    """The header's value for a name and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class RequireProof(Fault):
    """A refusal of those whose ``header`` is none of what opens.

    ``challenge`` is the WWW-Authenticate of the refusal, none when empty.

    Concurrency: any number of threads.
    """

    header: str = "authorization"
    challenge: str = 'Basic realm="test"'
    code: int = HTTPStatus.UNAUTHORIZED
    _open: set[str] = field(default_factory=set, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def opens_to(self, *values: str) -> "RequireProof":
        """Let these values of the header open from now on, and no others; this guard."""
        with self._lock:
            self._open.clear()
            self._open.update(values)
        return self

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        with self._lock:
            if ask.header(self.header) in self._open:
                return answer
        lines = (("WWW-Authenticate", self.challenge),) if self.challenge else ()
        return text_answer(self.code, "who are you?\n", lines)
