"""The boundary round every request: whatever happens inside, the kernel gets one answer.

pyfuse3 answers for ``FUSEError`` only; any other exception would end its loop, and with it the
worker. This is one of the two places that catch everything.
"""

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyfuse3

from cafs.errors import CafsError
from cafs.fuse.errnos import errno_of
from cafs.fuse.interests import KEYED, Interests, Key
from cafs.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")
_LOG: Final = logging.getLogger("cafs.fuse")


class Surrounded(Protocol):
    """What the boundary needs of the operations that it surrounds.

    ``interests`` is where requests that may wait are known; None where nobody asks for that.
    """

    metrics: Metrics
    interests: Interests | None

    def counts(self, target: object) -> bool:
        """Whether a request with that first argument is counted."""

    def waits(self, operation: str, target: object) -> bool:
        """Whether a request with that first argument may have to wait for a source."""


S = TypeVar("S", bound=Surrounded)


def boundary(
    handler: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[None, None, R]]:
    """Count a request under its handler's name, and turn its failures into errnos.

    An expected failure becomes its family's errno. A bug becomes EIO, with a traceback in the log
    and ``fuse.bugs`` counted; the mount lives on. A request that nobody waits for any more becomes
    EINTR. Cancellation from outside passes.
    """
    operation = handler.__name__
    counter = f"fuse.{operation}"
    arguments = KEYED.get(operation)

    @functools.wraps(handler)
    async def bounded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        target = args[0] if args else None
        try:
            if self.counts(target):
                self.metrics.add(counter)
            if (
                arguments is None
                or self.interests is None
                # A scope costs a few microseconds.
                or not self.waits(operation, target)
            ):
                return await handler(self, *args, **kwargs)
            key = (operation, *args[:arguments])
            return await _while_wanted(self.interests, key, handler(self, *args, **kwargs))
        except pyfuse3.FUSEError:
            raise
        except CafsError as error:
            self.metrics.add("vfs.errors")
            _LOG.debug("fuse.%s.failed: %s", operation, error.line)
            raise pyfuse3.FUSEError(errno_of(type(error), operation)) from error
        except Exception as error:
            self.metrics.add("fuse.bugs")
            _LOG.exception("fuse.%s.bug: %s", operation, error)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return bounded


async def _while_wanted(interests: Interests, key: Key, answer: Awaitable[R]) -> R:
    scope = interests.begin(key)
    try:
        with scope:
            return await answer
    finally:
        interests.end(key, scope)
    raise pyfuse3.FUSEError(errno.EINTR)
