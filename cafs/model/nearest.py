"""The nearest valid word to a wrong one, for hints."""

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest to ``word``, None where none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - of use once something is wrong

    close = get_close_matches(word, sorted(known), n=1)
    return close[0] if close else None


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """What to say to someone who wrote ``word``: the nearest known word, else all of them."""
    words = sorted(known)
    close = nearest(word, words)
    return f"did you mean {close!r}?" if close is not None else f"known: {', '.join(words)}"
