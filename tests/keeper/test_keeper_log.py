"""The keeper's log: lines like the worker's, and never a wait for whoever reads them."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import Notice, Opcode
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper


def test_a_death_and_its_replacement_stand_in_the_log(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    worker.kill()
    second = keeper.workers.next()
    second.take_over()
    died = keeper.wait_for_log(f"worker {worker.pid} ")
    assert keeper.wait_for_log(f"worker {second.pid} serves").level == "INFO"
    assert {died.level, *(line.level for line in keeper.log())} >= {"INFO", "WARNING"}


def test_the_times_in_the_log_are_now(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.wait_for_log(f"worker {worker.pid} serves")
    stamp, milliseconds = re.findall(r"^(\S+ [\d:]+),(\d{3}) ", keeper.output, re.MULTILINE)[0]
    written = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000
    assert -1 < time.time() - written < 60


def flood(keeper: RunningKeeper, worker: HandWorker) -> None:
    """Have many things happen that a log would tell."""
    for _ in range(300):
        worker.channel.send(b"nonsense")
        worker.notify(Notice.STORE, bytes(40))
    for _ in range(40):
        keeper.command("nonsense").answer()


def test_a_log_that_nobody_reads_holds_nobody_up(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.expect_log("worker")
    keeper.wait_for_log("serves")
    keeper.take_output()
    # The pipe is filled by its other writer, the worker's side of it: not a line more fits.
    with Path(f"/proc/{keeper.pid}/fd/2").open("wb", buffering=0) as log:
        os.set_blocking(log.fileno(), False)
        while log.write(b"x" * 4095 + b"\n"):
            pass
        for size in (100, 1):
            while log.write(b"\n" * size):
                pass
    flood(keeper, worker)
    second = keeper.reload()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == request
    second.reply(request)
    assert keeper.kernel.reply_to(request).error == 0
    lines = keeper.take_output().splitlines()
    assert not [line for line in lines if line.strip("x")]


def test_a_log_whose_reader_has_gone_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.close_log()
    flood(keeper, worker)
    second = keeper.reload()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == request
    second.reply(request)
    assert keeper.kernel.reply_to(request).error == 0


def test_a_flood_of_trouble_is_no_flood_of_lines(keeper: RunningKeeper, worker: HandWorker) -> None:
    keeper.expect_log("worker|notification")
    flood(keeper, worker)
    keeper.status()
    assert len(keeper.log()) < 50


@pytest.mark.parametrize("kind", ["file", "null"])
def test_the_log_may_be_a_file_or_nothing(program: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log" if kind == "file" else Path("/dev/null")
    with path.open("wb") as log:
        command = [str(program), "--fd", "0", str(tmp_path), "--", "/bin/sh", "-c", "exit 5"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=log, check=False, timeout=60
        )
    # A worker that exits before INIT, or the end of the device: whichever is seen first.
    assert done.returncode in {0, 5}
