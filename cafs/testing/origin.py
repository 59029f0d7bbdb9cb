"""A real HTTP/1.1 origin on loopback, with faults: small, correct by default, observable.

It runs in a thread with a trio run of its own, so tests of any kind use it: plain ones, trio ones,
and those that mount in another process. ::

    with running_origin() as origin:
        url = origin.put("/blob", Generated(256 << 20), cache_control="max-age=60")
        origin.fault("/blob", Drop(after_bytes=1000, times=1))
        ...
        assert origin.bytes_sent("/blob") <= 300_000

It is not for tests on an autojump clock: that clock jumps while the origin's real bytes are on
their way. What is on the wire is ``cafs.testing.serving``, what a correct answer is
``cafs.testing.answers``, what may go wrong ``cafs.testing.faults``.

As a program it serves a directory: ``python -m cafs.testing.origin DIR [--port N]``.
"""

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import trio

from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, Headers, Resource, answer
from cafs.testing.bodies import Body, body_of
from cafs.testing.faults import Fault, RequireBearer
from cafs.testing.serving import Exchange, Ledger, serve

AUTO: Final = "auto"
"""The ETag that is made from the content."""
_EPOCH: Final = 1_700_000_000
_LISTEN_S: Final = 60.0
_SETTLE_S: Final = 60.0


class _Armed:
    """A fault and how often it still strikes."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._skip = fault.skip
        self._left = fault.times

    def pull(self, ask: Ask) -> bool:
        """Count this request; whether the fault strikes it."""
        if not self.fault.strikes(ask):
            return False
        if self._skip:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
            return self._left >= 0
        return True


class Origin:
    """The origin: what it serves, what goes wrong, and what was asked of it.

    A path that ends in ``*`` stands for all paths that begin so. Paths are compared as they are on
    the wire, percent-encoded and without the query.

    Concurrency: any number of threads. No method blocks but ``start``, ``stop``, ``settle`` and
    ``wait_until``, all of them briefly.
    """

    def __init__(self, *, report: Callable[[Exchange], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._answers: dict[str, Callable[[Ask], Answer]] = {}
        self._directory: Path | None = None
        self._faults: dict[str, list[_Armed]] = {}
        self._ledger = Ledger(report)
        self._thread: threading.Thread | None = None
        self._halt: Callable[[], None] | None = None
        self._failure: BaseException | None = None
        self._place: socket.socket | None = None
        self.port = 0

    # -- what it serves

    def url(self, path: str) -> str:
        """The absolute URL of a path, which begins with ``/``."""
        return f"http://127.0.0.1:{self.port}{path}"

    def put(
        self,
        path: str,
        body: bytes | Path | Body,
        *,
        etag: str | None = AUTO,
        last_modified: int | None = _EPOCH,
        cache_control: str | None = None,
        content_type: str = "application/octet-stream",
        ranges: bool = True,
        headers: Headers = (),
    ) -> str:
        """Serve a body at a path, instead of what was there; its URL."""
        content = body_of(body)
        tag = f'"{content.tag}"' if etag == AUTO else etag
        resource = Resource(
            content, tag, last_modified, cache_control, content_type, ranges, headers
        )
        with self._lock:
            self._resources[path] = resource
        return self.url(path)

    def serve(self, path: str, answers: Callable[[Ask], Answer]) -> str:
        """Answer a path by a function, called on the origin's thread; its URL."""
        with self._lock:
            self._answers[path] = answers
        return self.url(path)

    def serve_directory(self, directory: Path) -> None:
        """Serve the files below a directory at every path that has nothing else."""
        with self._lock:
            self._directory = directory.resolve()

    def remove(self, path: str) -> None:
        """Answer 404 from now on."""
        with self._lock:
            del self._resources[path]

    def expected(self, path: str, span: Span | None = None) -> bytes:
        """The right bytes of a path's body, without any fault."""
        body = self._resources[path].body
        wanted = span or Span(0, body.size)
        return body.read(wanted.start, wanted.length)

    # -- what goes wrong

    def fault(self, path: str, *faults: Fault) -> None:
        """Let these go wrong, besides those already set."""
        with self._lock:
            self._faults.setdefault(path, []).extend(map(_Armed, faults))
            for one in faults:
                if isinstance(one, RequireBearer):
                    self._answers[one.realm] = one.issue

    def silence(self, path: str) -> None:
        """Send nothing more of a path: no head, and no byte of bodies that are half sent.

        It ends with ``release`` or ``heal``. The path is one, without ``*``.
        """
        self._ledger.silence(path)

    def heal(self, path: str | None = None) -> None:
        """No fault of this path any more, or of any; what stalls or hangs goes on."""
        with self._lock:
            if path is None:
                self._faults.clear()
            else:
                self._faults.pop(path, None)
        self.release()

    def release(self) -> None:
        """Let every response that stalls or hangs now go on."""
        self._ledger.release()

    # -- what was asked

    @property
    def requests(self) -> tuple[Exchange, ...]:
        """Every request so far, in the order of arrival, those under way among them."""
        return self._ledger.exchanges()

    def requests_for(self, path: str) -> tuple[Exchange, ...]:
        """The requests of one path."""
        return tuple(one for one in self.requests if one.path == path)

    def bytes_sent(self, path: str | None = None) -> int:
        """Bytes of bodies given to the kernel, for one path or for all.

        At most what the client took, plus 128 KiB of the origin's send buffer and what the client's
        receive buffer holds.
        """
        return sum(one.bytes_sent for one in self.requests if path in {None, one.path})

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._ledger.connections

    def forget(self) -> None:
        """Empty the log."""
        self._ledger.forget()

    def settle(self) -> None:
        """Wait until no request is under way, stalled and hanging ones left out; blocks the thread.

        Raises:
            TimeoutError: one still is, after a minute.
        """
        if not self._ledger.settle(_SETTLE_S):
            raise TimeoutError(f"still under way: {[x for x in self.requests if not x.ended]}")

    def wait_until(self, holds: Callable[[tuple[Exchange, ...]], bool]) -> None:
        """Wait until the log is as ``holds`` wants it; blocks the thread.

        Raises:
            TimeoutError: it is not, after a minute.
        """
        if not self._ledger.wait_until(holds, _SETTLE_S):
            raise TimeoutError(f"not seen in {self.requests}")

    # -- up and down

    def start(self) -> None:
        """Listen; on the same port again when it did before."""
        self._take_place()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="origin", daemon=True)
        self._thread.start()
        if not ready.wait(_LISTEN_S):
            raise TimeoutError("the origin does not listen")
        self._raise()

    def stop(self) -> None:
        """Refuse connections and break the open ones, until ``start``."""
        if self._thread is None:
            return
        if self._halt is not None:
            self._halt()
        self._thread.join()
        self._thread = None
        self._halt = None
        self._raise()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        if self._place is not None:
            self._place.close()
            self._place = None

    def _take_place(self) -> None:
        """Have the port while nobody listens, too: no other server or connection may get it."""
        if self._place is not None:
            return
        place = socket.socket()
        try:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the listener has it too
            place.bind(("127.0.0.1", self.port))
        except OSError:
            place.close()
            raise
        self._place = place
        self.port = place.getsockname()[1]

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self, ready: threading.Event) -> None:
        try:
            trio.run(self._listen, ready)
        except BaseException as error:  # noqa: BLE001 - given to the thread that calls stop()
            self._failure = error
        finally:
            ready.set()

    async def _listen(self, ready: threading.Event) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            self._halt = partial(token.run_sync_soon, scope.cancel)
            ready.set()
            await trio.serve_listeners(partial(serve, self._answer, self._ledger), listeners)

    def _answer(self, ask: Ask) -> Answer:
        asked = replace(ask, base=self.url(""))
        with self._lock:
            faults = [armed.fault for armed in self._matching(ask.path) if armed.pull(ask)]
            special = self._answers.get(ask.path)
            resource = self._resources.get(ask.path) or self._file(ask.path)
        for fault in faults:
            asked = fault.hear(asked)
            resource = fault.hold(resource) if resource is not None else None
        right = special(asked) if special is not None else answer(asked, resource)
        for fault in faults:
            right = fault.spoil(asked, right)
        return right

    def _matching(self, path: str) -> list[_Armed]:
        return [
            armed
            for pattern, faults in self._faults.items()
            if path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1]))
            for armed in faults
        ]

    def _file(self, path: str) -> Resource | None:
        if self._directory is None:
            return None
        file = (self._directory / unquote(path).lstrip("/")).resolve()
        if not file.is_relative_to(self._directory) or not file.is_file():
            return None
        body = body_of(file)
        return Resource(body, f'"{body.tag}"', int(file.stat().st_mtime))


@contextmanager
def running_origin(*, report: Callable[[Exchange], None] | None = None) -> Iterator[Origin]:
    """An origin that listens on a free loopback port, and is stopped at the end.

    ``report`` is called on the origin's thread with each request that ended.
    """
    origin = Origin(report=report)
    try:
        origin.start()
        yield origin
    finally:
        origin.close()


def _line(exchange: Exchange) -> None:
    span = exchange.header("range") or "-"
    end = " aborted" if exchange.aborted else ""
    sys.stdout.write(
        f"{exchange.method} {exchange.path} {span} {exchange.status} {exchange.bytes_sent}{end}\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Serve a directory until SIGINT or SIGTERM; one line for each request on stdout."""
    parser = argparse.ArgumentParser(prog="cafs.testing.origin", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0 is any free one")
    given = parser.parse_args()
    if not given.directory.is_dir():
        parser.error(f"{given.directory}: no directory")
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    origin = Origin(report=_line)
    origin.port = given.port
    origin.serve_directory(given.directory)
    origin.start()
    sys.stdout.write(f"serving {given.directory} at {origin.url('/')}\n")
    sys.stdout.flush()
    signal.sigwait(ends)
    origin.close()


if __name__ == "__main__":
    main()
