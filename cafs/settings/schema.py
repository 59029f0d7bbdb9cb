"""Which key may stand in which file, and what is said about one that may not.

A project file comes with a clone, so it may only name content: never places outside itself, never
what runs, whom to ask instead, whom to trust, who one is, or who may look. What it may not say
belongs to the user or to the system, and the message says so. A key that is known to the design and
that nothing reads yet is refused too: a setting that does nothing is a trap.
"""

import enum
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from cafs.errors import SettingsError
from cafs.model.nearest import nearest, nearest_hint
from cafs.model.refpath import KINDS, MAX_COMPONENT

MACHINE_FILES: Final = "~/.config/cafs/config.toml or /etc/cafs/config.toml"
"""Where things belong that a project may not say."""
_FOR_SECRETS: Final = "password-file, password-env, token-file, token-env, helpers, or netrc"
REF_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Voice(enum.Enum):
    """Whose file it is."""

    PROJECT = "project"
    MACHINE = "machine"


class _May(enum.Enum):
    ANYONE = enum.auto()
    MACHINE = enum.auto()
    NOBODY = enum.auto()


class Origin(msgspec.Struct, frozen=True):
    """Where settings come from: ``name`` for messages (a path), and whose they are."""

    name: str
    voice: Voice


_A, _M, _N = _May.ANYONE, _May.MACHINE, _May.NOBODY
_TABLES: Final = {
    "mount": {
        "path": _A,
        "view": _A,
        "budget": _A,
        "allow-other": _M,
        "preserve-owner": _M,
        "suid": _M,
        "dev": _M,
    },
    "defaults": {"verify": _A, "deadline": _A, "on-error": _A, "pull": _A},
    "lock": {"index-url": _A},
    "store": {"path": _M, "look-in": _M, "quota": _M, "min-free": _M},
    "hosts": {"allow": _M, "dynamic": _M},
    "network": {"ca-bundle": _M, "offline": _M, "proxy": _N},
    "limits": {
        "connections": _M,
        "connections-per-host": _M,
        "prefetch-connections": _M,
        "prefetch-rate": _M,
        "connect": _M,
        "first-byte": _M,
        "stall": _M,
        "stall-floor": _M,
    },
    "retry": {
        "retries": _M,
        "initial-delay": _M,
        "multiplier": _M,
        "max-delay": _M,
        "jitter": _M,
        "fixed": _M,
    },
}
_CREDENTIALS: Final = (
    "username",
    "password-file",
    "password-env",
    "token-file",
    "token-env",
    "client-cert",
    "client-key",
    "insecure",
    "netrc",
)
_PLUGIN: Final = ("command", "timeout")
_NAMED: Final = {"map": None, "credentials": _CREDENTIALS, "helpers": None, "plugins": _PLUGIN}
"""The machine's tables whose keys are names (of a URL, a host, a scheme), and the keys below one of
those; None where there is a value and no table."""
_SECRETS: Final = frozenset(
    {
        "api-key",
        "auth",
        "authorization",
        "bearer",
        "client-key-password",
        "key",
        "passphrase",
        "passwd",
        "password",
        "pass",
        "secret",
        "token",
    }
)
"""What people call a secret that they would write down."""
_REF: Final = (
    "from",
    "integrity",
    "strip",
    "subdir",
    "mirrors",
    "platform",
    "by-platform",
    "deadline",
    "on-error",
    "pull",
    "verify",
)
_BY_PLATFORM: Final = ("from", "integrity", "strip", "subdir", "mirrors")
_INSTEAD: Final = {
    "proxy": "set HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "proxies": "set HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "network.proxy": "set HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    "ca-bundle": "network.ca-bundle",
    "ca-bundles": "network.ca-bundle",
    "dynamic": "hosts.dynamic",
    "allow": "hosts.allow",
    "allowed-hosts": "hosts.allow",
    "offline": "network.offline",
}
"""What people write at the top, and what they mean."""


def check(document: dict[str, object], origin: Origin) -> None:
    """Refuse every table and key that may not stand there. Values are not looked at.

    Raises:
        SettingsError: naming file and key, and the nearest valid key or where the key belongs.
    """
    for name, value in document.items():
        if name == "ref":
            _check_refs(value, origin)
        elif name in _TABLES:
            for key in table(value, name, origin):
                _check_key(name, key, origin)
        elif name in _NAMED:
            _check_named(name, value, origin)
        elif name in _INSTEAD:
            if origin.voice is Voice.PROJECT:
                _refuse(_M, name, origin)
            raise SettingsError(origin.name, name, "unknown key", hint=_INSTEAD[name])
        else:
            raise SettingsError(
                origin.name, name, "unknown key", hint=_nearest_top(name, origin.voice)
            )


def table(value: object, key: str, origin: Origin) -> dict[str, object]:
    """The table at ``key``.

    Raises:
        SettingsError: something else stands there.
    """
    if not isinstance(value, dict):
        raise SettingsError(origin.name, key, "must be a table", hint=f"[{key}]")
    return value


def _check_refs(value: object, origin: Origin) -> None:
    for name, ref in table(value, "ref", origin).items():
        key = f"ref.{name}"
        if not REF_NAME.fullmatch(name) or len(name) > MAX_COMPONENT:
            raise SettingsError(
                origin.name,
                key,
                f"{name!r} is no name for a ref",
                hint="letters, digits, '.', '_' and '-', not starting with '.'",
            )
        if name in KINDS:
            raise SettingsError(
                origin.name,
                key,
                f"ref/{name} holds the refs that are named by path",
                hint="choose another name",
            )
        _check_words(ref, key, _REF, origin)
        choices = table(ref, key, origin).get("by-platform", {})
        for platform, entry in table(choices, f"{key}.by-platform", origin).items():
            _check_words(entry, f"{key}.by-platform.{platform}", _BY_PLATFORM, origin)


def _check_named(name: str, value: object, origin: Origin) -> None:
    _refuse(_M, name, origin)
    words = _NAMED[name]
    for each, entry in table(value, name, origin).items():
        if "@" in each.rpartition("://")[2].partition("/")[0]:
            # Whatever stands before it may be a secret: the key is not repeated.
            raise SettingsError(origin.name, name, "a host has no '@'", hint=_FOR_SECRETS)
        if words is None:
            continue
        key = f"{name}.{each}"
        if name == "credentials" and not isinstance(entry, dict):
            raise SettingsError(origin.name, key, "must be a table", hint=_FOR_SECRETS)
        for word in table(entry, key, origin):
            if word not in words and word.lower().replace("_", "-") in _SECRETS:
                what = "settings hold no secrets"
                raise SettingsError(origin.name, f"{key}.{word}", what, hint=_FOR_SECRETS)
        _check_words(entry, key, words, origin)


def _check_words(value: object, key: str, words: Sequence[str], origin: Origin) -> None:
    for word in table(value, key, origin):
        if word not in words:
            raise SettingsError(
                origin.name, f"{key}.{word}", "unknown key", hint=nearest_hint(word, words)
            )


def _check_key(name: str, key: str, origin: Origin) -> None:
    keys = _TABLES[name]
    if key in keys:
        _refuse(keys[key], f"{name}.{key}", origin)
        return
    known = [each for each, may in keys.items() if _allowed(may, origin.voice)]
    if not known:
        _refuse(_M, name, origin)
    raise SettingsError(origin.name, f"{name}.{key}", "unknown key", hint=nearest_hint(key, known))


def _allowed(may: _May, voice: Voice) -> bool:
    return may is _A or (may is _M and voice is Voice.MACHINE)


def _refuse(may: _May, key: str, origin: Origin) -> None:
    """Raise unless whoever's file it is may say this."""
    if _allowed(may, origin.voice):
        return
    if origin.voice is Voice.PROJECT:
        raise SettingsError(
            origin.name,
            key,
            "a project file may not say this",
            hint=f"it belongs in {MACHINE_FILES}",
        )
    raise SettingsError(
        origin.name, key, "not supported by this version", hint=_INSTEAD.get(key, "remove it")
    )


def _nearest_top(word: str, voice: Voice) -> str:
    """The nearest valid table, or the table that has such a key."""
    tables = [
        name for name, keys in _TABLES.items() if any(_allowed(may, voice) for may in keys.values())
    ]
    named = [*_NAMED] if _allowed(_M, voice) else []
    known = [*tables, *named, "ref"]
    if nearest(word, known) is not None:
        return nearest_hint(word, known)
    dotted = {key: f"{name}.{key}" for name in tables for key in _TABLES[name]}
    close = nearest(word, dotted)
    return f"did you mean {dotted[close]!r}?" if close is not None else nearest_hint(word, known)
