"""Which refs a command is about: names from cafs.toml, or refs written out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cafs.errors import NotFoundError
from cafs.model.ref import parse_ref
from cafs.model.spec import RefSpec
from cafs.settings.values import Settings


def chosen(loaded: Settings, words: Sequence[str]) -> list[RefSpec]:
    """The specs that the words mean; all named ones when there are none.

    Raises:
        NotFoundError: a word that is neither a name nor a ref, or no words and no names.
        InvalidReferenceError: a word that looks like a ref and is none.
    """
    named = {spec.name: spec for spec in loaded.refs}
    if not words and not named:
        raise NotFoundError("there are no refs in cafs.toml", hint="name one, as docker://…")
    return [_chosen(loaded, named, word) for word in words] if words else list(named.values())


def _chosen(loaded: Settings, named: dict[str, RefSpec], word: str) -> RefSpec:
    if word in named:
        return named[word]
    if ":" not in word:
        known = ", ".join(named) or "none"
        raise NotFoundError(f"no ref is named {word!r}", hint=f"named refs: {known}")
    return RefSpec(
        name="",
        ref=parse_ref(word, base=Path.cwd()),
        deadline_s=loaded.deadline_s,
        pull=loaded.pull,
    )


def with_host_of(loaded: Settings, text: str) -> Settings:
    """The settings, with the host of a ref allowed that was written out on the command line.

    Raises:
        InvalidReferenceError: it looks like a ref and is none.
    """
    host = parse_ref(text, base=Path.cwd()).host if is_ref(text) else None
    if host is None:
        return loaded
    return replace(loaded, allowed_hosts=loaded.allowed_hosts | {host})


def is_ref(text: str) -> bool:
    """Whether a word is meant as a ref, not as a path or a name."""
    return "://" in text or text.startswith(("cimd:", "docker:"))
