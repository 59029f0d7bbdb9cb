"""Digests on the command line may be cut short, as long as one alone begins so (R-23)."""

import re
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from cafs.cli.interruptible import run_async
from cafs.errors import InvalidReferenceError, NotFoundError, UsageError
from cafs.model.digest import SIZES

if TYPE_CHECKING:
    from cafs.settings.values import Settings
    from cafs.store.store import Store

SHORTEST: Final = 2
"""Hex digits that must be there."""
_SHOWN: Final = 4
"""Candidates that are named when there are several."""
_TEXT: Final = re.compile(
    rf"(?P<lead>(?P<name>{'|'.join(SIZES)}):)(?P<digits>[^/:]*)(?P<rest>/.*)?"
)
_PATH: Final = re.compile(
    rf"(?P<lead>/*(?:digest|tree)/+(?P<name>{'|'.join(SIZES)})/+)(?P<digits>[^/]+)(?P<rest>/.*)?"
)


def complete(loaded: "Settings", words: Sequence[str]) -> tuple[str, ...]:
    """The words, with digests that are cut short made whole from what the store has.

    ``sha256:1f3a``, ``digest/sha256/1f3a`` and ``tree/sha256/1f3a/bin``. The store is opened only
    if there is one of them; all other words stay as they are.

    Raises:
        NotFoundError: no digest in the store begins so.
        UsageError: several do, or there are fewer than two digits.
        InvalidReferenceError: no hex digits, or too many.
        StorageError: the store cannot be opened.
    """
    names = {spec.name for spec in loaded.refs}
    if not any(_is_short(word, names) for word in words):
        return tuple(words)

    return run_async(_complete, loaded, words, names)


async def _complete(loaded: "Settings", words: Sequence[str], names: set[str]) -> tuple[str, ...]:
    from cafs.store.store import open_store

    async with open_store(loaded.store) as store:
        return _completed(store, words, names)


def completed(loaded: "Settings", store: "Store", words: Sequence[str]) -> tuple[str, ...]:
    """``complete`` with a store that is open."""
    return _completed(store, words, {spec.name for spec in loaded.refs})


def _completed(store: "Store", words: Sequence[str], names: set[str]) -> tuple[str, ...]:
    return tuple(
        _whole(store, _matched(word)) if _is_short(word, names) else word for word in words
    )


def _matched(word: str) -> re.Match[str]:
    found = _TEXT.fullmatch(word) or _PATH.fullmatch(word)
    if found is None:
        raise AssertionError("only what is short is made whole")
    return found


def _is_short(word: str, names: set[str]) -> bool:
    """Whether a word has a digest in it that is not whole."""
    found = _TEXT.fullmatch(word)
    if found is None:
        found = _PATH.fullmatch(word)
        if found is None or word.strip("/").partition("/")[0] in names:
            return False
    return len(found["digits"]) != 2 * SIZES[found["name"]]


def _whole(store: "Store", found: "re.Match[str]") -> str:
    algorithm, digits = found["name"], found["digits"]
    text = f"{algorithm}:{digits}"
    if not re.fullmatch(r"[0-9a-f]*", digits):
        raise InvalidReferenceError(f"{text}: the hash is not lower-case hex")
    most = 2 * SIZES[algorithm]
    if len(digits) > most:
        raise InvalidReferenceError(f"{text}: a {algorithm} digest has {most} hex digits")
    if len(digits) < SHORTEST:
        raise UsageError(f"{text!r} is too short", hint=f"at least {SHORTEST} hex digits")
    several = list(islice(store.beginning(algorithm, digits), _SHOWN + 1))
    if not several:
        raise NotFoundError(
            f"no digest in the store begins with {text}", hint="cafs ls digest/sha256"
        )
    if len(several) > 1:
        more = " …" if len(several) > _SHOWN else ""
        known = ", ".join(map(str, several[:_SHOWN]))
        raise UsageError(f"{text} is ambiguous", hint=f"it begins {known}{more}")
    return f"{found['lead']}{several[0].hex}{found['rest'] or ''}"
