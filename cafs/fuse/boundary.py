"""The boundary round every request: whatever happens inside, the kernel gets one answer.

pyfuse3 answers for ``FUSEError`` only; any other exception would end its loop, and with it the
mount. This is one of the two places that catch everything.
"""

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyfuse3

from cafs.errors import CafsError
from cafs.fuse.errnos import errno_of
from cafs.metrics import Metrics

P = ParamSpec("P")
R = TypeVar("R")
_LOG: Final = logging.getLogger("cafs.fuse")


class Counting(Protocol):
    """What the boundary needs of the operations that it surrounds."""

    metrics: Metrics

    def counts(self, inode: int) -> bool:
        """Whether requests for an inode are counted."""


S = TypeVar("S", bound=Counting)


def boundary(
    handler: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[None, None, R]]:
    """Count a request under its handler's name, and turn its failures into errnos.

    An expected failure becomes its family's errno. A bug becomes EIO, with a traceback in the log
    and ``fuse.bugs`` counted; the mount lives on. Cancellation passes.
    """
    operation = handler.__name__
    counter = f"fuse.{operation}"

    @functools.wraps(handler)
    async def bounded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        target = args[0] if args else None
        if not isinstance(target, int) or self.counts(target):
            self.metrics.add(counter)
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except CafsError as error:
            self.metrics.add("vfs.errors")
            _LOG.debug("fuse.%s.failed: %s", operation, error.line)
            raise pyfuse3.FUSEError(errno_of(type(error))) from error
        except Exception as error:
            self.metrics.add("fuse.bugs")
            _LOG.exception("fuse.%s.bug: %s", operation, error)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return bounded
