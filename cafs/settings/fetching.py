"""The tables about fetching: where else, as whom, by which programs, how much and how often.

Only the user's and the system's files have them. Of a table that names a URL, a host or a scheme,
the strongest file's is taken whole; numbers are taken one by one.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from cafs.errors import CafsError, InvalidReferenceError
from cafs.model.address import SCHEME, SCHEMES, authority, normalised
from cafs.model.login import HelperRule, HostLogin
from cafs.model.mapping import MapRule
from cafs.model.plugging import PROGRAM, SILENCE_S, PluginSpec
from cafs.model.ref import BlobRef, parse_ref
from cafs.settings import units
from cafs.settings.document import Document, Table
from cafs.settings.logins import login_of
from cafs.settings.places import absolute

T = TypeVar("T")
_COUNTS: Final = {
    "connections": ("connections", 512),
    "connections-per-host": ("per_host", 256),
    "prefetch-connections": ("prefetch_connections", 256),
}
"""The field of each number of connections, and the most that may be said. A connection is a
descriptor, and so is each that is kept for later; a process usually has 1024 of them, and files to
open too."""
_WAITS: Final = {
    "connect": "connect_s",
    "first-byte": "first_byte_s",
    "stall": "stall_s",
    "stall-floor": "stall_floor_s",
}
_MOST_WAIT_S: Final = 24 * 3600.0
"""Who waits a day for one answer waits for nobody."""
_MOST_RETRIES: Final = 1000
_MOST_MULTIPLIER: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What one source says about fetching: rules by prefix, host or scheme, and numbers by field.

    ``pacing`` and ``retry`` have the fields of ``Pacing`` and ``RetrySettings`` that are said.
    ``source`` is the source's name, for messages; what says the same elsewhere is the same.
    """

    source: str = field(default="", compare=False)
    mapping: Mapping[str, MapRule] = field(default_factory=dict)
    logins: Mapping[str, HostLogin] = field(default_factory=dict)
    helpers: Mapping[str, HelperRule] = field(default_factory=dict)
    plugins: Mapping[str, PluginSpec] = field(default_factory=dict)
    pacing: Mapping[str, Any] = field(default_factory=dict)
    retry: Mapping[str, Any] = field(default_factory=dict)


UNSAID: Final = Fetching()
"""Nothing is said."""


def fetching(document: Document, environ: Mapping[str, str], schemes: Collection[str]) -> Fetching:
    """What a file says about fetching.

    Args:
        document: the file.
        environ: for ``~``.
        schemes: those of plugins that any file enables.

    Raises:
        SettingsError: a wrong value, naming file and key; what may be a secret is not repeated.
    """
    logins, helpers = document.below("credentials"), document.below("helpers")
    return Fetching(
        source=document.origin.name,
        mapping=_mapping(document.below("map"), schemes),
        logins=_by_host(logins, lambda host, key: login_of(logins.below(key), host, environ)),
        helpers=_by_host(
            helpers, lambda host, key: HelperRule(host, _command(helpers, key, environ))
        ),
        plugins=plugins(document, environ),
        pacing=_pacing(document.below("limits")),
        retry=_retry(document.below("retry")),
    )


def plugins(document: Document, environ: Mapping[str, str]) -> dict[str, PluginSpec]:
    """The plugins that a file enables, by scheme.

    Raises:
        SettingsError: as ``fetching``.
    """
    table = document.below("plugins")
    found: dict[str, PluginSpec] = {}
    for scheme in table:
        if not SCHEME.fullmatch(scheme):
            hint = "lower-case letters, digits, '.' and '-', as torrent for torrent:…"
            raise table.wrong(scheme, f"{scheme!r} is no scheme of URLs", hint=hint)
        if _taken(scheme):
            hint = "a plugin is for a scheme of its own, or for s3"
            raise table.wrong(scheme, f"{scheme}: means something already", hint=hint)
        plugin = table.below(scheme)
        command = _command(plugin, "command", environ) if plugin.has("command") else ()
        timeout_s = _wait_s(plugin, "timeout") or SILENCE_S
        found[scheme] = PluginSpec(scheme, command or (PROGRAM + scheme,), timeout_s)
    return found


def _taken(scheme: str) -> bool:
    """Whether texts that start so mean something without a plugin, S3 apart."""
    try:
        ref = parse_ref(f"{scheme}:x", schemes=(scheme,))
    except CafsError:
        return scheme != "s3"
    return not isinstance(ref, BlobRef) or ref.scheme != scheme


def _mapping(table: Table, schemes: Collection[str]) -> dict[str, MapRule]:
    rules: dict[str, MapRule] = {}
    for text in table:
        prefix = _prefix(table, text, text, schemes)
        targets = [_prefix(table, text, each, schemes) for each in table.one_or_more(text)]
        if not targets:
            hint = "leave it out to ask it directly"
            raise table.wrong(text, "must name at least one URL to ask", hint=hint)
        for target in targets:
            if prefix.endswith("/") != target.endswith("/"):
                what = f"{prefix} and {target} must both end with '/', or neither"
                raise table.wrong(text, what, hint="what follows the one is put after the other")
        if prefix in rules:
            raise table.wrong(text, f"{prefix} is there twice")
        rules[prefix] = MapRule(prefix, tuple(dict.fromkeys(targets)))
    return rules


def _prefix(table: Table, key: str, text: str, schemes: Collection[str]) -> str:
    """The normal form of a URL that is the beginning of others."""
    if "?" in text or "#" in text:
        raise table.wrong(key, "a prefix ends before the query", hint="leave out '?' and '#'")
    try:
        return normalised(text, base=table.directory, schemes=(*SCHEMES, *schemes))
    except CafsError as error:
        raise table.wrong(key, error.what, hint=error.hint) from error


def _by_host(table: Table, make: Callable[[str, str], T]) -> dict[str, T]:
    """What ``make(host, key)`` makes of each key, by the normal form of the host in it."""
    made: dict[str, T] = {}
    for key in table:
        star = "*." if key.startswith("*.") else ""
        try:
            host = star + authority(key.removeprefix(star))
        except InvalidReferenceError as error:
            hint = error.hint or '"example.com", "example.com:8443" or "*.example.com"'
            raise table.wrong(key, error.what, hint=hint) from error
        if host in made:
            raise table.wrong(key, f"{host} is there twice")
        made[host] = make(host, key)
    return made


def _command(table: Table, key: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """A program and its arguments: a name to look for in PATH, or where it is."""
    command = table.one_or_more(key)
    if not command or not command[0]:
        raise table.wrong(key, "must name a program", hint='["program", "argument"]')
    program, *arguments = command
    path = absolute(program, environ)
    if isinstance(table.value(key), str) and len(program.split()) > 1:
        _check_blank(table, key, path)
    if "/" not in program:
        return command
    if path is None:
        hint = "/…, ~/…, or a name that is found in PATH"
        raise table.wrong(key, f"{program!r} must be an absolute path, or a name", hint=hint)
    return (str(path), *arguments)


def _check_blank(table: Table, key: str, path: Path | None) -> None:
    """Refuse words in one string: no shell will take them apart. What they are is not repeated.

    Only a path is looked for; who has such a program in PATH, or none yet, writes a list.
    """
    if path is None or not path.is_file():
        what = "a string is one program, and there is none whose name has these blanks"
        raise table.wrong(key, what, hint='["program", "argument"]')


def _pacing(table: Table) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for key, (name, most) in _COUNTS.items():
        count = table.count(key, most=most)
        if count == 0:
            raise table.wrong(key, "nothing is fetched over no connection")
        said[name] = count
    for key, name in _WAITS.items():
        said[name] = _wait_s(table, key)
    said = {name: value for name, value in said.items() if value is not None}
    rate = table.parsed("prefetch-rate", units.rate)
    return said if rate is None else said | {"prefetch_rate": rate.limit}


def _retry(table: Table) -> dict[str, Any]:
    multiplier = table.number("multiplier")
    if multiplier is not None and multiplier < 1:
        raise table.wrong("multiplier", f"{multiplier} would shorten the delays", hint="1 or more")
    if multiplier is not None and multiplier > _MOST_MULTIPLIER:
        raise table.wrong("multiplier", f"{multiplier} is more than {_MOST_MULTIPLIER:g}")
    said = {
        "retries": table.count("retries", most=_MOST_RETRIES),
        "initial_s": _wait_s(table, "initial-delay"),
        "multiplier": multiplier,
        "cap_s": _wait_s(table, "max-delay"),
        "jitter": table.flag("jitter"),
        "fixed": table.flag("fixed"),
    }
    return {name: value for name, value in said.items() if value is not None}


def _wait_s(table: Table, key: str) -> float | None:
    """How long something may take, None when it is not said."""
    wait_s = table.parsed(key, units.duration_s)
    if wait_s is not None and wait_s > _MOST_WAIT_S:
        raise table.wrong(key, f"{table.text(key)} is more than {_MOST_WAIT_S / 3600:g}h")
    return wait_s
