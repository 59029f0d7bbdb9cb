"""The workers' life: how they are started, watched, replaced, and given up."""

import errno
import fcntl
import os
import pwd
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import InitIn, Opcode, Request
from cafs.testing.hand_worker import HandWorker, readable
from cafs.testing.keeping import RunningKeeper

TRIES = 8
SILENT_S = 10.0
"""After which a worker that owes an answer, and gives none, is replaced in any case."""


def ask_init(keeper: RunningKeeper) -> Request:
    return keeper.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)


def serve_a_while(keeper: RunningKeeper, worker: HandWorker) -> None:
    """Let a worker serve for so long that its death is no failure."""
    with pytest.raises(TimeoutError):
        worker.receive(1.1)


def signals(worker: HandWorker, kind: str) -> int:
    (line,) = [line for line in worker.proc("status").splitlines() if line.startswith(kind)]
    return int(line.split()[1], 16)


def test_a_worker_has_its_six_descriptors_and_no_other(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    names = {int(path.name): os.readlink(path) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
    # 6 is the stub's own line to this test.
    assert sorted(names) == [0, 1, 2, 3, 4, 5, 6]
    assert (names[0], names[5]) == ("/dev/null", "/dev/null")
    assert names[1] == names[2] == os.readlink(f"/proc/{keeper.pid}/fd/2")


def test_a_worker_waits_in_its_reads_and_writes(worker: HandWorker) -> None:
    for end in (worker.requests, worker.channel):
        assert fcntl.fcntl(end, fcntl.F_GETFL) & os.O_NONBLOCK == 0


def test_a_worker_begins_with_plain_signals_but_ignores_the_terminals(worker: HandWorker) -> None:
    assert signals(worker, "SigBlk:") == 0
    terminals = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGHUP - 1)
    # Python itself ignores these two.
    own = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert signals(worker, "SigIgn:") & ~own == terminals


def test_a_worker_stays_in_the_keepers_group_and_session(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    assert os.getpgid(worker.pid) == os.getpgid(keeper.pid)
    assert os.getsid(worker.pid) == os.getsid(keeper.pid)


def test_a_worker_does_not_hear_of_the_service_manager(program: Path, tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": "@nobody-listens-here", "CAFS_TEST": "yes"}
    with RunningKeeper(program, tmp_path, environment=told) as keeper:
        keeper.expect_log("nobody-listens-here")
        environment = keeper.workers.next().proc("environ").split("\0")
    assert "CAFS_TEST=yes" in environment
    assert not any(line.startswith("NOTIFY_SOCKET") for line in environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose the worker's user")
def test_a_worker_runs_as_the_user_that_was_named(program: Path, tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    told = {"XDG_RUNTIME_DIR": "/run/user/0", "XDG_CACHE_HOME": "/x", "HOME": "/root"}
    with RunningKeeper(program, tmp_path, "--user", user.pw_name, environment=told) as keeper:
        worker = keeper.workers.next()
        status = dict(line.split(":\t", 1) for line in worker.proc("status").splitlines())
        environment = dict(x.split("=", 1) for x in worker.proc("environ").split("\0") if x)
        assert os.stat(f"/proc/{keeper.pid}").st_uid == 0
    assert status["Uid"].split() == [str(user.pw_uid)] * 4
    assert status["Gid"].split() == [str(user.pw_gid)] * 4
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    assert sorted(map(int, status["Groups"].split())) == sorted(groups)
    assert int(status["CapEff"], 16) == 0
    names = ("HOME", "USER", "LOGNAME")
    assert [environment[name] for name in names] == [user.pw_dir, user.pw_name, user.pw_name]
    assert not [name for name in environment if name.startswith("XDG_")]


@contextmanager
def word_pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends; the second may be closed within."""
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)


def test_the_word_is_that_of_the_first_worker_that_serves(program: Path, tmp_path: Path) -> None:
    with word_pipe() as (reading, writing):
        options = ("--word", str(writing))
        with RunningKeeper(program, tmp_path, *options, pass_fds=(writing,)) as keeper:
            os.close(writing)
            keeper.expect_log("worker")
            keeper.workers.next().kill()
            worker = keeper.begin()
            os.write(worker.word, b"ready")
            assert os.read(reading, 100) == b"ready"
            worker.kill()
            # Nobody holds it any more, and nobody else will.
            assert readable(reading, 60)
            assert os.read(reading, 100) == b""
            third = keeper.workers.next()
            assert os.readlink(f"/proc/{third.pid}/fd/5") == "/dev/null"


def test_the_word_of_a_reload_is_the_new_workers(keeper: RunningKeeper, worker: HandWorker) -> None:
    with word_pipe() as (reading, writing):
        command = keeper.command("reload", writing)
        os.close(writing)
        second = keeper.workers.next()
        os.write(second.word, b"hello")
        second.take_over()
        assert command.reloaded().ok
        assert os.read(reading, 100) == b"hello"
        second.let_go()
        keeper.expect_log("worker")
        second.kill()
        assert readable(reading, 60)
        assert os.read(reading, 100) == b""


def test_a_worker_that_exits_before_the_kernel_has_init_ends_the_keeper_with_its_code(
    keeper: RunningKeeper,
) -> None:
    keeper.expect_log("worker")
    ask_init(keeper)
    worker = keeper.workers.next()
    worker.receive()
    worker.exit(9)
    assert keeper.wait() == 9
    assert not keeper.live.exists()
    assert not keeper.control.exists()


def test_a_worker_that_served_for_a_while_is_replaced_at_once(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    took = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        serve_a_while(keeper, worker)
        request = keeper.kernel.send(Opcode.GETATTR)
        worker.receive()
        worker.kill(number)
        began = time.monotonic()
        worker = keeper.workers.next()
        worker.take_over()
        took.append(time.monotonic() - began)
        assert worker.receive() == request
        worker.reply(request)
        keeper.kernel.reply_to(request)
    # However the machine is, it was early once.
    assert min(took) < 2.0


def test_a_worker_that_exits_in_order_while_it_serves_is_replaced_too(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    serve_a_while(keeper, worker)
    worker.exit(0)
    keeper.workers.next().take_over()
    assert keeper.kernel.ask(Opcode.FLUSH).error == errno.ENOSYS


def test_delays_between_workers_that_die_early_grow(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    for delay in (0.1, 0.2, 0.4):
        killed = time.monotonic()
        worker.kill()
        worker = keeper.workers.next()
        assert time.monotonic() - killed >= delay * 0.9


def test_a_stopped_worker_is_killed_and_replaced_at_once(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    serve_a_while(keeper, worker)
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    worker.stop()
    second = keeper.workers.next(SILENT_S - 1.0)
    worker.wait()
    second.take_over()
    assert second.receive() == request


def test_a_worker_that_closes_its_requests_but_lives_is_replaced(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    serve_a_while(keeper, worker)
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.requests.shutdown(2)
    # It is given a moment to exit by itself.
    second = keeper.workers.next(SILENT_S - 1.0)
    worker.wait()
    second.take_over()
    assert second.receive() == request


def test_a_new_worker_serves_only_once_it_has_answered_a_heartbeat(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    command = keeper.command("reload")
    second = keeper.workers.next()
    second.begin()
    beat = second.beat()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    assert keeper.status().worker == worker.pid
    second.reply_beat(beat)
    # By another one it knows that it serves; then comes what waits.
    second.reply_beat(second.beat())
    assert command.reloaded().worker == second.pid
    assert second.receive() == request
    assert keeper.status().worker == second.pid
    worker.wait()


def test_heartbeats_come_once_a_second_while_somebody_waits(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.kernel.send(Opcode.GETATTR)
    worker.beats = False
    worker.receive()
    times = []
    for _ in range(3):
        beat = worker.beat()
        times.append(time.monotonic())
        worker.reply_beat(beat)
    # Two seconds, though the first may be seen late; while nobody waits, it would be ten.
    assert 1.0 < times[2] - times[0] < 8.0


def test_the_kernel_hears_nothing_of_heartbeats(keeper: RunningKeeper, worker: HandWorker) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    beat = worker.beat()
    assert (beat.pid, beat.unique >> 63) == (0, 1)
    worker.reply_beat(beat)
    worker.reply_beat(beat)
    worker.reply(request)
    assert keeper.kernel.receive().unique == request.unique
    assert keeper.kernel.is_quiet()


def test_a_program_that_cannot_be_started_ends_the_keeper(program: Path, tmp_path: Path) -> None:
    missing = ("/does/not/exist",)
    with RunningKeeper(program, tmp_path, command=missing) as keeper:
        keeper.expect_log("worker|/does/not/exist")
        assert keeper.wait() != 0


def test_a_request_at_which_three_workers_fail_fails_itself(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    poison = keeper.kernel.send(Opcode.GETATTR, nodeid=666)
    harmless = keeper.kernel.make(Opcode.GETATTR)
    for attempt in range(3):
        assert worker.receive() == poison
        if attempt == 2:
            assert keeper.kernel.push(harmless)
            assert worker.receive() == harmless
        worker.exit(1)
        worker = keeper.workers.next()
        worker.take_over()
    assert keeper.kernel.reply_to(poison).error == errno.EIO
    assert worker.receive() == harmless
    worker.reply(harmless)
    assert keeper.kernel.reply_to(harmless).error == 0


def test_a_request_during_which_workers_are_killed_by_others_is_not_blamed(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.GETATTR)
    for _ in range(3):
        assert worker.receive() == request
        worker.kill()
        worker = keeper.workers.next()
        worker.take_over()
    assert worker.receive() == request
    worker.reply(request, b"at last")
    assert keeper.kernel.reply_to(request).body == b"at last"
