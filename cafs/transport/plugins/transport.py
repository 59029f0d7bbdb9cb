"""The transport of a plugin: its program runs when it is first needed, and again when it died."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio
from typing_extensions import override

from cafs.errors import CafsError, DeadlineError, RefusedError, UnreachableError
from cafs.model.address import shown
from cafs.model.plugging import PluginSpec
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.plugins import frames
from cafs.transport.plugins.answering import asked, head_of, unchanged_of
from cafs.transport.plugins.exchange import Exchange
from cafs.transport.plugins.frames import Ended
from cafs.transport.plugins.program import Program

T = TypeVar("T")
_RESTART_S: Final = (0.25, 30.0)
"""How long a program that died is left alone: the first time, and at most. It doubles until a
request ends well."""
_END_S: Final = 0.5
"""How long the end of an answer is waited for, once all its bytes have come."""


@asynccontextmanager
async def open_plugins(specs: Sequence[PluginSpec]) -> AsyncIterator[dict[str, "PluginTransport"]]:
    """Transports for the URLs of plugins, by scheme. Their programs end with the block."""
    try:
        async with trio.open_nursery() as nursery:
            plugins = {spec.scheme: PluginTransport(spec, nursery) for spec in specs}
            try:
                yield plugins
            finally:
                for plugin in plugins.values():
                    plugin.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Nothing in the nursery raises but its body: what that raised goes out as it was.
        if len(group.exceptions) == 1:
            failure = group.exceptions[0]
            raise failure from failure.__cause__
        raise


class PluginTransport(Transport):
    """Hands requests to a plugin's program.

    Args:
        spec: what the user enabled.
        nursery: where the program runs.

    Concurrency: any number of tasks; those above what the program takes at once wait, for as long
    as those before them take.
    """

    def __init__(self, spec: PluginSpec, nursery: trio.Nursery) -> None:
        self._spec = spec
        self._nursery = nursery
        self._starting = trio.Lock()
        # One at a time: of a program that cannot be started, no more than one thread hangs.
        self._threads = trio.CapacityLimiter(1)
        self._program: Program | None = None
        self._counted: Program | None = None
        self._deaths = 0
        self._not_before_s = 0.0
        self._closed = False

    @override
    async def open(self, request: Request) -> Response:
        """Ask the plugin.

        Raises:
            CafsError: what the plugin answered; or UnreachableError when its program ended or
                hangs, RefusedError when it cannot be started or says what is no answer,
                DeadlineError when it says nothing about the request for as long as the settings
                allow. Each has the last lines of the program's stderr.
        """
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        ask = asked(request)
        program, exchange = await self._ask(request.url, lambda number: frames.get(number, ask))
        line = _Line(program, exchange, self._spec.timeout_s)
        try:
            answer = await line.patiently(exchange.opened)
            if isinstance(answer, Ended):
                head = unchanged_of(request, answer)
            else:
                head = head_of(request, answer)
        except BaseException:
            program.leave(exchange, complete=False)
            raise
        return _PluginResponse(head, line)

    def close(self) -> None:
        """Start no program any more."""
        self._closed = True

    @override
    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    async def _ask(self, url: str, line: Callable[[int], bytes]) -> tuple[Program, Exchange]:
        while True:
            program = await self._running(url)
            try:
                return program, await program.ask(url, line)
            except CafsError:
                # It was stopped, or ended, for a reason that has nothing to do with this request.
                if program.fault is None or program.fault.blame:
                    raise

    async def _running(self, url: str) -> Program:
        async with self._starting:
            if self._closed:
                raise trio.ClosedResourceError(f"{shown(url)}: the plugin is closed")
            program = self._program
            if program is not None and program.fault is not None:
                await program.dead.wait()
                self._count(program)
                self._refuse_for_now(program, url)
                program = None
            if program is None:
                spec = self._spec
                program = Program(spec.scheme, spec.command, spec.timeout_s, self._threads)
                self._program = program
                self._nursery.start_soon(program.run)
            # Also when another began it, who may have gone since: nothing is said before greetings.
            await program.ready.wait()
        if program.fault is not None:
            await program.dead.wait()
            raise program.failure(url)
        return program

    def _count(self, program: Program) -> None:
        """Note a death, once: how long the program is left alone after it."""
        if program is self._counted or program.fault is None:
            return
        self._counted = program
        if program.answered:
            self._deaths = 0
        if program.fault.blame:
            first_s, most_s = _RESTART_S
            rest_s = min(first_s * 2 ** min(self._deaths, 30), most_s)
            self._deaths += 1
            self._not_before_s = program.died_s + rest_s

    def _refuse_for_now(self, program: Program, url: str) -> None:
        """Do not start a program that has just died: who asks knows better whether to wait."""
        rest_s = self._not_before_s - trio.current_time()
        if rest_s > 0:
            error = program.failure(url)
            if isinstance(error, UnreachableError):
                error.retry_after_s = rest_s
            raise error


class _Line:
    """A request's end of a program: waits as long as the settings allow."""

    def __init__(self, program: Program, exchange: Exchange, timeout_s: float) -> None:
        self.exchange = exchange
        self.program = program
        self._timeout_s = timeout_s

    async def patiently(self, wait: Callable[[], Awaitable[T]]) -> T:
        """What is waited for.

        Raises:
            DeadlineError: it did not come in time.
        """
        with trio.move_on_after(self._timeout_s):
            return await wait()
        self.program.suspect()
        url = self.exchange.url
        what = f"GET {shown(url)}: its plugin said nothing for {self._timeout_s:g} s"
        raise DeadlineError(f"{what}{self.program.words(url)}")


class _PluginResponse(Response):
    """Bytes as they come; never more than the head said, and never fewer without an error."""

    def __init__(self, head: Head, line: _Line) -> None:
        self._head = head
        self._line = line
        self._received = 0
        self._closed = False

    @property
    @override
    def head(self) -> Head:
        return self._head

    @property
    @override
    def document(self) -> str:
        end = self._line.exchange.end
        return "" if end is None else end.document

    @override
    async def receive(self) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError(f"{shown(self._head.url)}: closed")
        exchange, program = self._line.exchange, self._line.program
        piece = await self._line.patiently(exchange.take)
        granted = exchange.credit()
        if granted:
            program.say(frames.more(exchange.number, granted))
        self._received += len(piece)
        self._check(ended=not piece)
        if piece and self._complete:
            # The end follows at once, and has the document; who has all bytes asks for no more.
            with trio.move_on_after(_END_S):
                await exchange.wait_over()
        return piece

    @override
    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._line.program.leave(self._line.exchange, complete=self._complete)

    @property
    def _complete(self) -> bool:
        return self._head.span is not None and self._received == self._head.span.length

    def _check(self, *, ended: bool) -> None:
        span = self._head.span
        if span is None:
            return
        name = f"GET {shown(self._head.url)}"
        if self._received > span.length:
            raise RefusedError(f"{name}: more than the announced {span.length} bytes")
        if ended and self._received < span.length:
            raise UnreachableError(f"{name}: ended after {self._received} of {span.length} bytes")
