"""From the chart that landed last to this one and back, by helm, at a real API server.

There is no node, so no pod runs: what is shown is that the API server takes each change.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drey_testing.cluster.api_server import ApiServer
from tests.k8s.conftest import ROOT, options_of

LANDED, PRESENT = ROOT / "k8s/landed.tgz", ROOT / "k8s/drey"
VARIANTS: list[Sequence[str]] = [
    ("web.enabled=true", "shards=3"),
    ("trial.enabled=true", "trial.password=changeMe1"),
    ("tls.enabled=false", "epics.hostNetwork=true"),
]
KINDS = {
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "services": "/api/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
}


class Release:
    """Release `drey` in a namespace of its own. Hooks are jobs, and no job ends without a node."""

    def __init__(self, helm: str, server: ApiServer, folder: Path) -> None:
        self._helm, self._server = helm, server
        self._kubeconfig = server.kubeconfig()
        self._cache = folder / "helm"
        self.namespace = f"t{uuid.uuid4().hex[:12]}"

    def run(self, *arguments: str) -> None:
        homes = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME")
        done = subprocess.run(
            [
                *(self._helm, *arguments, "--namespace", self.namespace, "--no-hooks"),
                *("--kubeconfig", str(self._kubeconfig)),
            ],
            env={**os.environ, **dict.fromkeys(homes, str(self._cache))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    async def objects(self, kind: str) -> dict[str, dict[str, Any]]:
        """By name."""
        path = f"{KINDS[kind]}/namespaces/{self.namespace}/{kind}"
        items = (await self._server.call("GET", path))["items"]
        return {item["metadata"]["name"]: item for item in items}

    async def hold(self, lease: str) -> None:
        """As a monitor does."""
        path = f"{KINDS['leases']}/namespaces/{self.namespace}/leases/{lease}"
        annotations = {"drey.dev/epoch": "7"}
        spec = {"holderIdentity": "monitor_1", "leaseDurationSeconds": 4}
        body = {"metadata": {"annotations": annotations}, "spec": spec}
        await self._server.call("PATCH", path, body)


@pytest.fixture
async def release(helm: str, api_server: ApiServer, tmp_path: Path) -> AsyncIterator[Release]:
    made = Release(helm, api_server, tmp_path)
    await api_server.call("POST", "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    yield made


@pytest.mark.parametrize("values", VARIANTS)
async def test_an_upgrade_and_a_rollback_change_objects_and_make_none_anew(
    release: Release, values: Sequence[str]
) -> None:
    options = options_of(values)
    release.run("install", "drey", str(LANDED), *options)
    await release.hold("drey-shard-0")
    before = {kind: await release.objects(kind) for kind in KINDS}
    trial = "trial.enabled=true" in values
    assert list(before["jobs"]) == (["drey-migrate-1"] if trial else [])
    for number, step in (
        (2, ("upgrade", "drey", str(PRESENT), *options)),
        (3, ("rollback", "drey", "1")),
        (4, ("upgrade", "drey", str(PRESENT), *options, "--set", "shards=4")),
    ):
        release.run(*step)
        for kind in KINDS.keys() - {"jobs"}:
            now = await release.objects(kind)
            uids = {name: found["metadata"]["uid"] for name, found in now.items()}
            kept = {name: found["metadata"]["uid"] for name, found in before[kind].items()}
            assert kept.items() <= uids.items(), (kind, step)
        held = (await release.objects("leases"))["drey-shard-0"]
        assert held["spec"]["holderIdentity"] == "monitor_1", "an owner lost its Lease"
        assert held["metadata"]["annotations"]["drey.dev/epoch"] == "7"
        # a job that has run is never changed: the next one has another name
        jobs = list(await release.objects("jobs"))
        assert jobs == ([f"drey-migrate-{1 if number == 3 else number}"] if trial else [])
    assert len(await release.objects("leases")) == 4


def test_the_migration_is_a_hook_that_runs_once_before_the_pods(helm: str) -> None:
    """Of a site: with `before-hook-creation` the job of the last time goes first."""
    shown = subprocess.run(
        [helm, "template", "drey", str(PRESENT), "--show-only", "templates/migrate.yaml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "helm.sh/hook: pre-install,pre-upgrade\n" in shown
    assert "helm.sh/hook-delete-policy: before-hook-creation\n" in shown
