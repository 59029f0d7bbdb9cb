"""Keeping credentials: looked for once, kept for as long as they hold, renewed when refused.

The places are asked in their order, and the first that has something decides. One that fails is
passed over: whether its credentials would have been needed, the server knows.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from cachetools import LRUCache

from cafs.concurrency import Flights
from cafs.model.address import is_loopback
from cafs.model.login import HostLogin, rule_for
from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.interfaces import Asked, Keyring
from cafs.transport.urls import Origin

_LOG: Final = logging.getLogger("cafs.transport.credentials")
_REMEMBERED: Final = 256
_LIFE_S: Final = 300.0
"""How long a credential is kept whose end nobody knows."""
_ABSENCE_S: Final = 10.0
"""How long nothing is looked for where nothing was found, and nothing renewed that was refused
after it had been renewed: a build opens ten thousand files, and somebody may be logging in now."""
_LEAST_S: Final = 1.0
_SPARE: Final = 0.1
_MOST_SPARE_S: Final = 30.0
"""How much sooner than at its end a credential is looked for again: a request takes its time."""

_Key = tuple[Origin, bool]


class _Known(msgspec.Struct, frozen=True):
    finding: Finding
    until_s: float


class Credentials:
    """What is known of who we are, host by host.

    Args:
        keyrings: where to look, in this order.
        logins: of the settings; they may allow plain http.
        clock: seconds since the epoch.

    Concurrency: any number of tasks; those that want the same are served by one search.
    """

    def __init__(
        self,
        keyrings: Sequence[Keyring] = (),
        logins: Sequence[HostLogin] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keyrings = tuple(keyrings)
        self._logins = tuple(logins)
        self._clock = clock
        self._known: LRUCache[_Key, _Known] = LRUCache(_REMEMBERED)
        self._hopeless: LRUCache[_Key, tuple[bytes, float]] = LRUCache(_REMEMBERED)
        self._flights: Flights[Finding] = Flights()

    def permits(self, url: str) -> bool:
        """Whether credentials may be shown to the host of a URL: by https, or to this machine.

        Settings may allow plain http.

        Raises:
            InvalidReferenceError: not an http(s) URL.
        """
        origin = Origin.of(url)
        if origin.scheme == "https" or is_loopback(origin.spelled):
            return True
        login = rule_for(url, self._logins)
        return login is not None and login.insecure

    async def of(self, url: str) -> Finding:
        """The credentials for a URL's host.

        Raises:
            InvalidReferenceError: not an http(s) URL.

        Cancellation: no effect.
        """
        asked = Asked.of(url)
        if not self.permits(url):
            return Finding(None, (Look("settings", "none by plain http, unless insecure = true"),))
        known = self._known.get((asked.origin, asked.registry))
        if known is not None and self._clock() < known.until_s:
            return known.finding
        return await self._search(asked, known)

    async def renewed(self, url: str, refused: Credential) -> Finding | None:
        """Other credentials than those that the host has refused; None when there are none.

        They are looked for once, however many requests have been refused.

        Raises:
            InvalidReferenceError: not an http(s) URL.

        Cancellation: no effect.
        """
        asked = Asked.of(url)
        key = (asked.origin, asked.registry)
        mark, until_s = self._hopeless.get(key, (b"", 0.0))
        if mark == refused.mark and self._clock() < until_s:
            return None
        known = self._known.get(key)
        if known is None or _same(known.finding.credential, refused):
            finding = await self._search(asked, known)
        else:
            finding = known.finding
        if finding.credential is None or _same(finding.credential, refused):
            self.given_up(url, refused)
            return None
        return finding

    def given_up(self, url: str, refused: Credential) -> None:
        """Note that renewing does not help, for the time being."""
        asked = Asked.of(url)
        key = (asked.origin, asked.registry)
        self._hopeless[key] = (refused.mark, self._clock() + _ABSENCE_S)

    async def _search(self, asked: Asked, known: _Known | None) -> Finding:
        key = (asked.origin, asked.registry)

        async def fly() -> Finding:
            now = self._known.get(key)
            if now is not None and now is not known:
                return now.finding  # found while this one waited for its turn
            finding = await self._looked(asked)
            self._known[key] = _Known(finding, self._clock() + self._life_s(finding.credential))
            return finding

        return await self._flights.run(key, fly)

    def _life_s(self, credential: Credential | None) -> float:
        if credential is None:
            return _ABSENCE_S
        if credential.expires_s is None:
            return _LIFE_S
        left_s = credential.expires_s - self._clock()
        return max(left_s - min(_SPARE * left_s, _MOST_SPARE_S), _LEAST_S)

    async def _looked(self, asked: Asked) -> Finding:
        looks: list[Look] = []
        for keyring in self._keyrings:
            try:
                found = await keyring.look(asked)
            except UnusableError as error:
                _LOG.info("transport.credentials.failed: %s: %s", asked.origin, error.what)
                looks.append(Look(error.place, error.reason))
                continue
            looks += found.looks
            if found.credential is not None:
                _LOG.debug("transport.credentials.found: %s: %s", asked.origin, looks[-1].place)
                return Finding(found.credential, tuple(looks))
        return Finding(None, tuple(looks))


def _same(one: Credential | None, other: Credential) -> bool:
    return one is not None and one.mark == other.mark
