"""Which settings a worker serves with, and when they become the mount's.

One that replaces a worker which ended has the settings of that one, whatever has become of the
files meanwhile: an editor half-way, a ``git checkout``. Only where somebody waits for the word, who
can be told what is wrong with a file, a worker comes with fresh settings. They are the mount's from
the moment when it serves, and are remembered with the mount's records for the workers to come:

- The first worker of a mount serves as soon as it has answered INIT. There are no settings that
  could be overwritten, so its own are remembered before that.
- Another one is on trial until it answers the keeper's first heartbeat (``cafs.fuse.trial``). Its
  settings are remembered between the two: after the keeper has accepted it, and before it serves.
  One that ends in the very moment between has left settings that never served; then the next
  restart takes them up. They are whole, they were asked for, and a worker had opened the mount
  with them.
"""

from pathlib import Path

from cafs.errors import MalformedError, MountError
from cafs.fuse.trial import Trial
from cafs.settings.packing import pack, unpack
from cafs.settings.values import Settings
from cafs.store.store import Store


def settings_before(store: Store, key: str, mount_point: Path) -> Settings:
    """The settings of the worker before.

    Args:
        store: where the mount has its records.
        key: the mount's.
        mount_point: the mount's, for messages.

    Raises:
        MountError: they are not known.
    """
    mount = store.mounts.number(key)
    packed = None if mount is None else store.mounts.settings(mount)
    failure = MountError(
        f"{mount_point}: the store has forgotten with which settings it was mounted",
        hint=f"have the files read anew: cafs reload {mount_point}",
    )
    if packed is None:
        raise failure
    try:
        return unpack(packed)
    except MalformedError as error:
        raise failure from error


class Adoption:
    """Makes the settings of a worker the mount's.

    ``trial`` is for the worker's operations; None when it is on none. ``renamed`` is the names of
    refs that show something else than under the worker before.

    Concurrency: one task.
    """

    def __init__(self, store: Store, mount: int, fresh: Settings | None) -> None:
        """Settle what is to be done.

        Args:
            store: where the mount has its records.
            mount: the mount's number there.
            fresh: the settings of this worker; None when it has those of the worker before.
        """
        self._store = store
        self._mount = mount
        known = store.mounts.settings(mount)
        wanted = None if fresh is None else pack(fresh)
        self._wanted = None if wanted == known else wanted
        self.renamed = frozenset() if fresh is None or known is None else _renamed(fresh, known)
        self.trial = None if self._wanted is None or known is None else Trial()

    async def begin(self) -> None:
        """To be called before INIT is answered.

        Raises:
            StorageError: the store cannot be written.

        Cancellation: the settings are the mount's, or not.
        """
        if self.trial is None:
            await self._adopt()

    async def accepted(self) -> None:
        """Wait until the settings are the mount's; heartbeats are not answered yet.

        Raises and Cancellation: as ``begin``.
        """
        if self.trial is not None:
            await self.trial.asked()
            await self._adopt()

    async def complete(self) -> None:
        """Let the worker serve, and wait until it does and the one before it does not.

        Cancellation: it may serve or not.
        """
        if self.trial is not None:
            self.trial.passed()
            await self.trial.served()

    def settle(self) -> None:
        """Let who asked for the worker know that it serves."""
        if self.trial is not None:
            self.trial.settled()

    async def _adopt(self) -> None:
        if self._wanted is not None:
            await self._store.mounts.set_settings(self._mount, self._wanted)


def _renamed(fresh: Settings, known: bytes) -> frozenset[str]:
    """The refs of which these settings say something else than those that are known; or all."""
    now = {spec.name: spec.key for spec in fresh.refs}
    try:
        before = {spec.name: spec.key for spec in unpack(known).refs}
    except MalformedError:
        return frozenset(now)
    return frozenset(name for name in now | before if now.get(name) != before.get(name))
