"""Kinds of network addresses: what a redirect may reach, and what it may not."""

import enum
import ipaddress
import socket
from typing import Final

import trio

from cafs.errors import UnreachableError

_EMBEDDING: Final = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
"""Networks whose addresses stand for an IPv4 address, and how many bits lie below it."""

_RESOLVE_LIMIT_S: Final = 10.0
"""Resolving belongs to connecting, and has the same limit."""


class Reach(enum.StrEnum):
    """Who can be reached at an address."""

    PUBLIC = "public"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    LOOPBACK = "loopback"


def reach_of(address: str) -> Reach:
    """The kind of a numeric address, with or without a scope ("fe80::1%eth0").

    Private is all that is neither public nor one of the other two: private and unique-local
    networks, carrier-grade NAT, multicast, reserved and documentation ranges. An IPv6 address that
    stands for an IPv4 one (mapped, NAT64, 6to4) is what that one is. The unspecified address is
    loopback, because connecting to it reaches this machine.

    Raises:
        ValueError: not an address.
    """
    ip = _unwrapped(ipaddress.ip_address(address))
    if ip.is_loopback or ip.is_unspecified:
        return Reach.LOOPBACK
    if ip.is_link_local:
        return Reach.LINK_LOCAL
    if ip.is_global and not (ip.is_multicast or ip.is_reserved or _site_local(ip)):
        return Reach.PUBLIC
    return Reach.PRIVATE


def literal(host: str) -> str:
    """The address that a host spells, in plain form; empty when it is a name.

    "127.1", "0x7f000001" and "2130706433" are spellings of 127.0.0.1 to the C library.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return ""


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """All addresses of a host, as numeric text.

    Raises:
        UnreachableError: it has none, or nobody answered in time.

    Cancellation: no effect; the look-up ends by itself in its thread.
    """
    try:
        with trio.fail_after(_RESOLVE_LIMIT_S):
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError as error:
        raise UnreachableError(f"{host}: no address within {_RESOLVE_LIMIT_S:g} s") from error
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"{host}: no address ({error})") from error
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    for network, shift in _EMBEDDING:
        if ip in network:
            return ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFF_FFFF)
    return ip


def _site_local(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
