"""The handshake: which versions of the protocol go together (D-13…D-15, rule (b)). Pure.

cafs says its version first, so a plugin that speaks several answers with the one that suits.
"""

import enum
from collections.abc import Sequence
from typing import Final, Self

import msgspec
from typing_extensions import override


class Version(msgspec.Struct, frozen=True, order=True):
    """A version of the protocol: ``MAJOR.MINOR``."""

    major: int
    minor: int

    @classmethod
    def parse(cls, said: object) -> Self:
        """The version in ``[1, 0]`` or ``"1.0"``. What is no number, or missing, is 0 (D-13)."""
        parts: Sequence[object] = ()
        if isinstance(said, str):
            parts = said.split(".")
        elif isinstance(said, list):
            parts = said
        numbers = [*map(_number, parts[:2]), 0, 0]
        return cls(numbers[0], numbers[1])

    @override
    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL: Final = Version(1, 0)
"""What this cafs speaks."""


class Outcome(enum.Enum):
    """What comes of two versions."""

    GO = "go"
    WARN = "warn"
    REFUSE = "refuse"


class Verdict(msgspec.Struct, frozen=True):
    """What comes of two versions, and why; ``reason`` is empty when there is nothing to say."""

    outcome: Outcome
    reason: str = ""


def compared(ours: Version, theirs: Version) -> Verdict:
    """Whether a plugin's version will do (D-14 (b)).

    The same: go. A newer minor: go with a warning, since such a plugin may know of things that are
    not asked for here. An older minor may lack what will be asked for; another major is another
    protocol.
    """
    if theirs == ours:
        return Verdict(Outcome.GO)
    both = f"it speaks version {theirs} of the protocol, and cafs {ours}"
    if theirs.major != ours.major:
        return Verdict(Outcome.REFUSE, f"{both}: another major version is another protocol")
    if theirs.minor < ours.minor:
        return Verdict(Outcome.REFUSE, f"{both}: an older minor version lacks what cafs asks for")
    return Verdict(Outcome.WARN, f"{both}: what is new in it is not used")


def _number(part: object) -> int:
    if isinstance(part, int) and not isinstance(part, bool):
        return max(part, 0)
    return int(part) if isinstance(part, str) and part.isascii() and part.isdigit() else 0
