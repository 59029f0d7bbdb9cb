"""The boundary: one answer for whatever happens inside."""

import errno
import logging
import socket
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs.errors import OfflineError, StorageFullError
from cafs.fuse.boundary import boundary
from cafs.fuse.interests import Interests
from cafs.metrics import Metrics
from cafs.testing.fuse_wire import Opcode, Request


class Handlers:
    """Handlers that do what a test wants."""

    def __init__(self, interests: Interests | None = None) -> None:
        self.metrics = Metrics()
        self.interests = interests

    def counts(self, target: object) -> bool:
        if isinstance(target, Exception):
            raise target
        return target != 9

    def waits(self, operation: str, target: object) -> bool:
        return target != 8

    @boundary
    async def read(self, fh: object, error: BaseException | None = None) -> object:
        if error is not None:
            raise error
        return fh

    @boundary
    async def getattr(self, inode: int) -> None:
        await trio.sleep_forever()

    @boundary
    async def lookup(self) -> None:
        await trio.sleep_forever()


@pytest.fixture
def interests() -> Iterator[Interests]:
    keeper, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keeper, worker:
        yield Interests(worker.fileno())


async def test_an_answer_passes_and_is_counted() -> None:
    handlers = Handlers()
    assert await handlers.read(7) == 7
    assert await handlers.read(8) == 8
    assert await handlers.read(9) == 9
    assert handlers.metrics["fuse.read"] == 2
    assert handlers.metrics["vfs.errors"] == 0


async def test_an_expected_failure_is_its_familys_errno() -> None:
    handlers = Handlers()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.read(7, OfflineError("no network"))
    assert caught.value.errno == errno.ENONET
    assert handlers.metrics["vfs.errors"] == 1
    assert handlers.metrics["fuse.bugs"] == 0


async def test_an_errno_of_the_operations_own_passes() -> None:
    handlers = Handlers()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.read(7, pyfuse3.FUSEError(errno.EROFS))
    assert caught.value.errno == errno.EROFS
    assert handlers.metrics["vfs.errors"] == 0


@pytest.mark.expects_log("fuse.read.bug")
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("bug"), ExceptionGroup("bugs", [KeyError("x")])]
)
async def test_a_bug_is_eio_with_a_traceback_and_is_counted(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = Handlers()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.read(7, error)
    assert caught.value.errno == errno.EIO
    assert handlers.metrics["fuse.bugs"] == 1
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.expects_log("fuse.read.bug")
@pytest.mark.parametrize(
    ("error", "number"),
    [(StorageFullError("no records"), errno.ENOSPC), (ZeroDivisionError("bug"), errno.EIO)],
)
async def test_a_failure_to_find_out_whether_to_count_is_one_of_the_request(
    error: Exception, number: int
) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().read(error)
    assert caught.value.errno == number


async def test_cancellation_passes() -> None:
    handlers = Handlers()
    with trio.CancelScope() as scope:
        scope.cancel()
        await handlers.lookup()
    assert scope.cancelled_caught
    assert handlers.metrics["fuse.bugs"] == 0


@pytest.mark.parametrize(("target", "dropped"), [(7, True), (8, False)])
async def test_a_request_that_may_wait_is_dropped_when_nobody_waits_for_it(
    interests: Interests, target: int, dropped: bool
) -> None:
    handlers = Handlers(interests)
    caught: list[int] = []

    async def ask() -> None:
        try:
            await handlers.getattr(target)
        except pyfuse3.FUSEError as error:
            caught.append(error.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert len(interests) == (1 if dropped else 0)
        interests.gone(Request(Opcode.GETATTR, 1, target, bytes(16)).encode())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert caught == ([errno.EINTR] if dropped else [])
    assert handlers.metrics["vfs.errors"] == 0
    assert len(interests) == 0


@pytest.mark.expects_log("fuse.read.bug")
async def test_what_has_been_answered_is_no_longer_under_way(interests: Interests) -> None:
    handlers = Handlers(interests)
    assert await handlers.read(7) == 7
    for error in (OfflineError("no network"), ZeroDivisionError("bug")):
        with pytest.raises(pyfuse3.FUSEError):
            await handlers.read(7, error)
    assert len(interests) == 0
