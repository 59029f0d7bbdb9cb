"""Workers die, stop, hang and are reloaded, and readers notice nothing but a pause.

``scripts/soak`` does it for longer, with 20,000 files and 1 GiB.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

from cafs.fuse.channel import REQUESTS_FD
from cafs.testing.fuse_wire import MESSAGE_MAX
from cafs.testing.origin import running_origin
from cafs.testing.soaking import KEEPER_LINES, Ground, Outcome, Scene, mounted, plant_hang
from tests.forked import ForkedCafs, Forks

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MIB = 1 << 20
SECONDS, EVERY_S = 5.0, 1.5
TIMES, REQUESTS = 3, 1001
SIZE = 64 * MIB
LONGEST_S = 9.0
"""What no reader may wait for, on a machine that does other things too; scripts/soak measures."""
SILENT_S = 10.0
"""How long a worker may be silent before it is replaced."""
_PIDFD_GETFD: Final = 438
"""The number of the system call, on every architecture."""


@pytest.fixture(scope="module")
def scene(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One mount of files and a blob, all of it local, whose workers can be made to hang."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("dropping the kernel's caches needs root")
    scratch = tmp_path_factory.mktemp("soak")
    with running_origin() as origin:
        ground = Ground.make(scratch, origin, files=4_000, blob=SIZE)
        cafs = ForkedCafs(scratch / "world", forks)
        cafs.expect_log(KEEPER_LINES)
        plant_hang(cafs, scratch / "planted")
        with mounted(cafs, ground) as found:
            yield found


def judge(outcome: Outcome, longest_s: float) -> None:
    """Every read was right, and enough of them crossed the keeper to say something."""
    figures = outcome.figures
    assert (figures.errors, figures.wrong) == (0, 0), figures.trouble
    assert figures.longest_s < longest_s
    assert outcome.relayed > 1000
    assert outcome.after.state == "serving"


@pytest.mark.parametrize("disturb", [Scene.kill, Scene.stop])
def test_16_readers_notice_no_worker_that_dies_or_stops(
    scene: Scene, disturb: Callable[[Scene], None]
) -> None:
    outcome = scene.disturbed(disturb, seconds=SECONDS, every_s=EVERY_S, least=(TIMES, REQUESTS))
    assert len(outcome.took_s) >= TIMES
    assert outcome.workers >= len(outcome.took_s)
    # Whoever kills waits for a worker first; where that takes long, so do readers.
    judge(outcome, LONGEST_S + max(outcome.took_s))


def test_16_readers_notice_no_reload(scene: Scene) -> None:
    outcome = scene.disturbed(Scene.reload, seconds=SECONDS, every_s=EVERY_S, least=(2, REQUESTS))
    assert len(outcome.took_s) >= 2
    assert outcome.workers == len(outcome.took_s)
    judge(outcome, LONGEST_S)


def test_a_worker_that_hangs_is_replaced(scene: Scene) -> None:
    outcome = scene.disturbed(Scene.hang, seconds=2, every_s=1, least=(1, REQUESTS))
    assert len(outcome.took_s) == 1
    assert outcome.took_s[0] < SILENT_S + LONGEST_S
    # Somebody's read was with it all the time, and was answered by the next.
    assert outcome.figures.longest_s > SILENT_S - 1
    judge(outcome, SILENT_S + LONGEST_S)


def test_a_process_that_works_inside_the_mount_survives_reloads(scene: Scene) -> None:
    inside = scene.mount.ref("tree") / "tree/000/007"
    reads = "for i in $(seq 150); do cat 005.c && ls . && stat .. || exit 1; done"
    command = ["sh", "-c", f"exec >/dev/null; {reads}"]
    with subprocess.Popen(command, cwd=inside, stderr=subprocess.PIPE, text=True) as reader:
        for _ in range(2):
            scene.reload()
        _, said = reader.communicate(timeout=60)
    assert reader.returncode == 0, said


def test_a_file_that_was_open_before_is_read_on_by_another_worker(scene: Scene) -> None:
    with scene.mount.ref("data").open("rb", buffering=0) as opened:
        fd = opened.fileno()
        before = os.pread(fd, 4096, 0)
        scene.kill()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 4096, 0) == before
        assert os.fstat(fd).st_size == SIZE


@contextmanager
def socket_of(pid: int, fd: int) -> Iterator[socket.socket]:
    """Another process's own socket, by pidfd_getfd(2)."""
    process = os.pidfd_open(pid)
    try:
        taken = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    assert taken >= 0, os.strerror(ctypes.get_errno())
    with socket.socket(fileno=taken) as found:
        yield found


def test_an_answer_that_cannot_be_sent_is_given_again(scene: Scene) -> None:
    scene.cafs.expect_log("fuse_reply_")
    worker = scene.keeper.wait_serving().worker
    resent = scene.keeper.status().resent
    with (
        scene.mount.ref("data").open("rb", buffering=0) as opened,
        ThreadPoolExecutor(1) as pool,
        socket_of(worker, REQUESTS_FD) as replies,
    ):
        fd = opened.fileno()
        before = os.pread(fd, MIB, 0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        replies.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # that is, a page or so
        reading = pool.submit(os.pread, fd, MIB, 0)
        scene.keeper.wait_until(lambda status: status.resent >= resent + 3)
        assert not reading.done()
        replies.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
        assert reading.result(60) == before
    assert scene.keeper.status().worker == worker
