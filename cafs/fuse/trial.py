"""The moment in which a worker is about to be trusted with a mount, and is not yet.

A keeper that replaces a worker has the new one answer INIT, and looks at the answer; then it sends
one heartbeat, and with the reply to that the new one serves. So what must be done by a worker that
will serve, and by no other, is done between that heartbeat and the reply.
"""

import trio


class Trial:
    """Holds the replies to heartbeats back until something has been done.

    Concurrency: one trio run.
    """

    def __init__(self) -> None:
        self._asked = trio.Event()
        self._passed = trio.Event()

    async def asked(self) -> None:
        """Wait for the first heartbeat.

        Cancellation: no effect.
        """
        await self._asked.wait()

    def passed(self) -> None:
        """Let heartbeats be answered, the one that waits and all to come."""
        self._passed.set()

    async def held(self) -> None:
        """A heartbeat has come: wait until it may be answered.

        Cancellation: it stays unanswered.
        """
        self._asked.set()
        await self._passed.wait()
