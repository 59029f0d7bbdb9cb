"""Which proxy a URL goes through, from the environment's usual variables."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cafs.errors import InvalidReferenceError, SettingsError
from cafs.transport.urls import Origin, scheme_of, split

_SCHEMES: Final = ("http", "https")
_FORM: Final = "http://host:port"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs by scheme, and the hosts that are reached without one.

    Empty strings are absent. The URLs may hold credentials, so no repr shows them. ``direct`` has
    host names (which stand for their subdomains too), addresses, networks, each with a port or
    without, or ``*`` for all.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    direct: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no HTTP proxy."""
        for name, url in (("HTTP_PROXY", self.http), ("HTTPS_PROXY", self.https)):
            if url:
                _check(name, url)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; lower-case spellings win.

        An upper-case HTTP_PROXY is not read in a CGI program, where a client's header can set it.

        Raises:
            SettingsError: a proxy that is none, or by another protocol than HTTP.
        """

        def read(name: str) -> str:
            return environ.get(name.lower(), environ.get(name, "")).strip()

        everything = read("ALL_PROXY")
        http = environ.get("http_proxy", "") if "REQUEST_METHOD" in environ else read("HTTP_PROXY")
        hosts = (each.strip().lower() for each in read("NO_PROXY").split(","))
        return cls(
            http=_with_scheme(http or everything),
            https=_with_scheme(read("HTTPS_PROXY") or everything),
            direct=tuple(filter(None, hosts)),
        )

    def proxy_for(self, url: str) -> str:
        """The proxy's URL, or an empty string for a direct connection.

        Raises:
            InvalidReferenceError: not an http(s) URL.
        """
        origin = Origin.of(url)
        proxy = self.https if origin.scheme == "https" else self.http
        if not proxy or any(_covers(pattern, origin) for pattern in self.direct):
            return ""
        return proxy


def _check(name: str, url: str) -> None:
    """Refuse a proxy that cannot be one.

    Raises:
        SettingsError: another protocol than HTTP, no host, a port that is none.
    """
    scheme = scheme_of(url)
    if scheme not in _SCHEMES:
        reason = f"a proxy by {scheme or 'no scheme'!r} is not supported"
        raise SettingsError("environment", name, reason, hint=_FORM)
    try:
        credentials, _, place = split(url).netloc.rpartition("@")
        credentials.encode()
        Origin.of(f"{scheme}://{place}")
    except (InvalidReferenceError, UnicodeError):
        # Its URL may hold a password, which the error would repeat.
        raise SettingsError("environment", name, "not a proxy's URL", hint=_FORM) from None


def _with_scheme(url: str) -> str:
    return f"http://{url}" if url and "://" not in url else url


def _covers(pattern: str, origin: Origin) -> bool:
    """Whether a NO_PROXY pattern stands for the origin's host."""
    if pattern == "*":
        return True
    host, port = _host_and_port(pattern)
    if port and port != str(origin.port):
        return False
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        name = host.lstrip("*").lstrip(".")
        return bool(name) and (origin.host == name or origin.host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(host, strict=False)
    except ValueError:
        return False


def _host_and_port(pattern: str) -> tuple[str, str]:
    """Split ``host:port``; the colons of a bare IPv6 address or network are no port's."""
    if pattern.startswith("["):
        host, _, rest = pattern[1:].partition("]")
        return host, rest.removeprefix(":")
    if pattern.count(":") == 1:
        host, _, port = pattern.partition(":")
        return host, port
    return pattern, ""
