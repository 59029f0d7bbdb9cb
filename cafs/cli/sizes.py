"""Sizes, rates and times as a person reads them."""

from typing import Final

_STEP: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least one: ``1.5 MiB``."""
    value = float(count)
    unit = 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value /= _STEP
        unit += 1
    return f"{int(value)} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def part(count: int, length: int) -> str:
    """What has come of what a fetch brings; of no length is the question what a ref means."""
    return f"{size(count)} of {size(length)}" if length else "what it means"


def duration(seconds: float) -> str:
    """A time in its two largest units: ``2h 05m``, ``3m 20s``, ``12s``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
