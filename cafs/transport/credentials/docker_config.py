"""Credentials that ``docker login`` and its helpers keep.

The helper of a registry (``credHelpers``) is asked first, then the store of all (``credsStore``),
then the file itself (``auths``). The store is asked for registries alone: it may be a keychain that
asks a person each time.

Source: the Docker CLI's reference, "docker login"; docker-credential-helpers, "Development".
"""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from typing_extensions import override

from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.files import Files
from cafs.transport.credentials.interfaces import Asked, Keyring
from cafs.transport.credentials.running import Runner
from cafs.transport.urls import Origin

_HUB: Final = "https://index.docker.io/v1/"
"""What the default registry is called in these files."""
_HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_KEY: Final = re.compile(r"(?:https?://)?([^/]+)(?:/(?:v[12]/?)?)?")
"""A key of ``auths``. One with a path of its own is for a part of a registry, not for all of it."""
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ABSENT: Final = b"credentials not found"
_IDENTITY: Final = "<token>"
"""The user name of an identity token."""


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Auth] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class _Answer(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


class DockerConfig(Keyring):
    """What ``$DOCKER_CONFIG/config.json``, or else ``~/.docker/config.json``, says.

    Args:
        runner: runs the helpers.
        environ: says where the file is.
    """

    def __init__(self, runner: Runner, environ: Mapping[str, str]) -> None:
        self._runner = runner
        self._files = Files()
        named = environ.get("DOCKER_CONFIG")
        home = environ.get("HOME")
        directory = Path(named) if named else Path(home) / ".docker" if home else None
        self._path = directory / "config.json" if directory else None

    @override
    async def look(self, asked: Asked) -> Finding:
        if self._path is None:
            return Finding(None, ())
        place = str(self._path)
        data = await self._files.content(self._path)
        if data is None:
            return Finding(None, (Look(place, "no such file"),))
        config = _parsed(place, data)
        looks: list[Look] = []
        for word, name in _helpers(config, asked):
            said = f"{place}, {word} {name}"
            found = await self._helped(name, _server(asked.origin), said)
            if found is not None:
                return Finding(found, (*looks, Look(said, found.kind, found=True)))
            looks.append(Look(said, "nothing for this host"))
        found = _written(config, asked.origin, f"{place}, auths")
        if found is not None:
            return Finding(found, (*looks, Look(found.source, found.kind, found=True)))
        return Finding(None, (*looks, Look(place, "nothing for this host")))

    async def _helped(self, name: str, server: str, place: str) -> Credential | None:
        """What a helper has for a registry.

        Raises:
            UnusableError: it fails, or its answer cannot be read.
        """
        if not _HELPER.fullmatch(name):
            raise UnusableError(place, "no name of a helper")
        command = (f"docker-credential-{name}", "get")
        spoken = await self._runner.run(command, server.encode(), place)
        if spoken.code:
            if _ABSENT in spoken.output:
                return None
            raise UnusableError(place, f"its helper failed with exit code {spoken.code}")
        try:
            answer = msgspec.json.decode(spoken.output, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise UnusableError(place, "its helper's answer cannot be read") from None
        if not answer.secret:
            return None
        if answer.username == _IDENTITY:
            return Credential.identity(answer.secret, place)
        return Credential.basic(answer.username, answer.secret, place)


def _parsed(place: str, data: bytes) -> _Config:
    # What is wrong may be next to a secret, so the parser's message is not shown.
    try:
        return msgspec.json.decode(data, type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnusableError(place, "not a Docker configuration") from None


def _helpers(config: _Config, asked: Asked) -> list[tuple[str, str]]:
    """The helpers to ask: the key that names each, and its name."""
    names = _names(asked.origin)
    found = [
        ("credHelpers", helper)
        for key, helper in config.cred_helpers.items()
        if _host(key) in names and helper
    ]
    store = [("credsStore", config.creds_store)] if config.creds_store and asked.registry else []
    return [*found[:1], *store]


def _written(config: _Config, origin: Origin, place: str) -> Credential | None:
    names = _names(origin)
    for key, auth in config.auths.items():
        if _host(key) not in names:
            continue
        if auth.registrytoken:
            return Credential.bearer(auth.registrytoken, place)
        if auth.identitytoken:
            return Credential.identity(auth.identitytoken, place)
        user, password = auth.username, auth.password
        if auth.auth:
            user, password = _decoded(auth.auth, place)
        if password:
            return Credential.basic(user, password, place)
    return None


def _decoded(text: str, place: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise UnusableError(place, "an entry that is not base64 of a login") from None
    if not colon:
        raise UnusableError(place, "an entry that is not base64 of a login")
    return user, password.rstrip("\0")


def _host(key: str) -> str:
    """The authority that a key is for, empty when it is for a part of a registry only."""
    match = _KEY.fullmatch(key)
    return match[1].lower() if match else ""


def _names(origin: Origin) -> frozenset[str]:
    if origin.host in _HUB_HOSTS and origin.usual:
        return _HUB_HOSTS
    spelled = f"{origin.spelled}:{origin.port}"
    return frozenset({spelled, origin.authority})


def _server(origin: Origin) -> str:
    """What helpers call a registry."""
    return _HUB if origin.host in _HUB_HOSTS and origin.usual else origin.authority
