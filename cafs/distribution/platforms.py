"""Platforms: the machine's own, the usual spellings, and the choice from an image index.

Source: OCI image-spec, image-index.md (platform); the normal forms are those that container
engines agree on: ``arm64`` means ``arm64/v8``, ``arm`` means ``arm/v7``, ``amd64`` means its first
level.
"""

import platform as machine
import re
from collections.abc import Sequence
from typing import Final

from cafs.codec.naming import told
from cafs.errors import NotFoundError
from cafs.model.spec import Platform

_SYSTEMS: Final = {"macos": "darwin", "": "linux"}
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "mips64el": ("mips64le", ""),
    "loongarch64": ("loong64", ""),
}
"""Other spellings of an architecture, and the variant that they say."""
_DEFAULT_VARIANTS: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""What no variant means; written out for arm only, left away for the others."""
_LEVEL: Final = re.compile(r"v([0-9]{1,9})")
_TOLD: Final = 20
"""Platforms that an error names at most: an index may have thousands."""


def normalised(platform: Platform) -> Platform:
    """The platform in its one normal spelling: equal platforms become equal values."""
    system = platform.os.lower()
    architecture = platform.architecture.lower()
    variant = platform.variant.lower()
    architecture, said = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or said
    if variant.isdigit():
        variant = f"v{variant}"
    default = _DEFAULT_VARIANTS.get(architecture, "")
    if architecture == "arm":
        variant = variant or default
    elif variant == default:
        variant = ""
    return Platform(_SYSTEMS.get(system, system), architecture, variant)


def own_platform() -> Platform:
    """The platform of this machine. The operating system is always linux, as cafs is."""
    return normalised(Platform("linux", machine.machine()))


def choose(offered: Sequence[Platform | None], wanted: Platform, *, name: str) -> int:
    """Which of the offered platforms to take: the index of the best one in ``offered``.

    The same architecture and variant wins; then the highest variant below the wanted one, which
    the machine runs as well. The first of equals is taken. None stands for an image that says
    nothing of its platform; it is taken only when it is the only one.

    Args:
        offered: as the index lists them, in any spelling.
        wanted: in any spelling.
        name: what is being resolved, for the message.

    Raises:
        NotFoundError: none fits; the message lists what there is.
    """
    if len(offered) == 1 and offered[0] is None:
        return 0
    goal = normalised(wanted)
    fitting = [
        (_level(candidate), -number)
        for number, each in enumerate(offered)
        if each is not None and _runs(candidate := normalised(each), goal)
    ]
    if not fitting:
        raise NotFoundError(f"{name}: there is no image for {goal}", hint=_there_is(offered))
    return -max(fitting)[1]


def _there_is(offered: Sequence[Platform | None]) -> str:
    listed = sorted({told(str(normalised(each))) for each in offered if each is not None})
    if not listed:
        return "the index is empty"
    more = [f"{len(listed) - _TOLD} more"] if len(listed) > _TOLD else []
    return f"there is {', '.join(listed[:_TOLD] + more)}"


def _runs(candidate: Platform, goal: Platform) -> bool:
    same = (candidate.os, candidate.architecture) == (goal.os, goal.architecture)
    if not same or candidate.variant == goal.variant:
        return same
    return 0 < _level(candidate) <= _level(goal)


def _level(platform: Platform) -> int:
    """The number in the variant, defaults filled in; 0 when it is not of that form."""
    variant = platform.variant or _DEFAULT_VARIANTS.get(platform.architecture, "")
    level = _LEVEL.fullmatch(variant)
    return int(level[1]) if level is not None else 0
