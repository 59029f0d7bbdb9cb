"""Readers that are killed: they are let go soon, and the worker hears that nobody waits."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cafs.testing.fuse_wire import Opcode, read_body
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

SOON_S = 0.4
"""Earlier than this the keeper does not look by itself for readers that have gone."""
LATE_S = 9.0
"""A second, and what a busy machine needs; a worker that owes an answer is left alone for ten."""
TRIES = 10


@pytest.fixture
def reader() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that waits for its end."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def gone_pid() -> int:
    """The pid of a process that was there."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    return process.pid


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_a_reader_that_was_killed_is_let_go_and_the_worker_told(
    keeper: RunningKeeper, worker: HandWorker, reader: "subprocess.Popen[bytes]"
) -> None:
    began = time.monotonic()
    request = keeper.kernel.send(Opcode.READ, read_body(size=4096), nodeid=5, pid=reader.pid)
    got = worker.receive()
    end(reader)
    assert keeper.kernel.reply_to(request).error == errno.EINTR
    assert SOON_S < time.monotonic() - began < LATE_S
    assert worker.told() == b"G" + got.encode()
    status = keeper.status()
    assert (status.interrupted, status.waiting) == (1, 0)


def test_the_late_reply_for_a_reader_that_has_gone_is_swallowed(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, pid=gone_pid())
    got = worker.receive()
    assert keeper.kernel.reply_to(request).error == errno.EINTR
    worker.reply(got, b"late")
    other = keeper.kernel.send(Opcode.GETATTR)
    worker.reply(worker.receive())
    assert keeper.kernel.receive().unique == other.unique


def test_a_request_without_a_reader_is_not_sent_again_to_a_new_worker(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    gone = keeper.kernel.send(Opcode.GETATTR, nodeid=5, pid=gone_pid())
    here = keeper.kernel.send(Opcode.GETATTR, nodeid=6)
    assert keeper.kernel.reply_to(gone).error == errno.EINTR
    second = keeper.reload()
    assert second.receive() == here


def test_a_reader_that_lives_waits_on(keeper: RunningKeeper, worker: HandWorker) -> None:
    mine = keeper.kernel.send(Opcode.GETATTR)
    nobodys = keeper.kernel.send(Opcode.GETATTR, pid=0)
    gone = keeper.kernel.send(Opcode.GETATTR, pid=gone_pid())
    # Whoever looks at the last one has looked at the others.
    assert keeper.kernel.receive().unique == gone.unique
    for request in (mine, nobodys):
        worker.reply(request)
        assert keeper.kernel.reply_to(request).error == 0


def test_an_interrupt_makes_the_keeper_look_at_once(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    took = []
    for _ in range(TRIES):
        pid, began = gone_pid(), time.monotonic()
        gone = keeper.kernel.send(Opcode.GETATTR, pid=pid)
        got = worker.receive()
        told = keeper.kernel.interrupt(gone)
        assert keeper.kernel.reply_to(told).error == errno.ENOSYS
        assert keeper.kernel.reply_to(gone).error == errno.EINTR
        took.append(time.monotonic() - began)
        assert worker.told() == b"G" + got.encode()
    # However the machine is, it was early once.
    assert min(took) < SOON_S


def test_an_interrupt_of_a_reader_that_lives_changes_nothing(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    told = keeper.kernel.interrupt(request)
    assert keeper.kernel.receive().unique == told.unique
    worker.reply(request)
    assert keeper.kernel.receive().unique == request.unique


def test_an_interrupt_of_nothing_changes_nothing(keeper: RunningKeeper, worker: HandWorker) -> None:
    answered = keeper.kernel.send(Opcode.GETATTR)
    worker.reply(worker.receive())
    keeper.kernel.reply_to(answered)
    for request in (answered, keeper.kernel.make(Opcode.GETATTR)):
        told = keeper.kernel.interrupt(request)
        assert keeper.kernel.receive().unique == told.unique


def test_hundreds_of_killed_readers_are_let_go_within_seconds(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    pids = [gone_pid() for _ in range(8)]
    asked = [
        keeper.kernel.send(Opcode.GETATTR, pid=pids[i % len(pids)] if i % 2 else os.getpid())
        for i in range(3000)
    ]
    worker.waiting()
    began = time.monotonic()
    for _ in asked[1::2]:
        assert keeper.kernel.receive().error == errno.EINTR
        worker.waiting()
    assert time.monotonic() - began < 30
    assert keeper.kernel.unanswered == tuple(asked[0::2])


def test_a_killed_reader_whose_request_no_worker_has_got_is_let_go_too(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    worker.kill()
    asked = [
        keeper.kernel.send(Opcode.GETATTR, pid=gone_pid() if i in {0, 1, 3} else os.getpid())
        for i in range(6)
    ]
    second = keeper.workers.next()
    # The second is not ready yet, so that nobody serves.
    for i in (0, 1, 3):
        assert keeper.kernel.reply_to(asked[i]).error == errno.EINTR
    second.take_over()
    assert [second.receive() for _ in range(3)] == [asked[2], asked[4], asked[5]]


def test_killed_readers_behind_a_full_socket_hide_nobody_behind_them(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    here, gone = os.getpid(), gone_pid()
    # The socket to the worker takes some hundreds: the killed ones are on both sides of its end.
    pids = [here] * 100 + [gone] * 600 + [here] * 100
    asked = [keeper.kernel.send(Opcode.GETATTR, pid=pid) for pid in pids]
    for request in asked[100:700]:
        assert keeper.kernel.reply_to(request).error == errno.EINTR
    got = [worker.receive()]
    while got[-1] != asked[-1]:
        got.append(worker.receive())
    assert [request for request in got if request.pid == here] == asked[:100] + asked[700:]
    assert len(got) < len(asked)


def test_eintr_from_a_worker_for_a_reader_who_waits_is_tried_again_three_times(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, nodeid=3)
    for _ in range(4):
        assert worker.receive() == request
        worker.reply(request, error=errno.EINTR)
    assert keeper.kernel.reply_to(request).error == errno.EIO


def test_an_answer_after_eintr_is_the_readers(keeper: RunningKeeper, worker: HandWorker) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, nodeid=3)
    for _ in range(3):
        assert worker.receive() == request
        worker.reply(request, error=errno.EINTR)
    assert worker.receive() == request
    worker.reply(request, b"bytes")
    assert keeper.kernel.reply_to(request).body == b"bytes"
    assert keeper.status().resent == 3


def test_a_reader_that_gets_other_signals_reads_on(
    keeper: RunningKeeper, worker: HandWorker, reader: "subprocess.Popen[bytes]"
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, pid=reader.pid)
    worker.receive()
    reader.send_signal(signal.SIGURG)
    reader.send_signal(signal.SIGSTOP)
    gone = keeper.kernel.send(Opcode.GETATTR, pid=gone_pid())
    assert keeper.kernel.receive().unique == gone.unique
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0
