"""Trusting: what TLS proves, both ways.

Whom we trust is one thing for all hosts; a certificate of our own is shown to the host that it is
for, and to no other.

Certificates that live for an hour are replaced while a mount lives: their files are looked at again
from time to time.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from cafs.concurrency import Flights
from cafs.errors import DeadlineError
from cafs.model.login import HostLogin, rule_for
from cafs.transport.credentials.credential import UnusableError

_FRESH_S: Final = 60.0
"""How long the files of a certificate are not looked at again."""
_PATIENCE_S: Final = 10.0
"""A file may lie on a disk that nobody answers for."""

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    context: ssl.SSLContext
    stamp: _Stamp
    looked_s: float


class Trust:
    """Makes TLS contexts.

    Args:
        make: makes one that trusts whom it should; it reads files, and is called in threads.
        logins: of the settings; they name our certificates.

    Concurrency: any number of tasks; those that want the same wait for one that reads files, in a
        thread of its own, so that a file which cannot be read holds up nobody else.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], logins: Sequence[HostLogin] = ()
    ) -> None:
        self._make = make
        self._logins = tuple(each for each in logins if each.client_cert is not None)
        self._kept: dict[HostLogin | None, _Kept] = {}
        self._flights: Flights[_Kept] = Flights()
        self._threads: dict[HostLogin | None, trio.CapacityLimiter] = {}

    async def context(self, url: str = "") -> ssl.SSLContext:
        """The context for the host of a URL; without one, that of those who see no certificate.

        The same one as long as the files are the same.

        Raises:
            UnusableError: our certificate, or its key, cannot be read.
            DeadlineError: whom we trust cannot be read, within 10 s.
            SettingsError: as ``make``.

        Cancellation: no effect.
        """
        login = rule_for(url, self._logins) if url else None
        kept = self._fresh(login)
        if kept is not None:
            return kept.context
        try:
            with trio.fail_after(_PATIENCE_S):
                return (await self._flights.run(login, partial(self._look, login))).context
        except trio.TooSlowError as error:
            reason = f"not read within {_PATIENCE_S:g} s"
            if login is None:
                raise DeadlineError(f"the certificates of whom we trust: {reason}") from error
            raise UnusableError(_place(login), f"the client certificate: {reason}") from error

    def uses(self, context: ssl.SSLContext | None) -> bool:
        """Whether a context is still the one that a host gets; None always is."""
        return context is None or any(each.context is context for each in self._kept.values())

    def _fresh(self, login: HostLogin | None) -> _Kept | None:
        """What needs no look at any file."""
        kept = self._kept.get(login)
        old = kept is not None and trio.current_time() > kept.looked_s + _FRESH_S
        return None if login is not None and old else kept

    async def _look(self, login: HostLogin | None) -> _Kept:
        found = self._fresh(login)
        if found is None:
            # A hundred certificates are read: not in this thread, and not for plain HTTP.
            found = await trio.to_thread.run_sync(
                self._looked,
                login,
                self._kept.get(login),
                trio.current_time(),
                limiter=self._threads.setdefault(login, trio.CapacityLimiter(1)),
                abandon_on_cancel=True,
            )
            self._kept[login] = found
        return found

    def _looked(self, login: HostLogin | None, kept: _Kept | None, now: float) -> _Kept:
        stamp = () if login is None else _stamp(login)
        if kept is not None and kept.stamp == stamp:
            return _Kept(kept.context, stamp, now)
        context = self._make()
        if login is not None and login.client_cert is not None:
            try:
                # An empty password, so that nobody is asked for one on a terminal.
                context.load_cert_chain(login.client_cert, login.client_key, password=lambda: b"")
            except (OSError, ValueError) as error:
                raise UnusableError(_place(login), _reason(error)) from None
        return _Kept(context, stamp, now)


def _stamp(login: HostLogin) -> _Stamp:
    """What changes when a file is replaced.

    Raises:
        UnusableError: there is none.
    """
    found = []
    for path in filter(None, (login.client_cert, login.client_key)):
        try:
            status = path.stat()
        except OSError as error:
            raise UnusableError(_place(login), f"{path}: {error.strerror}") from None
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _place(login: HostLogin) -> str:
    return f'settings [credentials."{login.host}"]'


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return "no client certificate with its key, both in PEM and without a password"
    return f"the client certificate cannot be read: {error}"
