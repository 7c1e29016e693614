"""A cluster of one node, with pods: everything that Kubernetes needs, started here.

To be used inside `drey_testing.cluster.sandbox`, whose end is the end of it. The node's address is
one of a bridge that leads nowhere; pods reach each other, services by address and by name, and
nothing outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drey_stack.process import Process
from drey_testing.cluster.api_server import ApiServer
from drey_testing.cluster.programs import programs
from drey_testing.cluster.sandbox import CGROUP, INSIDE, NoSandbox

ADDRESS = "10.250.0.1"
"""Of the node, inside its own network namespace."""
NAME = "node"
_PODS = "10.244.0.0/24"
_DNS = "10.250.0.53"
_SERVICES = "10.96.0.0/16"
PAUSE_IMAGE = "drey.test/pause:1"
"""Does nothing, and holds a pod together."""
_START_S = 300.0
_PLUGINS = Path("/usr/lib/cni")
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    str(_PLUGINS / "bridge"): "containernetworking-plugins",
}
"""Programs that the node needs of Debian, and their packages."""
PROGRAMS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "kubectl", "coredns"),
)

_KUBELET: dict[str, Any] = {
    "kind": "KubeletConfiguration",
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "address": ADDRESS,
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{CGROUP}",
    "failCgroupV1": False,
    "failSwapOn": False,
    "clusterDNS": [_DNS],
    "clusterDomain": "cluster.local",
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "volumePluginDir": "/var/lib/kubelet/plugins-exec",
    "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
    "imageGCHighThresholdPercent": 100,
    "registerNode": True,
    # a pod that is deleted shows within a second
    "syncFrequency": "5s",
    "nodeStatusUpdateFrequency": "5s",
}
_PROXY: dict[str, Any] = {
    "kind": "KubeProxyConfiguration",
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "mode": "iptables",
    "clusterCIDR": _PODS,
    "bindAddress": ADDRESS,
    "hostnameOverride": NAME,
    # limits of connections are the machine's, not the network namespace's
    "conntrack": {"maxPerCore": 0, "min": 0},
}
_NETWORK: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": _PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}
_CONTAINERD = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_PLUGINS}"
    conf_dir = "/var/lib/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"""
_COREDNS = f""".:53 {{
  bind {_DNS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig %s
  }}
  cache 2
}}
"""


def missing_packages() -> list[str]:
    """Debian packages that a node needs and that are not installed here."""
    sbin = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name, path=sbin)}
    return sorted(missing)


class Node:
    """Kubernetes with one node. `call` and `kubectl` are the administrator's."""

    def __init__(self, pause_image: Path) -> None:
        """`pause_image`: archive of the image of what holds a pod together, `drey.test/pause:1`."""
        if INSIDE not in os.environ:
            raise NoSandbox("a node starts inside drey_testing.cluster.sandbox only")
        self.folder = Path(os.environ[INSIDE]) / "node"
        self._pause_image = pause_image
        self._programs = programs(*PROGRAMS)
        self._processes: dict[str, Process] = {}
        self.api = ApiServer(
            self.folder / "api",
            address=ADDRESS,
            options=["--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true"],
        )
        self.kubeconfig = self.folder / "kubeconfig"

    async def start(self) -> None:
        """Start everything; returns when the node is ready for pods."""
        self.folder.mkdir(parents=True)
        self._make_network()
        await self._start_containerd()
        await self.api.start()
        self.api.kubeconfig().rename(self.kubeconfig)
        self._start_others()
        await self._until(self._is_ready, "the node is not ready")

    async def stop(self) -> None:
        """Stop what was started, but for the pods, which end with the sandbox."""
        for process in reversed(self._processes.values()):
            await process.stop(grace=5)
        await self.api.stop()

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """What kubectl prints. CalledProcessError, with what it says, where it fails."""
        done = subprocess.run(
            [str(self._programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def load_image(self, archive: Path) -> None:
        """Import an image's archive."""
        _run("ctr", "-n", "k8s.io", "images", "import", "--no-unpack", str(archive))

    def _make_network(self) -> None:
        for argv in (
            ("ip", "link", "add", "outer0", "type", "bridge"),
            ("ip", "addr", "add", f"{ADDRESS}/24", "dev", "outer0"),
            ("ip", "addr", "add", f"{_DNS}/24", "dev", "outer0"),
            ("ip", "link", "set", "outer0", "up"),
            ("ip", "route", "add", "default", "via", ADDRESS),
            ("sysctl", "-qw", "net.ipv4.ip_forward=1"),
        ):
            _run(*argv)
        # services have their names outside of pods too
        resolv = self.folder / "resolv.conf"
        resolv.write_text(f"nameserver {_DNS}\n")
        _run("mount", "--bind", str(resolv), "/etc/resolv.conf")

    async def _start_containerd(self) -> None:
        self._spawn("containerd", "containerd", "--config", str(self._write_containerd()))
        await self._until(lambda: _answers("ctr", "version"), "containerd does not answer")
        self.load_image(self._pause_image)

    def _write_containerd(self) -> Path:
        network = Path("/var/lib/cni/net.d/pods.conflist")
        network.parent.mkdir(parents=True)
        network.write_text(json.dumps(_NETWORK))
        config = self.folder / "containerd.toml"
        config.write_text(_CONTAINERD)
        return config

    def _start_others(self) -> None:
        access = f"--kubeconfig={self.kubeconfig}"
        self._spawn(
            "kube-controller-manager",
            str(self._programs / "kube-controller-manager"),
            access,
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            f"--root-ca-file={self.api.authority}",
            f"--service-account-private-key-file={self.api.folder / 'accounts.key'}",
        )
        self._spawn(
            "kube-scheduler",
            str(self._programs / "kube-scheduler"),
            *(access, "--bind-address=127.0.0.1", "--leader-elect=false"),
        )
        kubelet = self._write("kubelet.json", _KUBELET)
        self._spawn(
            "kubelet",
            str(self._programs / "kubelet"),
            *(access, f"--config={kubelet}", f"--hostname-override={NAME}"),
            f"--node-ip={ADDRESS}",
        )
        client = {"kubeconfig": str(self.kubeconfig)}
        proxy = self._write("kube-proxy.json", {**_PROXY, "clientConnection": client})
        self._spawn("kube-proxy", str(self._programs / "kube-proxy"), f"--config={proxy}")
        names = self.folder / "Corefile"
        names.write_text(_COREDNS % self.kubeconfig)
        self._spawn("coredns", str(self._programs / "coredns"), "-conf", str(names))

    def _write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def _spawn(self, name: str, *argv: str) -> None:
        log = self.folder / f"{name}.log"
        # what they make is for the users of pods, too
        open_to_all = ("sh", "-c", 'umask 022; exec "$@"', "sh", *argv)
        self._processes[name] = Process.spawn_process(open_to_all, log=log, cwd=self.folder)

    async def _until(self, condition: Callable[[], bool], failure: str) -> None:
        end = time.monotonic() + _START_S
        while not await asyncio.to_thread(condition):
            for name, process in self._processes.items():
                if not process.running:
                    raise RuntimeError(f"{name} ended: {process.log_tail()}")
            if time.monotonic() > end:
                raise RuntimeError(failure)
            await asyncio.sleep(0.1)

    def _is_ready(self) -> bool:
        text = self.kubectl("get", "nodes", "-o", "json", check=False)
        items = json.loads(text)["items"] if text else []
        ready = [c for i in items for c in i["status"]["conditions"] if c["type"] == "Ready"]
        accounts = self.kubectl("get", "serviceaccount", "default", "-o", "name", check=False)
        return bool(accounts and ready and all(c["status"] == "True" for c in ready))


def _answers(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
