"""Crowding: how many requests may wait at once for one ref.

Whoever answers requests does so with a limited number of tasks. One source that is dead must not
hold them all, or what is local could not be read either. So of the requests of one ref only so many
wait; one more fails at once. A request counts from its first wait to its end, and never when it
needs none: what is local is read however many wait.
"""

from collections import Counter
from types import TracebackType
from typing import Final

from typing_extensions import override

from cafs.errors import CrowdedError
from cafs.fetch.interfaces import Patience, Place

PER_REF: Final = 1024
"""Requests that wait for one ref, or for one digest: a quarter of a worker's tasks."""
IN_ALL: Final = 3584
"""Requests that wait for anything: an eighth of a worker's tasks is left for what is local."""


class Crowds:
    """Counts the requests that wait, by what they wait for.

    Args:
        per_ref: how many may wait for one thing.
        in_all: how many may wait for anything.

    Concurrency: any number of tasks of one trio run; nothing here awaits.
    """

    def __init__(self, per_ref: int = PER_REF, in_all: int = IN_ALL) -> None:
        self._per_ref = per_ref
        self._in_all = in_all
        self._waiting: Counter[str] = Counter()

    def enter(self, key: str, name: str) -> None:
        """Count one more.

        Raises:
            CrowdedError: too many wait already.
        """
        if self._waiting[key] >= self._per_ref:
            raise CrowdedError(f"{name}: {self._per_ref} requests wait for it already")
        if self._waiting.total() >= self._in_all:
            raise CrowdedError(f"{name}: {self._in_all} requests wait for sources already")
        self._waiting[key] += 1

    def leave(self, key: str) -> None:
        """Count one less."""
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]


class Request(Place):
    """One request for what may have to be waited for: a block, in which it has its patience.

    Args:
        crowds: where it is counted if it waits.
        key: what it would wait for.
        name: what people call that.
        deadline_s: how long it waits without progress; None is as long as it lives.

    Concurrency: one task has the block; those that it starts there wait for the same request.
    """

    __slots__ = ("_crowds", "_deadline_s", "_key", "_name", "_waits")

    def __init__(self, crowds: Crowds, key: str, name: str, deadline_s: float | None) -> None:
        self._crowds = crowds
        self._key = key
        self._name = name
        self._deadline_s = deadline_s
        self._waits = False

    @override
    def take(self) -> None:
        if not self._waits:
            self._crowds.enter(self._key, self._name)
            self._waits = True

    def __enter__(self) -> Patience:
        return Patience(self._deadline_s, place=self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._waits:
            self._crowds.leave(self._key)
