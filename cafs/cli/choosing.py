"""Which refs a command is about: names from cafs.toml, or refs written out."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from cafs.errors import NotFoundError, UsageError
from cafs.model.ref import parse_ref
from cafs.model.spec import RefSpec
from cafs.settings.values import Settings


def chosen(loaded: Settings, words: Sequence[str]) -> list[RefSpec]:
    """The specs that the words mean; all named ones when there are none.

    Raises:
        NotFoundError: a word that is neither a name nor a ref.
        UsageError: no words and no names.
        InvalidReferenceError: a word that looks like a ref and is none.
    """
    named = {spec.name: spec for spec in loaded.refs}
    if not words and not named:
        file = loaded.project_file
        raise UsageError(
            f"{file} names no refs" if file else "no ref is named, and there is no cafs.toml",
            hint="name one, as docker://…, or write [ref.NAME] in cafs.toml",
        )
    return [_chosen(loaded, named, word) for word in words] if words else list(named.values())


def _chosen(loaded: Settings, named: dict[str, RefSpec], word: str) -> RefSpec:
    if word in named:
        return named[word]
    if ":" not in word:
        known = ", ".join(named) or "none"
        raise NotFoundError(f"no ref is named {word!r}", hint=f"named refs: {known}")
    return loaded.ad_hoc(parse_ref(word, base=Path.cwd(), schemes=loaded.schemes))


def to_look_at(loaded: Settings, text: str) -> Settings:
    """The settings for looking at one path without a mount.

    The host of a ref is allowed by writing the ref out on the command line; a view is what a mount
    shows, and does not hide the rest from who looks without one.

    Raises:
        InvalidReferenceError: it looks like a ref and is none.
    """
    host = None
    if is_ref(text):
        host = parse_ref(text, base=Path.cwd(), schemes=loaded.schemes).host
    hosts = loaded.allowed_hosts if host is None else loaded.allowed_hosts | {host}
    return replace(loaded, allowed_hosts=hosts, view="/")


def is_ref(text: str) -> bool:
    """Whether a word is meant as a ref: neither names nor the top of a mount have a colon."""
    return ":" in text.split("/", 1)[0]
