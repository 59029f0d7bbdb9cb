"""The tables about fetching: where else, as whom, by which programs, how much and how often.

Only the user's and the system's files have them. Of a table that names a URL, a host or a scheme,
the strongest file's is taken whole; numbers are taken one by one.
"""

import re
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
from cafs.settings.places import absolute

T = TypeVar("T")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRETS: Final = ("password-file", "password-env", "token-file", "token-env")
_COUNTS: Final = {
    "connections": "connections",
    "connections-per-host": "per_host",
    "prefetch-connections": "prefetch_connections",
}
_WAITS: Final = {
    "connect": "connect_s",
    "first-byte": "first_byte_s",
    "stall": "stall_s",
    "stall-floor": "stall_floor_s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What one source says about fetching: rules by prefix, host or scheme, and numbers by field.

    ``pacing`` and ``retry`` have the fields of ``Pacing`` and ``RetrySettings`` that are said.
    """

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
        mapping=_mapping(document.below("map"), schemes),
        logins=_by_host(logins, lambda host, key: _login(logins.below(key), host, environ)),
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
        timeout_s = plugin.parsed("timeout", units.duration_s) or SILENCE_S
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


def _login(table: Table, host: str, environ: Mapping[str, str]) -> HostLogin:
    said = [key for key in _SECRETS if table.has(key)]
    if len(said) > 1:
        raise table.wrong(said[1], f"there is {said[0]} already", hint="leave one of them out")
    by_password = bool(said) and said[0].startswith("password")
    username = table.text("username") or ""
    if by_password and not username:
        raise table.wrong(said[0], "needs a username", hint='username = "…"')
    if username and not by_password:
        hint = "password-file or password-env; a bearer token has no username"
        raise table.wrong("username", "needs a password", hint=hint)
    if ":" in username:
        raise table.wrong("username", "has no ':' in it", hint="no server could tell what is what")
    certificate, key = (_file(table, word, environ) for word in ("client-cert", "client-key"))
    if key and not certificate:
        raise table.wrong("client-key", "needs a certificate", hint='client-cert = "…"')
    if certificate:
        _check_certificate(table, certificate, key)
    insecure, netrc = table.flag("insecure"), table.flag("netrc")
    return HostLogin(
        host=host,
        username=username,
        password_file=_file(table, "password-file", environ),
        password_env=_variable(table, "password-env"),
        token_file=_file(table, "token-file", environ),
        token_env=_variable(table, "token-env"),
        client_cert=certificate,
        client_key=key,
        insecure=bool(insecure),
        netrc=netrc is not False,
    )


def _file(table: Table, key: str, environ: Mapping[str, str]) -> Path | None:
    text = table.text(key)
    path = None if text is None else absolute(text, environ)
    if text is not None and path is None:
        # It may be the secret itself, by mistake: it is not repeated.
        raise table.wrong(key, "must be the absolute path of a file", hint="/… or ~/…")
    return path


def _variable(table: Table, key: str) -> str | None:
    text = table.text(key)
    if text is not None and not _VARIABLE.fullmatch(text):
        raise table.wrong(key, "must be the name of a variable", hint="letters, digits, '_'")
    return text


def _check_certificate(table: Table, certificate: Path, key: Path | None) -> None:
    """Look at it now: when it is used, a server says no, and nothing says why."""
    import ssl  # noqa: PLC0415 - it costs as much as all the rest of the settings

    def refuse() -> str:
        raise ValueError("the key is encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=refuse)
    except FileNotFoundError as error:
        raise table.wrong("client-cert", "it, or its key, does not exist") from error
    except ssl.SSLError as error:
        what = f"{certificate}: no certificate in PEM with its key"
        raise table.wrong("client-cert", what, hint="the key may be in client-key") from error
    except (OSError, ValueError) as error:
        raise table.wrong("client-cert", f"cannot be used: {error}") from error


def _command(table: Table, key: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """A program and its arguments: a name to look for in PATH, or where it is."""
    command = table.one_or_more(key)
    if not command or not command[0]:
        raise table.wrong(key, "must name a program", hint='["program", "argument"]')
    program, *arguments = command
    if "/" not in program:
        return command
    path = absolute(program, environ)
    if path is None:
        hint = "/…, ~/…, or a name that is found in PATH"
        raise table.wrong(key, f"{program!r} must be an absolute path, or a name", hint=hint)
    return (str(path), *arguments)


def _pacing(table: Table) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for key, name in _COUNTS.items():
        count = table.count(key)
        if count == 0:
            raise table.wrong(key, "nothing is fetched over no connection")
        said[name] = count
    for key, name in _WAITS.items():
        said[name] = table.parsed(key, units.duration_s)
    said = {name: value for name, value in said.items() if value is not None}
    rate = table.parsed("prefetch-rate", units.rate)
    return said if rate is None else said | {"prefetch_rate": rate.limit}


def _retry(table: Table) -> dict[str, Any]:
    multiplier = table.number("multiplier")
    if multiplier is not None and multiplier < 1:
        raise table.wrong("multiplier", f"{multiplier} would shorten the delays", hint="1 or more")
    said = {
        "retries": table.count("retries"),
        "initial_s": table.parsed("initial-delay", units.duration_s),
        "multiplier": multiplier,
        "cap_s": table.parsed("max-delay", units.duration_s),
        "jitter": table.flag("jitter"),
        "fixed": table.flag("fixed"),
    }
    return {name: value for name, value in said.items() if value is not None}
