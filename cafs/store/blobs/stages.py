"""The life of an upload's writer: open, then closed, committed or cancelled (B-4)."""

import enum

import trio


class _Stage(enum.Enum):
    OPEN = enum.auto()
    CLOSED = enum.auto()
    COMMITTED = enum.auto()
    CANCELLED = enum.auto()


class Life:
    """Where in its life a writer is, and what it may do there.

    ``name`` is what errors call it.

    Concurrency: one task at a time.
    """

    __slots__ = ("_stage", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._stage = _Stage.OPEN

    def check(self) -> None:
        """Refuse to go on with what is over.

        Raises:
            trio.ClosedResourceError: it is closed, committed or cancelled.
        """
        if self._stage is not _Stage.OPEN:
            raise trio.ClosedResourceError(f"{self.name} is {self._stage.name.lower()}")

    @property
    def open(self) -> bool:
        """Whether it can be written."""
        return self._stage is _Stage.OPEN

    @property
    def over(self) -> bool:
        """Whether nothing is left that could be resumed."""
        return self._stage in {_Stage.COMMITTED, _Stage.CANCELLED}

    def close(self) -> None:
        """End the writing; twice is once, and of what was cancelled nothing is left to close.

        Raises:
            trio.ClosedResourceError: it is committed.
        """
        if self._stage is _Stage.COMMITTED:
            raise trio.ClosedResourceError(f"{self.name} is committed")
        if self._stage is _Stage.OPEN:
            self._stage = _Stage.CLOSED

    def commit(self) -> None:
        """It has become a blob."""
        self._stage = _Stage.COMMITTED

    def cancel(self) -> None:
        """It is thrown away."""
        self._stage = _Stage.CANCELLED
