"""The same calls over HTTP as over gRPC: REST, streams, gRPC-Web, a page of another site."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_service_pb2
from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2
from drey_stack.descriptors import public_contracts
from drey_stack.strict_json import VARIABLE, http_rules
from tests.e2e.conftest import ORIGIN, Running
from tests.e2e.test_every_rpc import Caller
from tests.http_calls import HANGS_S, HttpAnswer, call_http, grpc_web_frames, open_call

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOBODY = str(uuid4())
NOBODY_NUMBER = 1 << 40
WATCH = "/v1/values:watch"


@dataclass(frozen=True)
class Route:
    """One way to one method; `names` are the fields that its path gives."""

    method: MethodDescriptor
    verb: str
    template: str
    has_body: bool

    @property
    def names(self) -> list[str]:
        return VARIABLE.findall(self.template)

    @property
    def path(self) -> str:
        return VARIABLE.sub(lambda found: str(self.nobody(found[1])), self.template)

    def nobody(self, name: str) -> str | int:
        """What names nothing that exists, for a field that the path gives."""
        *outer, last = name.split(".")
        message: Any = self.method.input_type
        for part in outer:
            message = message.fields_by_name[part].message_type
        is_text = message.fields_by_name[last].type == FieldDescriptor.TYPE_STRING
        return NOBODY if is_text else NOBODY_NUMBER

    @property
    def reads(self) -> bool:
        options = self.method.GetOptions()
        return bool(options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


def _routes() -> list[Route]:
    _, services = public_contracts()
    pool = descriptor_pool.Default()
    return [
        Route(method, verb, template, bool(rule.body))
        for service in services
        for method in pool.FindServiceByName(service).methods
        for verb, template, rule in http_rules(method)
    ]


ROUTES = _routes()


def _call(running: Running, route: Route, query: str = "", body: Any = None) -> HttpAnswer:
    """One answer; the first message of a stream."""
    if body is None and route.has_body:
        body = {}
    raw = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {running.stack.key}"}
    path = f"{route.path}?{query}" if query else route.path
    with open_call(running.stack.web, route.verb, path, raw, **headers) as response:
        whole = response.status != 200 or not route.method.server_streaming
        content = response.read() if whole else response.readline()
        return HttpAnswer(response.status, dict(response.getheaders()), content)


def test_every_service_has_routes() -> None:
    _, services = public_contracts()
    assert {route.method.containing_service.full_name for route in ROUTES} == set(services)
    assert len(ROUTES) > 60


def test_without_a_key_no_route_leads_anywhere(running: Running) -> None:
    for route in ROUTES:
        body = {} if route.has_body else None
        answer = call_http(running.stack.web, route.verb, route.path, body)
        assert (answer.status, answer.reason) == (401, "UNAUTHENTICATED"), (route, answer.body)


def test_an_unknown_parameter_is_refused_on_every_route(running: Running) -> None:
    for route in ROUTES:
        answer = _call(running, route, query="nonsense=1")
        assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD"), (route, answer.body)
        if route.has_body:
            answer = _call(running, route, body={"nonsense": 1})
            assert (answer.status, answer.reason) == (400, "UNKNOWN_FIELD"), (route, answer.body)


def test_every_route_answers_as_grpc_does(running: Running) -> None:
    """A request of nothing but what the path gives, which names nothing that exists."""
    call = Caller(running)
    for route in ROUTES:
        request = message_factory.GetMessageClass(route.method.input_type)()
        for name in route.names:
            *outer, last = name.split(".")
            inner: Any = request
            for part in outer:
                inner = getattr(inner, part)
            setattr(inner, last, route.nobody(name))
        by_grpc = call(route.method, request)
        by_http = _call(running, route)
        assert by_http.reason == by_grpc.reason, (route, by_http.body, by_grpc)
        # a stream that nothing ends is cut by the caller when it has seen enough of it
        answered = by_grpc.code is grpc.StatusCode.OK or by_grpc.messages > 0
        assert (by_http.status == 200) == answered, (route, by_grpc)
        if by_http.status != 200:
            assert by_http.json["code"] == by_grpc.code.value[0], (route, by_http.body)
            assert by_http.json["message"] == by_grpc.text, (route, by_http.body)


def test_an_answer_is_the_same_message(running: Running) -> None:
    query = urlencode({"selector.all": "true", "page_size": 10})
    answer = call_http(running.stack.web, "GET", f"/v1/pvs?{query}", key=running.stack.key)
    by_http = json_format.ParseDict(answer.json, catalog_service_pb2.ListPvsResponse())
    request = catalog_service_pb2.ListPvsRequest(
        selector=selector_pb2.Selector(all=True), page_size=10
    )
    by_grpc = running.catalog.ListPvs(request, **running.call())
    assert by_http.pvs == by_grpc.pvs


def _some_names(running: Running) -> list[str]:
    answer = call_http(running.stack.web, "GET", "/v1/pvs?page_size=20", key=running.stack.key)
    return [pv["name"] for pv in answer.json["pvs"]]


def _until_baseline(messages: Iterator[dict[str, Any]]) -> set[str]:
    """Names of the rows up to the end of the baseline."""
    return _read_baseline(messages)[0]


def _read_baseline(messages: Iterator[dict[str, Any]]) -> tuple[set[str], bool, str]:
    """Names of the rows up to the end of the baseline, whether what was held before stays, and the
    token at its end."""
    names: set[str] = set()
    keeps = False
    for message in messages:
        keeps |= message.get("baselineBegin", {}).get("keepsState", False)
        names |= {row["name"] for row in message.get("baseline", {}).get("rows", ())}
        if "baselineEnd" in message:
            return names, keeps, message["baselineEnd"]["token"]
    raise AssertionError("the stream ended before its baseline")


@contextmanager
def _watch(
    running: Running, names: list[str], accept: str, **more: str
) -> Iterator[tuple[Any, Iterator[dict[str, Any]]]]:
    """A watch by REST: the answer, and its messages."""
    body = json.dumps({"spec": {"selector": {"names": names}}, **more}).encode()
    headers = {"authorization": f"Bearer {running.stack.key}", "accept": accept}
    with open_call(running.stack.web, "POST", WATCH, body, **headers) as response:
        assert response.status == 200
        lines = filter(None, (line.strip() for line in response))
        yield response, (json.loads(line.removeprefix(b"data: ")) for line in lines)


@pytest.mark.parametrize(
    ("accept", "form"),
    [("*/*", "application/x-ndjson"), ("text/event-stream", "text/event-stream")],
)
def test_a_watch_by_rest_goes_on_from_its_token(running: Running, accept: str, form: str) -> None:
    wanted = _some_names(running)
    with _watch(running, wanted, accept) as (response, messages):
        assert response.headers["content-type"] == form
        names, keeps, token = _read_baseline(messages)
        assert names == set(wanted) and not keeps
        # it goes on: what follows is later than the baseline
        assert {"checkpoint", "diff"} & set(next(messages))
    with _watch(running, wanted, accept, token=token) as (_, messages):
        names, keeps, _ = _read_baseline(messages)
        assert keeps and names <= set(wanted)
    # what is watched is another thing
    with _watch(running, wanted[1:], accept, token=token) as (_, messages):
        names, keeps, _ = _read_baseline(messages)
        assert names == set(wanted[1:]) and not keeps


def test_a_watch_by_grpc_web(running: Running) -> None:
    wanted = _some_names(running)
    selector = selector_pb2.Selector(names=wanted)
    request = monitor_service_pb2.WatchPvsRequest(spec=watch_pb2.WatchSpec(selector=selector))
    frames = grpc_web_frames(
        running.stack.web, "/drey.monitor.v1.MonitorService/WatchPvs", request, running.stack.key
    )
    answers = (
        monitor_service_pb2.WatchPvsResponse.FromString(frame)
        for frame in frames
        if isinstance(frame, bytes)
    )
    assert _until_baseline(map(json_format.MessageToDict, answers)) == set(wanted)
    frames.close()  # type: ignore[attr-defined]


def test_a_refusal_by_grpc_web_has_its_reason(running: Running) -> None:
    method = "/drey.monitor.v1.MonitorService/WatchPvs"
    *_, trailers = grpc_web_frames(
        running.stack.web, method, monitor_service_pb2.WatchPvsRequest(), running.stack.key
    )
    assert isinstance(trailers, dict)
    assert trailers["grpc-status"] == str(grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert trailers["grpc-status-details-bin"]


def test_what_is_no_base64_is_refused_with_a_reason(running: Running) -> None:
    answer = call_http(
        running.stack.web,
        "POST",
        "/drey.access.v1.AccessService/WhoAmI",
        b"!!!!!",
        key=running.stack.key,
        content_type="application/grpc-web-text",
    )
    assert answer.grpc_reason == "MALFORMED_MESSAGE"
    assert answer.headers["grpc-message"].startswith("Bad gRPC-web request")


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        (b"", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        (b"\0\0\0", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        (b"\0\0\0\0\x09ab", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        (b"\0\0\0\0\x02\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE"),
        # gRPC itself refuses these two, before anything of ours is called, in plain gRPC too
        (b"\x01\0\0\0\x02ab", grpc.StatusCode.INTERNAL, ""),
        (b"\0\xff\xff\xff\xffab", grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
    ],
)
def test_a_broken_frame_of_grpc_web_is_answered_in_words(
    running: Running, frames: bytes, code: grpc.StatusCode, reason: str
) -> None:
    answer = call_http(
        running.stack.web,
        "POST",
        "/drey.access.v1.AccessService/WhoAmI",
        frames,
        key=running.stack.key,
        content_type="application/grpc-web+proto",
    )
    assert answer.status == 200
    assert answer.headers["grpc-status"] == str(code.value[0])
    assert answer.headers["grpc-message"]
    if reason:
        assert answer.grpc_reason == reason
    else:
        assert "grpc-status-details-bin" not in answer.headers


def test_a_page_of_a_named_site_reads_answers(running: Running) -> None:
    answer = call_http(running.stack.web, "GET", "/v1/whoami", key=running.stack.key, origin=ORIGIN)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_a_long_address_reaches_the_gateway(running: Running) -> None:
    query = urlencode({"search": "a" * 31_000})
    answer = call_http(running.stack.web, "GET", f"/v1/pvs?{query}", key=running.stack.key)
    assert (answer.status, answer.reason) == (400, "INVALID_FIELD"), answer.body


@pytest.mark.parametrize("timeout", ["1n", "nonsense"])
def test_a_timeout_of_grpc_means_nothing_to_rest(running: Running, timeout: str) -> None:
    headers = {"key": running.stack.key, "grpc_timeout": timeout}
    answer = call_http(running.stack.web, "GET", "/v1/whoami", **headers)
    assert answer.status == 200, answer.body


def test_any_character_of_a_name_survives_a_path_and_a_query(running: Running) -> None:
    for character in map(chr, range(0x21, 0x7F)):
        name = f"A{character}B"
        query = urlencode({"name": name})
        answer = call_http(
            running.stack.web, "GET", f"/v1/pvs:lookup?{query}", key=running.stack.key
        )
        assert answer.reason in {"NOT_FOUND", "INVALID_FIELD"}, (name, answer.body)
        assert answer.reason == "INVALID_FIELD" or name in answer.json["message"], answer.body


def test_the_audit_names_the_host_that_called_envoy_and_not_what_it_says(running: Running) -> None:
    """Nor does the gateway believe a client of its own that says it speaks for another."""
    forged = {"x-forwarded-for": "203.0.113.9", "x-drey-proxy": "x"}
    body = {"name": f"peer-{uuid4()}", "grants": [{"role": "viewer"}], "request_id": str(uuid4())}
    connection = http.client.HTTPConnection(
        urlsplit(running.stack.web).netloc, timeout=HANGS_S, source_address=("127.0.0.7", 0)
    )
    headers = {**forged, "authorization": f"Bearer {running.stack.key}"}
    connection.request("POST", "/v1/keys", json.dumps(body), headers)
    made = json.load(connection.getresponse())
    connection.close()
    request = access_service_pb2.RevokeKeyRequest(id=made["key"]["id"])
    direct = [*running.metadata(), *forged.items()]
    access_service_pb2_grpc.AccessServiceStub(running.channel).RevokeKey(
        request, metadata=direct, timeout=HANGS_S
    )
    listed = call_http(
        running.stack.web,
        "GET",
        f"/v1/audit/events?{urlencode({'target': 'keys/' + made['key']['id']})}",
        key=running.stack.key,
    )
    addresses = {event["action"]: event["address"] for event in listed.json["events"]}
    assert addresses == {"access.key.create": "127.0.0.7", "access.key.revoke": "127.0.0.1"}


def test_health_needs_no_key(running: Running) -> None:
    assert call_http(running.stack.web, "GET", "/healthz").status == 200


def test_the_document_has_every_route(running: Running) -> None:
    paths = call_http(running.stack.web, "GET", "/openapi.json").json["paths"]
    found = {(verb.upper(), path) for path, verbs in paths.items() for verb in verbs}
    assert found == {(route.verb, route.template) for route in ROUTES}


def test_the_address_is_in_the_clients_file(running: Running) -> None:
    text = (running.stack.folder / "client.toml").read_text()
    assert f'web = "{running.stack.web}"\n' in text


def test_it_comes_back_when_somebody_kills_it(running: Running) -> None:
    envoy, url = running.stack.envoy, running.stack.web
    assert envoy is not None and envoy.pid is not None
    started = envoy.folder / "port"  # written when it answers
    started.unlink()
    os.kill(envoy.pid, signal.SIGKILL)
    running.pump(started.exists)
    assert running.stack.web == url
    answer = call_http(url, "GET", "/v1/whoami", key=running.stack.key)
    assert answer.status == 200, answer.body


def test_every_line_of_the_page_works(running: Running, tmp_path: Path) -> None:
    (tmp_path / ".drey").symlink_to(running.stack.folder)
    page = (ROOT / "docs" / "how-to" / "rest.md").read_text()
    script = "set -e\n" + "\n".join(_BLOCK.findall(page))
    assert script.count("curl") > 8
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"baselineEnd"' in done.stdout
    assert '"reason"' not in done.stdout, done.stdout
    named = set(re.findall(r"(GET|POST|PATCH|DELETE) (/v1/[^`?]*)", page))
    assert named <= {(route.verb, route.template) for route in ROUTES}
