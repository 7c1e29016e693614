"""The way to an API server, from what is in a pod or in a kubeconfig."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drey_runtime.kubernetes_access import NoKubernetesAccess, file_access, pod_access
from drey_testing.certificates import Authority

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def kubeconfig(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Path:
    path = folder / "config"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **cluster}}],
        "users": [{"name": "other", "user": {}}, {"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path


def test_a_pod_s_token_is_read_anew(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text("first\n")
    access = pod_access(tmp_path, IN_POD)
    assert access.url == "https://10.96.0.1:443"
    assert access.token() == "first"
    (tmp_path / "token").write_text("second")
    assert access.token() == "second"
    assert access.tls is not None and access.tls.verify_mode == ssl.CERT_REQUIRED
    assert len(access.tls.get_ca_certs()) == 1


def test_an_address_of_version_6_stands_in_brackets(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path).certificate.read_bytes())
    (tmp_path / "token").touch()
    access = pod_access(tmp_path, {**IN_POD, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert access.url == "https://[fd00::1]:443"


@pytest.mark.parametrize(("environ", "said"), [({}, "no pod"), (IN_POD, "no account's token")])
def test_without_a_pod_s_account_it_says_what_is_missing(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(NoKubernetesAccess, match=said):
        pod_access(tmp_path, environ)


@pytest.mark.parametrize("as_data", [True, False])
def test_a_kubeconfig_with_certificates(tmp_path: Path, as_data: bool) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("admin")
    files = {
        "certificate-authority": authority.certificate,
        "client-certificate": pair.certificate,
        "client-key": pair.key,
    }
    given: dict[str, Any] = {
        f"{name}-data" if as_data else name: base64.b64encode(file.read_bytes()).decode()
        if as_data
        else file.name
        for name, file in files.items()
    }
    access = file_access(kubeconfig(tmp_path, given, given))
    assert (access.url, access.token()) == ("https://api:6443", "")
    assert access.tls is not None and len(access.tls.get_ca_certs()) == 1


def test_a_kubeconfig_with_a_token_or_its_file(tmp_path: Path) -> None:
    assert file_access(kubeconfig(tmp_path, {}, {"token": "t"})).token() == "t"
    (tmp_path / "token").write_text("from a file\n")
    assert file_access(kubeconfig(tmp_path, {}, {"tokenFile": "token"})).token() == "from a file"


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        ({}, {"exec": {"command": "login"}}, "`exec`.*give a kubeconfig"),
        ({}, {"auth-provider": {}}, "`auth-provider`"),
        ({"insecure-skip-tls-verify": True}, {}, "certificate-authority"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_to_give(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], said: str
) -> None:
    with pytest.raises(NoKubernetesAccess, match=said):
        file_access(kubeconfig(tmp_path, cluster, user))


@pytest.mark.parametrize("text", ["", "[]", "{}", "a: [", "current-context: none"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(NoKubernetesAccess, match=str(path)):
        file_access(path)
    with pytest.raises(NoKubernetesAccess, match="none"):
        file_access(tmp_path / "none")
