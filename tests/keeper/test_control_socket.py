"""The control socket: what an admin and the CLI say to a keeper."""

import array
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import msgspec
import pytest

from cafs.testing.fuse_wire import Notice, Opcode, inval_entry_body
from cafs.testing.hand_worker import HandWorker, readable
from cafs.testing.keeping import Command, RunningKeeper, Status

CLIENTS = 4
CONFIRM_S = 1.0
SOON_S = 4.0
"""Before an idle keeper's next heartbeat."""
MANY = 1000
"""Notifications that fill the pipe to the kernel, and are not too many for the queue before it."""


def test_status_tells_who_serves_and_what_was_done(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    before = keeper.status()
    first, second = (keeper.kernel.send(Opcode.GETATTR) for _ in range(2))
    keeper.kernel.ask(Opcode.FLUSH)
    worker.reply(worker.receive())
    keeper.kernel.reply_to(first)
    assert keeper.status() == Status(
        pid=keeper.pid,
        state="serving",
        worker=worker.pid,
        workers=1,
        waiting=1,
        relayed=before.relayed + 2,
        answered=before.answered + 1,
        resent=0,
        interrupted=0,
        notices=0,
        notices_dropped=0,
    )
    assert worker.receive() == second


def test_states_follow_the_worker(keeper: RunningKeeper) -> None:
    keeper.expect_log("worker")
    keeper.workers.next()
    status = keeper.status()
    assert (status.state, status.worker, status.workers) == ("starting", 0, 1)


def test_a_worker_that_died_leaves_the_keeper_recovering(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    worker.kill()
    status = keeper.wait_until(lambda status: status.state == "recovering")
    assert status.worker == 0
    second = keeper.workers.next()
    second.take_over()
    status = keeper.wait_until(lambda status: status.state == "serving")
    assert (status.worker, status.workers) == (second.pid, 2)


def test_the_socket_is_its_owners(keeper: RunningKeeper, worker: HandWorker) -> None:
    mode = keeper.control.stat().st_mode
    assert (stat.S_IFMT(mode), stat.S_IMODE(mode)) == (stat.S_IFSOCK, 0o600)


def test_a_reload_swaps_the_worker_and_ends_the_old_one(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    command = keeper.command("reload")
    second = keeper.workers.next()
    second.take_over()
    reloaded = command.reloaded()
    assert (reloaded.ok, reloaded.worker) == (True, second.pid)
    assert second.receive() == request
    worker.wait()
    assert keeper.status().workers == 2


def test_a_candidate_that_dies_leaves_the_old_worker_serving(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    command = keeper.command("reload")
    keeper.workers.next().exit(3)
    reloaded = command.reloaded()
    assert not reloaded.ok
    assert "3" in reloaded.why
    # It is not tried again: the next worker that reports is that of the next reload.
    assert keeper.status().workers == 2
    second = keeper.reload()
    assert keeper.status().worker == second.pid


def reload_with_names(keeper: RunningKeeper, count: int) -> tuple[Command, HandWorker]:
    """A reload whose worker has the kernel forget names before it serves."""
    command = keeper.command("reload")
    second = keeper.workers.next()
    second.begin()
    for number in range(count):
        second.notify(Notice.INVAL_ENTRY, inval_entry_body(1, f"name{number}"))
    second.reply_beat(second.beat())
    return command, second


def test_a_reload_is_confirmed_once_the_kernel_has_forgotten_names(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    began = time.monotonic()
    # More than the pipe to the kernel takes, which reads none of them for now.
    command, second = reload_with_names(keeper, MANY)
    second.reply_beat(second.beat(SOON_S))
    assert keeper.status().worker == second.pid
    assert not readable(command.line, 0.0) or time.monotonic() - began >= CONFIRM_S
    for _ in range(MANY):
        keeper.kernel.notice()
    assert command.reloaded().worker == second.pid


def test_a_reload_is_confirmed_once_the_worker_has_answered_as_one_that_serves(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    began = time.monotonic()
    command, second = reload_with_names(keeper, 0)
    beat = second.beat(SOON_S)
    assert keeper.status().worker == second.pid
    assert not readable(command.line, 0.0) or time.monotonic() - began >= CONFIRM_S
    # What it says before it answers is in the kernel before the reload is over.
    second.notify(Notice.INVAL_ENTRY, inval_entry_body(1, "name"))
    second.reply_beat(beat)
    assert command.reloaded().worker == second.pid
    assert readable(keeper.kernel.line, 0.0)
    assert keeper.kernel.notice().body == inval_entry_body(1, "name")


@pytest.mark.parametrize("count", [0, MANY], ids=["worker", "kernel"])
def test_a_reload_is_confirmed_after_a_while_whatever_holds_it_up(
    keeper: RunningKeeper, worker: HandWorker, count: int
) -> None:
    began = time.monotonic()
    command, second = reload_with_names(keeper, count)
    beat = second.beat(SOON_S)
    if count:
        second.reply_beat(beat)
    assert command.reloaded().worker == second.pid
    assert time.monotonic() - began >= CONFIRM_S


def test_a_reload_is_confirmed_before_the_next_one(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    first, second = reload_with_names(keeper, 0)
    other, third = reload_with_names(keeper, 0)
    assert first.reloaded().worker == second.pid
    third.reply_beat(third.beat())
    assert other.reloaded().worker == third.pid


def test_a_reload_during_a_reload_is_refused(keeper: RunningKeeper, worker: HandWorker) -> None:
    command = keeper.command("reload")
    second = keeper.workers.next()
    other = keeper.command("reload").reloaded()
    assert (other.ok, bool(other.why)) == (False, True)
    second.take_over()
    assert command.reloaded().ok


def test_the_serving_worker_may_die_during_a_reload(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.GETATTR)
    command = keeper.command("reload")
    second = keeper.workers.next()
    second.begin()
    worker.kill()
    second.reply_beat(second.beat())
    second.reply_beat(second.beat())
    assert command.reloaded().ok
    assert second.receive() == request


def test_both_may_die_during_a_reload(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.GETATTR)
    command = keeper.command("reload")
    second = keeper.workers.next()
    worker.kill()
    second.kill()
    assert not command.reloaded().ok
    third = keeper.workers.next()
    third.take_over()
    assert third.receive() == request


def test_a_reload_whose_asker_has_gone_goes_on(keeper: RunningKeeper, worker: HandWorker) -> None:
    command = keeper.command("reload")
    second = keeper.workers.next()
    command.line.close()
    second.take_over()
    assert keeper.wait_until(lambda status: status.worker == second.pid).state == "serving"


def test_descriptors_with_commands_leak_nothing(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.status()
    before = keeper.open_files()
    reading, writing = os.pipe()
    for count in (1, 2, 4, 10):
        for text in ("status", "nonsense"):
            keeper.command(text, *[writing] * count).answer()
    command = keeper.command("reload", writing, writing, writing)
    keeper.workers.next().exit(1)
    keeper.expect_log("worker")
    assert not command.reloaded().ok
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    keeper.wait_until(lambda status: keeper.open_files() <= before + 1)


@pytest.mark.parametrize(
    "message",
    [b"\0", b"statu", b"status ", b"status\0", b"RELOAD", b"reload x", b"\xff" * 60, b"x" * 60_000],
    ids=["nul", "short", "blank", "end", "case", "argument", "binary", "long"],
)
def test_what_is_no_command_is_answered_and_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker, message: bytes
) -> None:
    said = msgspec.json.decode(keeper.command(message).answer(), type=dict[str, object])
    if message != b"status\0":
        assert said["ok"] is False
        assert said["why"]
    assert keeper.status().workers == 1


def test_ten_clients_at_once_are_all_answered(keeper: RunningKeeper, worker: HandWorker) -> None:
    commands = [keeper.command("status") for _ in range(10)]
    for command in commands:
        assert msgspec.json.decode(command.answer(), type=Status).pid == keeper.pid


def test_a_client_that_leaves_without_a_word_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    before = keeper.open_files()
    for _ in range(50):
        keeper.command("").line.close()
    for _ in range(50):
        keeper.command("status").line.close()
    keeper.status()
    keeper.wait_until(lambda status: keeper.open_files() <= before + 1)


ASK = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.chdir(sys.argv[1])
os.setuid(65534)
line.connect("control")
line.settimeout(10)
try:
    line.send(b"status")
    answer = line.recv(4096)
except (BrokenPipeError, ConnectionResetError):
    answer = b""
sys.exit(bool(answer))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_command_is_refused_though_the_socket_lets_it_in(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("65534")
    keeper.control.chmod(0o666)
    keeper.control.parent.chmod(0o755)
    command = [sys.executable, "-I", "-S", "-c", ASK, str(keeper.control.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert keeper.status().pid == keeper.pid


def test_a_socket_that_a_dead_keeper_left_is_replaced(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    # The fixture's keeper is killed, and another takes its place at the same path.
    keeper.signal(signal.SIGKILL)
    keeper.wait()
    assert keeper.control.exists()
    again = RunningKeeper(keeper.program, keeper.control.parent)
    try:
        again.workers.next()
        assert again.status().pid == again.pid
    finally:
        again.end()
    again.judge()


def test_a_message_of_many_descriptors_is_no_flood(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    before = keeper.open_files()
    command = keeper.command("")
    rights = array.array("i", [0] * 253)
    command.line.sendmsg([b"status"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    assert msgspec.json.decode(command.answer(), type=Status).pid == keeper.pid
    keeper.wait_until(lambda status: keeper.open_files() <= before + 1)
