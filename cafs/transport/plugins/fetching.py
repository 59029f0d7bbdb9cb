"""cafs-transport-fetch: a plugin whose answers come from a fetcher program (Y-4).

``cafs-transport-fetch SCHEMES FETCHER [ARGUMENT…]`` answers for the schemes (``sbr`` or ``a,b``) by
running ``FETCHER [ARGUMENT…] URL FILE.tmp``: exit code 0 means that the file has the content;
another one, that stderr says why not. A fetcher knows no ranges: it always brings the whole.

The other end of the protocol, in the plugin's place; it is what docs/plugins.md tells, in Python.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs import __version__

_FRAME: Final = 256 << 10
_AT_ONCE: Final = 8
"""Fetchers that run at once: each may be a whole program with pools of its own."""
_WORDS: Final = 600
"""Characters of a fetcher's stderr that are told: the last ones, since they say why it ended, and
as many as cafs shows."""
_TAIL: Final = 4 * _WORDS
"""Bytes that are kept for that, whatever it says: a fetcher may talk for hours."""
_READ: Final = 64 << 10
_NOT_RUN: Final = 127
"""What a shell says where there is no such program."""


class _Asked(msgspec.Struct):
    url: str
    window: int


class _Line(msgspec.Struct):
    id: int = 0
    get: _Asked | None = None
    more: int | None = None
    bytes: int = 0
    cancel: int | None = None


class _Job:
    """A request under way: what it may still send, and how to end it."""

    def __init__(self, window: int) -> None:
        self.scope = trio.CancelScope()
        self._allowed = window
        self._granted = trio.Event()

    def grant(self, length: int) -> None:
        """So many bytes more may be sent."""
        self._allowed += length
        self._granted.set()

    async def spend(self) -> int:
        """How much may be sent now; waits until it is something."""
        while not self._allowed:
            self._granted = trio.Event()
            await self._granted.wait()
        length = min(self._allowed, _FRAME)
        self._allowed -= length
        return length


class Fetching:
    """Answers requests by running a fetcher.

    Args:
        schemes: what it answers for.
        fetcher: the program and its first arguments.
        out: where answers go.

    Concurrency: one task for each request, and one that reads them.
    """

    def __init__(self, schemes: list[str], fetcher: list[str], out: trio.abc.SendStream) -> None:
        self._schemes = schemes
        self._fetcher = fetcher
        self._out = out
        self._turn = trio.Lock()
        self._places = trio.CapacityLimiter(_AT_ONCE)
        self._jobs: dict[int, _Job] = {}

    async def serve(self, requests: trio.abc.ReceiveStream) -> None:
        """Answer until there are no more requests; those under way end then."""
        greeting = {"name": f"cafs-transport-fetch {__version__}", "version": [1, 0]}
        greeted, rest = False, b""
        async with trio.open_nursery() as nursery:
            async for data in requests:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if greeted:
                        self._take(msgspec.json.decode(line, type=_Line), nursery)
                    else:
                        greeted = True
                        await self._say({"plugin": {**greeting, "schemes": self._schemes}})
            nursery.cancel_scope.cancel()

    def _take(self, line: _Line, nursery: trio.Nursery) -> None:
        if line.get is not None:
            job = self._jobs[line.id] = _Job(line.get.window)
            nursery.start_soon(self._answer, line.id, line.get.url, job)
        elif line.more in self._jobs:
            self._jobs[line.more].grant(line.bytes)
        elif line.cancel in self._jobs:
            self._jobs[line.cancel].scope.cancel()

    async def _answer(self, number: int, url: str, job: _Job) -> None:
        end: Mapping[str, object] = {"error": {"kind": "deadline", "what": "cancelled"}}
        try:
            with job.scope:
                async with self._places:
                    end = await self._fetch(number, url, job)
        finally:
            del self._jobs[number]
        await self._say({"id": number, **end})

    async def _fetch(self, number: int, url: str, job: _Job) -> Mapping[str, object]:
        """Run the fetcher and send what it brought; the end that is to be told."""
        with tempfile.TemporaryDirectory(prefix="cafs-fetch-") as directory:
            file = Path(directory) / "content.tmp"
            code, tail = await self._run(url, file)
            if code:
                words = tail.decode(errors="replace").strip()[-_WORDS:]
                what = words or f"{self._fetcher[0]}: exit code {code}"
                return {"error": {"kind": "unreachable", "what": what}}
            if not file.is_file():
                what = f"{self._fetcher[0]} ended well, and there is no {file.name}"
                return {"error": {"kind": "refused", "what": what}}
            await self._send(number, file, job)
        return {"done": {}}

    async def _run(self, url: str, file: Path) -> tuple[int, bytes]:
        """Run the fetcher to its end: its exit code, and the end of what it said on stderr."""
        run = partial(
            trio.run_process,
            [*self._fetcher, url, str(file)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        tail = b""
        async with trio.open_nursery() as nursery:
            try:
                process: trio.Process = await nursery.start(run)
            except OSError as error:
                return _NOT_RUN, f"{self._fetcher[0]}: {error.strerror}".encode()
            if process.stderr is None:
                raise ValueError("a process that was started with a pipe has it")
            async with process.stderr as said:
                while data := await said.receive_some(_READ):
                    tail = (tail + data)[-_TAIL:]
            code = await process.wait()
        return code, tail

    async def _send(self, number: int, file: Path, job: _Job) -> None:
        async with await trio.open_file(file, "rb") as content:
            total = await trio.to_thread.run_sync(os.path.getsize, file)
            await self._say({"id": number, "head": {"total": total}})
            left = total
            while left:
                piece = await content.read(min(await job.spend(), left))
                left = left - len(piece) if piece else 0
                await self._say({"id": number, "data": len(piece)}, piece)

    async def _say(self, line: Mapping[str, object], data: bytes = b"") -> None:
        # Whole or not at all: half a frame would be the end of everything.
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._out.send_all(msgspec.json.encode(line) + b"\n" + data)


async def _main(schemes: list[str], fetcher: list[str]) -> None:
    stdin, stdout = (trio.lowlevel.FdStream(os.dup(fd)) for fd in (0, 1))
    await Fetching(schemes, fetcher, stdout).serve(stdin)


def main() -> None:
    """Run as a program."""
    if len(sys.argv) < 3:  # noqa: PLR2004 - SCHEMES FETCHER
        sys.exit("usage: cafs-transport-fetch SCHEME[,SCHEME] FETCHER [ARGUMENT...]")
    trio.run(_main, sys.argv[1].split(","), sys.argv[2:])


if __name__ == "__main__":
    main()
