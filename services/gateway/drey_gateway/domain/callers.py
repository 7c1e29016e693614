"""From where a call comes, when there may be proxies in between."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

Network = IPv4Network | IPv6Network


def caller_address(
    peer: str, forwarded: str, trusted: Sequence[Network], known_proxy: bool = False
) -> str:
    """The host that calls; empty where the connection has no address, as a Unix socket.

    `peer` as gRPC writes it: `ipv4:10.1.2.3:5000`. `forwarded` is a header to which each proxy
    adds at the end for whom it speaks; anybody may send one. So it is read from its end, and an
    entry is believed only when it was written by a `trusted` host, or by the one that is connected
    where that is `known_proxy`.
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    caller = _plain_address(rest.rpartition(":")[0].strip("[]"))
    for entry in reversed(forwarded.split(",")):
        if not known_proxy and not any(caller in network for network in trusted):
            break
        known_proxy = False
        try:
            caller = _plain_address(entry.strip())
        except ValueError:
            break
    return str(caller)


def _plain_address(text: str) -> IPv4Address | IPv6Address:
    """IPv4 as such, also where a socket of both kinds shows it as IPv6."""
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address
