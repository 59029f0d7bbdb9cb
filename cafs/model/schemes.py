"""Schemes: what a ref's text may begin with, and what to say of one that nothing answers for."""

import re
from collections.abc import Collection
from typing import Final

from cafs.errors import InvalidReferenceError
from cafs.model.address import SCHEME, SCHEMES, enabling, quoted
from cafs.model.digest import SIZES
from cafs.model.nearest import nearest, nearest_hint

FORCING: Final = ("archive", "blob")
"""What may stand before a URL, with a ``+``, and says how it is read."""
_OWN: Final = ("cimd", "docker", "appc", *SIZES)
"""What begins refs that are no URLs."""
_HOST_AND_PORT: Final = re.compile(r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+):[0-9]{1,5}/")
"""How a URL begins whose scheme was left out. A word alone may well be a plugin's scheme."""


def unknown_scheme(text: str, scheme: str, schemes: Collection[str]) -> InvalidReferenceError:
    """The error for a text whose scheme nothing answers for; it says how to enable it.

    Args:
        text: the ref.
        scheme: what stands before its colon, ``archive+`` and ``blob+`` included.
        schemes: those of plugins that are enabled.
    """
    forced, plus, plain = scheme.partition("+")
    if plus and forced in FORCING:
        hints = _for_url(forced, plain, schemes)
    else:
        plain = scheme.rpartition("+")[2]
        if _HOST_AND_PORT.match(text):
            return InvalidReferenceError(
                f"{quoted(text)} has no scheme",
                hint=f"{quoted(f'https://{text}')}, or {quoted(f'http://{text}')}",
            )
        forms = [f"{each}+https" for each in FORCING]
        hints = [nearest_hint(scheme, [*_OWN, *SCHEMES, *schemes, *forms])]
    if SCHEME.fullmatch(plain) and plain not in (*_OWN, *SCHEMES):
        hints.append(enabling(plain))
    return InvalidReferenceError(
        f"{quoted(text)}: nothing starts with {scheme + ':'!r}", hint="; ".join(hints)
    )


def _for_url(forced: str, plain: str, schemes: Collection[str]) -> list[str]:
    """What else may be meant: who writes ``archive+`` or ``blob+`` means a URL."""
    if plain in _OWN:
        return [f"what starts with {plain + ':'!r} has no {forced + '+'!r} before it"]
    close = nearest(plain, [*SCHEMES, *schemes])
    return [f"did you mean {f'{forced}+{close}'!r}?"] if close is not None else []
