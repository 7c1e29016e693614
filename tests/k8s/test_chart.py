"""The chart: what it renders is what the services take, what an API server takes, and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, ProcessCollector

from drey_gateway.settings import GatewaySettings as Gateway
from drey_monitor.settings import MonitorSettings as Monitor
from drey_restore.settings import RestoreSettings as Restore
from drey_runtime.settings import CommonSettings, load_settings
from drey_snapshot.settings import SnapshotSettings as Snapshot
from drey_stack.serve_http import prepare_envoy
from drey_testing.certificates import Authority
from drey_testing.cluster.api_server import ApiServer, Refused
from drey_testing.metric_names import declared_metrics
from tests.k8s.conftest import ROOT, Render

CLASSES: dict[str, type[CommonSettings]] = {
    "gateway": Gateway,
    "snapshot": Snapshot,
    "monitor": Monitor,
    "restore": Restore,
}
SECRETS = {
    "postgres": "postgresql://drey_app:p@db/drey",
    "postgresOwner": "postgresql://drey_owner:p@db/drey",
    "redis": "rediss://:p@cache/0",
    "nats": "tls://bus:4222",
}
VARIANTS: list[Sequence[str]] = [
    (),
    ("shards=3", "tls.enabled=false", "epics.hostNetwork=true", "epics.addressList=10.1.2.3"),
    ("ingress.enabled=true", "ingress.host=drey.site", "site=ring_two"),
    ("trial.enabled=true", "trial.password=changeMe1"),
    ("web.enabled=true", "web.ingress.enabled=true", "web.ingress.host=drey.site"),
    ("settings.common.calls_per_second=2000000", "settings.monitor.tick=0.05", "leaseDuration=10"),
]
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/drey/serviceaccounts",
    "Service": "/api/v1/namespaces/drey/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/drey/poddisruptionbudgets",
    "Deployment": "/apis/apps/v1/namespaces/drey/deployments",
    "Job": "/apis/batch/v1/namespaces/drey/jobs",
    "Secret": "/api/v1/namespaces/drey/secrets",
    "StatefulSet": "/apis/apps/v1/namespaces/drey/statefulsets",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/drey/leases",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/drey/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/drey/rolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/drey/networkpolicies",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/drey/ingresses",
}
COMPONENT = "app.kubernetes.io/component"


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [found for found in objects if found["kind"] == kind]


def environment(container: dict[str, Any]) -> dict[str, str]:
    """As the kubelet makes it."""
    found = {}
    for entry in container["env"]:
        source = entry.get("valueFrom")
        if source is None:
            found[entry["name"]] = entry["value"]
        elif "secretKeyRef" in source:
            found[entry["name"]] = SECRETS[source["secretKeyRef"]["key"]]
        else:
            found[entry["name"]] = source["fieldRef"]["fieldPath"]
    return found


def test_schema_and_manifests_are_what_is_generated(helm: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "k8s/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("values", VARIANTS)
def test_each_service_takes_what_the_chart_gives_it(
    render: Render, monkeypatch: pytest.MonkeyPatch, values: Sequence[str]
) -> None:
    objects = render(*values)
    leases = {found["metadata"]["name"] for found in of_kind(objects, "Lease")}
    ports = {
        found["metadata"]["name"]: found["spec"]["ports"][0]["port"]
        for found in of_kind(objects, "Service")
    }
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        if container["name"] == "web":
            continue
        cls = CLASSES[container["name"]]
        with monkeypatch.context() as patch:
            patch.setattr("os.environ", environment(container))
            settings = load_settings(cls)
        assert settings.listen.rpartition(":")[2] == str(  # type: ignore[attr-defined]
            container["ports"][0]["containerPort"]
        )
        assert settings.metrics_listen.rpartition(":")[2] == str(
            next(p["containerPort"] for p in container["ports"] if p["name"] == "metrics")
        )
        probed = {container[f"{each}Probe"]["grpc"]["port"] for each in ("readiness", "liveness")}
        assert probed == {int(settings.probe_listen.rpartition(":")[2])}
        for other in ("snapshot", "monitor", "restore", "gateway"):
            name, _, port = getattr(settings, f"{other}_target").partition(":")
            assert ports[name] == int(port)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        for path in (settings.signing_key, settings.trusted_keys, settings.tls_cert):
            assert path is None or str(path.parent) in mounts
        if isinstance(settings, Monitor):
            assert settings.lease == "kubernetes"
            assert leases == {
                f"{settings.lease_prefix}shard-{number}" for number in range(settings.shards)
            }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("shards=0", "shards"),
        ("shards=many", "shards"),
        ("site=Ring", "site"),
        ("replicas=3", "replicas"),
        ("gateway.replicas=0", "replicas"),
        ("settings.monitor.tickk=1", "tickk"),
        ("settings.monitor.tick=100", "tick"),
        ('settings.common.log_level="LOUD"', "log_level"),
        ('settings.common.postgres_url="x"', "postgres_url"),
        ("leaseDuration=1", "leaseDuration"),
        ("ingress.enabled=true", "ingress.host"),
        ("trial.enabled=true", "trial.password"),
        ("web.ingress.enabled=true,web.enabled=true", "web.ingress.host"),
        ("trial.password=it's", "password"),
        # what stands as it is in the templates adds nothing to them
        ("secrets.applicationRole=drey\\, --all", "applicationRole"),
        ("secrets.keys=", "keys"),
        ("secrets.connections=a: b", "connections"),
        ("tls.secretPrefix=tls\\, defaultMode: 0777", "secretPrefix"),
        ("image.tag=latest and more", "tag"),
        ("image.registry=a registry", "registry"),
        ("epics.addressList=ioc\n evil: true", "addressList"),
        ("ingress.host=host # no", "host"),
        ("web.tlsSecret=a}", "tlsSecret"),
        ("trial.storageClass=Fast Disk", "storageClass"),
        ("trial.storage=much", "storage"),
        ("trial.images.redis=valkey or so", "redis"),
        ("metrics.serviceMonitor.interval=soon", "interval"),
        ("metrics.enabled=false,metrics.serviceMonitor.enabled=true", "metrics.enabled"),
        # each right for itself
        ("tls.enabled=false,tls.issuer.name=house", "tls.issuer"),
        ("tls.issuer.kind=ClusterIssuer", "tls.issuer.name"),
        ("web.ingress.enabled=true,web.ingress.host=drey.site", "web.enabled"),
        (
            "ingress.enabled=true,ingress.host=a.b,gatewayApi.enabled=true,"
            "gatewayApi.parents[0].name=g",
            "gatewayApi.enabled",
        ),
        (
            "metrics.enabled=false,networkPolicy.scrapers[0].podSelector.matchLabels.a=b",
            "networkPolicy.scrapers",
        ),
        (
            "networkPolicy.enabled=false,networkPolicy.clients[0].podSelector.matchLabels.a=b",
            "networkPolicy.enabled",
        ),
        ('settings.monitor={"max_shards":1},shards=3', "max_shards"),
        ("settings.monitor.warm_standbys=2", "warm_standbys"),
        # where pods run, and what is written on them
        ("pods.labels.app\\.kubernetes\\.io/name=mine", "app.kubernetes.io/name"),
        ('pods.env:=[{"name":"DREY_SHARDS","value":"2"}]', "DREY_SHARDS"),
        ('gateway.env:=[{"name":"X"}]', "env"),
        ('pods.env:=[{"name":"A B","value":"2"}]', "env"),
        ('pods.topologySpread:=[{"topologyKey":"zone"}]', "topologySpread"),
        ("pods.nodeSelektor.disk=ssd", "nodeSelektor"),
        ("secrets.urls.postgres.name=db", "key"),
        ("secrets.authority=a b", "authority"),
    ],
)
def test_wrong_values_are_refused_by_name(render: Render, value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render(value)


def test_pods_may_as_little_as_they_need(render: Render) -> None:
    objects = render("web.enabled=true")
    pods = of_kind(objects, "Deployment") + of_kind(objects, "Job")
    assert len(pods) == 6
    for found in pods:
        pod = found["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert "hostNetwork" not in pod
        # else Services of a release `drey` become variables that look like settings
        assert pod["enableServiceLinks"] is False
        name = found["metadata"]["name"]
        assert pod["automountServiceAccountToken"] == (name == "drey-monitor")
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            if found["kind"] == "Deployment":
                assert {"readinessProbe", "livenessProbe"} <= container.keys()
    (deny,) = [n for n in of_kind(objects, "NetworkPolicy") if n["metadata"]["name"] == "drey-deny"]
    assert set(deny["spec"]) == {"podSelector", "policyTypes"}
    (monitor_in,) = [
        n for n in of_kind(objects, "NetworkPolicy") if n["metadata"]["name"] == "drey-monitor"
    ]
    callers = [
        source["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for source in monitor_in["spec"]["ingress"][0]["from"]
    ]
    assert callers == ["gateway"]


PLACED = (
    'pods.nodeSelector:={"disk":"ssd"}',
    'pods.tolerations:=[{"key":"control","operator":"Exists"}]',
    "pods.priorityClassName=beam",
    'pods.topologySpread:=[{"topologyKey":"zone","maxSkew":1,"whenUnsatisfiable":"DoNotSchedule"}]',
    'pods.labels:={"team":"controls"}',
    'pods.annotations:={"site.org/note":"a","site.org/other":"b"}',
    'pods.env:=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]',
    'monitor.nodeSelector:={"net":"epics"}',
    'monitor.annotations:={"site.org/note":"c"}',
    'monitor.env:=[{"name":"OTEL_EXPORTER_OTLP_HEADERS","valueFrom":{"secretKeyRef":{"name":"o","key":"h"}}}]',
    'image.pullSecrets:=[{"name":"registry"}]',
    "web.enabled=true",
)


def test_pods_are_where_the_site_says_and_carry_what_it_says(render: Render) -> None:
    objects = render(*PLACED)
    for found in of_kind(objects, "Deployment") + of_kind(objects, "Job"):
        template, name = found["spec"]["template"], found["metadata"]["name"]
        pod, monitor = template["spec"], name == "drey-monitor"
        assert pod["nodeSelector"] == ({"net": "epics"} if monitor else {"disk": "ssd"}), name
        assert pod["tolerations"] == [{"key": "control", "operator": "Exists"}]
        assert pod["priorityClassName"] == "beam"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        (spread,) = pod["topologySpreadConstraints"]
        wanted = spread["labelSelector"]["matchLabels"]
        assert wanted.items() <= template["metadata"]["labels"].items()
        assert wanted[COMPONENT] == name.removeprefix("drey-")
        assert template["metadata"]["labels"]["team"] == "controls"
        assert template["metadata"]["annotations"] == {
            "site.org/note": "c" if monitor else "a",
            "site.org/other": "b",
        }
        # what finds pods says nothing of the site's labels
        if found["kind"] == "Deployment":
            assert "team" not in found["spec"]["selector"]["matchLabels"]
        if name not in ("drey-web", "drey-migrate"):
            env = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
            assert env["HTTPS_PROXY"]["value"] == "http://proxy:3128"
            assert ("OTEL_EXPORTER_OTLP_HEADERS" in env) == monitor


def test_servers_of_the_site_are_believed_by_its_authority_and_named_by_any_secret(
    render: Render,
) -> None:
    values = (
        "secrets.authority=house-ca",
        'secrets.urls:={"postgres":{"name":"pg-app","key":"uri"},'
        '"postgresOwner":{"name":"pg-owner","key":"uri"}}',
        'settings.common={"nats_ca":"/etc/drey/servers/ca.crt"}',
    )
    objects = render(*values)
    for found in of_kind(objects, "Deployment") + of_kind(objects, "Job"):
        pod = found["spec"]["template"]["spec"]
        (volume,) = [
            v for v in pod["volumes"] if v.get("secret", {}).get("secretName") == "house-ca"
        ]
        for container in pod["containers"] + pod.get("initContainers", []):
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert mounts[volume["name"]] == "/etc/drey/servers"
            by_name = {e["name"]: e for e in container["env"]}
            if "DREY_POSTGRES_URL" in by_name:
                owner = found["kind"] == "Job"
                reference = by_name["DREY_POSTGRES_URL"]["valueFrom"]["secretKeyRef"]
                assert reference == {"name": "pg-owner" if owner else "pg-app", "key": "uri"}
            if "DREY_REDIS_URL" in by_name:
                reference = by_name["DREY_REDIS_URL"]["valueFrom"]["secretKeyRef"]
                assert reference == {"name": "drey-connections", "key": "redis"}
                assert by_name["DREY_NATS_CA"]["value"] == "/etc/drey/servers/ca.crt"


def test_pods_with_the_ports_of_their_nodes_make_room_before_others_come(render: Render) -> None:
    for found in of_kind(render("epics.hostNetwork=true"), "Deployment"):
        rolling = found["spec"]["strategy"]["rollingUpdate"]
        on_host = found["spec"]["template"]["spec"].get("hostNetwork", False)
        assert rolling == {"maxSurge": int(not on_host), "maxUnavailable": int(on_host)}


def test_helm_finds_nothing_to_say(helm: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", str(ROOT / "k8s/drey")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("Drey", ()),
        ("1drey", ()),
        ("drey.ring", ()),
        ("r" * 41, ("trial.enabled=true", "trial.password=changeMe1")),
    ],
)
def test_names_of_which_kubernetes_makes_no_objects_are_refused(
    render: Render, release: str, values: Sequence[str]
) -> None:
    with pytest.raises(ValueError, match="release"):
        render(*values, release=release)


def web_deployment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == "drey-web")
    return found


@pytest.mark.parametrize("secure", [True, False])
def test_envoy_takes_what_the_chart_gives_it(render: Render, tmp_path: Path, secure: bool) -> None:
    objects = render(
        "web.enabled=true",
        f"tls.enabled={str(secure).lower()}",
        "web.origins[0]=https://screens.example.org",
    )
    pod = web_deployment(objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    arguments = [*container["args"], f"--folder={tmp_path / 'http'}"]
    if secure:
        authority = Authority(tmp_path / "authority")
        pair = authority.sign("drey-web")
        files = {"ca.crt": authority.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
        for folder in (folders["tls"], folders["authority"]):
            for name, file in files.items():
                arguments = [each.replace(f"{folder}/{name}", str(file)) for each in arguments]
        assert not [each for each in arguments if "/etc/drey" in each], "a file that is no secret's"
    command = prepare_envoy(arguments)
    checked = subprocess.run(
        [*command, "--mode", "validate"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    config = json.loads((tmp_path / "http/envoy.json").read_text())["static_resources"]
    listener = config["listeners"][0]["address"]["socket_address"]
    (port,) = container["ports"]
    assert listener == {"address": "0.0.0.0", "port_value": port["containerPort"]}
    ((endpoint,),) = (
        [each["endpoint"] for each in group["lb_endpoints"]]
        for group in config["clusters"][0]["load_assignment"]["endpoints"]
    )
    gateway = endpoint["address"]["socket_address"]
    ports = {
        s["metadata"]["name"]: s["spec"]["ports"][0]["port"] for s in of_kind(objects, "Service")
    }
    assert ports[gateway["address"]] == gateway["port_value"]
    assert ("transport_socket" in config["clusters"][0]) == secure
    assert ports["drey-web"] == (443 if secure else 80)
    probes = {container[f"{each}Probe"]["httpGet"]["scheme"] for each in ("readiness", "liveness")}
    assert probes == {"HTTPS" if secure else "HTTP"}


def test_browsers_have_a_way_in_where_it_is_wanted(render: Render) -> None:
    def parts(*values: str) -> set[str]:
        return {d["metadata"]["name"] for d in of_kind(render(*values), "Deployment")}

    assert "drey-web" not in parts()
    trial = ("trial.enabled=true", "trial.password=changeMe1")
    assert "drey-web" in parts(*trial)
    assert "drey-web" not in parts(*trial, "trial.web=false")
    clients = "networkPolicy.clients[0].podSelector.matchLabels.app=screens"
    policies = {
        p["metadata"]["name"]: p["spec"]["ingress"][0]["from"]
        for p in of_kind(render("web.enabled=true", clients), "NetworkPolicy")
        if p["metadata"]["name"] in ("drey-gateway", "drey-web")
    }
    screens = {"podSelector": {"matchLabels": {"app": "screens"}}}
    assert policies["drey-web"] == [screens]
    assert policies["drey-gateway"][0] == screens
    assert policies["drey-gateway"][1]["podSelector"]["matchLabels"][COMPONENT] == "web"
    issued = render("web.enabled=true", "web.ingress.host=drey.site", "tls.issuer.name=house")
    names = {c["spec"]["secretName"]: c["spec"]["dnsNames"] for c in of_kind(issued, "Certificate")}
    assert "drey.site" in names["drey-tls-web"]


SCRAPED = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.dashboards.enabled=true",
    "networkPolicy.scrapers[0].podSelector.matchLabels.app=prometheus",
)


def test_metrics_are_fetched_where_pods_offer_them_by_those_who_may(render: Render) -> None:
    offered = render()
    assert not of_kind(offered, "ServiceMonitor") + of_kind(offered, "ConfigMap")
    assert "drey-metrics" not in {p["metadata"]["name"] for p in of_kind(offered, "NetworkPolicy")}
    objects = render(*SCRAPED)
    services = {s["metadata"]["name"]: s for s in of_kind(objects, "Service")}
    monitors = of_kind(objects, "ServiceMonitor")
    assert {m["metadata"]["name"] for m in monitors} == services.keys()
    assert len(monitors) == 4
    for monitor in monitors:
        service = services[monitor["metadata"]["name"]]
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"]["keySecret"]["name"] == f"drey-tls-{wanted[COMPONENT]}"
    (allowed,) = (
        p for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "drey-metrics"
    )
    (rule,) = allowed["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    assert rule["ports"] == [{"port": "metrics"}]
    plain = render(*SCRAPED, "tls.enabled=false")
    assert all("scheme" not in m["spec"]["endpoints"][0] for m in of_kind(plain, "ServiceMonitor"))
    nothing = render("metrics.enabled=false")
    assert "DREY_METRICS_LISTEN" not in yaml.safe_dump_all(nothing)
    assert "drey-metrics" not in {p["metadata"]["name"] for p in of_kind(nothing, "NetworkPolicy")}


def test_dashboards_name_metrics_that_there_are(render: Render) -> None:
    (found,) = of_kind(render(*SCRAPED), "ConfigMap")
    assert found["data"].keys() == {"machine.json", "processes.json"}
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    there = {sample.name for family in registry.collect() for sample in family.samples}
    there |= {series for metric in declared_metrics() for series in metric.series}
    named: set[str] = set()
    for text in found["data"].values():
        for panel in json.loads(text)["panels"]:
            for target in panel["targets"]:
                series = set(re.findall(r"\b((?:drey|process)_\w+)", target["expr"]))
                assert series, panel
                assert series <= there, panel["title"]
                named |= series
    told = {m.name for m in declared_metrics() if not named & set(m.series)}
    assert not told, "metrics that no dashboard shows"


@pytest.fixture
async def namespace(api_server: ApiServer) -> AsyncIterator[ApiServer]:
    try:
        await api_server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "drey"}})
    except Refused as error:
        if error.status != 409:
            raise
    yield api_server


@pytest.mark.parametrize("values", VARIANTS[:5])
async def test_an_api_server_takes_every_object_strictly(
    render: Render, namespace: ApiServer, values: Sequence[str]
) -> None:
    for found in render(*values):
        path = PATHS[found["kind"]]
        await namespace.call("POST", f"{path}?dryRun=All&fieldValidation=Strict", found)


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("drey", PLACED),
        ("r" * 53, ("web.enabled=true",)),
        ("r" * 40, ("trial.enabled=true", "trial.password=changeMe1")),
    ],
)
async def test_it_takes_pods_of_any_site_and_long_names(
    render: Render, namespace: ApiServer, release: str, values: Sequence[str]
) -> None:
    with suppress(Refused):  # of the test before
        account = {"metadata": {"name": "default"}}
        await namespace.call("POST", PATHS["ServiceAccount"], account)
    for found in render(*values, release=release):
        path = f"{PATHS[found['kind']]}?dryRun=All&fieldValidation=Strict"
        await namespace.call("POST", path, found)
        template = found.get("spec", {}).get("template")
        if template is not None:
            # as its controller makes it, with labels of its own
            name = f"{found['metadata']['name']}-0123456789-abcde"
            stateful = found["kind"] == "StatefulSet"
            own = {"controller-revision-hash": f"{found['metadata']['name']}-0123456789"}
            labels = template["metadata"]["labels"] | (own if stateful else {})
            pod = {
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    **template["spec"],
                    "serviceAccountName": "default",
                    "priorityClassName": "",
                    "volumes": [
                        *template["spec"].get("volumes", []),
                        *({"name": "data", "emptyDir": {}} for _ in range(stateful)),
                    ],
                },
            }
            await namespace.call("POST", "/api/v1/namespaces/drey/pods?dryRun=All", pod)


async def test_a_monitor_s_account_may_touch_its_leases_and_nothing_else(
    render: Render, namespace: ApiServer
) -> None:
    wanted = ("ServiceAccount", "Lease", "Role", "RoleBinding")
    for found in render():
        if found["kind"] in wanted:
            await namespace.call("POST", PATHS[found["kind"]], found)
    accounts = PATHS["ServiceAccount"]
    answer = await namespace.call("POST", f"{accounts}/drey-monitor/token", {"spec": {}})
    token = answer["status"]["token"]
    leases = PATHS["Lease"]
    await namespace.call("GET", f"{leases}/drey-shard-0", token=token)
    patch = {"spec": {"holderIdentity": "x", "leaseDurationSeconds": 4}}
    await namespace.call("PATCH", f"{leases}/drey-shard-0", patch, token)
    other = {"metadata": {"name": "other"}}
    await namespace.call("POST", leases, other)
    for method, path, body in (
        ("GET", leases, None),
        ("GET", f"{leases}/other", None),
        ("PATCH", f"{leases}/other", patch),
        ("POST", leases, {"metadata": {"name": "new"}}),
        ("DELETE", f"{leases}/drey-shard-0", None),
        ("GET", "/api/v1/namespaces/drey/secrets", None),
        ("GET", "/api/v1/namespaces/drey/pods", None),
        ("GET", "/api/v1/nodes", None),
    ):
        with pytest.raises(Refused) as refusal:
            await namespace.call(method, path, body, token)
        assert refusal.value.status == 403, (method, path)
