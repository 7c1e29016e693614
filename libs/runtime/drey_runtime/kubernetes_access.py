"""The way to a Kubernetes API server: a pod's account, or a kubeconfig file."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoKubernetesAccess(Exception):
    """There is no way that this understands; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class KubernetesAccess:
    """Where the API server is, and as whom to come.

    `token` gives what is valid now (a pod's is exchanged under a running process); empty: the
    certificate of `tls` says who comes. `tls` is None for `http:`.
    """

    url: str
    tls: ssl.SSLContext | None
    token: Callable[[], str]


def pod_access(
    account: Path = _ACCOUNT, environ: Mapping[str, str] = os.environ
) -> KubernetesAccess:
    """By the account of the pod that this process runs in. Raises `NoKubernetesAccess`."""
    host = environ.get("KUBERNETES_SERVICE_HOST")
    port = environ.get("KUBERNETES_SERVICE_PORT")
    token, authority = account / "token", account / "ca.crt"
    if not (host and port):
        raise NoKubernetesAccess("KUBERNETES_SERVICE_HOST and _PORT are not set: this is no pod")
    for path in (token, authority):
        if not path.exists():
            raise NoKubernetesAccess(f"{path} is not there: the pod has no account's token")
    where = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(authority))
    return KubernetesAccess(f"https://{where}:{port}", tls, lambda: token.read_text().strip())


def file_access(path: Path) -> KubernetesAccess:
    """By a kubeconfig's current context. Raises `NoKubernetesAccess`.

    It understands certificates and tokens, given or in files; a user who has to run a program, or
    to log in, is refused.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        config = yaml.safe_load(path.read_text())
        context = _config_entry(config, "context", config["current-context"])
        cluster = _config_entry(config, "cluster", context["cluster"])
        user = _config_entry(config, "user", context["user"])
        server = str(cluster["server"]).rstrip("/")
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError) as error:
        raise NoKubernetesAccess(f"{path} is no kubeconfig that can be used: {error!r}") from error
    for means in ("exec", "auth-provider", "username"):
        if means in user:
            raise NoKubernetesAccess(
                f"{path}: its user comes by `{means}`, which is not understood here: give a"
                " kubeconfig whose user has a token, a tokenFile or a client certificate"
            )
    tls = _tls_context(cluster, user, path.parent) if server.startswith("https:") else None
    return KubernetesAccess(server, tls, _token_source(user, path.parent))


def _config_entry(config: Any, kind: str, name: str) -> dict[str, Any]:
    for entry in config[f"{kind}s"]:
        if entry["name"] == name:
            named_part: dict[str, Any] = entry[kind]
            return named_part
    raise KeyError(f"no {kind} {name!r}")


def _token_source(user: Mapping[str, Any], folder: Path) -> Callable[[], str]:
    if "tokenFile" in user:
        file = folder / user["tokenFile"]
        return lambda: file.read_text().strip()
    token = str(user.get("token", ""))
    return lambda: token


def _tls_context(
    cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path
) -> ssl.SSLContext:
    authority = _bytes_of(cluster, "certificate-authority", folder)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        raise NoKubernetesAccess("insecure-skip-tls-verify: name the certificate-authority instead")
    certificate = _bytes_of(user, "client-certificate", folder)
    key = _bytes_of(user, "client-key", folder)
    if certificate and key:
        # ssl reads a key from a file only
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            tls.load_cert_chain(file.name)
    return tls


def _bytes_of(entry: Mapping[str, Any], name: str, folder: Path) -> bytes:
    """What stands under a name: as data, or in the file that it names; empty where neither."""
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return (folder / entry[name]).read_bytes() if name in entry else b""
