"""WWW-Authenticate: what proof a server wants."""

import re
from typing import Final

import msgspec

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM: Final = re.compile(
    rf'[\s,]*(?P<name>{_WORD})(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_WORD})))?'
)


class Challenge(msgspec.Struct, frozen=True):
    """One way of proving oneself. ``scheme`` and the parameters' names are lower-case."""

    scheme: str
    parameters: tuple[tuple[str, str], ...]

    def parameter(self, name: str) -> str:
        """A parameter's value; empty when it is absent."""
        return next((value for key, value in self.parameters if key == name), "")


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """The challenges of a header, in its order; what cannot be read ends the list.

    Source: RFC 9110 §11.6.1.
    """
    found: list[tuple[str, list[tuple[str, str]]]] = []
    at = 0
    while (item := _ITEM.match(text, at)) is not None:
        at = item.end()
        name = item["name"].lower()
        value = item["plain"]
        if item["quoted"] is not None:
            value = re.sub(r"\\(.)", r"\1", item["quoted"])
        if value is None:
            found.append((name, []))
        elif found:
            found[-1][1].append((name, value))
    return tuple(Challenge(scheme, tuple(parameters)) for scheme, parameters in found)
