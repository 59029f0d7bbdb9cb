"""Every error that cafs raises on purpose, one family per reason that a reader can act on.

::

    CafsError
    ├── NotFoundError                 no such name, tag, member
    ├── AccessError                   not allowed
    │   ├── CredentialsError          credentials missing, refused or expired
    │   └── PolicyError               settings forbid it (unnamed host, private address, file:)
    ├── SourceError                   the other side failed
    │   ├── DeadlineError             no progress within the deadline, or stalled    (transient)
    │   ├── UnreachableError          no answer, or 429 and 5xx                      (transient)
    │   └── RefusedError              an answer that no retry will better
    ├── CrowdedError                  too many wait for it already               (transient)
    ├── CancelledError                somebody ended the fetch that was waited for
    ├── OfflineError                  not local, and the network may not be asked
    ├── ContentError                  bytes are not what they should be
    │   ├── DigestMismatchError
    │   ├── SizeMismatchError
    │   └── MalformedError            an archive, manifest or document that cannot be read
    ├── SourceChangedError            another version appeared under a pinned read
    ├── StorageError                  the store cannot be used
    │   └── StorageFullError
    ├── BudgetError                   the mount's budget is spent
    ├── UnsupportedError              known, but not supported
    ├── UsageError                    wrong usage
    │   ├── SettingsError             wrong settings: names file and key
    │   └── InvalidReferenceError     text that is no ref, digest or integrity string
    └── MountError                    cannot mount or unmount

``code`` is stable: it stands in logs, JSON and docs. ``transient`` is the only thing a retry looks
at. Errnos are in ``cafs.fuse.errnos``, exit codes in ``cafs.cli.exits``; both tables are total over
the classes above.
"""

from typing import ClassVar, Final


class CafsError(Exception):
    """An expected failure: what was asked, why it failed, and what to do.

    Args:
        what: what was asked and what went wrong, naming the thing ("GET https://…: 503").
        hint: what a person can do about it; empty when nothing is known to help.
    """

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    @property
    def line(self) -> str:
        """The whole message on one line: what, the causes that are ours, then the hint."""
        parts = [self.what]
        name, colon, _ = self.what.partition(": ")
        name = name + colon if colon else ""
        cause = self.__cause__
        while isinstance(cause, CafsError):
            if cause.what not in parts[-1]:
                parts.append(cause.what.removeprefix(name))
            cause = cause.__cause__
        text = ": ".join(part.replace("\n", " ") for part in parts)
        return f"{text} ({self.hint})" if self.hint else text


class NotFoundError(CafsError):
    """No such name, tag, member."""

    code = "not-found"


class AccessError(CafsError):
    """Not allowed."""

    code = "access"


class CredentialsError(AccessError):
    """Credentials missing, refused or expired."""

    code = "credentials"


class PolicyError(AccessError):
    """The settings forbid it: a host that nothing names, a private address, ``file:`` by path."""

    code = "policy"


class SourceError(CafsError):
    """The other side failed."""

    code = "source"


class DeadlineError(SourceError):
    """No progress within the deadline, or a connection that stalled."""

    code = "deadline"
    transient = True


class UnreachableError(SourceError):
    """No source answered, or it answered that it cannot answer now (429, 5xx).

    ``retry_after_s`` is what the source asked for in ``Retry-After``, if it did.
    """

    code = "unreachable"
    transient = True

    def __init__(self, what: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(what, hint=hint)
        self.retry_after_s = retry_after_s


class RefusedError(SourceError):
    """An answer that no retry will better: an unexpected status, a protocol violation.

    ``total`` is the size of the whole, bytes, when the answer was that the range lies outside it
    (416).
    """

    code = "refused"

    def __init__(self, what: str, *, hint: str = "", total: int | None = None) -> None:
        super().__init__(what, hint=hint)
        self.total = total


class CrowdedError(CafsError):
    """Too many requests wait for the same thing already, so this one does not begin to.

    A family of its own, because nothing failed but this request: what others asked for goes on, and
    no source is to blame. A program is told ETIMEDOUT, as it would be a deadline later. EAGAIN
    would say it better, and do worse: some readers (git, Node) take it for "at once, again" and
    would ask without pause for as long as the source is dead.
    """

    code = "crowded"
    transient = True


class CancelledError(CafsError):
    """A person ended the fetch that this waited for (``cafs cancel``).

    Not transient: whoever waits as long as it lives is told too, since that is what it was ended
    for. A program is told ECANCELED. EINTR would say it as well, and do nothing: libraries take it
    for "at once, again".
    """

    code = "cancelled"


class OfflineError(CafsError):
    """Not local, and the network may not be asked (``--offline``, ``pull = "never"``)."""

    code = "offline"


class ContentError(CafsError):
    """The bytes are not what they should be."""

    code = "content"


_OTHER_CONTENT: Final = (
    "the source serves other content than it should; if that is meant: cafs lock --upgrade where "
    "cafs.lock says what it should be, another integrity where cafs.toml does; else it is damaged "
    "there: an image has to be pushed again"
)


class DigestMismatchError(ContentError):
    """Content does not have the digest that was promised; both are digests, or print as such."""

    code = "digest-mismatch"

    def __init__(self, name: str, *, expected: object, actual: object) -> None:
        super().__init__(
            f"{name}: expected {expected}, got {actual}",
            hint=_OTHER_CONTENT,
        )
        self.expected = expected
        self.actual = actual


class SizeMismatchError(ContentError):
    """Content does not have the size that was promised. Sizes are bytes."""

    code = "size-mismatch"

    def __init__(self, name: str, *, expected: int, actual: int) -> None:
        super().__init__(f"{name}: expected {expected} bytes, got {actual}", hint=_OTHER_CONTENT)
        self.expected = expected
        self.actual = actual


class MalformedError(ContentError):
    """An archive, a manifest or a document that cannot be read, or that tries to escape."""

    code = "malformed"


class SourceChangedError(CafsError):
    """The source has another version than the one that this read is pinned to."""

    code = "source-changed"


class StorageError(CafsError):
    """The store cannot be opened or used."""

    code = "storage"


class StorageFullError(StorageError):
    """The disk is full."""

    code = "storage-full"


class BudgetError(CafsError):
    """The mount's fetch budget is spent."""

    code = "budget"


class UnsupportedError(CafsError):
    """Known, but not supported: an encrypted zip member, an unknown compression method."""

    code = "unsupported"


class UsageError(CafsError):
    """Wrong usage."""

    code = "usage"


class SettingsError(UsageError):
    """Wrong settings.

    Args:
        path: the settings file, or ``environment`` or ``command line``.
        key: dotted key ("ref.gcc.from"), empty for the file as a whole.
        what: what is wrong with it.
    """

    code = "settings"

    def __init__(self, path: str, key: str, what: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {key}: {what}" if key else f"{path}: {what}", hint=hint)
        self.path = path
        self.key = key


class InvalidReferenceError(UsageError):
    """Text that is no ref, digest or integrity string."""

    code = "invalid-reference"


class MountError(CafsError):
    """Cannot mount or unmount."""

    code = "mount"


MENDABLE: Final = (NotFoundError, AccessError, ContentError, SourceError, UnsupportedError)
"""Failures that another place of the same content may not have."""
