"""What pods may do, tried from inside of them."""

from __future__ import annotations

import json

import pytest

from drey_testing.cluster.api_server import Refused
from tests.k8s.node.site import NAMESPACE, SERVICES, Site

pytestmark = pytest.mark.node
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"


def inside(site: Site, service: str, *argv: str) -> str:
    return site.kubectl("exec", f"deploy/drey-{service}", "--", *argv).strip()


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_is_nobody_and_writes_nothing(site: Site, service: str) -> None:
    assert inside(site, service, "id", "-u") == "10001"
    for path in ("/opt/drey/new", "/etc/drey/keys/new", "/new"):
        with pytest.raises(RuntimeError, match=r"Read-only file system|Permission denied"):
            inside(site, service, "touch", path)
    keys = inside(site, service, "ls", "/etc/drey/keys").split()
    assert sorted(keys) == sorted([f"{service}.pem", "trusted.json"])
    capabilities = inside(site, service, "grep", "CapEff", "/proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


def test_the_gateway_has_no_compiler_and_no_epics(site: Site) -> None:
    found = inside(
        site, "gateway", "sh", "-c", "which gcc cc ld pip; find / -name 'libca*' 2>&1; true"
    )
    assert "libca." not in found and "/bin/" not in found, found
    with pytest.raises(RuntimeError, match="No module named"):
        inside(site, "gateway", "python", "-c", "import drey_ca")
    assert inside(site, "monitor", "python", "-c", "import drey_ca._native; print('native')")


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_lists_what_is_in_it(site: Site, service: str) -> None:
    listed = json.loads(inside(site, service, "cat", "/opt/drey/sbom.cdx.json"))
    names = {component["name"] for component in listed["components"]}
    assert {f"drey-{service}", "grpcio", "numpy"} <= names
    assert ("epicscorelibs" in names) == (service != "gateway")


async def test_a_monitor_s_token_opens_its_leases_and_nothing_else(site: Site) -> None:
    token = inside(site, "monitor", "cat", TOKEN)
    call = site.node.api.call
    assert await call("GET", f"{LEASES}/drey-shard-0", token=token)
    for method, path in (
        ("GET", LEASES),
        ("DELETE", f"{LEASES}/drey-shard-0"),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/drey-keys"),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/pods"),
        ("GET", "/api/v1/namespaces/kube-system/secrets"),
    ):
        with pytest.raises(Refused) as refusal:
            await call(method, path, token=token)
        assert refusal.value.status == 403, (method, path)


@pytest.mark.parametrize("service", ["gateway", "snapshot", "restore"])
def test_the_others_have_no_token(site: Site, service: str) -> None:
    with pytest.raises(RuntimeError, match="No such file"):
        inside(site, service, "cat", TOKEN)
