"""Sizes, durations, switches and other words as people write them.

Each function takes the text and gives the value, or raises ValueError with what would be right: the
caller knows the file and the key.
"""

import re
from decimal import Decimal
from typing import Final

import msgspec

from cafs.model.spec import Platform, Pull, Verify
from cafs.settings.values import OnError

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
_MOST_BYTES: Final = (1 << 63) - 1
"""No file system counts further."""
_MOST_S: Final = 10 * 365 * 24 * 3600
"""What is meant to be for ever has a word of its own, and clocks that count milliseconds an end."""
_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(24 * 3600),
    "w": Decimal(7 * 24 * 3600),
}
_PLATFORM_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Budget(msgspec.Struct, frozen=True):
    """A bound that was set on purpose: ``limit`` bytes, or None for "unlimited"."""

    limit: int | None


def size(text: str) -> int:
    """Bytes: ``1000``, ``64KiB``, ``1.5 GiB``, ``20GB``; capitals do not matter.

    Raises:
        ValueError: not of that form, not a whole number of bytes, or 8 EiB and more.
    """
    match = _SIZE.fullmatch(text)
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f'{text!r} is no size; sizes look like "20GiB" or "500MB"')
    count = Decimal(match[1]) * unit
    if count != int(count):
        raise ValueError(f"{text!r} is no whole number of bytes")
    if count > _MOST_BYTES:
        raise ValueError(f"{text!r} is more than can be counted")
    return int(count)


def budget(text: str) -> Budget:
    """A size, or ``unlimited``.

    Raises:
        ValueError: neither.
    """
    return Budget(None) if text == "unlimited" else Budget(size(text))


def quota(text: str) -> Budget:
    """A size, or ``unlimited``; more than none.

    Raises:
        ValueError: neither.
    """
    bound = budget(text)
    if bound.limit == 0:
        raise ValueError(f"{text!r}: what is fetched must be somewhere until it is read")
    return bound


def rate(text: str) -> Budget:
    """Bytes a second, ``50MiB/s``, or ``unlimited``; more than none.

    Raises:
        ValueError: neither.
    """
    if text == "unlimited":
        return Budget(None)
    amount, slash, second = text.rpartition("/")
    if not slash or second != "s" or not _SIZE.fullmatch(amount):
        raise ValueError(f'{text!r} is no rate; rates look like "50MiB/s"')
    bound = size(amount)
    if not bound:
        raise ValueError(f"{text!r}: nothing comes at that rate")
    return Budget(bound)


def duration_s(text: str) -> float:
    """Seconds: ``250ms``, ``60s``, ``5m``, ``1h30m``, ``30d``, ``2w``; more than none.

    Raises:
        ValueError: not of that form, zero, or more than ten years.
    """
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise ValueError(f'{text!r} is no duration; durations look like "60s", "1h30m" or "30d"')
    seconds = sum(
        (Decimal(count) * _SECONDS[unit] for count, unit in _DURATION.findall(text)), Decimal(0)
    )
    if not seconds:
        raise ValueError(f"{text!r}: nothing succeeds in no time")
    if seconds > _MOST_S:
        raise ValueError(f"{text!r} is more than ten years")
    return float(seconds)


def switch(text: str) -> bool:
    """``1``, ``true``, ``yes``, ``on``, or their opposites.

    Raises:
        ValueError: none of them.
    """
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"{text!r} is neither true nor false")


def on_error(text: str) -> OnError:
    """``fail`` or ``wait``.

    Raises:
        ValueError: neither.
    """
    match text:
        case "fail" | "wait":
            return text
        case _:
            raise ValueError(f'{text!r} is not known; "fail" or "wait"')


def pull(text: str) -> Pull:
    """``lock``, ``new``, ``update`` or ``never`` (R-24).

    Raises:
        ValueError: none of them.
    """
    match text:
        case "lock" | "new" | "update" | "never":
            return text
        case _:
            raise ValueError(f'{text!r} is not known; "lock", "new", "update" or "never"')


def verify(text: str) -> Verify:
    """``block`` or ``provisional``.

    Raises:
        ValueError: neither.
    """
    match text:
        case "block" | "provisional":
            return text
        case _:
            raise ValueError(f'{text!r} is not known; "block" or "provisional"')


def platform(text: str) -> Platform:
    """``os/architecture`` or ``os/architecture/variant``.

    Raises:
        ValueError: not of that form.
    """
    words = text.split("/")
    if len(words) not in {2, 3} or not all(map(_PLATFORM_WORD.fullmatch, words)):
        raise ValueError(f'{text!r} is no platform; platforms look like "linux/arm64"')
    return Platform(*words)


def inner_path(text: str) -> str:
    """A path that stays inside: no ``..``; slashes at the ends and ``.`` dropped, empty for all.

    Raises:
        ValueError: it has a ``..``.
    """
    words = [word for word in text.split("/") if word not in {"", "."}]
    if ".." in words:
        raise ValueError(f"{text!r} has a '..' in it")
    return "/".join(words)
