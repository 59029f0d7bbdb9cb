"""Runs: readers of one content that go forward, as its reads tell. Pure.

Several are told apart, because tools read several members of an archive side by side. The kernel
sends the reads of one reader slightly out of order and in parallel, so a read belongs to a run when
it is near its end.
"""

from typing import Final

import msgspec

from cafs.model.span import Span

NEAR: Final = 1 << 20
"""How far from its end a read still goes on with a run: the kernel sends some out of order."""
_RUNS: Final = 8


class Run(msgspec.Struct):
    """One reader: from where he came, how far, and how many bytes of that he read.

    ``forward`` is whether his last read brought him further. What is advised to have ready for him
    reaches up to ``frontier``; ``advised`` says how often that was moved.
    """

    start: int
    reached: int
    frontier: int
    read: int
    forward: bool = False
    advised: int = 0

    def go_on(self, span: Span) -> None:
        """He reads this."""
        self.forward = span.stop > self.reached
        self.start = min(self.start, span.start)
        self.reached = max(self.reached, span.stop)
        self.read = min(self.reached - self.start, self.read + span.length)
        self.frontier = max(self.frontier, self.reached)

    def advise(self, stop: int) -> Span:
        """What lies between what is advised and ``stop``, which is advised from now on."""
        ahead = Span(self.frontier, stop)
        self.frontier = stop
        self.advised += 1
        return ahead


class Runs:
    """The readers of one content; of many, those that read last.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def note(self, span: Span, gap: int = NEAR) -> Run:
        """The run that a read goes on, or the new one that it begins.

        Args:
            span: what is read.
            gap: bytes that a reader may leave out, and still go forward.
        """
        for run in self._runs:
            if -NEAR <= span.start - run.reached <= gap:
                self._runs.remove(run)
                self._runs.append(run)
                run.go_on(span)
                return run
        self._runs.append(Run(span.start, span.stop, span.stop, span.length))
        del self._runs[:-_RUNS]
        return self._runs[-1]
