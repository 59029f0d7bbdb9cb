"""The session: serving, and ending. One a process, because pyfuse3 keeps it globally.

There are two kinds. A mounted session mounts by itself, and has unmounted whenever its block is
left, by whatever way. A kept session serves the requests that a keeper relays, and leaves the mount
alone. Nothing here touches the mount point while it is mounted: the answer would have to come from
this very thread.
"""

import contextlib
import logging
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pyfuse3
import trio
from typing_extensions import override

from cafs.errors import MountError
from cafs.fuse import tuning
from cafs.fuse.operations import CafsOperations

_LOG: Final = logging.getLogger("cafs.fuse")
_TASKS: Final = 4096
"""Requests answered at once: a reader that waits for a source must not hold up the others."""
_GRACE_S: Final = 1.0
"""How long requests that are under way may still be answered once the session is to end."""
_DEVICE: Final = Path("/dev/fuse")
READ_AHEAD_KB: Final = 256
"""Twice the kernel's own. Measured, warm, sequential: 128 gives 0.88 GB/s, 256 0.96, 1024 1.29. But
that is also what one page fault of a mapped program asks for, and it may have to be fetched; reads
at random places ask for what they want at any setting."""
_IN_USE: Final = threading.Lock()
"""Held while pyfuse3's one session is in use: a second one would silently leak the first mount."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to mount.

    ``source`` stands in /proc/mounts before the mount point. ``allow_other`` lets other users in.
    ``suid`` and ``dev`` make the kernel honour set-id bits and device nodes (root only).
    ``read_ahead_kb`` is how far the kernel reads ahead in sequential reads, KiB, and how much it
    asks for round a page fault in a mapped file; ``max_background`` how many of its reads may wait
    at once. Both are set where the process may.
    """

    source: str = "cafs"
    allow_other: bool = False
    suid: bool = False
    dev: bool = False
    read_ahead_kb: int = READ_AHEAD_KB
    max_background: int = 1024

    @property
    def mount_options(self) -> set[str]:
        """The options in libfuse's words."""
        options = {f"fsname={self.source}", "subtype=cafs", "ro", "default_permissions"}
        if self.allow_other:
            options.add("allow_other")
        if self.suid:
            options.add("suid")
        if self.dev:
            options.add("dev")
        return options


class Session:
    """An open session, which waits to be served.

    Concurrency: one task serves; any task of the same run may terminate.
    """

    def __init__(self, operations: CafsOperations) -> None:
        self._operations = operations
        self._serving = trio.CancelScope()
        self._ended = False

    async def serve(self) -> None:
        """Answer requests until there are no more, or ``terminate`` is called.

        Cancellation: requests that are under way get no answer: those of a mounted session fail
        when the mount goes, those of a kept one the keeper gives to another worker.
        """
        if not self._ended:
            with self._serving:
                await pyfuse3.main(max_tasks=_TASKS)

    def terminate(self) -> None:
        """End ``serve``: no more requests; those under way have a second to be answered.

        Call it in the trio thread. A second call ends at once.
        """
        if self._ended:
            self._serving.cancel()
            return
        self._ended = True
        self._serving.deadline = trio.current_time() + _GRACE_S
        pyfuse3.terminate()

    async def ready(self) -> None:
        """Wait until the kernel has begun to talk; from then on requests are answered.

        Cancellation: no effect.
        """
        await self._operations.initialised.wait()


class _Mounted(Session):
    """A session that tunes its mount while it serves."""

    def __init__(
        self, operations: CafsOperations, mount_point: Path, options: SessionOptions
    ) -> None:
        super().__init__(operations)
        self._mount_point = mount_point
        self._options = options

    @override
    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tune)
            await super().serve()
            nursery.cancel_scope.cancel()

    async def _tune(self) -> None:
        # Before the kernel's first word its limits are not settled, and would be set back.
        await self.ready()
        await trio.to_thread.run_sync(
            tuning.tune,
            self._mount_point,
            self._options.read_ahead_kb,
            self._options.max_background,
            abandon_on_cancel=True,
        )


class _Kept(Session):
    """A session whose requests end with the keeper."""

    def __init__(self, operations: CafsOperations, requests: int) -> None:
        super().__init__(operations)
        self._requests = requests

    @override
    async def serve(self) -> None:
        try:
            await super().serve()
        except* OSError:
            # What libfuse makes of the end of a socket: a device would never send so little.
            if not _at_end(self._requests):
                raise
            _LOG.info("fuse.session.left: the keeper has gone")


@asynccontextmanager
async def open_mounted_session(
    mount_point: Path, operations: CafsOperations, options: SessionOptions
) -> AsyncIterator[Session]:
    """Mount, and unmount at the end of the block.

    Args:
        mount_point: an existing directory.
        operations: what answers.
        options: how to mount.

    Raises:
        MountError: it cannot be mounted; the message and the hint say why.

    Cancellation: it is not mounted, or unmounted.
    """
    with _only_session(str(mount_point)):
        real = await trio.to_thread.run_sync(
            checked_mount_point, mount_point, abandon_on_cancel=True
        )
        try:
            pyfuse3.init(operations, str(real), options.mount_options)
        except RuntimeError as error:
            raise MountError(f"{mount_point}: {error}", hint=_hint(options)) from error
        with contextlib.ExitStack() as stack:
            stack.callback(pyfuse3.close)
            _LOG.info("fuse.session.mounted %s", mount_point)
            yield _Mounted(operations, real, options)
    _LOG.info("fuse.session.unmounted %s", mount_point)


@asynccontextmanager
async def open_kept_session(requests: int, operations: CafsOperations) -> AsyncIterator[Session]:
    """Serve what a keeper relays; the mount is the keeper's business.

    Args:
        requests: the descriptor of the requests and their replies. It is taken over, and blocks:
            libfuse sends a reply once, and on a full socket that does not block it would be lost.
        operations: what answers.

    Raises:
        MountError: the descriptor is none, or this process serves already.
    """
    place = f"/dev/fd/{requests}"
    with _only_session(place):
        try:
            os.set_blocking(requests, True)
            pyfuse3.init(operations, place, set())
        except (OSError, RuntimeError) as error:
            raise MountError(f"{place}: {error}", hint="a keeper starts this worker") from error
        with contextlib.ExitStack() as stack:
            stack.callback(pyfuse3.close, unmount=False)
            yield _Kept(operations, requests)


@contextmanager
def _only_session(place: str) -> Iterator[None]:
    if not _IN_USE.acquire(blocking=False):
        raise MountError(f"{place}: this process serves a mount already", hint="one a process")
    try:
        yield
    finally:
        _IN_USE.release()


def _at_end(descriptor: int) -> bool:
    """Whether the other end of a socket has been closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return any(happened & (select.POLLRDHUP | select.POLLHUP) for _, happened in poll.poll(0))


def checked_mount_point(path: Path) -> Path:
    """The real path of a directory that can be mounted on.

    Blocks for as long as the file system there does.

    Raises:
        MountError: no FUSE here, no such directory, not a directory, or a mount whose process is
            gone.
    """
    if not _DEVICE.exists():
        raise MountError(
            f"{path}: {_DEVICE} is missing",
            hint="load the fuse module; in a container, pass the device in (--device /dev/fuse)",
        )
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise MountError(
            f"{path}: {_DEVICE} may not be opened",
            hint="it is for everyone on most systems (mode 0666); on others for a group",
        )
    try:
        is_directory = path.is_dir()
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise MountError(f"{path}: no such directory", hint=f"mkdir -p {path}") from error
    except OSError as error:
        hint = f"a dead mount is in the way: fusermount3 -u {path}"
        raise MountError(f"{path}: {error.strerror}", hint=hint) from error
    if not is_directory:
        raise MountError(f"{path}: not a directory")
    return real


def _hint(options: SessionOptions) -> str:
    if os.geteuid() and options.allow_other:
        return "other users may be let in only if /etc/fuse.conf has user_allow_other"
    if os.geteuid():
        return "is fusermount3 installed (Debian: fuse3), and may you write to the directory?"
    return "the lines above are from libfuse; in a container, CAP_SYS_ADMIN is needed"
