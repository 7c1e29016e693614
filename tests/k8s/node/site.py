"""Drey as a site has it: installed by helm on the node, beside its parts and a machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from drey_runtime.auth import make_keys
from drey_testing.certificates import Authority
from drey_testing.cluster import images
from drey_testing.cluster.node import Node
from drey_testing.cluster.programs import built_programs
from tests.k8s.node.pod_logs import PodLogs

ROOT = Path(__file__).resolve().parents[3]
CHART, CLUSTER = ROOT / "k8s/drey", ROOT / "k8s/cluster"
NAMESPACE = "drey"
GATEWAY = "drey-gateway.drey.svc.cluster.local"
SERVER = f"{GATEWAY}:7100"
SERVICES = ("gateway", "snapshot", "monitor", "restore")
PVS, COUNTERS = 2000, 200
WAIT_S = 300.0
"""Catches what hangs."""
PASSWORD = "forTheTrial1"


class Site:
    """The release `drey` and its surroundings; `key` is an administrator's."""

    def __init__(self, node: Node, folder: Path, logs: PodLogs) -> None:
        self.node, self.folder, self._logs = node, folder, logs
        self.key = ""
        self.authority = Authority(folder / "tls")
        programs = built_programs("helm", "grpcurl")
        self._helm, self._grpcurl = str(programs / "helm"), str(programs / "grpcurl")

    def install(self) -> None:
        """Everything, from the images to the catalog; returns when all is connected."""
        for name in ("parts", "machine", *images.DOCKERFILES):
            self.node.load_image(images.archive(f"drey-{name}"))
        self.node.kubectl("create", "namespace", NAMESPACE)
        volume = Path("/var/lib/trial")
        volume.mkdir()
        volume.chmod(0o777)
        self.kubectl("apply", "-f", str(CLUSTER / "machine.yaml"))
        self._install_parts()
        self._make_secrets()
        self.helm("install", "drey", str(CHART), *self.values(), "--wait", *_TIMEOUT)
        made = self.kubectl("exec", "deploy/drey-gateway", "--", *BOOTSTRAP)
        self.key = made.strip()
        until(lambda: self.drey("status"), "the whole says that it is healthy")
        self.kubectl("rollout", "status", "deploy/machine", "--timeout=2m")
        self.kubectl("rollout", "status", "deploy/counters", "--timeout=2m")
        counters = self.folder / "counters.csv"
        names = "".join(f"COUNT:{number:04}\n" for number in range(COUNTERS))
        counters.write_text(f"Readback\n{names}")
        machine = self.folder / "machine.csv"
        machine.write_text(self.in_machine("cat", "/work/machine.csv"))
        for catalog in (machine, counters):
            self.drey("pv", "import", str(catalog))
        self.wait_connected()

    def values(self, namespace: str = NAMESPACE) -> list[str]:
        """Options of helm by which a release is installed."""
        return ["--namespace", namespace, "--values", str(CLUSTER / "values.yaml")]

    def helm(self, *arguments: str) -> str:
        """What helm says; RuntimeError with it where it fails."""
        return run(self._helm, *arguments, "--kubeconfig", str(self.node.kubeconfig))

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """As `Node.kubectl`, in the release's namespace."""
        return self.node.kubectl("--namespace", NAMESPACE, *arguments, input=input)

    def drey(self, *arguments: str, ok: Sequence[int] = (0,)) -> Any:
        """One command of the CLI: what its --json says."""
        options = ("--server", SERVER, "--key", self.key, "--ca", str(self.authority.certificate))
        return run_command(*arguments, *options, ok=ok)

    def list_services(self) -> set[str]:
        """The services that the gateway's reflection shows."""
        return set(run(self._grpcurl, *self._grpcurl_options(), SERVER, "list").split())

    def _grpcurl_options(self) -> list[str]:
        authority = str(self.authority.certificate)
        return ["-cacert", authority, "-H", f"authorization: Bearer {self.key}", "-max-time", "60"]

    def grpcurl(self, method: str, request: object) -> list[Any]:
        """The answers to one call, as JSON."""
        text = run(
            self._grpcurl, *self._grpcurl_options(), "-d", json.dumps(request), SERVER, method
        )
        decoder, found = json.JSONDecoder(), []
        while text.strip():
            value, end = decoder.raw_decode(text.lstrip())
            text = text.lstrip()[end:]
            found.append(value)
        return found

    def in_machine(self, *argv: str) -> str:
        """Run a program beside the simulated machine: what it prints."""
        return self.kubectl("exec", "deploy/machine", "--", *argv)

    def read_machine(self, names: list[str]) -> dict[str, Any]:
        """Values of the machine, as a client reads them that has nothing to do with Drey."""
        self.kubectl("exec", "-i", "deploy/machine", "--", *_WRITE_NAMES, input="\n".join(names))
        read = ("python", "-m", "drey_machine", "read", "--folder", "/work")
        self.in_machine(*read, "--names-from", "/work/names", "--json", "/work/read.json")
        rows = json.loads(self.in_machine("cat", "/work/read.json"))
        return {name: row["value"] for name, row in rows.items()}

    def read_counters(self, names: Sequence[str]) -> dict[str, float]:
        """The same of counters."""
        told = self.kubectl("exec", "deploy/counters", "--", "python", "-c", _READ, *names)
        return dict(zip(names, json.loads(told), strict=True))

    def count_circuit_channels(self) -> int:
        """Channels that clients have at the IOC of the counters, as it counts them itself."""
        before = len(self._told_circuits())
        signal = "import os, signal; os.kill(1, signal.SIGUSR1)"
        self.kubectl("exec", "deploy/counters", "--", "python", "-c", signal)
        until(lambda: len(self._told_circuits()) > before, "the IOC tells of its clients")
        return sum(map(int, re.findall(r"(\d+) Channels?$", self._told_circuits()[-1], re.M)))

    def _told_circuits(self) -> list[str]:
        """What the IOC of the counters told of its clients, each time that it did."""
        log = self.kubectl("logs", "deploy/counters")
        return re.findall(r"Channel Access Server V.*?^CAS-TCP", log, re.M | re.S)

    def upgrade(self, *options: str) -> None:
        """Upgrade the release; returns when every pod is ready."""
        self.helm("upgrade", "drey", str(CHART), *self.values(), *options, "--wait", *_TIMEOUT)

    def scale(self, component: str, replicas: int) -> None:
        """Change how many pods there are; returns when there are so many."""
        name = f"deploy/drey-{component}"
        self.kubectl("scale", name, f"--replicas={replicas}")
        self.kubectl("rollout", "status", name, "--timeout=2m")
        until(lambda: len(self.pods(component)) == replicas, f"{replicas} pods")

    def restarts(self) -> dict[str, int]:
        """How often containers of each pod of the release were started again."""
        found = {}
        for name, pod in (pair for each in SERVICES for pair in self.pods(each).items()):
            statuses = pod["status"].get("containerStatuses", [])
            found[name] = sum(status["restartCount"] for status in statuses)
        return found

    def channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """A connection to the gateway's Service, of its own."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes())
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        return grpc.secure_channel(SERVER, credentials, options=[*own, *options])

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    def shards(self) -> list[dict[str, Any]]:
        """States of the shards, as the gateway tells them."""
        (answer,) = self.grpcurl("drey.monitor.v1.MonitorService/GetMonitorStatus", {})
        found: list[dict[str, Any]] = answer["shards"]
        return found

    def wait_connected(self) -> None:
        """Wait until every channel is connected, but for those that the machine lacks."""
        dead = len(json.loads(self.in_machine("cat", "/work/machine.json"))["dead"])

        def connected() -> bool:
            shards = self.shards()
            channels = sum(shard.get("channels", 0) for shard in shards)
            return (
                channels > PVS + COUNTERS
                and sum(s.get("connected", 0) for s in shards) >= channels - dead
            )

        until(connected, "all channels are connected")

    def pods(self, component: str) -> dict[str, dict[str, Any]]:
        """Pods of one component that are not being deleted, by name."""
        selector = f"--selector=app.kubernetes.io/component={component}"
        items = json.loads(self.kubectl("get", "pods", selector, "-o", "json"))["items"]
        living = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return {item["metadata"]["name"]: item for item in living}

    def holder(self, shard: int) -> str:
        """The pod that holds a shard's Lease; empty: none."""
        return self.holder_and_epoch(shard)[0]

    def holder_and_epoch(self, shard: int) -> tuple[str, int]:
        """Likewise, and the epoch, of one moment: a pod that comes is given shards at any time."""
        lease = json.loads(self.kubectl("get", "lease", f"drey-shard-{shard}", "-o", "json"))
        holder = str(lease["spec"].get("holderIdentity", "")).rpartition("_")[0]
        return holder, int(lease["metadata"].get("annotations", {}).get("drey.dev/epoch", 0))

    def processes(self, pod: str) -> list[int]:
        """Ids of the processes of a pod's containers, as this process sees them."""
        uid = json.loads(self.kubectl("get", "pod", pod, "-o", "json"))["metadata"]["uid"]
        found = []
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                inside = uid in path.read_text()
                argv = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if inside and b"drey" in argv:
                found.append(int(path.parent.name))
        return found

    def _install_parts(self) -> None:
        """The chart's trial parts alone, as servers that the site has."""
        parts = self.helm(
            *("template", "parts", str(CHART), *self.values()),
            *("--set", f"trial.enabled=true,trial.password={PASSWORD}"),
            *("--show-only", "templates/trial.yaml"),
        )
        self.kubectl("apply", "-f", "-", input=parts)
        for part in ("postgres", "nats", "redis"):
            self.kubectl("rollout", "status", f"statefulset/parts-{part}", "--timeout=2m")

    def _make_secrets(self) -> None:
        keys = self.folder / "keys"
        make_keys(keys, SERVICES)
        self.kubectl("create", "secret", "generic", "drey-keys", f"--from-file={keys}")
        for name in images.DOCKERFILES:
            service = f"drey-{name}"
            hosts = (service, f"{service}.drey.svc", f"{service}.drey.svc.cluster.local")
            pair = self.authority.sign(service, *hosts)
            self.kubectl(
                *("create", "secret", "generic", f"drey-tls-{name}", "--type=kubernetes.io/tls"),
                f"--from-file=tls.crt={pair.certificate}",
                f"--from-file=tls.key={pair.key}",
                f"--from-file=ca.crt={self.authority.certificate}",
            )

    def write_logs(self) -> None:
        """Keep what the pods said, for whoever looks at a failed run."""
        folder = ROOT / ".drey-node-logs"
        shutil.rmtree(folder, ignore_errors=True)
        self._logs.copy_logs(folder / "pods")
        for log in self.node.folder.glob("**/*.log"):
            shutil.copy2(log, folder / log.name)
        state = self.node.kubectl("describe", "pods", "-A", check=False)
        (folder / "pods.txt").write_text(state)

    def describe_since(self, since: float) -> list[tuple[str, str]]:
        """What there is of the cluster and what its containers said, each with a title.

        `since`: seconds since 1970.
        """
        asked = {
            "pods": ("get", "pods,leases", "-o", "wide"),
            "events": ("get", "events", "--sort-by=.lastTimestamp"),
        }
        told = {
            what: self.node.kubectl("--namespace", NAMESPACE, *arguments, check=False)
            for what, arguments in asked.items()
        }
        return [*told.items(), *self._logs.tails_since(since).items()]


_TIMEOUT = ("--timeout", "4m")
BOOTSTRAP = ("python", "-m", "drey_gateway.bootstrap")
_READ = """import asyncio, json, os, sys
os.environ.update(EPICS_CA_ADDR_LIST="127.0.0.1", EPICS_CA_AUTO_ADDR_LIST="NO")
import aioca
print(json.dumps([float(value) for value in asyncio.run(aioca.caget(sys.argv[1:], timeout=60))]))
"""
_WRITE_NAMES = ("sh", "-c", "cat > /work/names")


def run(*argv: str, ok: Sequence[int] = (0,)) -> str:
    """What a program prints; RuntimeError with what it says where its exit status is not `ok`."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        raise RuntimeError(f"{' '.join(argv[:4])}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def run_command(*arguments: str, ok: Sequence[int] = (0,)) -> Any:
    """One command of the CLI: what its --json says."""
    command = (sys.executable, "-m", "drey_cli.main", "--json", "--timeout", "60s")
    return json.loads(run(*command, *arguments, ok=ok))


def until(condition: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
    """Wait for a condition; errors of a program that is run in it, or of a connection, are a no."""
    end, trouble = time.monotonic() + seconds, ""
    while True:
        try:
            if condition():
                return
        except (RuntimeError, KeyError, OSError) as error:
            trouble = str(error)
        assert time.monotonic() < end, f"never came: {what}; {trouble}"
        time.sleep(0.2)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long something took."""
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.1f} s")
