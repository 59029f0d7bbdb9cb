"""Rates: how long a host's answers take and how fast its bytes come, as measured. Pure.

What a request costs beside its bytes is the round trip; a gap between two wanted ranges is fetched
too when its bytes cost less than that.
"""

from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

_HOSTS: Final = 256
_SHARE: Final = 0.25
"""The weight of a new figure beside those before."""
_SAMPLE_BYTES: Final = 256 << 10
"""Fewer bytes than this tell nothing of a rate."""
_SAMPLE_S: Final = 0.02
LARGEST_GAP: Final = 8 << 20
"""A gap is never larger than this, whatever a request costs."""


@dataclass(slots=True)
class _Host:
    round_trip_s: float | None = None
    rate: float | None = None
    receiving: int = 0
    since: float = 0.0
    bytes: int = 0


class Rates:
    """The figures of the hosts that were asked last.

    Concurrency: one trio run; nothing here awaits. Times are of one clock.
    """

    def __init__(self) -> None:
        self._hosts: LRUCache[str, _Host] = LRUCache(_HOSTS)

    def answered(self, host: str, took_s: float, now: float) -> None:
        """A head came after so long; a body begins."""
        one = self._host(host)
        one.round_trip_s = _mixed(one.round_trip_s, took_s)
        if not one.receiving:
            one.since, one.bytes = now, 0
        one.receiving += 1

    def received(self, host: str, count: int, now: float) -> None:
        """So many bytes came."""
        one = self._host(host)
        one.bytes += count
        if one.bytes >= _SAMPLE_BYTES and now - one.since >= _SAMPLE_S:
            one.rate = _mixed(one.rate, one.bytes / (now - one.since))
            one.since, one.bytes = now, 0

    def ended(self, host: str) -> None:
        """A body is over, or given up."""
        one = self._host(host)
        one.receiving = max(0, one.receiving - 1)

    def round_trip_s(self, host: str) -> float | None:
        """Seconds from a request to its head; None when nothing is known."""
        return self._host(host).round_trip_s

    def rate(self, host: str) -> float | None:
        """Bytes a second of all bodies together; None when nothing is known."""
        return self._host(host).rate

    def gap(self, host: str) -> int:
        """The most bytes that cost less than another request; 0 when nothing is known."""
        one = self._host(host)
        if one.round_trip_s is None or one.rate is None:
            return 0
        return min(LARGEST_GAP, int(one.round_trip_s * one.rate))

    def _host(self, host: str) -> _Host:
        one = self._hosts.get(host)
        if one is None:
            one = self._hosts[host] = _Host()
        return one


def _mixed(before: float | None, now: float) -> float:
    return now if before is None else before + _SHARE * (now - before)
