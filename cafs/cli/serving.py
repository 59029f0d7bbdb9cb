"""Serving a mount in this process: what ``cafs mount --foreground`` does, and so every worker."""

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from cafs.assemble import System, open_system
from cafs.cli import live
from cafs.cli.background import Failure, Word
from cafs.cli.exits import exit_code
from cafs.cli.failing import expected
from cafs.cli.mount import target
from cafs.errors import CafsError, MountError
from cafs.fuse.operations import CafsOperations
from cafs.fuse.session import SessionOptions, open_mounted_session

if TYPE_CHECKING:
    from cafs.settings.values import Settings

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(loaded: "Settings", *, ready_fd: int | None) -> int:
    """Mount and serve until the mount is unmounted, or SIGTERM or SIGINT comes.

    Args:
        loaded: the settings.
        ready_fd: where to say that the mount is ready, or why it is not; None to say it on the
            log only.

    Raises:
        CafsError: it cannot be mounted, and there is nobody at ``ready_fd`` to tell.
    """
    logging.basicConfig(level=logging.INFO, format=_FORMAT)
    herald = _Herald(ready_fd)
    try:
        trio.run(_serve, loaded, herald)
    except (CafsError, BaseExceptionGroup) as error:
        known = expected(error)
        if known is None or not herald.lament(known):
            raise
        return exit_code(type(known))
    return 0


async def _serve(loaded: "Settings", herald: "_Herald") -> None:
    place = target(loaded)
    await trio.to_thread.run_sync(_prepare, place, loaded.store)
    async with open_system(loaded, description=str(place)) as system:
        mounted = live.LiveMount(
            mount_point=str(place),
            pid=os.getpid(),
            mount=system.mount,
            store=str(system.store.path),
            view=loaded.view,
            log=os.environ.get("CAFS_LOG_FILE", ""),
            started_ns=time.time_ns(),
        )
        try:
            await _answer(system, place, ready=partial(herald.proclaim, mounted))
        finally:
            live.remove(mounted)


async def _answer(system: System, mount_point: Path, *, ready: Callable[[], None]) -> None:
    """Mount, say that it is ready, and answer until it is unmounted or told to end.

    SIGTERM and SIGINT end it; a second one ends it at once.

    Raises:
        MountError: it cannot be mounted.
    """
    settings = system.settings
    operations = CafsOperations(system.filesystem, system.metrics)
    options = SessionOptions(allow_other=settings.allow_other, suid=settings.suid, dev=settings.dev)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            open_mounted_session(mount_point, operations, options) as session,
            trio.open_nursery() as nursery,
        ):

            async def herald() -> None:
                await session.ready()
                await trio.to_thread.run_sync(ready)

            async def listen() -> None:
                async for _ in signals:
                    session.terminate()

            nursery.start_soon(herald)
            nursery.start_soon(listen)
            await session.serve()
            nursery.cancel_scope.cancel()


def _prepare(place: Path, store: Path) -> None:
    """Make the mount point if it is missing; refuse one that is in use.

    Raises:
        MountError: something is mounted there, it cannot be made, or the store would be hidden.
    """
    real, kept = Path(os.path.realpath(place)), Path(os.path.realpath(store))
    if real.is_relative_to(kept) or kept.is_relative_to(real):
        raise MountError(
            f"{place} and the store, {store}, lie in each other: the mount would wait for itself",
            hint="mount elsewhere, or choose another store with --store",
        )
    kind = live.mounted_type(place)
    if kind is not None:
        known = live.find(place)
        if known is not None and not known.alive:
            raise MountError(
                f"{place} is a mount whose worker (pid {known.pid}) has died",
                hint=f"cafs unmount {place}",
            )
        raise MountError(f"{place} is mounted already ({kind})", hint=f"cafs unmount {place}")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MountError(f"{place} is no directory", hint="mount on an empty one") from error
    except OSError as error:
        raise MountError(f"cannot make {place}: {error.strerror}") from error


class _Herald:
    """Says one line to whoever started this worker: ready, or why not."""

    def __init__(self, ready_fd: int | None) -> None:
        self._fd = ready_fd

    def proclaim(self, mounted: live.LiveMount) -> None:
        """Say that the mount is ready.

        Raises:
            MountError: who wanted to know has been killed.
        """
        live.save(mounted)
        logging.getLogger("cafs").info("mounted on %s", mounted.mount_point)
        if self._fd is not None and not self._say(Word(ready=mounted)):
            raise MountError(f"{mounted.mount_point}: who asked for the mount has gone")

    def lament(self, error: CafsError) -> bool:
        """Say why there is no mount; whether anybody could be told."""
        hint, error.hint = error.hint, ""
        told = self._say(
            Word(failure=Failure(what=error.line, hint=hint, exit=exit_code(type(error))))
        )
        error.hint = hint
        return told

    def _say(self, word: Word) -> bool:
        import msgspec

        if self._fd is None:
            return False
        fd, self._fd = self._fd, None
        try:
            os.write(fd, msgspec.json.encode(word) + b"\n")
        except BrokenPipeError:
            return False
        finally:
            os.close(fd)
        return True
