"""What browsers and curl get on the node: the page, REST and gRPC-Web at one origin, by TLS."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.k8s.node.site import NAMESPACE, Site, until

pytestmark = pytest.mark.node
HOST = f"drey-web.{NAMESPACE}.svc.cluster.local"


def ask(site: Site, path: str, **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    tls = ssl.create_default_context(cafile=str(site.authority.certificate))
    request = urllib.request.Request(f"https://{HOST}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=tls, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_page_and_rest_are_served_at_one_origin(site: Site) -> None:
    status, headers, page = ask(site, "/")
    assert (status, headers["content-security-policy"] is not None) == (200, True)
    assert b"<script" in page
    assert ask(site, "/healthz")[0] == 200
    assert ask(site, "/v1/pvs")[0] == 401
    status, _, body = ask(site, "/v1/pvs?page_size=2", authorization=f"Bearer {site.key}")
    assert status == 200
    assert len(json.loads(body)["pvs"]) == 2


def test_it_lives_while_the_gateway_is_away_and_says_so(site: Site) -> None:
    replicas = len(site.pods("gateway"))
    (pod,) = site.pods("web").values()
    site.kubectl("scale", "deploy/drey-gateway", "--replicas=0")
    try:
        until(lambda: not site.pods("gateway"), "no gateway is there")

        def unready() -> bool:
            (found,) = site.pods("web").values()
            return not found["status"]["containerStatuses"][0]["ready"]

        until(unready, "the readiness probe finds the gateway away")
    finally:
        site.scale("gateway", replicas)
    until(lambda: ask(site, "/healthz")[0] == 200, "it answers again")
    (later,) = site.pods("web").values()
    assert later["metadata"]["uid"] == pod["metadata"]["uid"]
    assert later["status"]["containerStatuses"][0]["restartCount"] == 0
