"""What a keeper may use: its memory is small, and stays so."""

from pathlib import Path

import pytest

from cafs.testing.fuse_wire import DATA_MAX, Opcode, Reply, Request, read_body
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

LIMIT_KB = 4096
SLOTS = 4096
OWN = 1_000_000
RELAYED = 100_000
BATCH = 100


@pytest.fixture
def plain(program: Path) -> None:
    """Nothing, where the program is not one that watches its own memory."""
    if b"__asan_init" in program.read_bytes():
        pytest.skip("a sanitizer's memory is not the keeper's")


def relay(keeper: RunningKeeper, worker: HandWorker, count: int) -> None:
    for _ in range(count // BATCH):
        for _ in range(BATCH):
            keeper.kernel.send(Opcode.READ, read_body(size=4096), nodeid=9)
        for _ in range(BATCH):
            worker.reply(worker.receive(), b"x" * 100)
        for _ in range(BATCH):
            keeper.kernel.receive()


def answer(keeper: RunningKeeper, count: int) -> None:
    """Have requests answered by the keeper itself, by the shortest way on this side."""
    line = keeper.kernel.line
    release = keeper.kernel.make(Opcode.RELEASE, bytes(24)).encode()
    forget = keeper.kernel.make(Opcode.FORGET, bytes(8)).encode()
    expected = Reply(keeper.kernel.make(Opcode.RELEASE).unique - 4).encode()
    for _ in range(count // BATCH):
        for _ in range(BATCH // 2):
            line.send(release)
            line.send(forget)
        for _ in range(BATCH // 2):
            assert line.recv(100) == expected


def test_memory_is_small_at_its_worst(
    keeper: RunningKeeper, worker: HandWorker, plain: None
) -> None:
    asked: list[Request] = []
    while len(asked) < SLOTS:
        asked.append(keeper.kernel.send(Opcode.READ, read_body(size=DATA_MAX), nodeid=9))
        worker.waiting()
    keeper.wait_until(lambda status: status.waiting == len(asked))
    for request in asked:
        worker.reply(request, bytes(DATA_MAX))
        keeper.kernel.receive()
    assert keeper.memory_kb() < LIMIT_KB


@pytest.mark.slow
def test_memory_is_flat_over_a_million_requests(
    keeper: RunningKeeper, worker: HandWorker, plain: None
) -> None:
    relay(keeper, worker, 2000)
    answer(keeper, 10_000)
    before = keeper.own_memory_kb()
    files = keeper.open_files()
    relay(keeper, worker, RELAYED)
    answer(keeper, OWN)
    status = keeper.status()
    assert status.relayed >= RELAYED
    assert status.answered >= OWN
    assert keeper.own_memory_kb() <= before + 64
    assert keeper.memory_kb() < LIMIT_KB
    assert keeper.open_files() == files
