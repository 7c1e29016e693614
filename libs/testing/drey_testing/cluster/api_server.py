"""etcd and kube-apiserver: on loopback enough for Leases, roles and manifests; no root, no node."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from drey_stack.ports import LOOPBACK, free_port
from drey_stack.process import Process
from drey_testing.cluster.programs import built_programs

_START_S = 300.0
"""Catches a hang; it takes three seconds."""
_REQUEST_S = 30.0


class Refused(Exception):
    """The API server says no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class ApiServer:
    """A Kubernetes API server with RBAC. `ProgramsMissing` where it cannot be had here."""

    def __init__(
        self, folder: Path, *, address: str = LOOPBACK, options: Sequence[str] = ()
    ) -> None:
        """`options`: further ones of kube-apiserver."""
        self.folder = folder
        self.address = address
        self._options = options or ["--endpoint-reconciler-type=none"]
        self._port = free_port()
        self._token = secrets.token_hex(16)
        self._processes: list[Process] = []

    @classmethod
    @asynccontextmanager
    async def started(cls, folder: Path) -> AsyncIterator[ApiServer]:
        """Runs during the body."""
        server = cls(folder)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.stop)
            await server.start()
            yield server

    async def start(self) -> None:
        """Start both and return when they answer."""
        programs = built_programs("etcd", "kube-apiserver")
        self._write_keys()
        client, peer = free_port(), free_port()
        etcd = f"http://{LOOPBACK}:{client}"
        self._spawn(
            "etcd",
            str(programs / "etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://{LOOPBACK}:{peer}",
            f"--initial-advertise-peer-urls=http://{LOOPBACK}:{peer}",
            f"--initial-cluster=default=http://{LOOPBACK}:{peer}",
            "--unsafe-no-fsync",
        )
        self._spawn(
            "kube-apiserver",
            str(programs / "kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self._port}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            *self._options,
        )
        end = time.monotonic() + _START_S
        while not await asyncio.to_thread(self._answers):
            for process in self._processes:
                if not process.running:
                    raise RuntimeError(f"the API server ended: {process.log_tail()}")
            if time.monotonic() > end:
                raise RuntimeError(f"no answer: {self._processes[-1].log_tail()}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End both."""
        self.go_on()
        for process in reversed(self._processes):
            await process.stop(grace=5)
        self._processes.clear()

    def stand_still(self) -> None:
        """The API server answers nobody."""
        self._processes[-1].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def _write_keys(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        key = generate_private_key(65537, 2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / "accounts.key").write_bytes(private)
        (self.folder / "accounts.pub").write_bytes(public)
        (self.folder / "tokens.csv").write_text(f'{self._token},admin,1,"system:masters"\n')

    def _spawn(self, name: str, *argv: str) -> None:
        log = self.folder / f"{name}.log"
        self._processes.append(Process.spawn_process(argv, log=log, cwd=self.folder))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{self.address}:{self._port}"

    @property
    def authority(self) -> Path:
        """By which it is believed."""
        return self.folder / "certificates" / "apiserver.crt"

    def _answers(self) -> bool:
        try:
            return self.authority.exists() and self._request("GET", "/readyz") is not None
        except (OSError, Refused):
            return False

    def _request(
        self, method: str, path: str, body: object = None, token: str = "", kind: str = "json"
    ) -> bytes:
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token or self._token}",
                "Content-Type": f"application/{kind}",
            },
        )
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, context=context, timeout=_REQUEST_S) as answer:
                answer_bytes: bytes = answer.read()
                return answer_bytes
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from error

    async def call(self, method: str, path: str, body: object = None, token: str = "") -> Any:
        """One request, as the administrator or with a token; the answer. `Refused`."""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        return json.loads(await asyncio.to_thread(self._request, method, path, body, token, kind))

    def kubeconfig(self, token: str = "") -> Path:
        """A file by which a client comes in, as the administrator or with a token."""
        path = self.folder / f"kubeconfig-{secrets.token_hex(4)}"
        cluster = {
            "server": self.url,
            "certificate-authority": str(self.authority),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path
