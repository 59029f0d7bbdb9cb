"""Rating: what is known of the hosts that bytes come from, and which of them to ask first. Pure.

A host is known by how soon it begins to answer, how fast its bytes come when it has none other to
serve, how its last tries went, and whether its bytes were wrong. Old figures count less and less,
so that a host that was slow is tried again some day. Nothing here leaves a host out: a slow one, a
failing one and a wrong one come later than the others, and are all there is when there is no other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

State = Literal["ok", "slow", "failing", "wrong"]
_TELLING: Final = 64 << 10
"""Bytes of a body that say something about a rate; fewer only say how long the way is."""
_WEIGHT: Final = 0.3
"""What a new figure counts beside one that is brand-new."""
_HALF_S: Final = 60.0
"""Half-life of figures: of what they count beside newer ones, and of what they hold against a host
that is not asked any more because of them."""
_SLOW: Final = 4.0
"""So many times longer than the best: slow. Less is what networks do anyway."""
_NOTICED_S: Final = 0.25
"""What a person does not notice is not called slow."""
_HOPED_LATENCY_S: Final = 0.2
_HOPED_RATE: Final = float(1 << 20)
"""What is expected of a host of which nothing is known, when the one that answers is slow."""
_EXCLUDED_S: Final = (1.0, 300.0)
"""How long a host that failed comes after the others: at first, and at most."""
_ASKED_S: Final = 3600.0
"""The same at most for one that asked to be left alone: an hour is meant, a year is a slip."""
_WRONG_S: Final = 600.0
"""The same for one whose bytes were wrong (ADR 0013)."""
_HOSTS: Final = 1024
"""Hosts that are remembered; of more, those that were heard of longest ago are forgotten."""
USUAL_LENGTH: Final = 1 << 20
"""Bytes for which hosts are compared where nobody says how many are wanted."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a host: seconds to the head of an answer, bytes a second in all."""

    latency_s: float
    rate: float


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a host. ``why`` says it of a state that is not ``ok``, else it is empty."""

    host: str
    state: State
    why: str
    received: int
    rate: float | None
    latency_s: float | None


class _Host(msgspec.Struct):
    latency_s: float | None = None
    rate: float | None = None
    measured: float = 0.0
    rated: float = 0.0
    busy: int = 0
    sending: int = 0
    received: int = 0
    streak: int = 0
    failed_until: float = 0.0
    failure: str = ""
    wrong_until: float = 0.0
    wrong: str = ""
    slower_than: str = ""

    @property
    def until(self) -> float:
        """How long it comes after the others."""
        return max(self.failed_until, self.wrong_until)

    def figures(self) -> Figures | None:
        """Both, once both are known."""
        if self.latency_s is None or self.rate is None:
            return None
        return Figures(latency_s=self.latency_s, rate=self.rate)


class Ratings:
    """The hosts that were asked, by name (``host`` or ``host:port``). Times are of one clock.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def figures(self, host: str) -> Figures | None:
        """What was measured of a host; None before both figures are known."""
        found = self._hosts.get(host)
        return None if found is None else found.figures()

    @contextmanager
    def asking(self, host: str) -> Iterator[None]:
        """A request to the host is under way, or waits to be."""
        one = self._host(host)
        one.busy += 1
        try:
            yield
        finally:
            one.busy -= 1

    @contextmanager
    def sending(self, host: str) -> Iterator[None]:
        """The host sends a body."""
        one = self._host(host)
        one.sending += 1
        try:
            yield
        finally:
            one.sending -= 1

    def answered(self, host: str, latency_s: float, now: float) -> None:
        """The head of an answer came."""
        one = self._host(host)
        one.latency_s = _mixed(one.latency_s, latency_s, now - one.measured)
        one.measured = now

    def received(self, host: str, count: int, seconds: float, now: float) -> None:
        """A body brought so many bytes in so many seconds; those beside it are taken to be alike.

        Who only waits for a turn, or for an answer, shares no line with it.
        """
        one = self._host(host)
        one.received += count
        if count >= _TELLING and seconds > 0:
            one.rate = _mixed(one.rate, max(one.sending, 1) * count / seconds, now - one.rated)
            one.measured = one.rated = now

    def succeeded(self, host: str) -> None:
        """All came that was asked for: failures before no longer count.

        Wrong bytes do: that these came says nothing of others, and nobody has checked them yet.
        """
        one = self._host(host)
        one.streak, one.failure = 0, ""
        one.failed_until = 0.0

    def failed(self, host: str, why: str, now: float, *, asked_s: float = 0.0) -> None:
        """It did not answer, or broke off; ``asked_s`` is how long it asked to be left alone."""
        one = self._host(host)
        if one.failed_until <= now:  # else it is another request that was under way at that time
            least, most = _EXCLUDED_S
            own_s = min(most, least * 2.0 ** min(one.streak, 30))
            one.failed_until = now + max(own_s, min(asked_s, _ASKED_S))
            one.streak += 1
        one.streak = max(one.streak, 1)
        one.failure = why

    def refused(self, host: str, why: str) -> None:
        """It answered that it will not give it; that says nothing about other content."""
        one = self._host(host)
        one.streak, one.failure = max(one.streak, 1), why

    def wrong(self, host: str, why: str, now: float) -> None:
        """Its bytes were not what was promised; whatever comes of it later, for a while it is last.

        That it was wrong is told for good.
        """
        one = self._host(host)
        one.wrong = why
        one.wrong_until = now + _WRONG_S

    def order(self, hosts: Sequence[str], length: int, now: float) -> list[int]:
        """The numbers of the hosts, in the order in which they should be asked.

        Who is expected to bring ``length`` bytes first comes first, with what is under way there
        already; who is not known is expected to be as good as the best. In doubt the given order
        stays. Those that failed or were wrong come last, the earliest to be asked again first.
        """
        known = [self._host(host) for host in hosts]
        self._compare(hosts, known)
        best = _best(known)
        keys = []
        for number, one in enumerate(known):
            excluded = one.until if one.until > now else 0.0
            keys.append((excluded, _expected_s(one, best, length, now), number))
        return [number for _, _, number in sorted(keys)]

    def worth_leaving(
        self,
        host: str,
        others: Sequence[str],
        rest: int,
        rate: float,
        now: float,
        *,
        anew: int | None = None,
    ) -> bool:
        """Whether the rest of a body, which comes at ``rate``, would come much sooner elsewhere.

        ``anew`` is what would have to come from there; without it, the rest.
        """
        wanted = rest if anew is None else anew
        hopes = []
        for other in set(others) - {host}:
            one = self._host(other)
            if one.until <= now:
                hoped = Figures(latency_s=_HOPED_LATENCY_S, rate=_HOPED_RATE)
                figures = one.figures() or hoped
                hopes.append(figures.latency_s + wanted * (one.busy + 1) / figures.rate)
        return bool(hopes) and rest > _SLOW * rate * min(hopes)

    def all(self) -> list[Rating]:
        """Every host that was asked, by name."""
        return [_told(host, one) for host, one in sorted(self._hosts.items())]

    def _host(self, host: str) -> _Host:
        one = self._hosts.get(host)
        if one is None:
            if len(self._hosts) >= _HOSTS:
                self._forget()
            one = self._hosts[host] = _Host()
        return one

    def _forget(self) -> None:
        """Make room, unless all are in use."""
        idle = [host for host, one in self._hosts.items() if not one.busy and not one.sending]
        if idle:
            del self._hosts[min(idle, key=lambda host: self._hosts[host].measured)]

    def _compare(self, hosts: Sequence[str], known: Sequence[_Host]) -> None:
        """Note who is slow beside the best of those that have the same content."""
        costs = {
            host: figures.latency_s + USUAL_LENGTH / figures.rate
            for host, one in zip(hosts, known, strict=True)
            if (figures := one.figures()) is not None
        }
        if len(costs) > 1:
            best = min(costs, key=lambda host: costs[host])
            for host, cost in costs.items():
                slow = cost > max(_NOTICED_S, _SLOW * costs[best])
                self._host(host).slower_than = best if slow else ""


def _best(known: Sequence[_Host]) -> Figures | None:
    """The best of each figure; None when nothing is known."""
    measured = [figures for one in known if (figures := one.figures()) is not None]
    if not measured:
        return None
    return Figures(
        latency_s=min(each.latency_s for each in measured),
        rate=max(each.rate for each in measured),
    )


def _expected_s(one: _Host, best: Figures | None, length: int, now: float) -> float:
    """When the host would have brought so many bytes; without any figures, who is before them."""
    if best is None:
        return float(one.busy)
    ideal = best.latency_s + length * (one.busy + 1) / best.rate
    own = one.figures()
    if own is None:
        return ideal
    measured = own.latency_s + length * (one.busy + 1) / own.rate
    return ideal + (measured - ideal) * _remembered(now - one.measured)


def _mixed(old: float | None, new: float, age_s: float) -> float:
    if old is None:
        return new
    return old + (new - old) * max(_WEIGHT, 1 - _remembered(age_s))


def _remembered(age_s: float) -> float:
    return float(2.0 ** (-max(age_s, 0.0) / _HALF_S))


def _told(host: str, one: _Host) -> Rating:
    state: State = "ok"
    why = ""
    if one.wrong:
        state, why = "wrong", one.wrong
    elif one.streak:
        state, why = "failing", one.failure
    elif one.slower_than:
        state, why = "slow", f"{one.slower_than} is more than {_SLOW:g} times as fast"
    return Rating(
        host=host,
        state=state,
        why=why,
        received=one.received,
        rate=one.rate,
        latency_s=one.latency_s,
    )
