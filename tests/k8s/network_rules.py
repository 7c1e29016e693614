"""What NetworkPolicies allow: the rules of `networking.k8s.io/v1`, for pods of one namespace.

Of peers it knows what the chart writes: podSelector with matchLabels, ipBlock without exceptions,
and namespaceSelector, which no pod here is meant by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal


@dataclass(frozen=True)
class Peer:
    """A pod, or, with an address, something outside of the cluster."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


def allows(
    policies: Sequence[dict[str, Any]], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the source may open a connection: it may go out, and the target lets it in."""
    ways: tuple[tuple[Literal["egress", "ingress"], Peer, Peer], ...] = (
        ("egress", source, target),
        ("ingress", target, source),
    )
    return all(
        _allows_one(policies, way, own, other, target, port, protocol) for way, own, other in ways
    )


def _allows_one(
    policies: Sequence[dict[str, Any]],
    way: Literal["egress", "ingress"],
    own: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    mine = [
        policy["spec"]
        for policy in policies
        if not own.address
        and way.capitalize() in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], own)
    ]
    side = "to" if way == "egress" else "from"
    return not mine or any(
        _names_port(rule, target, port, protocol) and _names_peer(rule.get(side), other)
        for spec in mine
        for rule in spec.get(way, [])
    )


def _selects(selector: Mapping[str, Any], pod: Peer) -> bool:
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= pod.labels.items()


def _names_port(rule: Mapping[str, Any], target: Peer, port: int, protocol: str) -> bool:
    if not rule.get("ports"):
        return True
    return any(
        each.get("protocol", "TCP") == protocol
        and (target.ports.get(each["port"]) if isinstance(each["port"], str) else each["port"])
        == port
        for each in rule["ports"]
    )


def _names_peer(peers: Sequence[Mapping[str, Any]] | None, other: Peer) -> bool:
    if not peers:
        return True
    return any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: Mapping[str, Any], other: Peer) -> bool:
    if "ipBlock" in peer:
        assert peer["ipBlock"].keys() == {"cidr"}
        network = ip_network(peer["ipBlock"]["cidr"])
        return bool(other.address) and ip_address(other.address) in network
    if "namespaceSelector" in peer or other.address:
        return False
    return _selects(peer["podSelector"], other)
