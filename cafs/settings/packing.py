"""Settings as bytes, for whoever goes on with them later.

The finished values are packed, and not the files that they came from: taking them up again looks at
no file, no variable and no flag, so nothing can have changed, be missing or be refused meanwhile.
What the settings name by path (a CA bundle, a ``file:`` ref) stays a path.

MessagePack maps by field name. Another version of cafs may read them: a field that is added here
gets a default, which says what settings without it meant.
"""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec

from cafs.errors import CafsError, MalformedError
from cafs.model.digest import Digest
from cafs.model.login import HelperRule, HostLogin
from cafs.model.mapping import MapRule
from cafs.model.pacing import USUAL, Pacing
from cafs.model.plugging import PluginSpec
from cafs.model.ref import ArchiveRef, BlobRef, Ref, parse_ref
from cafs.model.resolved import Resolved
from cafs.model.spec import Platform, Pull, RefSpec, Verify
from cafs.settings.values import USUAL_RETRIES, OnError, RetrySettings, Settings

_PATHS: Final = ("project_file", "mount_point", "store", "ca_bundle", "lock_file")
"""Fields that are paths: packed as bytes, since a path need not be text."""
_LOGIN_PATHS: Final = ("password_file", "token_file", "client_cert", "client_key")
"""Those of a login."""


class _Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A ref spec; ``ref`` is a text that parses to it."""

    name: str
    ref: str
    integrity: Digest | None
    strip: int
    subdir: str
    mirrors: tuple[str, ...]
    platform: Platform | None
    deadline_s: float | None
    pull: Pull
    verify: Verify = "block"
    locked: Resolved | None = None


class _Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login, its paths as bytes."""

    host: str
    username: str
    password_file: bytes | None
    password_env: str | None
    token_file: bytes | None
    token_env: str | None
    client_cert: bytes | None
    client_key: bytes | None
    insecure: bool
    netrc: bool


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, in the types that can be packed."""

    project_file: bytes | None
    mount_point: bytes | None
    view: str
    budget: int | None
    refs: tuple[_Spec, ...]
    deadline_s: float | None
    on_error: OnError
    pull: Pull
    store: bytes
    allowed_hosts: frozenset[str]
    dynamic: bool
    allow_other: bool
    preserve_owner: bool
    suid: bool
    dev: bool
    offline: bool
    ca_bundle: bytes | None
    look_in: tuple[bytes, ...] = ()
    quota: int | None = None
    min_free: int = 0
    mapping: tuple[MapRule, ...] = ()
    logins: tuple[_Login, ...] = ()
    helpers: tuple[HelperRule, ...] = ()
    plugins: tuple[PluginSpec, ...] = ()
    pacing: Pacing = USUAL
    retry: RetrySettings = USUAL_RETRIES
    verify: Verify = "block"
    lock_file: bytes | None = None
    index_urls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_ENCODE: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_DECODE: Final = msgspec.msgpack.Decoder(_Settings).decode


def pack(settings: Settings) -> bytes:
    """The bytes of settings; the same settings have the same bytes."""
    values = msgspec.structs.asdict(settings)
    values["refs"] = tuple(map(_packed, settings.refs))
    values["logins"] = tuple(
        _Login(**_as_bytes(msgspec.structs.asdict(each), _LOGIN_PATHS)) for each in settings.logins
    )
    values["look_in"] = tuple(map(os.fsencode, settings.look_in))
    return _ENCODE(_Settings(**_as_bytes(values, _PATHS)))


def unpack(raw: bytes) -> Settings:
    """The settings in the bytes.

    Raises:
        MalformedError: there are none, or another version has packed them in a way that this one
            does not know.
    """
    try:
        packed = _DECODE(raw)
        refs = tuple(map(_unpacked, packed.refs))
    except (msgspec.MsgspecError, CafsError) as error:
        raise MalformedError(f"packed settings cannot be read: {error}") from error
    logins = tuple(
        HostLogin(**_as_paths(msgspec.structs.asdict(each), _LOGIN_PATHS)) for each in packed.logins
    )
    folders = tuple(Path(os.fsdecode(each)) for each in packed.look_in)
    values = msgspec.structs.asdict(packed) | {
        "refs": refs,
        "logins": logins,
        "look_in": folders,
    }
    return Settings(**_as_paths(values, _PATHS))


def _as_bytes(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return values | {
        name: None if values[name] is None else os.fsencode(values[name]) for name in names
    }


def _as_paths(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return values | {
        name: None if values[name] is None else Path(os.fsdecode(values[name])) for name in names
    }


def _packed(spec: RefSpec) -> _Spec:
    values = {each.name: getattr(spec, each.name) for each in fields(spec) if each.init}
    return _Spec(**values | {"ref": _text(spec.ref)})


def _unpacked(packed: _Spec) -> RefSpec:
    return RefSpec(**msgspec.structs.asdict(packed) | {"ref": parse_ref(packed.ref, schemes=None)})


def _text(ref: Ref) -> str:
    """The text of a ref, with the URL exactly as it will be asked for."""
    return ref.cimd if isinstance(ref, ArchiveRef | BlobRef) else ref.canonical
