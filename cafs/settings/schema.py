"""Which key may stand in which file, and what is said about one that may not.

A project file comes with a clone, so it may only name content: never places outside itself, never
what runs, whom to trust, or who may look. What it may not say belongs to the user or to the system,
and the message says so. A key that is known to the design and that nothing reads yet is refused
too: a setting that does nothing is a trap.
"""

import difflib
import enum
import re
from dataclasses import dataclass
from typing import Final

from cafs.errors import SettingsError
from cafs.model.nearest import nearest_hint
from cafs.model.refpath import KINDS, MAX_COMPONENT

MACHINE_FILES: Final = "~/.config/cafs/config.toml or /etc/cafs/config.toml"
"""Where things belong that a project may not say."""
REF_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class Voice(enum.Enum):
    """Whose file it is."""

    PROJECT = "project"
    MACHINE = "machine"


class _May(enum.Enum):
    ANYONE = enum.auto()
    MACHINE = enum.auto()
    NOBODY = enum.auto()


@dataclass(frozen=True, slots=True)
class Origin:
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
    "store": {"path": _M, "quota": _N, "min-free": _N},
    "hosts": {"allow": _M, "dynamic": _M},
    "network": {"ca-bundle": _M, "offline": _M, "proxy": _N},
}
_REF: Final = (
    "from",
    "integrity",
    "strip",
    "subdir",
    "mirrors",
    "platform",
    "deadline",
    "on-error",
    "pull",
)
_LATER: Final = ("map", "credentials", "helpers", "plugins", "limits")
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
        elif name in _LATER:
            _refuse(_N, name, origin)
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
        for word in table(ref, key, origin):
            if word not in _REF:
                raise SettingsError(
                    origin.name, f"{key}.{word}", "unknown key", hint=nearest_hint(word, _REF)
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
    if difflib.get_close_matches(word, [*tables, "ref"], n=1):
        return nearest_hint(word, [*tables, "ref"])
    dotted = {key: f"{name}.{key}" for name in tables for key in _TABLES[name]}
    close = difflib.get_close_matches(word, dotted, n=1)
    return f"did you mean {dotted[close[0]]!r}?" if close else nearest_hint(word, [*tables, "ref"])
