import pytest

from cafs.errors import UnreachableError
from cafs.transport.addresses import Reach, literal, reach_of, resolve


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.255.1.2", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),  # noqa: S104 - an address in a table
        ("::", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("169.254.169.254", Reach.LINK_LOCAL),
        ("fe80::1", Reach.LINK_LOCAL),
        ("fe80::1%eth0", Reach.LINK_LOCAL),
        ("::ffff:169.254.169.254", Reach.LINK_LOCAL),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00:ec2::254", Reach.PRIVATE),
        ("fec0::1", Reach.PRIVATE),
        ("224.0.0.1", Reach.PRIVATE),
        ("ff02::1", Reach.PRIVATE),
        ("240.0.0.1", Reach.PRIVATE),
        ("255.255.255.255", Reach.PRIVATE),
        ("0.1.2.3", Reach.PRIVATE),
        ("::127.0.0.1", Reach.PRIVATE),
        ("2002:a00:1::", Reach.PRIVATE),
        ("8.8.8.8", Reach.PUBLIC),
        ("2001:4860:4860::8888", Reach.PUBLIC),
        ("::ffff:8.8.8.8", Reach.PUBLIC),
        ("64:ff9b::808:808", Reach.PUBLIC),
    ],
)
def test_addresses_are_sorted_by_whom_they_reach(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1"])
def test_every_spelling_of_an_address_is_seen(host: str) -> None:
    assert literal(host) == "127.0.0.1"


def test_a_name_is_no_address() -> None:
    assert literal("example.com") == ""
    assert literal("::1") == "::1"


async def test_this_machine_resolves() -> None:
    assert {reach_of(each) for each in await resolve("localhost", 80)} == {Reach.LOOPBACK}


async def test_a_name_without_address_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match=r"name\.invalid"):
        await resolve("name.invalid", 80)
