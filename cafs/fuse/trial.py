"""The moments in which a worker is about to be trusted with a mount, and in which it is.

A keeper that replaces a worker has the new one answer INIT, and looks at the answer; then it sends
one heartbeat, and with the reply to that the new one serves. So what must be done by a worker that
will serve, and by no other, is done between that heartbeat and the reply. Another heartbeat tells
it that it serves: the worker before it is not heard any more. What must be done then, and before
who asked for the worker is told, is done before the reply to that.
"""

import trio


class Trial:
    """Holds the replies to the first two heartbeats back until something has been done for each.

    Concurrency: one trio run.
    """

    def __init__(self) -> None:
        self._asked = trio.Event()
        self._passed = trio.Event()
        self._served = trio.Event()
        self._settled = trio.Event()

    async def asked(self) -> None:
        """Wait for the first heartbeat.

        Cancellation: no effect.
        """
        await self._asked.wait()

    def passed(self) -> None:
        """Let the first heartbeat be answered: this worker may serve."""
        self._passed.set()

    async def served(self) -> None:
        """Wait for the next heartbeat: this worker serves, and no other does.

        Cancellation: no effect.
        """
        await self._served.wait()

    def settled(self) -> None:
        """Let heartbeats be answered, the one that waits and all to come."""
        self._settled.set()

    async def held(self) -> None:
        """A heartbeat has come: wait until it may be answered.

        Cancellation: it stays unanswered.
        """
        if not self._passed.is_set():
            self._asked.set()
            await self._passed.wait()
            return
        self._served.set()
        await self._settled.wait()
