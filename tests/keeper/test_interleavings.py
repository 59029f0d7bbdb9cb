"""Random interleavings of all that may happen, against a model of what a reader may see.

Every request gets exactly one reply, which is one that a worker gave to it while it served, or
EINTR when its reader was killed. None is lost, and no reply goes to another request: the fake
kernel fails by itself when a reply comes twice or belongs to nobody, and each reply carries its
request's unique.
"""

import errno
import os
import select
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.testing.fuse_wire import InitIn, Opcode, Reply, Request, name_body, read_body
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

pytestmark = pytest.mark.slow

DEATHS = 3
"""So many early deaths cost 0.7 s of delays; eight would have the keeper give up."""
REFUSALS = 3
LINGERING = 2
"""The keeper has places for four workers: these, who serves, and who is to replace him."""
Step = tuple[
    Literal[
        "ask",
        "ask mortal",
        "ask own",
        "forget",
        "answer",
        "fail",
        "refuse",
        "late",
        "die",
        "reload",
        "reader dies",
    ],
    int,
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(["ask"] * 6),
                *(["answer"] * 5),
                *(["ask mortal", "ask own", "forget", "fail", "refuse", "late"] * 2),
                *["die", "reload", "reader dies"],
            ]
        ),
        st.integers(0, 30),
    ),
    max_size=60,
)
ASKED = (
    (Opcode.GETATTR, bytes(16)),
    (Opcode.LOOKUP, name_body("name")),
    (Opcode.READ, read_body(size=4096)),
)
OWN = (
    (Opcode.FLUSH, errno.ENOSYS),
    (Opcode.RELEASE, 0),
    (Opcode.OPEN, errno.ENOSYS),
    (Opcode.INTERRUPT, errno.ENOSYS),
)


class Run:
    """A keeper, and what may and must be seen of it."""

    def __init__(self, keeper: RunningKeeper) -> None:
        self.keeper = keeper
        self.kernel = keeper.kernel
        self.allowed: dict[int, set[Reply]] = {}
        self.mortals: list[subprocess.Popen[bytes]] = []
        self.dead: set[int] = set()
        self.deaths = 0
        self.worker: HandWorker | None = None
        self.held: list[Request] = []
        self.got: set[int] = set()
        self.refused: dict[int, int] = {}
        self.old: list[tuple[HandWorker, list[Request]]] = []

    def begin(self, early_deaths: int) -> None:
        """INIT, with workers that die before they answer it."""
        asked = self.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)
        for _ in range(early_deaths):
            self.keeper.workers.next().kill()
            self.deaths += 1
        self.worker = self.keeper.workers.next()
        self.worker.begin()
        self.kernel.reply_to(asked)

    def serving(self) -> HandWorker:
        """Who serves; the next one, if the last has died."""
        if self.worker is None:
            self.worker = self.keeper.workers.next()
            self.worker.take_over()
        return self.worker

    def take(self) -> None:
        """Have the worker read what it was sent: in order, and nothing twice."""
        last = 0
        for request in self.serving().waiting():
            again = request.unique in self.refused
            assert request.unique not in self.got or again
            if not again:
                assert request.unique > last
                last = request.unique
            self.got.add(request.unique)
            self.held.append(request)

    def ask(self, number: int, pid: int) -> None:
        opcode, body = ASKED[number % len(ASKED)]
        request = self.kernel.send(opcode, body, nodeid=number + 2, pid=pid)
        self.allowed[request.unique] = set()
        if pid in self.dead:
            self.allowed[request.unique].add(Reply(request.unique, errno.EINTR))

    def ask_mortal(self, number: int) -> None:
        if not self.mortals or number % 3 == 0:
            self.mortals.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        self.ask(number, self.mortals[-1].pid)

    def ask_own(self, number: int) -> None:
        opcode, error = OWN[number % len(OWN)]
        request = self.kernel.send(opcode, bytes(24))
        self.allowed[request.unique] = {Reply(request.unique, error)}

    def answer(self, number: int, error: int = 0) -> None:
        """Answer one of those that were not answered, in any order."""
        self.take()
        if not self.held:
            return
        request = self.held.pop(number % len(self.held))
        body = b"" if error else struct.pack("=QQ", request.unique, self.serving().pid)
        self.allowed[request.unique].add(Reply(request.unique, error, body))
        self.serving().reply(request, body, error)

    def refuse(self, number: int) -> None:
        """Say EINTR though nobody was killed."""
        self.take()
        if not self.held:
            return
        request = self.held.pop(number % len(self.held))
        times = self.refused[request.unique] = self.refused.get(request.unique, 0) + 1
        if times > REFUSALS:
            self.allowed[request.unique].add(Reply(request.unique, errno.EIO))
        self.serving().reply(request, error=errno.EINTR)

    def late(self, number: int) -> None:
        """Have a worker that was replaced answer, wrongly; nobody may see that."""
        for worker, held in self.old:
            if held and not worker.has_ended():
                request = held.pop(number % len(held))
                worker.reply(request, struct.pack("=QQ", request.unique, 0))

    def forsake(self) -> None:
        """What the worker had is given to the next one."""
        self.got.clear()
        self.held = []

    def die(self) -> None:
        if self.deaths >= DEATHS:
            return
        self.deaths += 1
        self.serving().kill()
        self.worker = None
        self.forsake()

    def reload(self, number: int) -> None:
        self.take()
        old = self.serving()
        lingers = number % 2 == 1 and len(self.old) < LINGERING
        if lingers:
            old.ignore_term()
            self.old.append((old, self.held))
        self.worker = self.keeper.reload()
        self.forsake()
        if not lingers:
            old.wait()

    def reader_dies(self) -> None:
        if not self.mortals:
            return
        reader = self.mortals.pop()
        self.dead.add(reader.pid)
        reader.kill()
        reader.communicate()
        for request in self.kernel.unanswered:
            if request.pid == reader.pid:
                self.allowed[request.unique].add(Reply(request.unique, errno.EINTR))

    def step(self, action: str, number: int) -> None:
        match action:
            case "ask":
                self.ask(number, os.getpid())
            case "ask mortal":
                self.ask_mortal(number)
            case "ask own":
                self.ask_own(number)
            case "forget":
                self.kernel.send(Opcode.FORGET, bytes(8), nodeid=number)
            case "answer" | "fail":
                self.answer(number, errno.ENOENT if action == "fail" else 0)
            case "refuse":
                self.refuse(number)
            case "late":
                self.late(number)
            case "die":
                self.die()
            case "reload":
                self.reload(number)
            case _:
                self.reader_dies()

    def see(self, timeout_s: float) -> None:
        reply = self.kernel.receive(timeout_s)
        assert reply in self.allowed[reply.unique]

    def finish(self, *, forget_the_dead: bool) -> None:
        """Answer all that wait; what waits for nobody may be left to the keeper."""
        while self.kernel.unanswered:
            self.take()
            for request in self.held:
                if not (forget_the_dead and request.pid in self.dead):
                    body = struct.pack("=QQ", request.unique, self.serving().pid)
                    self.allowed[request.unique].add(Reply(request.unique, 0, body))
                    self.serving().reply(request, body)
            self.held = []
            self.wait()
            while not self.kernel.is_quiet():
                self.see(0.0)
        assert self.keeper.status().waiting == 0
        assert self.kernel.is_quiet()

    def wait(self) -> None:
        """Wait until there is something to read for kernel or worker."""
        poller = select.poll()
        poller.register(self.kernel.line, select.POLLIN)
        poller.register(self.serving().requests, select.POLLIN)
        assert poller.poll(60_000), f"lost: {self.kernel.unanswered}"

    def close(self) -> None:
        for reader in self.mortals:
            reader.kill()
            reader.communicate()


@contextmanager
def running(program: Path) -> Iterator[Run]:
    with (
        tempfile.TemporaryDirectory() as directory,
        RunningKeeper(program, Path(directory)) as keeper,
    ):
        keeper.expect_log(r"^worker \d+ ")
        run = Run(keeper)
        try:
            yield run
        finally:
            run.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, early_deaths=st.sampled_from([0, 0, 0, 1]), forget_the_dead=st.booleans())
def test_every_request_gets_exactly_one_reply_that_is_its_own(
    program: Path, steps: list[Step], early_deaths: int, forget_the_dead: bool
) -> None:
    with running(program) as run:
        run.begin(early_deaths)
        for action, number in steps:
            run.step(action, number)
            while not run.kernel.is_quiet():
                run.see(0.0)
        run.finish(forget_the_dead=forget_the_dead)
