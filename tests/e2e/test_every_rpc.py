"""Every RPC against bad input, found by reflection: a new one is covered without being named.

Each case sends one bad request and looks at status, reason and field. Around all of them the state
of the system is held against what it was: nothing may have changed.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import drey
from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_service_pb2
from drey.common.v1 import annotations_pb2, selector_pb2
from drey.job.v1 import job_service_pb2, job_service_pb2_grpc
from drey.restore.v1 import restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_service_pb2
from drey_core.permissions import ROLES, holders_of
from drey_testing.requests import limits_of, valid_request
from tests.e2e.conftest import Running

EVERY_CHARACTER = "ABCxyz0189_-:.[]<>;$#@!%&*()=+{}|\\/?,'\"~^`é"
HANGS_S = 60.0
QUIET_S = 3.0
"""How long one looks at a stream that has no end and nothing to say."""
BAD_NAMES = ("two words", "tab\tbed", "new\nline", "nul\x00", "x" * 501)


@dataclass
class Answer:
    """How a call ended; `reason` and `field` from the status details."""

    code: grpc.StatusCode
    reason: str = ""
    fields: tuple[str, ...] = ()
    text: str = ""
    messages: int = 0


def _methods_of(channel: grpc.Channel, metadata: Any) -> list[MethodDescriptor]:
    """All methods that the gateway's reflection shows, but for health and reflection itself."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=60)
    for module in pkgutil.walk_packages(drey.__path__, "drey."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    pool = descriptor_pool.Default()
    services = [s.name for s in answer.list_services_response.service]
    return [
        method
        for name in sorted(services)
        if name.startswith("drey.")
        for method in pool.FindServiceByName(name).methods
    ]


def _fields(
    descriptor: Descriptor, path: str = "", depth: int = 0
) -> Iterator[tuple[str, tuple[FieldDescriptor, ...]]]:
    """(path, chain of fields) of every field of a message, nested ones of ours included."""
    for field in descriptor.fields:
        name = path + field.name
        yield name, (field,)
        nested = field.message_type
        if nested is not None and nested.full_name.startswith("drey.") and depth < 2:
            prefix = f"{name}[0]." if field.is_repeated else f"{name}."
            for inner, chain in _fields(nested, prefix, depth + 1):
                yield inner, (field, *chain)


def _set(message: Message, chain: tuple[FieldDescriptor, ...], value: Any) -> None:
    """Set the last field of the chain (its first element, where it is a list)."""
    for field in chain[:-1]:
        target = getattr(message, field.name)
        if field.is_repeated:
            message = target[0] if len(target) else target.add()
        else:
            if not message.HasField(field.name):
                target.CopyFrom(valid_request(field.message_type))
                target.SetInParent()
            message = target
    last = chain[-1]
    if last.is_repeated:
        del getattr(message, last.name)[:]
        getattr(message, last.name).extend(value if isinstance(value, list) else [value])
    else:
        setattr(message, last.name, value)


class Caller:
    """Calls any method with any request and says how it ended."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def __call__(
        self,
        method: MethodDescriptor,
        request: Message | bytes,
        *,
        role: str | None = "ADMIN",
        key: str = "",
        timeout: float = 0.0,
    ) -> Answer:
        path = f"/{method.containing_service.full_name}/{method.name}"
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        metadata: Any = ()
        if key:
            metadata = (("authorization", f"Bearer {key}"),)
        elif role is not None:
            metadata = self._running.metadata(role)
        call = self._running.channel.stream_stream(path, None, None)(
            iter([raw]), metadata=metadata, timeout=timeout or _patience(method)
        )
        count = 0
        try:
            for _ in call:
                count += 1
                if method.server_streaming and count >= 3:
                    call.cancel()
                    return Answer(grpc.StatusCode.OK, messages=count)
        except grpc.RpcError as error:
            answer = _answer(error, count)
            for path in answer.fields:
                assert _leads_to_a_field(method.input_type, path), (_label(method), answer)
            return answer
        return Answer(call.code(), messages=count)


def _leads_to_a_field(message: Descriptor | None, path: str) -> bool:
    """Whether a path that an answer names is one of the request that was sent."""
    for name in re.sub(r"\[[^]]*\]", "", path).split("."):
        if message is None:
            return False
        if name.isdigit():  # a field that nobody knows here
            return True
        if name in message.oneofs_by_name:
            continue
        field = message.fields_by_name.get(name)
        if field is None:
            return False
        message = field.message_type
    return True


def _patience(method: MethodDescriptor) -> float:
    not_built = method.GetOptions().Extensions[annotations_pb2.not_built]
    endless = method.server_streaming and "Watch" in method.name and not not_built
    return QUIET_S if endless else HANGS_S


def _answer(error: Any, count: int) -> Answer:
    answer = Answer(error.code(), text=error.details() or "", messages=count)
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                answer.reason = info.reason
                assert info.domain == "drey"
                told = info.metadata.get("field", "")
                answer.fields = answer.fields or ((told,) if told else ())
            elif detail.Unpack(bad):
                answer.fields = tuple(v.field for v in bad.field_violations)
    return answer


@pytest.fixture(scope="module")
def methods(running: Running) -> list[MethodDescriptor]:
    found = _methods_of(running.channel, running.metadata())
    assert len(found) > 60
    return found


@pytest.fixture(scope="module")
def readers(methods: list[MethodDescriptor], call: Caller) -> list[MethodDescriptor]:
    """Methods that look at their requests: an unbuilt one with a stream of them reads none."""

    def reads(method: MethodDescriptor) -> bool:
        if not method.client_streaming:
            return True
        return call(method, valid_request(method.input_type)).code != grpc.StatusCode.UNIMPLEMENTED

    return [method for method in methods if reads(method)]


@pytest.fixture(scope="module")
def call(running: Running) -> Caller:
    return Caller(running)


def _fingerprint(running: Running) -> tuple[object, ...]:
    """What bad requests could have changed."""
    jobs = job_service_pb2_grpc.JobServiceStub(running.channel)
    restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
    access = access_service_pb2_grpc.AccessServiceStub(running.channel)
    total = running.catalog.ListPvs(
        catalog_service_pb2.ListPvsRequest(include_deleted=True), **running.call()
    ).total_size
    groups = running.catalog.ListTagGroups(
        catalog_service_pb2.ListTagGroupsRequest(page_size=1000), **running.call()
    )
    return (
        total,
        groups.SerializeToString(deterministic=True),
        running.snapshots.ListSnapshots(
            snapshot_service_pb2.ListSnapshotsRequest(page_size=1000), **running.call()
        ).SerializeToString(deterministic=True),
        restores.ListPlans(
            restore_service_pb2.ListPlansRequest(page_size=1000), **running.call()
        ).SerializeToString(deterministic=True),
        restores.ListRestores(
            restore_service_pb2.ListRestoresRequest(page_size=1000), **running.call()
        ).SerializeToString(deterministic=True),
        len(jobs.ListJobs(job_service_pb2.ListJobsRequest(page_size=1000), **running.call()).jobs),
        len(
            access.ListKeys(
                access_service_pb2.ListKeysRequest(page_size=1000), **running.call()
            ).keys
        ),
    )


@pytest.fixture(autouse=True)
def nothing_changes(running: Running) -> Iterator[None]:
    before = _fingerprint(running)
    yield
    assert _fingerprint(running) == before, "a refused request changed something"


def _label(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def test_every_rpc_has_a_permission_that_somebody_holds(methods: list[MethodDescriptor]) -> None:
    for method in methods:
        assert holders_of(_permission(method)), _label(method)


def test_without_a_key_nothing_is_served(methods: list[MethodDescriptor], call: Caller) -> None:
    for method in methods:
        answer = call(method, valid_request(method.input_type), role=None)
        assert answer.code == grpc.StatusCode.UNAUTHENTICATED, (_label(method), answer)
        assert answer.reason == "UNAUTHENTICATED", _label(method)


def test_an_unknown_and_a_revoked_key_are_refused(
    methods: list[MethodDescriptor], call: Caller
) -> None:
    for method in methods:
        answer = call(method, valid_request(method.input_type), key="drey_00000000_nonsense")
        assert answer.code == grpc.StatusCode.UNAUTHENTICATED, (_label(method), answer)
        answer = call(method, valid_request(method.input_type), role="REVOKED")
        assert answer.code == grpc.StatusCode.UNAUTHENTICATED, (_label(method), answer)
        assert answer.reason == "KEY_REVOKED", (_label(method), answer)


def _permission(method: MethodDescriptor) -> str:
    return str(method.GetOptions().Extensions[annotations_pb2.permission])


def test_who_lacks_the_permission_is_refused(methods: list[MethodDescriptor], call: Caller) -> None:
    for method in methods:
        for role in set(ROLES) - set(holders_of(_permission(method))):
            answer = call(method, valid_request(method.input_type), role=role.upper())
            assert answer.code == grpc.StatusCode.PERMISSION_DENIED, (_label(method), answer)
            assert answer.reason == "PERMISSION_DENIED", _label(method)


def test_what_is_called_not_built_is_not_and_all_else_is(
    methods: list[MethodDescriptor], call: Caller
) -> None:
    for method in methods:
        options = method.GetOptions()
        not_built = options.Extensions[annotations_pb2.not_built]
        if not_built or options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
            answer = call(method, valid_request(method.input_type))
            assert (answer.reason == "NOT_IMPLEMENTED") == not_built, (_label(method), answer)


def _assert_invalid(answer: Answer, label: str, path: str, reason: str = "") -> None:
    """INVALID_ARGUMENT naming the field."""
    assert answer.code == grpc.StatusCode.INVALID_ARGUMENT, (label, path, answer)
    assert answer.fields, (label, path, answer)
    assert answer.fields[0].split("[")[0] == path.split("[", maxsplit=1)[0], (label, path, answer)
    if reason:
        assert answer.reason == reason, (label, path, answer)


def test_required_fields_are_required(readers: list[MethodDescriptor], call: Caller) -> None:
    for method in readers:
        required = [f for f in method.input_type.fields if limits_of(f).required]
        for field in required:
            request = valid_request(method.input_type)
            request.ClearField(field.name)
            _assert_invalid(call(method, request), _label(method), field.name)


def test_an_empty_request_is_never_a_defect(methods: list[MethodDescriptor], call: Caller) -> None:
    for method in methods:
        answer = call(method, b"")
        assert answer.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), (
            _label(method),
            answer,
        )


def test_garbage_bytes_are_never_a_success(methods: list[MethodDescriptor], call: Caller) -> None:
    for method in methods:
        if not method.input_type.fields:
            continue
        answer = call(method, b"\x0a\xff\xff\xff\xff\x0f garbage", timeout=60)
        assert answer.code != grpc.StatusCode.OK, (_label(method), answer)
        assert answer.reason in {"MALFORMED_MESSAGE", "NOT_IMPLEMENTED"}, (_label(method), answer)


UNKNOWN = b"\x92\xfa\x01\x01x"  # field 4002


def _with_unknown_field(request: Message, chain: tuple[FieldDescriptor, ...]) -> bytes:
    """The request's bytes with a field of the future in the message that `chain` leads to."""
    message = request
    for field in chain:
        inner = getattr(message, field.name)
        if field.is_repeated:
            message = inner[0] if len(inner) else inner.add()
        else:
            inner.SetInParent()
            message = inner
    message.MergeFromString(UNKNOWN)
    return request.SerializeToString()


def test_a_call_that_acts_refuses_what_it_does_not_know(
    readers: list[MethodDescriptor], call: Caller
) -> None:
    seen = 0
    for method in readers:
        nested = [
            (name, chain)
            for name, chain in _fields(method.input_type)
            if chain[-1].message_type is not None
            and chain[-1].message_type.full_name.startswith("drey.")
        ]
        acts = method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        for name, chain in [("", ()), *nested]:
            raw = _with_unknown_field(valid_request(method.input_type), chain)
            answer = call(method, raw)
            if acts:
                path = f"{name}[0].4002" if chain and chain[-1].is_repeated else f"{name}.4002"
                _assert_invalid(answer, _label(method), path.lstrip("."), "UNKNOWN_FIELD")
                seen += 1
            else:
                assert answer.reason != "UNKNOWN_FIELD", (_label(method), answer)
    assert seen > 60


def test_malformed_ids_name_their_field(readers: list[MethodDescriptor], call: Caller) -> None:
    seen = 0
    for method in readers:
        for path, chain in _fields(method.input_type):
            if limits_of(chain[-1]).uuid:
                request = valid_request(method.input_type)
                _set(request, chain, "not-a-uuid")
                _assert_invalid(call(method, request), _label(method), path, "MALFORMED_ID")
                seen += 1
    assert seen > 50


def test_unknown_ids_are_not_found(methods: list[MethodDescriptor], call: Caller) -> None:
    accepted = {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
    for method in methods:
        required = [
            f for f in method.input_type.fields if limits_of(f).required and limits_of(f).uuid
        ]
        if required:
            answer = call(method, valid_request(method.input_type))
            assert answer.code in accepted, (_label(method), answer)
            assert answer.reason in {"NOT_FOUND", "NOT_IMPLEMENTED", "INVALID_FIELD"}, (
                _label(method),
                answer,
            )


def test_too_many_elements_are_refused(readers: list[MethodDescriptor], call: Caller) -> None:
    for method in readers:
        for path, chain in _fields(method.input_type):
            most, field = limits_of(chain[-1]).max_items, chain[-1]
            if not most or len(chain) > 2 or any(f.is_repeated for f in chain[:-1]):
                continue
            if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
                value = [
                    str(uuid4()) if limits_of(field).uuid else f"N{i}" for i in range(most + 1)
                ]
            elif field.message_type is None:
                value = [1] * (most + 1)
            else:
                continue
            request = valid_request(method.input_type)
            _set(request, chain, value)
            if request.ByteSize() >= 4 << 20:
                continue
            _assert_invalid(call(method, request), _label(method), path, "TOO_MANY")


def test_100_000_names_are_taken(methods: list[MethodDescriptor], call: Caller) -> None:
    """Refused because they are not there, not because they are many."""
    for method in methods:
        for path, chain in _fields(method.input_type):
            if not path.endswith("selector.names") or len(chain) != 2:
                continue
            request = valid_request(method.input_type)
            _set(request, chain, [f"NO:SUCH:{i}" for i in range(100_000)])
            answer = call(method, request, timeout=HANGS_S)
            assert answer.code not in {
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.UNKNOWN,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            }, (_label(method), answer)
            assert answer.reason not in {"TOO_MANY", "MESSAGE_TOO_LARGE"}, (_label(method), answer)


def test_names_of_every_allowed_character_pass_and_others_do_not(
    readers: list[MethodDescriptor], call: Caller
) -> None:
    for method in readers:
        for path, chain in _fields(method.input_type):
            if not limits_of(chain[-1]).epics_name or any(f.is_repeated for f in chain[:-1]):
                continue
            if chain[-1].containing_oneof is not None:
                continue
            for name in BAD_NAMES:
                request = valid_request(method.input_type)
                _set(request, chain, name)
                _assert_invalid(call(method, request), _label(method), path, "INVALID_FIELD")
            if path.endswith("selector.names"):
                request = valid_request(method.input_type)
                _set(request, chain, [EVERY_CHARACTER, EVERY_CHARACTER])
                answer = call(method, request, timeout=60)
                assert path not in answer.fields, (_label(method), answer)
                assert answer.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def test_an_empty_selector_is_not_everything(methods: list[MethodDescriptor], call: Caller) -> None:
    seen = 0
    for method in methods:
        for path, chain in _fields(method.input_type):
            field = chain[-1]
            if field.message_type is None or field.message_type.name != "Selector":
                continue
            if len(chain) > 1:
                continue
            request = valid_request(method.input_type)
            getattr(request, field.name).Clear()
            getattr(request, field.name).SetInParent()
            answer = call(method, request)
            if answer.code == grpc.StatusCode.UNIMPLEMENTED:
                continue
            assert answer.code in {
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
            }, (_label(method), path, answer)
            if answer.code == grpc.StatusCode.INVALID_ARGUMENT and path in answer.fields:
                assert answer.reason == "EMPTY_SELECTOR", (_label(method), answer)
                seen += 1
    assert seen >= 6


WRONG_SELECTORS = {
    "": selector_pb2.Selector(),
    ".all": selector_pb2.Selector(all=True, names=["A"]),
    ".globs[0]": selector_pb2.Selector(globs=[""]),
    ".tags[0].group": selector_pb2.Selector(tags=[selector_pb2.TagFilter()]),
    ".names[0]": selector_pb2.Selector(names=["NO:SUCH:PV"]),
    ".ids[0]": selector_pb2.Selector(ids=[str(uuid4())]),
    ".scope": selector_pb2.Selector(scope="no such scope"),
    ".excluding.all": selector_pb2.Selector(
        all=True, excluding=selector_pb2.Selector(all=True, names=["A"])
    ),
}
"""By what of each is at fault."""


def test_what_is_wrong_with_a_selector_is_told_by_where_it_stands(
    readers: list[MethodDescriptor], call: Caller
) -> None:
    """Also where another service evaluates it, and wherever in the request it is."""
    told = set()
    for method in readers:
        for path, chain in _fields(method.input_type):
            nested = chain[-1].message_type
            if nested is None or nested.name != "Selector" or path.endswith("excluding"):
                continue
            for part, wrong in WRONG_SELECTORS.items():
                request = valid_request(method.input_type)
                _place(request, chain).CopyFrom(wrong)
                answer = call(method, request)
                if path + part in answer.fields:
                    told.add((_label(method), part))
    for label in ("MonitorService/WatchPvs", "CatalogService/ResolveSelector"):
        assert {(label, part) for part in WRONG_SELECTORS} <= told, sorted(told)
    assert len({label for label, _ in told}) >= 10, sorted(told)


def _place(message: Message, chain: tuple[FieldDescriptor, ...]) -> Message:
    """The message that the chain leads to, made where it is not there."""
    for field in chain:
        inner = getattr(message, field.name)
        if field.is_repeated:
            inner = inner[0] if len(inner) else inner.add()
        elif not message.HasField(field.name):
            inner.CopyFrom(valid_request(field.message_type))
            inner.SetInParent()
        message = inner
    return message


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
def test_tolerances_are_finite_and_not_negative(
    readers: list[MethodDescriptor], call: Caller, bad: float
) -> None:
    seen = 0
    for method in readers:
        for path, chain in _fields(method.input_type):
            if limits_of(chain[-1]).non_negative and not any(f.is_repeated for f in chain):
                is_float = chain[-1].type in (
                    FieldDescriptor.TYPE_DOUBLE,
                    FieldDescriptor.TYPE_FLOAT,
                )
                if not is_float and bad != -1:  # a number that no integer is
                    continue
                request = valid_request(method.input_type)
                _set(request, chain, bad if is_float else int(bad))
                _assert_invalid(call(method, request), _label(method), path, "INVALID_FIELD")
                seen += 1
    assert seen >= 8


def test_unknown_enum_values_are_refused(readers: list[MethodDescriptor], call: Caller) -> None:
    for method in readers:
        for path, chain in _fields(method.input_type):
            if chain[-1].enum_type is None or any(f.is_repeated for f in chain[:-1]):
                continue
            holder = chain[-1].containing_type
            if holder is not None and holder.full_name == "drey.common.v1.Value":
                continue
            request = valid_request(method.input_type)
            _set(request, chain, 9999)
            _assert_invalid(call(method, request), _label(method), path, "INVALID_FIELD")


def test_page_tokens_of_another_list_are_refused(
    methods: list[MethodDescriptor], call: Caller, running: Running
) -> None:
    foreign = running.catalog.ListPvs(
        catalog_service_pb2.ListPvsRequest(page_size=1), **running.call()
    ).next_page_token
    assert foreign
    for method in methods:
        if "page_token" not in method.input_type.fields_by_name:
            continue
        for token in ("garbage", foreign[:-4], foreign if method.name != "ListPvs" else "x"):
            request = valid_request(method.input_type)
            request.page_token = token  # type: ignore[attr-defined]
            answer = call(method, request)
            if answer.code == grpc.StatusCode.UNIMPLEMENTED:
                continue
            _assert_invalid(answer, _label(method), "page_token", "MALFORMED_PAGE_TOKEN")


def test_a_message_over_4_mib_is_refused(readers: list[MethodDescriptor], call: Caller) -> None:
    # an unknown field: every message takes it, so only its size is wrong; far beyond the limit
    # gRPC itself refuses, without a reason
    head = b"\xfa\xff\xff\xff\x0f"
    little = head + bytes([0xE0, 0xB9, 0x86, 0x02]) + b"x" * 4_300_000
    much = head + bytes([0xC0, 0x96, 0xB1, 0x02]) + b"x" * 5_000_000
    for method in readers:
        for payload, reason in ((little, "MESSAGE_TOO_LARGE"), (much, "")):
            answer = call(method, payload, timeout=60)
            assert answer.code == grpc.StatusCode.RESOURCE_EXHAUSTED, (_label(method), answer)
            assert answer.reason == reason, (_label(method), answer)


def test_a_deadline_in_the_past_does_nothing(methods: list[MethodDescriptor], call: Caller) -> None:
    for method in methods:
        answer = call(method, valid_request(method.input_type), timeout=-1)
        assert answer.code == grpc.StatusCode.DEADLINE_EXCEEDED, (_label(method), answer)
