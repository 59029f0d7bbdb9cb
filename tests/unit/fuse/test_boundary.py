"""The boundary: one answer for whatever happens inside."""

import errno
import logging

import pyfuse3
import pytest
import trio

from cafs.errors import OfflineError
from cafs.fuse.boundary import boundary
from cafs.fuse.interests import Interests
from cafs.metrics import Metrics


class Handlers:
    """Handlers that do what a test wants."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.interests: Interests | None = None

    def counts(self, target: object) -> bool:
        return target != 9

    @boundary
    async def read(self, fh: int, error: BaseException | None = None) -> int:
        if error is not None:
            raise error
        return fh

    @boundary
    async def lookup(self) -> None:
        await trio.sleep_forever()


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


async def test_cancellation_passes() -> None:
    handlers = Handlers()
    with trio.CancelScope() as scope:
        scope.cancel()
        await handlers.lookup()
    assert scope.cancelled_caught
    assert handlers.metrics["fuse.bugs"] == 0
