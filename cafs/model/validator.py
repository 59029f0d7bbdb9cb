"""Validators: what tells one version of a resource from another."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells one version of a resource from another. Empty strings are absent parts.

    ``etag`` is as sent, with quotes and ``W/``; ``last_modified`` is the header's text; ``dated``
    says that the response's Date was late enough after it to make it a strong validator. A file
    has ``mtime_ns`` and ``size`` (bytes) instead.

    Source: RFC 9110 §8.8.
    """

    etag: str = ""
    last_modified: str = ""
    dated: bool = False
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def strong(self) -> bool:
        """Whether byte ranges of one version may be put together by it."""
        if self.etag:
            return not self.etag.startswith("W/")
        return self.mtime_ns is not None or (bool(self.last_modified) and self.dated)

    @property
    def text(self) -> str:
        """One line that differs when the version differs; empty when nothing can tell."""
        if self.etag:
            return self.etag
        if self.last_modified:
            return self.last_modified
        return "" if self.mtime_ns is None else f"{self.mtime_ns}:{self.size}"


UNKNOWN_VERSION: Final = Validator()
"""Nothing can tell the version."""
