"""Mapping: where content is fetched from, when that is not where its ref says.

Only the URL of the request changes. What content is called, where it is kept and what it is locked
by stay with the URL that the ref names.
"""

from collections.abc import Callable, Iterable

import msgspec

Route = Callable[[str], tuple[str, ...]]
"""Says which URLs to ask for a URL, best first; there is always one."""


def straight(url: str) -> tuple[str, ...]:
    """The route of who has no rules: to ask the URL itself."""
    return (url,)


class MapRule(msgspec.Struct, frozen=True):
    """URLs that start with ``prefix`` are asked for below ``targets``, in their order.

    All are normalised URLs without a query. The prefix itself is asked only if it is a target.
    """

    prefix: str
    targets: tuple[str, ...]


def mapped(url: str, rules: Iterable[MapRule]) -> tuple[str, ...]:
    """The URLs to ask for a normalised URL, best first: the longest prefix decides.

    Without a rule for it, that is the URL alone. Targets are not mapped again.
    """
    fitting = [rule for rule in rules if url.startswith(rule.prefix)]
    if not fitting:
        return (url,)
    rule = max(fitting, key=lambda each: len(each.prefix))
    rest = url.removeprefix(rule.prefix)
    return tuple(_joined(target, rest) for target in rule.targets)


def _joined(target: str, rest: str) -> str:
    # A file has no query: the question mark becomes a part of its name, as mirroring tools do it.
    return target + (rest.replace("?", "%3F") if target.startswith("file:") else rest)
