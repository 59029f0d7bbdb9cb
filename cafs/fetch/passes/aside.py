"""Aside: a second thread for a first pass, for what nobody waits for before the end of it.

The thread of a pass decodes, which is most of its time; hashes of what it decoded can be made
meanwhile, since neither holds the interpreter.
"""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_MOST: Final = 16
"""Works that wait at most: each holds up to 1 MiB."""
Step = Callable[[], object]


class Aside:
    """Does one thing after another, in a thread of its own; a context manager.

    What fails is raised where more is asked for, or at the end.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self) -> None:
        self._todo: deque[Step] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="cafs-aside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._todo.clear()
            self._ended = True
            self._changed.notify_all()
        self._thread.join()  # at most one step, of a millisecond

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def post(self, step: Step) -> None:
        """Have it done after what was posted before; waits while much is waiting.

        Raises:
            Exception: what an earlier step raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or len(self._todo) < _MOST)
            self._check()
            self._todo.append(step)
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until all is done.

        Raises:
            Exception: what a step raised.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._error is not None or not (self._todo or self._busy)
            )
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (step := self._next()) is not None:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - carried to the pass, which raises it
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return

    def _next(self) -> Step | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended or bool(self._todo))
            if self._ended:
                return None
            self._busy = True
            return self._todo.popleft()
