"""Whose word counts, of where a call comes from."""

from __future__ import annotations

import pytest

from drey_gateway.domain.callers import caller_address
from drey_gateway.settings import GatewaySettings, read_networks

PROXY = "ipv4:10.0.0.7:4711"
TRUSTED = read_networks("10.0.0.0/24, ::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("ipv4:192.0.2.1:4711", "", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "", "2001:db8::1"),
        ("ipv6:[::ffff:192.0.2.1]:4711", "", "192.0.2.1"),
        ("unix:", "192.0.2.1", ""),
        ("unix:/run/drey/gateway.sock", "", ""),
        # who is no proxy of ours may say what they like
        ("ipv4:192.0.2.1:4711", "127.0.0.1", "192.0.2.1"),
        (PROXY, "192.0.2.1", "192.0.2.1"),
        (PROXY, "", "10.0.0.7"),
        ("ipv6:%5B::1%5D:4711", "2001:db8::1", "2001:db8::1"),
        # what stands before the last entry was sent by that host, and is its word
        (PROXY, "127.0.0.1, 10.0.0.9, 192.0.2.1", "192.0.2.1"),
        # but where that host is a proxy of ours too, it is believed in its turn
        (PROXY, "203.0.113.5, 192.0.2.1, 10.0.0.9", "192.0.2.1"),
        (PROXY, "10.0.0.8,10.0.0.9", "10.0.0.8"),
        # what is no address ends it
        (PROXY, "192.0.2.1, unknown", "10.0.0.7"),
        (PROXY, "=cmd|' /C calc'!A0", "10.0.0.7"),
    ],
)
def test_the_last_host_that_is_no_proxy_called(peer: str, forwarded: str, address: str) -> None:
    assert caller_address(peer, forwarded, TRUSTED) == address


def test_nobody_is_trusted_unless_said() -> None:
    assert read_networks(GatewaySettings().trusted_proxies) == ()
    assert caller_address(PROXY, "192.0.2.1", ()) == "10.0.0.7"


def test_a_known_proxy_is_believed_for_whom_it_speaks_and_no_further() -> None:
    def address(forwarded: str) -> str:
        return caller_address("ipv4:127.0.0.1:4711", forwarded, (), known_proxy=True)

    assert address("192.0.2.1") == "192.0.2.1"
    assert address("203.0.113.9, 192.0.2.1") == "192.0.2.1"
    assert address("") == "127.0.0.1"


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        GatewaySettings(trusted_proxies="10.0.0.0/24, ingress.example.org")
