"""What went wrong with a plugin, in our errors. Pure.

A plugin's own words go into messages: shortened, on one line, and without what the URL's query
says, which may be a secret.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from cafs.errors import (
    CafsError,
    CredentialsError,
    DeadlineError,
    NotFoundError,
    PolicyError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
    UnsupportedError,
)
from cafs.model.address import shown
from cafs.transport.plugins.frames import ErrorSays

KINDS: Final[dict[str, type[CafsError]]] = {
    "not-found": NotFoundError,
    "credentials": CredentialsError,
    "policy": PolicyError,
    "unreachable": UnreachableError,
    "deadline": DeadlineError,
    "refused": RefusedError,
    "changed": SourceChangedError,
    "unsupported": UnsupportedError,
}
"""What a plugin may say went wrong; any other word is taken for "refused"."""
_LONGEST: Final = 600
_QUERIES: Final = 512
"""Queries that are taken apart once: each line of a log is looked through for all recent ones."""
_SECRET: Final = 5
"""Letters of a value in a query that may be a secret."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a program is of no more use.

    ``ended`` says that it ended by itself, ``blame`` that it is to be started less often for it.
    """

    family: type[CafsError]
    what: str
    hint: str = ""
    ended: bool = False
    blame: bool = True

    def with_code(self, code: int) -> "Fault":
        """The same, and how the process ended."""
        how = f"was killed by signal {-code}" if code < 0 else f"exit code {code}"
        return replace(self, what=f"{self.what} ({how})", ended=False)


def translated(url: str, says: ErrorSays) -> CafsError:
    """The error that a plugin's answer stands for."""
    family = KINDS.get(says.kind, RefusedError)
    words = redacted(_CONTROL.sub(" ", says.what).strip(), (url,)) or says.kind
    what = f"GET {shown(url)}: {words[:_LONGEST]}"
    if family is UnreachableError:
        return UnreachableError(what, retry_after_s=says.retry_after_s)
    if family is RefusedError:
        return RefusedError(what, total=says.total)
    hint = "a plugin has credentials of its own" if family is CredentialsError else ""
    return family(what, hint=hint)


def redacted(text: str, urls: Sequence[str]) -> str:
    """The text with each URL as it may be shown, and without its query, or a value of that, alone.

    A program may well unescape what it complains of. What is too short to be a secret stays: it
    may be a part of any word.
    """
    for url in urls:
        query = url.partition("?")[2].partition("#")[0]
        text = text.replace(url, shown(url))
        for secret in _secrets(query):
            text = text.replace(secret, "…")
    return text


@lru_cache(_QUERIES)
def _secrets(query: str) -> tuple[str, ...]:
    """What of a query nobody may see, the longest first."""
    values = {pair.partition("=")[2] or pair for pair in query.split("&")}
    values |= {unquote_plus(value) for value in values}
    values = {value for value in values if len(value) >= _SECRET}
    return tuple(sorted({query, unquote_plus(query), *values} - {""}, key=len, reverse=True))
