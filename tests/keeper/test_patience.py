"""How long a keeper's patience lasts. Each of these does little but wait, so all wait at once."""

import errno
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import InitIn, Opcode
from cafs.testing.hand_worker import readable
from cafs.testing.keeping import RunningKeeper

pytestmark = pytest.mark.slow

CLIENTS = 4
TRIES = 8
Scenario = Callable[[RunningKeeper], None]
SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


@scenario
def a_worker_that_says_nothing_is_found_though_nobody_waits(keeper: RunningKeeper) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    # The heartbeat comes after 5 s.
    second = keeper.workers.next(60.0)
    worker.wait()
    second.take_over()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == request


@scenario
def a_worker_that_reads_nothing_is_replaced_though_its_socket_is_full(
    keeper: RunningKeeper,
) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    asked = [keeper.kernel.send(Opcode.GETATTR) for _ in range(2000)]
    second = keeper.workers.next(60.0)
    worker.wait()
    second.take_over()
    assert [second.receive() for _ in asked] == asked


@scenario
def a_worker_that_reads_nothing_is_replaced_though_those_who_filled_its_socket_were_killed(
    keeper: RunningKeeper,
) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    with subprocess.Popen(["true"]) as killed:
        pass
    gone = [keeper.kernel.send(Opcode.GETATTR, pid=killed.pid) for _ in range(2000)]
    for request in gone:
        assert keeper.kernel.reply_to(request).error == errno.EINTR
    request = keeper.kernel.send(Opcode.GETATTR)
    second = keeper.workers.next(60.0)
    worker.wait()
    second.take_over()
    assert second.receive() == request


@scenario
def a_worker_that_says_nothing_is_replaced_after_ten_seconds(keeper: RunningKeeper) -> None:
    began = time.monotonic()
    worker = keeper.begin()
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    second = keeper.workers.next(60.0)
    assert 9.0 < time.monotonic() - began < 28.0
    worker.wait()
    second.take_over()
    assert second.receive() == request


@scenario
def a_worker_that_answers_anything_is_alive_though_a_request_waits_long(
    keeper: RunningKeeper,
) -> None:
    worker = keeper.begin()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    # It answers heartbeats for 12 s, and the request after that.
    with pytest.raises(TimeoutError):
        worker.receive(12.0)
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0
    assert keeper.status().workers == 1


@scenario
def a_new_worker_that_never_gets_ready_is_killed_after_half_a_minute(keeper: RunningKeeper) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    began = time.monotonic()
    command = keeper.command("reload")
    candidate = keeper.workers.next()
    while not readable(command.line, 1.0):
        assert time.monotonic() - began < 90.0
        worker.waiting()
    assert time.monotonic() - began > 28.0
    assert not command.reloaded().ok
    candidate.wait()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request


@scenario
def an_old_worker_that_ignores_sigterm_is_killed_after_fifteen_seconds(
    keeper: RunningKeeper,
) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    worker.ignore_term()
    began = time.monotonic()
    second = keeper.reload()
    while not worker.has_ended(1.0):
        assert time.monotonic() - began < 60.0
        second.waiting()
    assert time.monotonic() - began > 13.0


@scenario
def after_eight_failures_requests_fail_until_an_admin_acts(keeper: RunningKeeper) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    waiting = [keeper.kernel.send(Opcode.GETATTR) for _ in range(3)]
    worker.kill()
    for _ in range(TRIES - 1):
        worker = keeper.workers.next(60.0)
        worker.kill()
    for request in waiting:
        assert keeper.kernel.reply_to(request).error == errno.EIO
    assert keeper.kernel.ask(Opcode.GETATTR).error == errno.EIO
    # What needs no worker is answered as ever.
    assert keeper.kernel.ask(Opcode.RELEASE, bytes(24)).error == 0
    status = keeper.status()
    assert (status.state, status.worker, status.workers) == ("given-up", 0, TRIES)
    errors = [line.text for line in keeper.log() if line.level == "ERROR"]
    assert len(errors) == 1
    assert "cafs reload" in errors[0]
    command = keeper.command("reload")
    worker = keeper.workers.next()
    assert worker.begin().opcode == Opcode.INIT
    worker.reply_beat(worker.beat())
    assert command.reloaded().ok
    assert keeper.status().state == "serving"
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0


@scenario
def giving_up_before_the_kernel_has_init_ends_the_keeper(keeper: RunningKeeper) -> None:
    keeper.expect_log("worker")
    keeper.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)
    for _ in range(TRIES):
        keeper.workers.next(60.0).kill()
    assert keeper.wait() == 8


@scenario
def a_worker_that_does_not_end_is_killed_after_fifteen_seconds(keeper: RunningKeeper) -> None:
    worker = keeper.begin()
    keeper.expect_log("worker")
    worker.ignore_term()
    keeper.kernel.close()
    assert not keeper.has_ended(10)
    assert keeper.wait() == 0
    worker.wait()
    assert not keeper.live.exists()
    assert not keeper.control.exists()


@scenario
def clients_that_hang_hold_others_up_only_for_seconds(keeper: RunningKeeper) -> None:
    worker = keeper.begin()
    hanging = [keeper.command("") for _ in range(CLIENTS)]
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0
    assert keeper.status().pid == keeper.pid
    for command in hanging:
        assert command.answer() == b""


def play(program: Path, directory: Path, act: Scenario) -> None:
    directory.mkdir()
    with RunningKeeper(program, directory) as keeper:
        act(keeper)


@pytest.fixture(scope="module")
def outcomes(
    program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Scenario, "Future[None]"]]:
    root = tmp_path_factory.mktemp("patience")
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {
            act: pool.submit(play, program, root / str(number), act)
            for number, act in enumerate(SCENARIOS)
        }


@pytest.mark.parametrize("act", SCENARIOS, ids=lambda act: act.__name__)
def test_patience_has_an_end(outcomes: dict[Scenario, "Future[None]"], act: Scenario) -> None:
    outcomes[act].result()
