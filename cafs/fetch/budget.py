"""What may be fetched at all: the mount's budget, and whether the network may be asked."""

from cafs.errors import BudgetError, OfflineError


class Budget:
    """Counts the bytes that arrive, and refuses those beyond the limit.

    ``limit`` is bytes for the life of the fetcher, None for no limit. ``offline`` refuses all.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self, limit: int | None, *, offline: bool) -> None:
        self._limit = limit
        self._offline = offline
        self.spent = 0

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
        if self._limit is not None and self.spent > self._limit:
            raise self._broke(missing)

    def _broke(self, missing: str) -> BudgetError:
        return BudgetError(
            f"{missing}: the mount's budget of {self._limit} bytes is spent",
            hint="raise mount.budget, or mount again",
        )
