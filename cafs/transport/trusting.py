"""Trusting: what TLS proves, both ways.

Whom we trust is one thing for all hosts; a certificate of our own is shown to the host that it is
for, and to no other.

Certificates that live for an hour are replaced while a mount lives: their files are looked at again
from time to time. A file that cannot be had is in the way of what goes to its host, and of nothing
else; where finding that out took long, the next who ask are told at once.
"""

import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from cafs.concurrency import Flights
from cafs.errors import DeadlineError
from cafs.model.login import HostLogin, rule_for
from cafs.transport.credentials.credential import UnusableError

_FRESH_S: Final = 60.0
"""How long the files of a certificate are not looked at again."""
_PATIENCE_S: Final = 10.0
"""A file may lie on a disk that nobody answers for."""
_QUICK_S: Final = 1.0
"""A failure that took no longer is not remembered: looking again costs little, and a file that was
missing may be there."""
_REMEMBERED_S: Final = 60.0
"""How long one that took longer is."""

_Stamp = tuple[tuple[int, int, int], ...]


class _Kept(msgspec.Struct, frozen=True):
    context: ssl.SSLContext
    stamp: _Stamp
    looked_s: float


class _Failure(msgspec.Struct, frozen=True):
    """Why there is no context, and until when nobody looks again."""

    reason: str
    until_s: float


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
        self._failures: dict[HostLogin | None, _Failure] = {}
        self._flights: Flights[_Kept] = Flights()
        self._threads: dict[HostLogin | None, trio.CapacityLimiter] = {}

    async def context(self, url: str = "") -> ssl.SSLContext:
        """The context for the host of a URL; without one, that of those who see no certificate.

        The same one as long as the files are the same.

        Raises:
            UnusableError: our certificate, or its key, cannot be read, or not within 10 s.
            DeadlineError: whom we trust cannot be read, within 10 s.
            SettingsError: as ``make``.

        Cancellation: no effect.
        """
        login = rule_for(url, self._logins) if url else None
        kept = self._fresh(login)
        if kept is not None:
            return kept.context
        began_s = trio.current_time()
        try:
            with trio.fail_after(_PATIENCE_S):
                return (await self._flights.run(login, partial(self._look, login))).context
        except trio.TooSlowError as error:
            reason = _late(login)
            self._note(login, reason, began_s)
            raise _unreadable(login, reason) from error
        except UnusableError as error:
            self._note(login, error.reason, began_s)
            raise

    def uses(self, context: ssl.SSLContext | None) -> bool:
        """Whether a context is still the one that a host gets; None always is."""
        return context is None or any(each.context is context for each in self._kept.values())

    def _fresh(self, login: HostLogin | None) -> _Kept | None:
        """What needs no look at any file."""
        kept = self._kept.get(login)
        old = kept is not None and trio.current_time() > kept.looked_s + _FRESH_S
        return None if login is not None and old else kept

    def _note(self, login: HostLogin | None, reason: str, began_s: float) -> None:
        """Remember a failure that took long to find out, unless it is remembered already."""
        now = trio.current_time()
        if now - began_s > _QUICK_S and self._failure(login) is None:
            self._failures[login] = _Failure(reason, now + _REMEMBERED_S)

    def _failure(self, login: HostLogin | None) -> _Failure | None:
        """The failure that still counts."""
        failure = self._failures.get(login)
        return failure if failure is not None and trio.current_time() < failure.until_s else None

    async def _look(self, login: HostLogin | None) -> _Kept:
        found = self._fresh(login)
        failure = self._failure(login)
        if found is None and failure is not None:
            raise _unreadable(login, failure.reason)
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
                raise UnusableError(_place(login), _reason(login, error)) from None
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


def _files(login: HostLogin) -> str:
    return " and ".join(str(each) for each in (login.client_cert, login.client_key) if each)


def _late(login: HostLogin | None) -> str:
    late = f"not read within {_PATIENCE_S:g} s"
    return late if login is None else f"the client certificate {_files(login)}: {late}"


def _unreadable(login: HostLogin | None, reason: str) -> UnusableError | DeadlineError:
    """The error for files that nobody has read."""
    if login is None:
        return DeadlineError(f"the certificates of whom we trust: {reason}")
    return UnusableError(_place(login), reason)


def _reason(login: HostLogin, error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        what = "no client certificate with its key, both in PEM and without a password"
    else:
        what = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{_files(login)}: {what}"
