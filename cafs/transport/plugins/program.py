"""The program of a plugin: one process, its three pipes, and the requests that it has.

Whatever goes wrong with it (it ends, says nothing, says what is no protocol) ends all its requests
at once, each with the last lines of its stderr, and the process with its children is killed. It is
never started again here; who wants it again makes another.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from cafs.errors import CafsError, RefusedError, UnreachableError
from cafs.model.address import shown
from cafs.transport.plugins import frames
from cafs.transport.plugins.exchange import Exchange
from cafs.transport.plugins.failing import Fault, redacted
from cafs.transport.plugins.frames import BabbleError, Ended, Hello, Parser
from cafs.transport.plugins.handshake import PROTOCOL, Outcome, Version, compared
from cafs.transport.plugins.last_words import LastWords
from cafs.transport.plugins.requests import Requests
from cafs.transport.plugins.running import Running, start
from cafs.transport.plugins.starting import Process

_LOG: Final = logging.getLogger("cafs.transport")
_READ: Final = 256 << 10
_LAST_S: Final = 0.5
"""How long what a plugin said before it ended is waited for: it is in the pipe, or the pipe is held
by a child that outlives it."""
_RECENT: Final = 256
"""URLs whose queries are kept out of the log: a plugin may speak of one that it has answered."""
_LEFT: Final = 1024
"""Requests that nobody waits for and that are not ended; more, and cancelling means nothing."""


class Program:
    """A plugin's process. Make it, start ``run`` in a nursery, wait for ``ready``.

    ``ready`` comes when it takes requests, or is ``dead``.

    ``fault`` says why it is of no more use, None as long as it is; ``died_s`` is since when, on
    trio's clock. ``answered`` says that a request has come to a good end.

    Args:
        scheme: whom it answers for.
        command: the program and its arguments.
        timeout_s: how long it may say nothing, and how long starting it may take.
        threads: for starting it.

    Concurrency: any number of tasks may ask; one runs it.
    """

    def __init__(
        self,
        scheme: str,
        command: tuple[str, ...],
        timeout_s: float,
        threads: trio.CapacityLimiter,
    ) -> None:
        self.ready = trio.Event()
        self.dead = trio.Event()
        self.fault: Fault | None = None
        self.died_s = 0.0
        self.answered = False
        self._scheme = scheme
        self._command = command
        self._timeout_s = timeout_s
        self._threads = threads
        self._requests = Requests()
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._outbox: deque[bytes] = deque()
        self._post = trio.Event()
        self._words = LastWords(scheme, self._urls)
        self._talking = trio.CancelScope()
        self._heard_s = 0.0
        self._holding = False

    async def run(self) -> None:
        """Start the process, talk with it, and end it when it or the caller ends.

        Cancellation: the process is ended, within some seconds; its requests fail.
        """
        try:
            await self._run()
        finally:
            self._die(Fault(UnreachableError, "is not needed any more", blame=False))

    async def _run(self) -> None:
        try:
            with trio.fail_after(self._timeout_s):
                running = await start(self._command, self._threads)
        except trio.TooSlowError:
            self._die(Fault(UnreachableError, f"was not started within {self._timeout_s:g} s"))
            return
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = f"install it, or say where it is: plugins.{self._scheme}.command"
            self._die(Fault(RefusedError, f"cannot be started: {reason}", hint=hint))
            return
        try:
            await self._serve(running)
        finally:
            await running.end()

    async def ask(self, url: str, line: Callable[[int], bytes]) -> Exchange:
        """Send a request, as soon as the plugin takes one more.

        Args:
            url: what it is about.
            line: what to send, once the request has a number.

        Raises:
            CafsError: the program is of no use any more.

        Cancellation: no effect.
        """
        exchange = self._requests.new(url)
        granted = False
        while not granted:
            with trio.move_on_after(self._timeout_s):
                await self._requests.turn(exchange)
                granted = True
            if not granted:
                self.suspect()
        if self.fault is not None:
            self._requests.withdraw(exchange)
            raise self.failure(url)
        self._requests.begin(exchange)
        if "?" in url:
            self._recent.append(url)
        self.say(line(exchange.number))
        return exchange

    def leave(self, exchange: Exchange, *, complete: bool) -> None:
        """Wait for a request no more.

        Args:
            exchange: the request.
            complete: whether all that was wanted of it has come.
        """
        exchange.leave()
        if exchange.over or complete:
            return  # its end is here, or under way
        if self._requests.serial:
            # It may be in the middle of sending, and looks at nothing before it has sent all.
            self._stop(Fault(UnreachableError, "was stopped with a request", blame=False))
        elif self._requests.left > _LEFT:
            self._stop(Fault(RefusedError, f"ended none of {_LEFT} requests that were cancelled"))
        else:
            self.say(frames.cancel(exchange.number))

    def say(self, line: bytes) -> None:
        """Send a line, soon."""
        self._outbox.append(line)
        self._post.set()

    def suspect(self) -> None:
        """Be done with it if it has said nothing for so long: its requests fail, now."""
        if not self._holding and trio.current_time() - self._heard_s >= self._timeout_s:
            self._stop(Fault(UnreachableError, f"said nothing for {self._timeout_s:g} s"))

    def failure(self, url: str) -> CafsError:
        """The error of a request for what became of the program."""
        fault = self.fault or Fault(UnreachableError, "ended")
        said = redacted(fault.what, (url, *self._urls()))
        what = f"GET {shown(url)}: the plugin {self._command[0]} {said}{self.words(url)}"
        return fault.family(what, hint=fault.hint)

    def words(self, url: str) -> str:
        """Its last words, to stand behind a reason; empty when there are none."""
        said = redacted(self._words.text, (url,))
        return f"; its last words: {said}" if said else ""

    async def _serve(self, running: Running) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._words.listen, running.stderr)
            nursery.start_soon(self._write, running.stdin)
            nursery.start_soon(self._watch, running.process)
            with self._talking:
                fault = await self._talk(running.stdout)
                self.fault = self.fault or fault
            fault = self.fault or Fault(UnreachableError, "ended", ended=True)
            with trio.move_on_after(_LAST_S):
                if fault.ended:
                    fault = fault.with_code(await running.process.wait())
            self.fault = fault
            running.kill()
            with trio.move_on_after(_LAST_S):
                await self._words.ended.wait()
            self._die(fault)
            nursery.cancel_scope.cancel()

    async def _talk(self, stream: trio.abc.ReceiveStream) -> Fault:
        """Listen to its stdout until its end, or until it says what cannot be."""
        parser = Parser()
        self._heard_s = trio.current_time()
        self.say(frames.hello(PROTOCOL))
        try:
            hello = None
            with trio.move_on_after(self._timeout_s):
                while hello is None:
                    data = await stream.receive_some(_READ)
                    if not data:
                        return Fault(UnreachableError, "ended without a greeting", ended=True)
                    hello = parser.greeting(bytes(data))
            if hello is None:
                return Fault(UnreachableError, f"did not greet within {self._timeout_s:g} s")
            refusal = self._greeted(hello)
            if refusal is not None:
                return refusal
            await self._feed(parser, b"")
            while data := await stream.receive_some(_READ):
                await self._feed(parser, bytes(data))
        except BabbleError as error:
            return Fault(RefusedError, f"said what is not of the protocol: {error}")
        return Fault(UnreachableError, "ended", ended=True)

    def _greeted(self, hello: Hello) -> Fault | None:
        """Why the program that greeted will not do; None when it does."""
        verdict = compared(PROTOCOL, Version.parse(hello.version))
        if verdict.outcome is Outcome.REFUSE:
            return Fault(RefusedError, f"will not do: {verdict.reason}")
        if self._scheme not in hello.schemes:
            spoken = ", ".join(hello.schemes) or "nothing"
            return Fault(RefusedError, f"answers for {spoken}, not for {self._scheme}")
        self._requests.allow(hello.requests)
        if verdict.outcome is Outcome.WARN:
            _LOG.warning("transport.plugin.newer %s: %s", self._command[0], verdict.reason)
        self.ready.set()
        return None

    async def _feed(self, parser: Parser, data: bytes) -> None:
        self._heard_s = trio.current_time()
        for frame in parser.feed(data):
            exchange = self._requests.take(frame)
            self.answered = self.answered or isinstance(frame, Ended)
            self._holding = True
            await exchange.room()
            self._holding = False
        self._heard_s = trio.current_time()

    async def _write(self, stream: trio.abc.SendStream) -> None:
        """Send what is to be said. A task of its own, since half a line must never be sent."""
        with suppress(trio.BrokenResourceError):  # its stdout ends too, or it is found silent
            while True:
                while self._outbox:
                    await stream.send_all(self._outbox.popleft())
                self._post = trio.Event()
                await self._post.wait()

    async def _watch(self, process: Process) -> None:
        """End with the process, though a child of it may hold its stdout."""
        await process.wait()
        await trio.sleep(_LAST_S)
        self._stop(Fault(UnreachableError, "ended", ended=True))

    def _urls(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._recent))

    def _stop(self, fault: Fault) -> None:
        self.fault = self.fault or fault
        self._talking.cancel()

    def _die(self, fault: Fault) -> None:
        """Let every request know."""
        if self.dead.is_set():
            return
        self.died_s = trio.current_time()
        # One that ends while nobody wants anything of it may have its reasons.
        idle = self.ready.is_set() and not self._requests
        self.fault = replace(fault, blame=fault.blame and not idle)
        self.ready.set()
        self.dead.set()
        self._requests.fail(self.failure)
