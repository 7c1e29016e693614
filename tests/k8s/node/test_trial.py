"""The chart with the small parts that it brings for trying, as the guide has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.node.site import (
    BOOTSTRAP,
    CHART,
    PASSWORD,
    SERVICES,
    Site,
    run_command,
    timed,
    until,
)

pytestmark = pytest.mark.node
NAMESPACE = "trying"
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: trying}
spec:
  storageClassName: trial
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /var/lib/trying}
"""


def test_one_command_brings_all_of_it(site: Site) -> None:
    kubectl = site.node.kubectl
    folder = Path("/var/lib/trying")
    folder.mkdir()
    folder.chmod(0o777)
    kubectl("apply", "-f", "-", input=VOLUME)
    kubectl("create", "namespace", NAMESPACE)
    keys = site.folder / "keys"
    secret = ("create", "secret", "generic", "drey-keys", f"--from-file={keys}")
    kubectl("-n", NAMESPACE, *secret)
    settings = f"trial.enabled=true,trial.password={PASSWORD},tls.enabled=false,shards=1"
    ones = ",".join(f"{service}.replicas=1" for service in SERVICES)
    with timed("trial installed"):
        site.helm(
            *("install", "drey", str(CHART), *site.values(NAMESPACE), "--wait", "--timeout", "4m"),
            *("--set", f"{settings},{ones}"),
        )
    key = kubectl("-n", NAMESPACE, "exec", "deploy/drey-gateway", "--", *BOOTSTRAP).strip()
    server = f"drey-gateway.{NAMESPACE}.svc.cluster.local:7100"
    options = ("--server", server, "--key", key, "--plaintext")
    until(lambda: run_command("status", *options), "the whole says that it is healthy")
    site.helm("uninstall", "drey", "--namespace", NAMESPACE, "--wait")
    kubectl("delete", "namespace", NAMESPACE)
