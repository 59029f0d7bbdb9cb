"""How a keeper ends: in order, by the kernel, by an admin, or by death."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import InitIn, InitOut, Opcode
from cafs.testing.hand_worker import HandWorker, readable, wait_readable
from cafs.testing.keeping import RunningKeeper


def assert_tidy(keeper: RunningKeeper) -> None:
    assert not keeper.live.exists()
    assert not keeper.control.exists()


def test_the_end_of_the_mount_ends_worker_and_keeper(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.kernel.close()
    assert worker.told() == b"E"
    worker.wait()
    assert keeper.wait() == 0
    assert_tidy(keeper)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    keeper: RunningKeeper, worker: HandWorker, number: signal.Signals
) -> None:
    keeper.signal(number)
    assert worker.told() == b"E"
    worker.wait()
    assert keeper.wait() == 0
    assert_tidy(keeper)


def test_a_signal_before_any_request_ends_it_in_order(keeper: RunningKeeper) -> None:
    worker = keeper.workers.next()
    keeper.signal(signal.SIGTERM)
    assert keeper.wait() == 0
    worker.wait()
    assert_tidy(keeper)


def test_the_end_waits_for_a_worker_that_tidies_up(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    worker.ignore_term()
    keeper.kernel.close()
    assert worker.told() == b"E"
    assert not keeper.has_ended(0.3)
    worker.exit(0)
    assert keeper.wait() == 0
    assert_tidy(keeper)


def test_the_end_takes_a_candidate_with_it(keeper: RunningKeeper, worker: HandWorker) -> None:
    command = keeper.command("reload")
    second = keeper.workers.next()
    keeper.kernel.close()
    assert not command.reloaded().ok
    worker.wait()
    second.wait()
    assert keeper.wait() == 0


def test_the_death_of_the_keeper_ends_its_worker(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.signal(signal.SIGKILL)
    assert worker.told() == b""
    wait_readable(worker.requests, 60, "the end of requests")
    with pytest.raises(EOFError):
        worker.receive()
    worker.wait()
    assert keeper.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH])
def test_a_signal_that_ends_nothing_loses_no_request(
    keeper: RunningKeeper, worker: HandWorker, number: signal.Signals
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    keeper.signal(number)
    assert worker.receive() == request
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0


@pytest.fixture
def manager() -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its name for NOTIFY_SOCKET."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind("")
        name = listener.getsockname()
        yield listener, "@" + name[1:].decode()


def heard(listener: socket.socket) -> bytes:
    wait_readable(listener, 60, "the service manager")
    return listener.recv(4096)


def test_a_service_manager_hears_of_start_and_end(
    program: Path, tmp_path: Path, manager: tuple[socket.socket, str]
) -> None:
    listener, name = manager
    with RunningKeeper(program, tmp_path, environment={"NOTIFY_SOCKET": name}) as keeper:
        asked = keeper.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)
        worker = keeper.workers.next()
        init = worker.receive()
        assert not readable(listener, 0.0)
        worker.reply(init, InitOut().encode())
        keeper.kernel.reply_to(asked)
        assert b"READY=1" in heard(listener)
        keeper.kernel.close()
        assert b"STOPPING=1" in heard(listener)
        assert keeper.wait() == 0


def test_a_service_manager_with_a_path_hears_too(program: Path, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        path = tmp_path / "notify"
        listener.bind(str(path))
        told = {"NOTIFY_SOCKET": str(path)}
        with RunningKeeper(program, tmp_path, environment=told) as keeper:
            keeper.begin()
            assert b"READY=1" in heard(listener)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fd"],
        ["--fd", "x", "/mnt", "--", "true"],
        ["--fd", "-1", "/mnt", "--", "true"],
        ["--fd", "3junk", "/mnt", "--", "true"],
        ["--fd", "99999999999", "/mnt", "--", "true"],
        ["--nonsense", "/mnt", "--", "true"],
        ["/mnt"],
        ["/mnt", "--"],
        ["--fd", "0", "--", "true"],
        ["/mnt", "other", "--", "true"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_usage_says_so(program: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr


def test_a_descriptor_that_is_not_open_is_a_bad_start(program: Path, tmp_path: Path) -> None:
    command = [str(program), "--fd", "77", str(tmp_path), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {2, 8}
    assert done.stderr


def test_a_user_who_is_not_there_is_a_bad_start(program: Path, tmp_path: Path) -> None:
    with RunningKeeper(program, tmp_path, "--user", "no-such-user-here") as keeper:
        keeper.expect_log("no-such-user-here")
        assert keeper.wait() in {2, 8}


def test_a_control_path_that_cannot_be_made_is_a_bad_start(program: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "control")
    with RunningKeeper(program, tmp_path, "--control", path) as keeper:
        keeper.expect_log("missing")
        assert keeper.wait() == 8


def test_a_worker_does_not_hold_the_device(keeper: RunningKeeper, worker: HandWorker) -> None:
    """A worker that holds the device open would keep a dead mount alive."""
    theirs = {os.readlink(path) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
    device = os.readlink(f"/proc/{keeper.pid}/fd/{keeper.device}")
    assert device not in theirs
