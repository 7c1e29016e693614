"""What is generated here: the chart's schema from the settings, the manifests from the chart.

    python k8s/generate.py            writes them
    python k8s/generate.py --check    exit status 1, naming them, where one differs
    python k8s/generate.py --landed   takes the chart as it is for landed

Needs helm, as `make cluster-programs` builds it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from drey_gateway.settings import GatewaySettings as Gateway
from drey_monitor.settings import MonitorSettings as Monitor
from drey_restore.settings import RestoreSettings as Restore
from drey_runtime.settings import CommonSettings
from drey_snapshot.settings import SnapshotSettings as Snapshot
from drey_testing.cluster.programs import ProgramsMissing, programs

HERE = Path(__file__).parent
CHART = HERE / "drey"
SERVICES: dict[str, type[CommonSettings]] = {
    "gateway": Gateway,
    "snapshot": Snapshot,
    "monitor": Monitor,
    "restore": Restore,
}
BY_CHART = {
    *("postgres_url", "redis_url", "nats_url", "namespace", "shards", "listen"),
    *("trusted_keys", "signing_key", "tls_cert", "tls_key", "tls_ca", "tls_client_ca"),
    *("probe_listen", "metrics_listen", "allow_insecure_listen"),
    *("ca_address_list", "ca_auto_address_list", "ca_name_servers"),
    *("lease", "lease_duration", "lease_namespace", "lease_identity"),
    *("snapshot_target", "monitor_target", "restore_target", "gateway_target"),
}
"""Settings that have values of their own in the chart."""
STRING, FLAG = {"type": "string"}, {"type": "boolean"}
_NAME = "[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?"
NAME = {"type": "string", "pattern": f"^{_NAME}$"}
"""Of an object of Kubernetes. It stands as it is in the templates, like the next."""
NAME_OR_NONE = {"type": "string", "pattern": f"^({_NAME})?$"}
HOST_OR_NONE = {"type": "string", "pattern": r"^([A-Za-z0-9*]([-A-Za-z0-9.]*[A-Za-z0-9])?)?$"}
REGISTRY = {"type": "string", "pattern": r"^[A-Za-z0-9._:/\[\]-]*$"}
TAG = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(@sha256:[0-9a-f]{64})?$",
}
IMAGE = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"}
ROLE = {"type": "string", "pattern": "^[a-z_][a-z0-9_]{0,62}$"}
"""It stands in SQL too."""
ADDRESSES = {"type": "string", "pattern": r"^[A-Za-z0-9.:_\[\] -]*$"}
KEY = {"type": "string", "pattern": "^[-._A-Za-z0-9]+$"}
"""Of a secret."""
TEXTS = {"type": "object", "additionalProperties": STRING}
OBJECTS = {"type": "array", "items": {"type": "object"}}


def closed(**properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


INGRESS = closed(
    enabled=FLAG,
    className=NAME_OR_NONE,
    host=HOST_OR_NONE,
    tlsSecret=NAME_OR_NONE,
    annotations={"type": "object"},
)


IN_SECRET = {**closed(name=NAME, key=KEY), "required": ["name", "key"]}
ENV = {
    "type": "array",
    "items": {
        **closed(
            name={"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            value=STRING,
            valueFrom={"type": "object"},
        ),
        "required": ["name"],
        "oneOf": [{"required": ["value"]}, {"required": ["valueFrom"]}],
    },
}


def placed() -> dict[str, Any]:
    """Where pods run, and what is written on them."""
    spread = closed(
        topologyKey=STRING,
        maxSkew={"type": "integer", "minimum": 1},
        minDomains={"type": "integer", "minimum": 1},
        whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]},
    )
    required = ["topologyKey", "maxSkew", "whenUnsatisfiable"]
    return {
        "nodeSelector": TEXTS,
        "tolerations": OBJECTS,
        "priorityClassName": NAME_OR_NONE,
        "topologySpread": {"type": "array", "items": {**spread, "required": required}},
        "labels": TEXTS,
        "annotations": TEXTS,
    }


def settings_of(cls: type[CommonSettings], *, common: bool) -> dict[str, Any]:
    """Schema of the settings that may be given freely: those of all, or of one service."""
    shared = set(CommonSettings.model_fields)
    found = cls.model_json_schema()["properties"]
    return closed(
        **{
            name: {key: value for key, value in schema.items() if key != "title"}
            for name, schema in found.items()
            if name not in BY_CHART and (name in shared) == common
        }
    )


def schema() -> str:
    """`values.schema.json`."""
    own = {name: settings_of(cls, common=False) for name, cls in SERVICES.items()}
    replicas, resources = {"type": "integer", "minimum": 1}, {"type": "object"}
    pods = closed(replicas=replicas, resources=resources, **placed(), env=ENV)
    monitor = Monitor.model_json_schema()["properties"]
    values = closed(
        site={key: value for key, value in monitor["namespace"].items() if key != "title"},
        shards={key: value for key, value in monitor["shards"].items() if key != "title"},
        leaseDuration={k: v for k, v in monitor["lease_duration"].items() if k != "title"},
        image=closed(
            registry=REGISTRY,
            tag=TAG,
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            pullSecrets=OBJECTS,
        ),
        secrets=closed(
            connections=NAME,
            applicationRole=ROLE,
            keys=NAME,
            authority=NAME_OR_NONE,
            urls=closed(**dict.fromkeys(("postgres", "postgresOwner", "redis", "nats"), IN_SECRET)),
        ),
        pods=closed(**placed(), env=ENV),
        tls=closed(enabled=FLAG, secretPrefix=NAME, issuer=closed(name=STRING, kind=STRING)),
        epics=closed(
            addressList=ADDRESSES, autoAddressList=FLAG, nameServers=ADDRESSES, hostNetwork=FLAG
        ),
        settings=closed(common=settings_of(CommonSettings, common=True), **own),
        **dict.fromkeys(SERVICES, pods),
        web=closed(
            enabled=FLAG,
            replicas=replicas,
            resources=resources,
            **placed(),
            tlsSecret=NAME_OR_NONE,
            origins={"type": "array", "items": STRING},
            ingress=INGRESS,
        ),
        ingress=INGRESS,
        gatewayApi=closed(
            enabled=FLAG, parents=OBJECTS, hostnames={"type": "array", "items": STRING}
        ),
        metrics=closed(
            enabled=FLAG,
            serviceMonitor=closed(
                enabled=FLAG,
                interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                labels=TEXTS,
            ),
            dashboards=closed(enabled=FLAG, labels=TEXTS),
        ),
        networkPolicy=closed(enabled=FLAG, clients=OBJECTS, scrapers=OBJECTS, outside=OBJECTS),
        trial=closed(
            enabled=FLAG,
            web=FLAG,
            # it stands in URLs and in SQL
            password={"type": "string", "pattern": "^([A-Za-z0-9]{8,})?$"},
            storageClass=NAME_OR_NONE,
            storage={"type": "string", "pattern": "^[0-9]+([kMGTPE]i?)?$"},
            images=closed(postgres=IMAGE, nats=IMAGE, redis=IMAGE),
        ),
        **{"global": {"type": "object"}},
    )
    values["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(values, indent=2) + "\n"


def rendered(*options: str) -> str:
    """The chart as helm renders it. CalledProcessError with what helm says."""
    helm = programs("helm") / "helm"
    done = subprocess.run(
        [str(helm), "template", "drey", str(CHART), "--namespace", "drey", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def pack_landed() -> None:
    """Write `landed.tgz`."""
    helm = programs("helm") / "helm"
    with TemporaryDirectory() as folder:
        argv = [str(helm), "package", str(CHART), "--destination", folder]
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        (packed,) = Path(folder).iterdir()
        shutil.copy(packed, HERE / "landed.tgz")


def main() -> None:
    """Write, or compare."""
    if "--landed" in sys.argv[1:]:
        pack_landed()
        return
    check = "--check" in sys.argv[1:]
    differing = []
    for path, make in (
        (CHART / "values.schema.json", schema),
        (HERE / "manifests/drey.yaml", rendered),
    ):
        text = make()
        if check and (not path.exists() or path.read_text() != text):
            differing.append(str(path))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if differing:
        sys.exit(f"{', '.join(differing)}: not what `make chart` makes")


if __name__ == "__main__":
    try:
        main()
    except ProgramsMissing as error:
        sys.exit(str(error))
