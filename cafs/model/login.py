"""Logins: what settings say about proving oneself to a host. Nothing here is a secret itself.

Secrets stay in the files and variables that are named here, and are read where they are needed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from cafs.model.address import DEFAULT_PORTS


class HostLogin(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in to ``host``.

    ``host`` is an authority (``example.com``, ``example.com:8443``), exactly, or ``*.`` before one:
    every host below it. There is at most one of a password (``password_file``, ``password_env``;
    then ``username`` is not empty) and a bearer token (``token_file``, ``token_env``).
    ``client_cert`` and ``client_key`` are files in PEM for mutual TLS, the key None when it is in
    the same file. Paths are absolute. ``insecure`` allows credentials over plain http too;
    ``netrc`` False keeps the netrc file out of it.
    """

    host: str
    username: str = ""
    password_file: Path | None = None
    password_env: str | None = None
    token_file: Path | None = None
    token_env: str | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    netrc: bool = True


class HelperRule(msgspec.Struct, frozen=True):
    """The program that knows the credentials of ``host`` (as in ``HostLogin``).

    ``command`` is an absolute path, or a name to look for in PATH, and its arguments.
    """

    host: str
    command: tuple[str, ...]


class ForHost(Protocol):
    """A rule for one host, or for all below one."""

    @property
    def host(self) -> str:
        """The host, as in ``HostLogin``."""
        ...


RuleT = TypeVar("RuleT", bound=ForHost)


def rule_for(url: str, rules: Iterable[RuleT]) -> RuleT | None:
    """The rule for the host of a URL: the one that names it, else the longest ``*.`` above it.

    A rule without a port is for the port that the URL's scheme means when none is written, and for
    no other.
    """
    by_host = {rule.host: rule for rule in rules}
    for place in _places(url):
        if place in by_host:
            return by_host[place]
    return None


def _places(url: str) -> list[str]:
    """All that a rule for the URL's host may be called, the nearest first."""
    parts = urlsplit(url)
    host = parts.hostname
    if not host:
        return []
    usual = DEFAULT_PORTS.get(parts.scheme)
    port = parts.port or usual
    labels = [] if ":" in host or host.replace(".", "").isdigit() else host.split(".")
    names = [f"[{host}]" if ":" in host else host]
    names += ["*." + ".".join(labels[above:]) for above in range(1, len(labels))]
    endings = ([f":{port}"] if port else []) + ([""] if port == usual else [])
    return [name + ending for name in names for ending in endings]
