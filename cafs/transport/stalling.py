"""Stalling: when a body that is silent, or drips, is given up. Learned from each host's own past.

A host that has answered at once for an hour and is silent for three seconds has lost us; one that
fetches from tape is at work. The limit is a multiple of the longest usual wait, between a floor and
a cap, and what is given up counts as a wait of that length: whoever was hasty is less so next time.
"""

import math
from typing import Final

import msgspec
import trio
from cachetools import LRUCache

DRIP: Final = 1 << 10
"""Bytes a second, averaged over the limit: what comes slower counts as if it did not come."""
_TIMES: Final = 4.0
"""How many times the usual wait is no longer usual."""
_HALF_LIFE_S: Final = 300.0
"""After which a wait counts half."""
_TRUSTED: Final = 8
"""Waits after which a host is known."""
_HOSTS: Final = 256


class _Past(msgspec.Struct):
    """The longest wait, as it counts at a time, and how many there were."""

    longest_s: float = 0.0
    at: float = 0.0
    count: int = 0

    def now_s(self, now: float) -> float:
        return self.longest_s * math.exp2((self.at - now) / _HALF_LIFE_S)

    def note(self, waited_s: float, now: float) -> None:
        self.longest_s, self.at = max(waited_s, self.now_s(now)), now
        self.count += 1


class Stalls:
    """What is known of the waits for each host's bytes.

    Args:
        floor_s: the least limit that is learned.
        cap_s: the most, and that of a host of which little is known.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self, *, floor_s: float, cap_s: float) -> None:
        self._floor_s = min(floor_s, cap_s)
        self._cap_s = cap_s
        self._hosts: LRUCache[str, _Past] = LRUCache(_HOSTS)

    def limit_s(self, host: str) -> float:
        """How long a host may be silent in the middle of a body."""
        past = self._hosts.get(host)
        if past is None or past.count < _TRUSTED:
            return self._cap_s
        usual_s = past.now_s(trio.current_time())
        return min(max(_TIMES * usual_s, self._floor_s), self._cap_s)

    def note(self, host: str, waited_s: float) -> None:
        """Something came after so long: the head, or bytes of a body; or it was given up then."""
        past = self._hosts.get(host)
        if past is None:
            past = self._hosts[host] = _Past(at=trio.current_time())
        past.note(waited_s, trio.current_time())

    def watch(self, host: str, *, resumable: bool) -> "Watch":
        """Watch over one body.

        Args:
            host: whose it is.
            resumable: whether what is given up goes on where it stopped. Where it would begin
                again, only the cap is reason enough.
        """
        return Watch(self, host, None if resumable else self._cap_s)


class Watch:
    """The limits of one body. Only time in which its reader waits for it counts.

    Concurrency: one task at a time.
    """

    def __init__(self, stalls: Stalls, host: str, limit_s: float | None) -> None:
        self._stalls = stalls
        self._host = host
        self._fixed_s = limit_s
        self._waited_s = 0.0
        self._count = 0

    @property
    def limit_s(self) -> float:
        """How long it may be silent now."""
        return self._stalls.limit_s(self._host) if self._fixed_s is None else self._fixed_s

    def came(self, count: int, waited_s: float) -> bool:
        """Note that bytes came after a wait; whether they come fast enough."""
        self._stalls.note(self._host, waited_s)
        self._count += count
        self._waited_s += waited_s
        if self._waited_s < self.limit_s:
            return True
        fast = self._count >= DRIP * self._waited_s
        if not fast:
            self.gave_up()
        self._count, self._waited_s = 0, 0.0
        return fast

    def gave_up(self) -> None:
        """Note that it was not waited for any longer."""
        self._stalls.note(self._host, self.limit_s)
