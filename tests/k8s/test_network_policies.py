"""Each connection that the running stack makes is allowed, and no other.

The cluster of the node's tests enforces no policies: they are judged here by their rules.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.k8s.conftest import Render
from tests.k8s.network_rules import Peer, allows
from tests.k8s.test_chart import CLASSES, COMPONENT, environment, of_kind

NAME = "app.kubernetes.io/name"
OUTSIDE = Peer("outside", address="10.9.0.7")
ELSEWHERE = Peer("elsewhere", address="192.0.2.1")
STRANGER, SCREEN, PROMETHEUS = (
    Peer("stranger", {"app": "other"}),
    Peer("screen", {"app": "screens"}),
    Peer("prometheus", {"app": "prometheus"}),
)
TRIAL = ("trial.enabled=true", "trial.password=changeMe1")
SITE = (
    "networkPolicy.outside[0].ipBlock.cidr=10.9.0.0/16",
    "networkPolicy.clients[0].podSelector.matchLabels.app=screens",
    "networkPolicy.scrapers[0].podSelector.matchLabels.app=prometheus",
    "web.enabled=true",
)
NOWHERE = 9999
"""A port at which nobody listens."""


def pods_of(objects: list[dict[str, Any]]) -> Iterator[tuple[Peer, dict[str, Any]]]:
    """Pods of the release by their component, and their container."""
    for kind in ("Deployment", "StatefulSet", "Job"):
        for found in of_kind(objects, kind):
            template = found["spec"]["template"]
            container = template["spec"]["containers"][0]
            ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
            labels = template["metadata"]["labels"]
            yield Peer(labels[COMPONENT], labels, ports), container


def targets_of(service: str) -> set[str]:
    """Whom a service calls: the targets of its settings that its composition root reads."""
    root = inspect.getsource(importlib.import_module(f"drey_{service}.app"))
    return set(re.findall(r"settings\.(\w+)_target", root))


def calls_of(
    pods: dict[str, Peer], containers: dict[str, dict[str, Any]]
) -> set[tuple[str, str, int]]:
    """(from, to, port) of all that the parts open among themselves, by their settings."""
    calls = set()
    for service in CLASSES:
        variables = environment(containers[service])
        for target in targets_of(service):
            host, _, port = variables[f"DREY_{target.upper()}_TARGET"].partition(":")
            calls.add((service, host.removeprefix("drey-"), int(port)))
    if "web" in pods:
        (gateway,) = [a for a in containers["web"]["args"] if a.startswith("--gateway=")]
        host, _, port = gateway.removeprefix("--gateway=").partition(":")
        calls.add(("web", host.removeprefix("drey-"), int(port)))
    return calls


@pytest.mark.parametrize("values", [SITE, (*SITE, *TRIAL)], ids=["site", "trial"])
def test_each_connection_of_the_stack_is_allowed_and_no_other(
    render: Render, values: tuple[str, ...]
) -> None:
    objects = render(*values)
    policies = of_kind(objects, "NetworkPolicy")
    found = list(pods_of(objects))
    pods = {pod.name: pod for pod, _ in found}
    containers = {pod.name: container for pod, container in found}
    parts = {name: pod for name, pod in pods.items() if pod.labels[NAME] == "drey-trial"}
    assert set(parts) == (set() if values == SITE else {"postgres", "nats", "redis"})
    expected = calls_of(pods, containers)
    assert {("gateway", "snapshot", 7101), ("restore", "snapshot", 7101)} <= expected
    # every pod of the release may use the trial's parts: they are for trying
    expected |= {
        (name, part, pod.ports[part])
        for name in pods.keys() - parts.keys()
        for part, pod in parts.items()
    }
    expected |= {("screen", "gateway", pods["gateway"].ports["grpc"])}
    expected |= {("screen", "web", pods["web"].ports["http"])}
    expected |= {("prometheus", name, pods[name].ports["metrics"]) for name in CLASSES}
    peers = {**pods, **{peer.name: peer for peer in (STRANGER, SCREEN, PROMETHEUS)}}
    ports = {
        NOWHERE,
        7110,
        7111,
        7112,
        7113,
        *(p for pod in pods.values() for p in pod.ports.values()),
    }
    allowed = {
        (source, target, port)
        for source, target, port in product(peers, pods, ports)
        if source != target and allows(policies, peers[source], pods[target], port)
    }
    assert allowed == expected
    for name, pod in pods.items():
        is_drey = name not in parts
        # servers and IOCs by any port of theirs, by UDP too, and nobody else outside
        assert allows(policies, pod, OUTSIDE, 5064, "UDP") == is_drey, name
        assert allows(policies, pod, OUTSIDE, 5432) == is_drey, name
        assert not allows(policies, pod, ELSEWHERE, 5432), name
        assert allows(policies, pod, ELSEWHERE, 53, "UDP") == is_drey, name
        assert not allows(policies, OUTSIDE, pod, 22), name


def test_the_rules_are_judged_as_kubernetes_does() -> None:
    """Nobody selects it: all is allowed. Selected: only what some rule names, both ways."""
    pod = Peer("pod", {"a": "1"}, {"grpc": 80})
    other = Peer("other", {"b": "2"})

    def policy(**spec: Any) -> dict[str, Any]:
        return {"spec": {"podSelector": {"matchLabels": {"a": "1"}}, **spec}}

    assert allows([], other, pod, 80)
    deny = policy(policyTypes=["Ingress", "Egress"])
    assert not allows([deny], other, pod, 80) and not allows([deny], pod, other, 80)
    only_out = policy(policyTypes=["Egress"])
    assert allows([only_out], other, pod, 80) and not allows([only_out], pod, other, 80)
    ingress = {"ports": [{"port": "grpc"}], "from": [{"podSelector": {"matchLabels": {"b": "2"}}}]}
    some = policy(policyTypes=["Ingress"], ingress=[ingress])
    assert allows([deny, some], other, pod, 80)
    assert not allows([deny, some], other, pod, 81)
    assert not allows([deny, some], other, pod, 80, "UDP")
    assert not allows([deny, some], STRANGER, pod, 80)
    empty_rule = policy(policyTypes=["Ingress"], ingress=[{}])
    assert allows([deny, empty_rule], STRANGER, pod, 81)
