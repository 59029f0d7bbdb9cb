"""What may be fetched at all: the mount's budget, and whether the network may be asked.

What has been spent is kept with the mount, so that its next worker goes on counting, and so does a
prefetch for it. It is written down once a second, each time that a thousandth of the limit was
spent (1 MiB at least), and when the limit is reached: so much a worker that is killed forgets at
most, and what arrived while it was being written.
"""

import logging
from typing import Final

import msgspec
import trio

from cafs.errors import BudgetError, OfflineError, StorageError
from cafs.store.trees.mounts import Mounts

_STEP: Final = 1 << 20
_STEPS: Final = 1000
_PERIOD_S: Final = 1.0
_LOG: Final = logging.getLogger("cafs.fetch")


class Account(msgspec.Struct, frozen=True):
    """Where a mount's spending is kept: by its number in the store."""

    mounts: Mounts
    mount: int


class Budget:
    """Counts the bytes that arrive, and refuses those beyond the limit.

    Args:
        limit: bytes for the life of the account's mount, of this object without one; None for no
            limit.
        offline: whether everything is refused.
        account: where it is kept what was spent; None keeps it nowhere.

    Concurrency: one trio run; only ``keep`` awaits.
    """

    def __init__(self, limit: int | None, *, offline: bool, account: Account | None = None) -> None:
        self._limit = limit
        self._offline = offline
        self._account = account
        self.spent = 0 if account is None else account.mounts.spent(account.mount)
        self._unkept = 0
        # Without a limit nothing hangs on the figure until there is one: once a second is enough.
        self._step = max(_STEP, (limit or 0) // _STEPS)
        self._some = trio.Event()
        self._much = trio.Event()

    def check(self, missing: str) -> None:
        """Whether anything may be fetched now; ``missing`` says what is wanted.

        Raises:
            OfflineError: the network may not be asked.
            BudgetError: the budget is spent.
        """
        if self._offline:
            raise OfflineError(
                f"{missing} is not in the store",
                hint="go online, or prefetch it while there is a network",
            )
        if self._limit is not None and self.spent >= self._limit:
            raise self._broke(missing)

    def take(self, count: int, missing: str) -> None:
        """Count bytes that have arrived.

        Raises:
            BudgetError: they are more than the budget had left.
        """
        self.spent += count
        self._unkept += count
        self._some.set()
        if self._limit is None:
            return
        if self._unkept >= self._step or self.spent >= self._limit:
            self._much.set()
        if self.spent > self._limit:
            raise self._broke(missing)

    async def keep(self) -> None:
        """Write down what is spent, until cancelled, and learn what others spend for the mount.

        Cancellation: what has been counted is written down.
        """
        try:
            while True:
                await self._some.wait()
                with trio.move_on_after(_PERIOD_S):
                    await self._much.wait()
                await self._write()
        finally:
            with trio.CancelScope(shield=True):
                await self._write()

    async def _write(self) -> None:
        count, self._unkept = self._unkept, 0
        self._some = trio.Event()
        self._much = trio.Event()
        if self._account is None or not count:
            return
        try:
            total = await self._account.mounts.spend(self._account.mount, count)
        except trio.Cancelled:
            self._unkept += count
            raise
        except StorageError as error:
            # It is written with the next bytes that arrive.
            self._unkept += count
            _LOG.warning("fetch.budget.unkept error=%s", error.line)
            return
        self.spent = max(self.spent, total + self._unkept)

    def _broke(self, missing: str) -> BudgetError:
        return BudgetError(
            f"{missing}: the mount's budget of {self._limit} bytes is spent",
            hint="raise mount.budget and reload, or mount again",
        )
