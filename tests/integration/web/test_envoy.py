"""Envoy with nobody behind it: what it refuses by itself, and its life."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from drey_stack import Envoy, HttpOptions, StackError, free_port, is_free
from drey_stack.envoy_config import Upstream
from drey_stack.ports import LOOPBACK
from drey_testing.certificates import Authority
from tests.http_calls import HttpAnswer, call_http, send_raw

ORIGIN = "https://screens.example.org"
LIMIT = 100_000
WATCH = "/v1/values:watch"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Envoy before a gateway that is away: what it lets through is answered 503."""
    loop = asyncio.new_event_loop()
    options = HttpOptions(origins=[ORIGIN], max_body_bytes=LIMIT)
    envoy = Envoy(tmp_path_factory.mktemp("envoy"), Upstream(LOOPBACK, free_port()), options)
    loop.run_until_complete(envoy.start())
    yield envoy.url
    loop.run_until_complete(envoy.stop())
    loop.close()


def _passes(answer: HttpAnswer) -> bool:
    return answer.status == 503


async def test_it_starts_again_at_the_same_address(tmp_path: Path) -> None:
    upstream = Upstream(LOOPBACK, free_port())
    async with Envoy(tmp_path, upstream, HttpOptions()) as envoy:
        assert "deprecated" not in envoy.log_path.read_text().lower()
        url, pid = envoy.url, envoy.pid
        await envoy.kill()
        assert not psutil.pid_exists(pid or 0)
        await envoy.start()
        assert envoy.url == url
        found = psutil.Process(envoy.pid).net_connections(kind="tcp")
        assert {each.laddr.ip for each in found if each.status == "LISTEN"} == {LOOPBACK}
        assert (tmp_path / "envoy.json").stat().st_mode & 0o077 == 0
    assert is_free(envoy.port)
    async with Envoy(tmp_path, upstream, HttpOptions()) as again:
        assert again.url == url


async def test_a_gateway_elsewhere_is_believed_by_its_authority_and_name(tmp_path: Path) -> None:
    own, other = Authority(tmp_path / "own"), Authority(tmp_path / "other")
    pair = own.sign("gateway")
    server, health = grpc.aio.server(), HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    files = (pair.key.read_bytes(), pair.certificate.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([files]))
    await server.start()

    async def look(host: str, signer: Authority, told: str) -> int:
        """Status of its health, once the connection came to what is to be told."""
        upstream = Upstream(host, port, authority=signer.certificate)
        async with Envoy(tmp_path / told, upstream, HttpOptions()) as envoy:
            async with asyncio.timeout(120):
                while not re.search(rf"{told}: [1-9]", await _stats(envoy)):
                    await asyncio.sleep(0.1)
            return (await asyncio.to_thread(call_http, envoy.url, "GET", "/healthz")).status

    try:
        assert await look("localhost", own, "health_check.success") == 200
        assert await look("localhost", other, "ssl.fail_verify_error") == 503
        # reached all the same, and its certificate is of another name
        assert await look("127.0.0.1", own, "ssl.fail_verify_san") == 503
    finally:
        await server.stop(None)


async def _stats(envoy: Envoy) -> str:
    reader, writer = await asyncio.open_unix_connection(envoy._admin_socket)
    try:
        writer.write(b"GET /stats HTTP/1.1\r\nHost: drey\r\nConnection: close\r\n\r\n")
        await writer.drain()
        return (await reader.read()).decode()
    finally:
        writer.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "192.0.2.1:80", "[::]:80"])
def test_plain_text_stays_on_this_machine(listen: str, tmp_path: Path) -> None:
    upstream = Upstream(LOOPBACK, 1)
    with pytest.raises(StackError, match="DREY_TLS_CERT"):
        Envoy(tmp_path, upstream, HttpOptions(listen))
    Envoy(tmp_path, upstream, HttpOptions(listen, allow_insecure=True))


@pytest.mark.parametrize("listen", ["8080", "localhost:80", "127.0.0.1:http"])
def test_an_address_that_is_none_is_refused(listen: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="IP:PORT"):
        Envoy(tmp_path, Upstream(LOOPBACK, 1), HttpOptions(listen))


def test_a_gateway_that_is_away_is_told(url: str) -> None:
    answer = call_http(url, "GET", "/v1/pvs")
    assert answer.status == 503
    assert (answer.json["code"], answer.reason) == (14, "UPSTREAM_UNAVAILABLE")
    assert call_http(url, "GET", "/healthz").status == 503


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"selector": {}}, "selector"),
        ({"spec": {"selector": {"nams": ["A"]}}}, "spec.selector.nams"),
        ({"spec": {"selector": {"not": {"x": 1}}}}, None),
        ({"spec": {"selector": {"tags": [{"group": "A", "tg": "B"}]}}}, None),
        ({"": 1}, '""'),
        ({"s\u0070ec": {}, "sp\u00e9c": {}}, "sp\\u00e9c"),
    ],
)
def test_a_field_that_is_unknown_is_refused(url: str, body: Any, field: str | None) -> None:
    answer = call_http(url, "POST", WATCH, body)
    assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD"), answer.body
    (_, violations) = answer.json["details"]
    if field is not None:
        assert violations["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        {"spec": {"selector": {"names": ["A:B", 'quo"te', "back\\slash", "\u00fc\u2028"]}}},
        {"spec": {"form": "VALUE_FORM_ROWS", "selector": {"all": True}}},
        {"spec": {"form": 1}},
        {"spec": None},
        {},
    ],
)
def test_what_the_contracts_know_passes(url: str, body: Any) -> None:
    assert _passes(call_http(url, "POST", WATCH, body))
    assert _passes(call_http(url, "POST", WATCH, json.dumps(body, indent=3).encode()))
    assert _passes(call_http(url, "POST", WATCH, json.dumps(body, ensure_ascii=False).encode()))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"1",
        b'"spec"',
        b"{",
        b"{spec: {}}",
        b"{'spec': {}}",
        b'{"spec"}',
        b'{"spec": }',
        b'{"spec": {},}',
        b'{"spec": {}} {}',
        b'{"spec": {"selector": {"names": ["A" "B"]}}}',
        b'{"spec": {"selector": {"names": ["A',
        b'{"spec": {"selector": {"names": ["A\n"]}}}',
        b'{"spec":' * 300,
        b"\x00",
        b"\xff\xfe",
    ],
)
def test_what_is_not_json_is_refused(url: str, body: bytes) -> None:
    answer = call_http(url, "POST", WATCH, body)
    assert answer.status == 400
    assert answer.reason in {"MALFORMED_MESSAGE", "UNKNOWN_FIELD"}, answer.body


def test_a_label_that_is_unknown_is_refused(url: str) -> None:
    answer = call_http(url, "POST", WATCH, {"spec": {"form": "VALUE_FORM_ROW"}})
    assert (answer.status, answer.reason) == (400, "INVALID_FIELD"), answer.body
    answer = call_http(url, "GET", "/v1/jobs?states=JOB_STATE_SLEEPING")
    assert answer.status == 400, answer.body


@pytest.mark.parametrize(
    "query", ["nonsense=1", "page_size=1&x", "selector.nams=A", "page_size.x=1"]
)
def test_a_parameter_that_is_unknown_is_refused(url: str, query: str) -> None:
    answer = call_http(url, "GET", f"/v1/pvs?{query}")
    assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD"), answer.body
    assert _passes(call_http(url, "GET", "/v1/pvs?page_size=1&selector.names=A&selector.names=B"))
    assert _passes(call_http(url, "GET", "/v1/pvs?pageSize=1"))


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v1"),
        ("GET", "/v1/nonsense"),
        ("DELETE", "/v1/pvs"),
        ("PUT", "/v1/pvs/a"),
        ("GET", "/v1/pvs/a/b/c"),
        ("GET", "/admin"),
        ("GET", "/ready"),
        ("GET", "/stats"),
        ("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        ("POST", "/drey.internal.monitor.v1.ControlService/Claim"),
        ("POST", "/drey.catalog.v1.CatalogService/ListPvs"),
    ],
)
def test_no_other_path_leads_anywhere(url: str, verb: str, path: str) -> None:
    answer = call_http(url, verb, path, b"" if verb == "POST" else None)
    assert (answer.status, answer.reason) == (404, "UNKNOWN_METHOD"), answer.body


@pytest.mark.parametrize("verb", ["PUT", "POST", "DELETE", "PATCH", "TRACE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/openapi.json"])
def test_files_are_only_read(url: str, verb: str, path: str) -> None:
    answer = call_http(url, verb, path)
    assert (answer.status, answer.reason) == (404, "UNKNOWN_METHOD"), answer.body


WHO_AM_I = "/drey.access.v1.AccessService/WhoAmI"


@pytest.mark.parametrize(
    ("verb", "form"),
    [
        ("POST", "application/grpc-web+json"),
        ("POST", "application/grpc-webs"),
        ("POST", "application/json"),
        ("GET", "application/grpc-web+proto"),
        ("PUT", "application/grpc-web+proto"),
    ],
)
def test_what_the_gateway_does_not_read_is_no_method(url: str, verb: str, form: str) -> None:
    """Nothing is said of a gateway that is away: nobody asks it."""
    answer = call_http(url, verb, WHO_AM_I, b"\0\0\0\0\0", content_type=form)
    assert answer.status == 404
    said = answer.reason if "json" in answer.headers["content-type"] else answer.grpc_reason
    assert said == "UNKNOWN_METHOD"


def test_a_refusal_by_grpc_web_has_its_reason_and_a_text(url: str) -> None:
    form = "application/grpc-web+proto"
    away = call_http(url, "POST", WHO_AM_I, b"\0\0\0\0\0", content_type=form)
    assert away.headers["grpc-status"] == "14"
    assert away.grpc_reason == "UPSTREAM_UNAVAILABLE"
    assert away.headers["grpc-message"].startswith("the gateway does not answer")


@pytest.mark.parametrize("path", ["/v1/pvs/%2F", "/v1/pvs/%00", "/assets/..%2f..%2fetc/passwd"])
def test_a_path_that_is_refused_is_told_why(url: str, path: str) -> None:
    answer = call_http(url, "GET", path)
    assert (answer.status, answer.reason) == (400, "MALFORMED_MESSAGE"), answer.body
    assert "path_normalization_failed" in answer.json["message"]


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "reason"),
    [
        (b"GET /v1/whoami HTTP/1.0", b"", 426, "MALFORMED_MESSAGE"),
        (b"GET /v1/whoami HTTP/7.1", b"", 426, "MALFORMED_MESSAGE"),
        (b"GET /v1/whoami", b"", 426, "MALFORMED_MESSAGE"),
        (b"get /v1/whoami HTTP/1.1", b"", 400, "MALFORMED_MESSAGE"),
        (b"GET /v1/pvs?search=a b HTTP/1.1", b"", 400, "MALFORMED_MESSAGE"),
        (b"GET /v1/pvs?search=\xff HTTP/1.1", b"", 400, "MALFORMED_MESSAGE"),
        (b"GET /v1/pvs?search=%s HTTP/1.1" % (b"a" * 40_000), b"", 431, "MESSAGE_TOO_LARGE"),
        (b"GET /v1/whoami HTTP/1.1", b"x: %s\r\n" % (b"a" * 40_000), 431, "MESSAGE_TOO_LARGE"),
        (
            b"GET /v1/whoami HTTP/1.1",
            b"".join(b"x%d: 1\r\n" % number for number in range(200)),
            431,
            "MESSAGE_TOO_LARGE",
        ),
        (b"POST /v1/pvs HTTP/1.1", b"content-length: -1\r\n", 400, "MALFORMED_MESSAGE"),
        (b"POST /v1/pvs HTTP/1.1", b"transfer-encoding: other\r\n", 501, "MALFORMED_MESSAGE"),
        (
            b"GET /v1/whoami HTTP/1.1",
            b"connection: upgrade\r\nupgrade: websocket\r\n",
            403,
            "UNKNOWN_METHOD",
        ),
    ],
    ids=range(12),
)
def test_what_is_hardly_http_is_refused_with_a_reason(
    url: str, request_line: bytes, headers: bytes, status: int, reason: str
) -> None:
    answer = send_raw(url, request_line + b"\r\nhost: drey\r\n" + headers + b"\r\n")
    assert (answer.status, answer.reason) == (status, reason), answer.body


@pytest.mark.parametrize("path", [WATCH, WHO_AM_I])
async def test_a_request_that_never_ends_is_ended(tmp_path: Path, path: str) -> None:
    options = HttpOptions(request_timeout_s=0.2)
    head = f"POST {path} HTTP/1.1\r\nhost: drey\r\ncontent-length: 100\r\n"
    if path == WHO_AM_I:
        head += "content-type: application/grpc-web+proto\r\n"
    async with silent_gateway() as upstream, Envoy(tmp_path, upstream, options) as envoy:
        answer = await asyncio.to_thread(send_raw, envoy.url, head.encode() + b"\r\n{")
    reason = answer.reason if path == WATCH else answer.grpc_reason
    assert (answer.status, reason) == (408, "DEADLINE_EXCEEDED")


@asynccontextmanager
async def silent_gateway() -> AsyncIterator[Upstream]:
    """It takes what comes, and says nothing."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, LOOPBACK, 0) as server:
        yield Upstream(LOOPBACK, server.sockets[0].getsockname()[1])


def test_a_body_above_the_limit_is_refused(url: str) -> None:
    body = {"spec": {"selector": {"names": ["A" * LIMIT]}}}
    answer = call_http(url, "POST", WATCH, body)
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE"), answer.body
    body = {"spec": {"selector": {"names": ["A" * (LIMIT - 1000)]}}}
    assert _passes(call_http(url, "POST", WATCH, body))


@pytest.mark.parametrize("path", [WATCH, "/drey.monitor.v1.MonitorService/WatchPvs"])
def test_pages_of_named_sites_may_call(url: str, path: str) -> None:
    asked = {"access_control_request_method": "POST"}
    answer = call_http(url, "OPTIONS", path, origin=ORIGIN, **asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in answer.headers["access-control-allow-headers"]
    answer = call_http(url, "OPTIONS", path, origin="https://elsewhere.example.org", **asked)
    assert "access-control-allow-origin" not in answer.headers
    answer = call_http(url, "POST", WATCH, {}, origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_the_document_of_the_routes_is_served(url: str) -> None:
    answer = call_http(url, "GET", "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert "/v1/snapshots/{spec.reference.snapshot_id}:compare" in answer.json["paths"]


def test_the_page_is_sent_compressed_to_who_accepts_it(url: str) -> None:
    """The script is nearly the whole weight of a first look at the page."""
    index = call_http(url, "GET", "/")
    files = re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', index.body.decode())
    assert {file.rpartition(".")[2] for file in files} == {"js", "css"}
    for path in (*files, "/openapi.json"):
        plain = call_http(url, "GET", path)
        small = call_http(url, "GET", path, accept_encoding="gzip")
        assert "content-encoding" not in plain.headers
        assert small.headers["content-encoding"] == "gzip"
        assert small.headers["vary"].lower() == "accept-encoding"
        assert gzip.decompress(small.body) == plain.body
        assert len(small.body) < 0.4 * len(plain.body)
