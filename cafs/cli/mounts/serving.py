"""Serving a mount in this process: under a keeper, which holds the mount, or without one.

A worker under a keeper may end at any time, and another one goes on with its mount: so the mount's
records stay when it ends, unless the keeper has said that the mount itself has ended. With which
settings it goes on is a matter of ``inheriting``.
"""

import logging
import select
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from cafs.assemble.system import System, open_system, open_system_in
from cafs.cli.exits import exit_code
from cafs.cli.failing import expected
from cafs.cli.mounts.heralding import Herald
from cafs.cli.mounts.inheriting import Adoption, settings_before
from cafs.cli.mounts.reaching import heard
from cafs.cli.mounts.retracting import follow_up, forget, retract
from cafs.errors import CafsError, MountError, StorageError
from cafs.fuse.channel import CHANNEL_FD, REQUESTS_FD, Channel, open_channel
from cafs.fuse.interests import Interests
from cafs.fuse.losses import recovered
from cafs.fuse.operations import CafsOperations
from cafs.fuse.session import Session, SessionOptions, open_kept_session, open_mounted_session
from cafs.store.store import open_store
from cafs.store.tenancy import lasting, passing

if TYPE_CHECKING:
    from cafs.cli.mounts.live import LiveMount
    from cafs.settings.values import Settings

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOG: Final = logging.getLogger("cafs")


class KeptMount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of a keeper, the same for all of its workers.

    ``key`` is the mount's; ``owner`` is whose the nodes are: a user and a group, by number.
    """

    mount_point: Path
    store: Path
    key: str
    owner: tuple[int, int]


def log_to_stderr() -> None:
    """Log as the keeper does, into the same file."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT)


def serve(loaded: "Settings", mounted: "LiveMount", *, word: int | None) -> int:
    """Mount, and serve until the mount is unmounted, or SIGTERM or SIGINT comes.

    Args:
        loaded: the settings.
        mounted: the mount; its mount point is there, and nothing is mounted on it.
        word: the descriptor to say to that the mount is ready, or why it is not; None to say it
            on the log only.

    Returns:
        The exit code, 0 when it was mounted.

    Raises:
        CafsError: it cannot be mounted, and there is nobody at ``word`` to tell.
    """
    log_to_stderr()
    herald = Herald(word)
    try:
        trio.run(_serve_alone, loaded, mounted, herald)
    except (CafsError, BaseExceptionGroup) as error:
        known = expected(error)
        if known is None or not herald.lament(known):
            raise
        return exit_code(type(known))
    return 0


def log_failure(error: CafsError) -> None:
    """Say on the log why this worker does not serve."""
    _LOG.error("%s", error.line)


async def _serve_alone(loaded: "Settings", mounted: "LiveMount", herald: Herald) -> None:
    place = Path(mounted.mount_point)
    options = SessionOptions(allow_other=loaded.allow_other, suid=loaded.suid, dev=loaded.dev)
    tenancy = partial(passing, description=str(place), key=mounted.key, view=loaded.view)
    async with open_system(loaded, description=str(place), tenancy=tenancy) as system:

        async def begun() -> None:
            _LOG.info("mounted on %s", place)
            if not herald.proclaim():
                raise MountError(f"{place}: who asked for the mount has gone")
            await _tidy(system)

        operations = CafsOperations(system.filesystem, system.metrics)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with (
                open_mounted_session(place, operations, options) as session,
                heard(system, mounted.key, place),
            ):
                await _answer(session, signals, begun, system, operations)


def serve_kept(kept: KeptMount, fresh: "Settings | None", *, herald: Herald) -> None:
    """Serve the requests of a keeper's mount until SIGTERM comes, or the keeper goes.

    Args:
        kept: the mount.
        fresh: the settings; None for those of the worker before.
        herald: told when requests are answered.

    Raises:
        CafsError: it cannot serve.
        BaseExceptionGroup: one or more of them.
    """
    trio.run(_serve_kept, kept, fresh, herald)


async def _serve_kept(kept: KeptMount, fresh: "Settings | None", herald: Herald) -> None:
    name = str(kept.mount_point)
    async with open_channel() as channel, open_store(kept.store) as store:
        settings = fresh or settings_before(store, kept.key, kept.mount_point)
        async with (
            lasting(store, description=name, key=kept.key, view=settings.view) as mount,
            open_system_in(store, mount, settings, description=name, owner=kept.owner) as system,
        ):
            await system.filesystem.settle()
            await _lend_lease(system, channel)
            adoption = Adoption(store, mount, fresh)
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                herald.check(kept.mount_point)
                await adoption.begin()
                async with heard(system, kept.key, kept.mount_point):
                    ended = await _serve_requests(
                        system, channel, signals, herald, adoption, asked=fresh is not None
                    )
                if ended:
                    await store.mounts.remove(mount)


async def _serve_requests(
    system: System,
    channel: Channel,
    signals: AsyncIterator[int],
    herald: Herald,
    adoption: Adoption,
    *,
    asked: bool,
) -> bool:
    """Answer the keeper's requests; whether the mount has ended for good.

    ``asked`` says that somebody asked for this worker: it did not only take the place of another.
    """
    interests = Interests(REQUESTS_FD)
    operations = CafsOperations(system.filesystem, system.metrics, interests, adoption.trial)
    ended = trio.Event()
    left = trio.Event()

    async def begun() -> None:
        await adoption.accepted()
        if not herald.proclaim():
            # The kernel has been answered already: the mount is there, whoever wanted it.
            _LOG.warning("who asked for the mount has gone")
        if asked:
            await system.fetcher.exposures.pardon()
        await adoption.complete()
        # Nobody answers for these as the worker before did any more; the keeper says that a reload
        # has ended when the kernel has had this.
        await forget(operations, system.filesystem.names(adoption.renamed))
        adoption.settle()
        await _tidy(system)

    async with open_kept_session(REQUESTS_FD, operations) as session:

        async def listen() -> None:
            await channel.listen(interests.gone, ended.set)
            left.set()
            session.terminate()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with recovered(channel, nursery):
                await _answer(session, signals, begun, system, operations)
            await _hear_out(left)
            nursery.cancel_scope.cancel()
    return ended.is_set()


async def _hear_out(left: trio.Event) -> None:
    """Wait until what the keeper has said already has been heard: the end comes before the signal.

    Args:
        left: set when there is nothing more to hear.
    """
    poll = select.poll()
    poll.register(CHANNEL_FD, select.POLLIN)
    while poll.poll(0) and not left.is_set():
        await trio.lowlevel.checkpoint()


async def _answer(
    session: Session,
    signals: AsyncIterator[int],
    begun: Callable[[], Awaitable[None]],
    system: System,
    operations: CafsOperations,
) -> None:
    """Answer requests until there are no more or a signal ends it; a second one ends it at once.

    Args:
        session: what serves.
        signals: those that end it.
        begun: called when requests are answered.
        system: what answers; its store is kept whole meanwhile.
        operations: how it does.
    """

    async def begin() -> None:
        await session.ready()
        await begun()
        nursery.start_soon(retract, system, operations)
        nursery.start_soon(follow_up, system)

    async def obey() -> None:
        async for _ in signals:
            session.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin)
        nursery.start_soon(obey)
        nursery.start_soon(system.store.stay_whole)
        await session.serve()
        nursery.cancel_scope.cancel()


async def _tidy(system: System) -> None:
    """Remove what mounts have left that nobody keeps any more."""
    try:
        swept = await system.store.mounts.sweep()
    except StorageError as error:
        _LOG.warning("store.mounts.unswept error=%s", error.line)
    else:
        if swept:
            _LOG.info("store.mounts.swept count=%d", swept)


async def _lend_lease(system: System, channel: Channel) -> None:
    """Let the keeper hold the mount's lease, so that it is held when this worker ends.

    Raises:
        MountError: the keeper has gone.
    """
    lease = system.store.mounts.lease(system.mount)
    if lease is None:
        return
    try:
        await channel.lend(lease.fileno())
    except OSError as error:
        raise MountError(f"the keeper has gone: {error.strerror}") from error
