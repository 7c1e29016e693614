"""Keys, roles, forwarding and hostile calls at a running gateway."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from drey.access.v1 import access_service_pb2 as pb
from drey.access.v1 import access_service_pb2_grpc as pb_grpc
from drey.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from drey.common.v1 import selector_pb2
from drey.events.v1.instances_pb2 import BreakersForced, InstanceReport
from drey.job.v1 import job_service_pb2, job_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as snap
from drey.snapshot.v1 import snapshot_service_pb2_grpc as snap_grpc
from drey.system.v1 import system_service_pb2, system_service_pb2_grpc
from drey_core.errors import NotFound
from drey_core.permissions import ROLES, holders_of
from drey_core.values import State
from drey_gateway.app import FORWARDED
from drey_gateway.bootstrap import make_first_key
from drey_runtime.auth import TokenVerifier, current_principal
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import Database
from drey_runtime.interceptor import permission_of
from drey_runtime.jobs import ImportResult, JobStore, NewJob, record_job
from drey_runtime.mapping.common import timestamp_message
from drey_runtime.server import serve_grpc
from drey_runtime.settings import CommonSettings
from drey_runtime.status import reason_of
from drey_stack import Postgres
from drey_testing.fixtures_gateway import (
    Gateway,
    GatewayRig,
    catalog_pages,
    eventually,
    floats,
    name_of,
    readback,
    setpoint,
)

SNAPSHOT = "drey.snapshot.v1.SnapshotService"
START_OF_TIME = Timestamp(seconds=-62_135_596_800)
END_OF_TIME = Timestamp(seconds=253_402_300_799)
"""As far as a Timestamp reaches: more nanoseconds than 64 bits hold."""


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


@pytest.fixture
async def gateway(rig: GatewayRig) -> Gateway:
    return await rig.ready_gateway()


class LostToTheClient(Exception):
    """The server refused before the client's first message was out, and grpcio lost its status.

    grpc.aio then says INTERNAL, "Internal error from Core", by itself.
    """


async def failure(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.details() == "Internal error from Core":
            raise LostToTheClient from error
        return (error.code(), *reason_of(error))
    return (grpc.StatusCode.OK, "", {})


async def make_key(gateway: Gateway, admin: str, role: str, name: str = "") -> tuple[str, str]:
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    request = pb.CreateKeyRequest(name=name or f"k{uuid.uuid4().hex}", grants=[{"role": role}])
    made = await stub.CreateKey(request, metadata=bearer(admin))
    return made.secret, made.key.id


async def test_life_of_a_key(gateway, admin_key):
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    request = pb.CreateKeyRequest(
        name="ops",
        grants=[{"role": "editor"}, {"role": "operator"}, {"role": "editor"}],
        request_id=str(uuid.uuid4()),
    )
    made = await stub.CreateKey(request, metadata=bearer(admin_key))
    again = await stub.CreateKey(request, metadata=bearer(admin_key))
    assert again.key == made.key and again.secret == "" and made.secret.startswith("drey_")
    who = await stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(made.secret))
    assert (who.principal, who.roles) == ("ops", ["operator", "editor"])
    assert [g.role for g in made.key.grants] == ["operator", "editor"]
    listed = await stub.ListRoles(pb.ListRolesRequest(), metadata=bearer(made.secret))
    roles = {role.name: set(role.permissions) for role in listed.roles}
    assert set(who.permissions) == roles["operator"] | roles["editor"] < roles["admin"]
    assert list(who.permissions) == sorted(who.permissions)
    assert all(role.description for role in listed.roles)
    request.request_id = ""
    code, reason, _ = await failure(stub.CreateKey(request, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    revoke = pb.RevokeKeyRequest(id=made.key.id)
    gone = await stub.RevokeKey(revoke, metadata=bearer(admin_key))
    assert gone.key.HasField("revoke_time") and not gone.key.HasField("expire_time")
    assert await stub.RevokeKey(revoke, metadata=bearer(admin_key)) == gone
    code, reason, _ = await failure(stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(made.secret)))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")
    living = await stub.ListKeys(pb.ListKeysRequest(), metadata=bearer(admin_key))
    assert [k.name for k in living.keys] == ["admin"]
    page = await stub.ListKeys(
        pb.ListKeysRequest(include_dead=True, page_size=1), metadata=bearer(admin_key)
    )
    rest = await stub.ListKeys(
        pb.ListKeysRequest(include_dead=True, page_size=1, page_token=page.next_page_token),
        metadata=bearer(admin_key),
    )
    assert [k.name for k in (*page.keys, *rest.keys)] == ["admin", "ops"]
    assert not rest.next_page_token


async def test_who_did_what_and_that_nobody_took_it_away(rig, admin_key, url, tmp_path):
    gateway = await rig.ready_gateway(
        gateway_audit_anchors=str(tmp_path / "anchors"), gateway_audit_anchor_period="0.1"
    )
    _, made = await make_key(gateway, admin_key, "viewer", "guest")
    operator, _ = await make_key(gateway, admin_key, "operator", "ops")
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(gateway.channel)

    async def listed(**filters: Any) -> list[int]:
        request = audit_service_pb2.ListEventsRequest(**filters)
        answer = await stub.ListEvents(request, metadata=bearer(admin_key))
        return [event.sequence for event in answer.events]

    assert await listed() == [3, 2, 1]
    assert await listed(principal="bootstrap") == [1]
    assert await listed(action_prefix="access.key.", target=f"keys/{made}") == [2]
    assert await listed(action_prefix="restore.") == []
    assert await listed(to_time=END_OF_TIME, from_time=START_OF_TIME) == [3, 2, 1]
    request = audit_service_pb2.ListEventsRequest(page_size=2)
    page = await stub.ListEvents(request, metadata=bearer(admin_key))
    request.page_token = page.next_page_token
    rest = await stub.ListEvents(request, metadata=bearer(admin_key))
    assert [e.sequence for e in (*page.events, *rest.events)] == [3, 2, 1]
    assert json.loads(rest.events[0].after_json)["roles"] == ["admin"]
    assert [list(e.actor.roles) for e in rest.events] == [["admin"]]
    assert (await failure(stub.ListEvents(request, metadata=bearer(operator))))[1]

    async def verified() -> audit_service_pb2.VerifyChainResponse:
        return await stub.VerifyChain(
            audit_service_pb2.VerifyChainRequest(), metadata=bearer(admin_key)
        )

    async def anchored() -> bool:
        lines = (tmp_path / "anchors").read_text().splitlines()
        return bool(lines) and json.loads(lines[-1])["sequence"] == 3

    await eventually(anchored, "anchored")
    assert not (await verified()).findings
    assert (await verified()).last_sequence == 3
    owner = await asyncpg.connect(url)
    await owner.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
    await owner.execute("DELETE FROM audit.entry WHERE seq = 3")
    await owner.close()
    (finding,) = (await verified()).findings
    assert "cut off" in finding.problem


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24", "127.0.0.1"])
async def test_a_proxy_is_believed_where_the_site_says_so(rig, admin_key, trusted):
    gateway = await rig.ready_gateway(gateway_trusted_proxies=trusted)
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    forwarded = (*bearer(admin_key), ("x-forwarded-for", "203.0.113.9, 192.0.2.7"))
    request = pb.CreateKeyRequest(name="ops", grants=[{"role": "viewer"}])
    await stub.CreateKey(request, metadata=forwarded)
    acts: Any = audit_service_pb2_grpc.AuditServiceStub(gateway.channel)
    listed = await acts.ListEvents(
        audit_service_pb2.ListEventsRequest(), metadata=bearer(admin_key)
    )
    created, bootstrapped = listed.events
    assert created.address == ("192.0.2.7" if trusted == "127.0.0.1" else "127.0.0.1")
    assert bootstrapped.address == ""


async def test_the_last_admin_key_stays(gateway, admin_key):
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    listed = await stub.ListKeys(pb.ListKeysRequest(), metadata=bearer(admin_key))
    call = stub.RevokeKey(pb.RevokeKeyRequest(id=listed.keys[0].id), metadata=bearer(admin_key))
    code, reason, _ = await failure(call)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTECTED")
    absent = pb.RevokeKeyRequest(id=str(uuid.uuid4()))
    code, reason, _ = await failure(stub.RevokeKey(absent, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.parametrize(
    "grants, code, reason, field",
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "grants"),
        ([{"role": "god"}], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "grants"),
        ([{"role": ""}], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "grants[0].role"),
        (
            [{"role": "operator"}, {"role": "viewer", "selector": {"names": ["A"]}}],
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
            "grants[1].selector",
        ),
        (  # an empty selector is no "everything" either
            [{"role": "operator", "selector": {}}],
            grpc.StatusCode.INVALID_ARGUMENT,
            "EMPTY_SELECTOR",
            "grants[0].selector",
        ),
        (
            [{"role": "operator", "selector": {"names": ["A" * 499] * 5}}],
            grpc.StatusCode.INVALID_ARGUMENT,
            "TOO_MANY",
            "grants",
        ),
    ],
)
async def test_grants_that_cannot_be_are_refused(gateway, admin_key, grants, code, reason, field):
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    request = pb.CreateKeyRequest(name="x", grants=grants)
    found = await failure(stub.CreateKey(request, metadata=bearer(admin_key)))
    assert (found[0], found[1], found[2].get("field")) == (code, reason, field)


async def test_expiry(gateway, admin_key):
    stub: Any = pb_grpc.AccessServiceStub(gateway.channel)
    lifetime = Duration()
    lifetime.FromMilliseconds(300)
    request = pb.CreateKeyRequest(name="guest", grants=[{"role": "viewer"}], lifetime=lifetime)
    made = await stub.CreateKey(request, metadata=bearer(admin_key))

    async def expired() -> bool:
        call = stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(made.secret))
        return (await failure(call))[1] == "KEY_EXPIRED"

    await eventually(expired, "expiry")
    # the name is free again
    await stub.CreateKey(request, metadata=bearer(admin_key))


async def test_bootstrap_refuses_a_second_time(url, admin_key):
    from drey_core.errors import FailedPrecondition

    with pytest.raises(FailedPrecondition):
        await make_first_key(url, "other")
    assert await make_first_key(url, "other", force=True)


async def test_revocation_cuts_watches_at_every_gateway(rig, gateway, admin_key):
    publisher = rig.publisher()
    await publisher.set_catalog(catalog_pages(5))
    second = await rig.ready_gateway()
    secret, key_id = await make_key(gateway, admin_key, "viewer")

    async def known() -> bool:
        stub: Any = pb_grpc.AccessServiceStub(second.channel)
        return (await failure(stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(secret))))[1] == ""

    await eventually(known, "known at the second")
    ends = []
    for each in (gateway, second):
        stub: Any = monitor_service_pb2_grpc.MonitorServiceStub(each.channel)
        request = monitor_service_pb2.WatchPvsRequest(spec={"selector": {"all": True}})
        ends.append(asyncio.create_task(failure(stub.WatchPvs(request, metadata=bearer(secret)))))
    await asyncio.sleep(0.5)
    access: Any = pb_grpc.AccessServiceStub(gateway.channel)
    await access.RevokeKey(pb.RevokeKeyRequest(id=key_id), metadata=bearer(admin_key))
    for code, reason, _ in await asyncio.wait_for(asyncio.gather(*ends), 60):
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")


async def _services(gateway: Gateway, key: str) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
    call = stub.ServerReflectionInfo(metadata=bearer(key))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    answer = await call.read()
    return [s.name for s in answer.list_services_response.service]


async def test_permissions_of_every_method(gateway, admin_key):
    """By reflection: roles without it, no key, a wrong key; and nothing internal is shown."""
    names = [n for n in await _services(gateway, admin_key) if n.startswith("drey.")]
    assert set(FORWARDED) < set(names) and len(names) == len(FORWARDED) + 6
    keys = {role: (await make_key(gateway, admin_key, role))[0] for role in ROLES}
    for name in names:
        for method in descriptor_pool.Default().FindServiceByName(name).methods:
            path = f"/{name}/{method.name}"
            empty = message_factory.GetMessageClass(method.input_type)().SerializeToString()
            needed = permission_of(path)
            assert holders_of(needed), path

            async def ask(
                metadata: Any, path: str = path, raw: bytes = empty, method: Any = method
            ) -> Any:
                streams = (method.client_streaming, method.server_streaming)
                ways = ["stream" if stream else "unary" for stream in streams]
                for _ in range(9):
                    request: Any = iter([raw]) if method.client_streaming else raw
                    call = getattr(gateway.channel, "_".join(ways))(path)
                    with suppress(LostToTheClient):
                        return await asyncio.wait_for(failure(call(request, metadata=metadata)), 60)
                raise AssertionError(f"{path}: the client lost nine answers")

            assert (await ask(()))[:2] == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            wrong = bearer(admin_key[:-1] + "~")
            assert (await ask(wrong))[:2] == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            for role in set(ROLES) - set(holders_of(needed)):
                code, reason, found = await ask(bearer(keys[role]))
                assert code is grpc.StatusCode.PERMISSION_DENIED, (path, role)
                assert reason == "PERMISSION_DENIED", (path, role)
                assert (found["permission"], found["roles"]) == (needed, role)


async def test_internal_services_are_not_there(gateway, admin_key):
    for path in (
        "/drey.internal.directory.v1.DirectoryService/GetCatalogPages",
        "/drey.internal.control.v1.ControlService/ReleaseShards",
        "/no.such/Method",
    ):
        call = gateway.channel.unary_unary(path)(b"", metadata=bearer(admin_key))
        assert (await failure(call))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_hostile_calls(gateway, admin_key):
    stub: Any = monitor_service_pb2_grpc.MonitorServiceStub(gateway.channel)
    big = monitor_service_pb2.GetValuesRequest(
        selector=selector_pb2.Selector(names=["x" * 480 + str(i) for i in range(9000)])
    )
    code, reason, _ = await failure(stub.GetValues(big, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    large = gateway.channel.unary_unary(f"/{SNAPSHOT}/GetSnapshot")
    code, reason, _ = await failure(large(b"x" * ((4 << 20) + 1), metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    empty = monitor_service_pb2.GetValuesRequest(selector=selector_pb2.Selector())
    code, reason, _ = await failure(stub.GetValues(empty, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_SELECTOR")
    # a watch does not end by itself, so that nothing but the deadline can be its end
    everything = monitor_service_pb2.WatchPvsRequest(spec={"selector": {"all": True}})
    past = stub.WatchPvs(everything, metadata=bearer(admin_key), timeout=0.01)
    assert (await failure(past))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    basic = (("authorization", "Basic xyz"),)
    assert (await failure(stub.GetValues(empty, metadata=basic)))[1] == "UNAUTHENTICATED"
    drift = monitor_service_pb2.WatchDriftRequest(
        spec={"reference": {"snapshot_id": str(uuid.uuid4())}, "form": "VALUE_FORM_COLUMNS"}
    )
    code, reason, _ = await failure(stub.WatchDrift(drift, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")


# --- forwarding ---


class FakeSnapshots:
    """A few methods of a service behind the gateway."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.sent = 0
        self.seen: Any = None

    def __getattr__(self, name: str) -> Any:
        async def unused(request: Any, context: Any) -> Any:
            raise NotFound(name)

        return unused

    async def GetSnapshot(self, request: Any, context: Any) -> snap.GetSnapshotResponse:
        self.seen = (current_principal.get(), dict(context.invocation_metadata()))
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        if request.id.startswith("0"):
            raise NotFound(f"no snapshot {request.id}", metadata={"resource": "snapshot"})
        return snap.GetSnapshotResponse(snapshot=snapshot_pb2.Snapshot(id=request.id))

    async def wait_full(self) -> None:
        """Until every buffer on the way to a reader that does not read is full."""
        seen = -1

        async def full() -> bool:
            nonlocal seen
            before, seen = seen, self.sent
            await asyncio.sleep(0.5)
            return before == self.sent

        await eventually(full, "every buffer on the way is full")

    async def ReadSnapshot(self, request: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: self.cancelled.set())
        for _ in range(10_000):
            self.sent += 1
            yield b"\x1a\x80\x80\x04\x0a\xfc\xff\x03" + b"\x00" * 65532
            await asyncio.sleep(0)


@asynccontextmanager
async def behind(rig: GatewayRig):
    fake = FakeSnapshots()
    settings = CommonSettings()
    verifier = TokenVerifier.from_file(rig.folder / "keys" / "trusted.json", "snapshot")
    async with serve_grpc(settings, "127.0.0.1:0", verifier, [(SNAPSHOT, fake)]) as (
        port,
        health,
    ):
        await health.set(True)
        gateway = await rig.ready_gateway(snapshot_target=f"127.0.0.1:{port}")
        yield fake, gateway


async def test_forwarding(rig, admin_key):
    async with behind(rig) as (fake, gateway):
        stub: Any = snap_grpc.SnapshotServiceStub(gateway.channel)
        wanted = "1" + str(uuid.uuid4())[1:]
        call = stub.GetSnapshot(
            snap.GetSnapshotRequest(id=wanted),
            metadata=(*bearer(admin_key), ("x-request-id", "r-1")),
            timeout=60,
        )
        assert (await call).snapshot.id == wanted
        assert dict(await call.initial_metadata())["x-first"] == "1"
        assert dict(await call.trailing_metadata())["x-last-bin"] == b"\x00\xff"
        principal, metadata = fake.seen
        assert (principal.name, principal.roles) == ("admin", ("admin",))
        assert principal.request_id == "r-1"
        assert "traceparent" in metadata and "authorization" not in metadata
        absent = snap.GetSnapshotRequest(id="0" + str(uuid.uuid4())[1:])
        code, reason, found = await failure(
            stub.GetSnapshot(absent, metadata=bearer(admin_key), timeout=60)
        )
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert found["resource"] == "snapshot"


async def test_back_pressure_and_cancellation(rig, admin_key):
    async with behind(rig) as (fake, gateway):
        path = f"/{SNAPSHOT}/ReadSnapshot"
        call = gateway.channel.unary_stream(path)(
            snap.ReadSnapshotRequest(id=str(uuid.uuid4())).SerializeToString(),
            metadata=bearer(admin_key),
        )
        assert len(await call.read()) > 60_000
        await fake.wait_full()
        assert fake.sent < 1000
        call.cancel()
        await asyncio.wait_for(fake.cancelled.wait(), 60)


async def test_a_service_that_is_away(gateway, admin_key):
    stub: Any = snap_grpc.SnapshotServiceStub(gateway.channel)
    call = stub.GetSnapshot(
        snap.GetSnapshotRequest(id=str(uuid.uuid4())), metadata=bearer(admin_key), timeout=60
    )
    code, reason, found = await failure(call)
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
    assert found["service"] == "snapshot"


# --- jobs and the system ---


async def test_jobs(url, gateway, admin_key):
    stub: Any = job_service_pb2_grpc.JobServiceStub(gateway.channel)
    async with Database(url) as db:
        store = JobStore(db)
        async with db.begin_transaction() as conn:
            job = await store.create_job(
                conn, NewJob(kind="snapshot", principal="somebody", role="operator", payload=b"")
            )
    get = job_service_pb2.GetJobRequest(id=job.id)
    found = await stub.GetJob(get, metadata=bearer(admin_key))
    assert (found.job.kind, found.job.state, found.job.actor.principal) == (1, 1, "somebody")
    watch = stub.WatchJob(job_service_pb2.WatchJobRequest(id=job.id), metadata=bearer(admin_key))
    assert (await watch.read()).job.id == job.id
    operator, _ = await make_key(gateway, admin_key, "operator")
    cancel = job_service_pb2.CancelJobRequest(id=job.id, reason="why not")
    code, reason, _ = await failure(stub.CancelJob(cancel, metadata=bearer(operator)))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert (await stub.CancelJob(cancel, metadata=bearer(admin_key))).job.state == 5
    assert (await asyncio.wait_for(watch.read(), 60)).job.state == 5
    assert await asyncio.wait_for(watch.read(), 60) is grpc.aio.EOF
    listed = await stub.ListJobs(
        job_service_pb2.ListJobsRequest(states=[5]), metadata=bearer(admin_key)
    )
    assert [j.id for j in listed.jobs] == [job.id]
    assert listed.jobs[0].HasField("create_time") and not listed.jobs[0].HasField("start_time")


async def test_jobs_are_listed_by_filters_and_pages(url, gateway, admin_key):
    """Every filter is looked up by the database, and the pages are those of the filtered list."""
    stub: Any = job_service_pb2_grpc.JobServiceStub(gateway.channel)
    made = []
    summary = ImportResult(rows=5, added=2, changed=1, unchanged=2)
    async with Database(url) as db, db.begin_transaction() as conn:
        for number in range(6):
            job = await record_job(
                conn,
                NewJob(
                    kind="import" if number % 2 else "snapshot",
                    principal="ann" if number < 4 else "bob",
                    role="operator",
                    total=number,
                    result=summary.to_text() if number % 2 else f"snapshots/{new_id()}",
                ),
                begin_ns=now_ns(),
            )
            made.append(job)

    async def listed(**filters: Any) -> tuple[list[int], int]:
        request = job_service_pb2.ListJobsRequest(**filters)
        found, totals = [], []
        while True:
            answer = await stub.ListJobs(request, metadata=bearer(admin_key))
            found += [job.total for job in answer.jobs]
            totals.append(answer.total_size)
            request.page_token = answer.next_page_token
            if not request.page_token:
                assert not any(totals[1:])
                return found, totals[0]

    assert await listed() == ([5, 4, 3, 2, 1, 0], 6)
    assert await listed(page_size=2, principal="ann") == ([3, 2, 1, 0], 4)
    assert await listed(kind=3, page_size=1) == ([5, 3, 1], 3)
    assert await listed(kind=3, principal="ann", states=[3, 4]) == ([3, 1], 2)
    assert await listed(kind=4) == ([], 0)
    middle = timestamp_message(made[3].create_time_ns)
    assert await listed(from_time=middle) == ([5, 4, 3], 3)
    assert await listed(to_time=middle, page_size=2) == ([2, 1, 0], 3)
    assert await listed(from_time=middle, to_time=middle) == ([], 0)
    assert await listed(from_time=START_OF_TIME, to_time=END_OF_TIME, page_size=4)
    get = job_service_pb2.GetJobRequest(id=made[1].id)
    job = (await stub.GetJob(get, metadata=bearer(admin_key))).job
    assert (job.WhichOneof("result"), job.import_summary.added) == ("import_summary", 2)
    request = job_service_pb2.ListJobsRequest(page_size=1, principal="ann")
    request.page_token = (await stub.ListJobs(request, metadata=bearer(admin_key))).next_page_token
    request.principal = "bob"
    _, reason, _ = await failure(stub.ListJobs(request, metadata=bearer(admin_key)))
    assert reason == "MALFORMED_PAGE_TOKEN"


async def test_a_database_that_takes_no_writes_is_not_up(gateway, url, admin_key):
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    request = system_service_pb2.GetSystemSummaryRequest()
    database = f"DATABASE {urlsplit(url).path.strip('/')}"

    async def postgres_is(state: int, detail: str) -> bool:
        summary = (await stub.GetSystemSummary(request, metadata=bearer(admin_key))).summary
        (part,) = [part for part in summary.parts if part.name == "postgres"]
        return part.state == state and detail in part.detail

    async def set_read_only(value: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER {database} SET default_transaction_read_only = {value}")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()

    up, down = system_service_pb2.PART_STATE_UP, system_service_pb2.PART_STATE_DOWN
    await eventually(lambda: postgres_is(up, "PostgreSQL"), "a database")
    await set_read_only("on")
    await eventually(lambda: postgres_is(down, "read-only"), "that it takes no writes")
    await set_read_only("off")
    await eventually(lambda: postgres_is(up, "PostgreSQL"), "that it takes them again")


async def test_system_summary(rig, gateway, admin_key):
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    publisher = rig.publisher()
    await publisher.set_catalog(catalog_pages(5))
    publisher.start()

    async def summary() -> Any:
        answer = await stub.GetSystemSummary(
            system_service_pb2.GetSystemSummaryRequest(), metadata=bearer(admin_key)
        )
        return answer.summary

    async def heard() -> bool:
        return (await summary()).shards[0].state.fresh

    await eventually(heard, "a monitor")
    found: Any = None

    async def answering() -> bool:
        nonlocal found
        found = await summary()
        up = {p.name for p in found.parts if p.state == 1}
        # findings are looked for once a second: they may be older than the shards
        codes = {finding.code for finding in found.findings}
        return (
            up == {"postgres", "nats", "redis"}
            and system_service_pb2.FINDING_CODE_SLOW_CHANNEL_ACCESS in codes
        )

    await eventually(answering, "the parts that there are, and no others")
    assert (found.pvs, found.channels, found.healthy) == (5, 10, False)
    slow = {f.code: f for f in found.findings}[system_service_pb2.FINDING_CODE_SLOW_CHANNEL_ACCESS]
    assert (slow.WhichOneof("subject"), slow.host) == ("host", "rig")
    (down,) = [f for f in found.findings if f.part == "restore"]
    assert down.code == system_service_pb2.FINDING_CODE_PART_DOWN
    assert down.since.ToNanoseconds() <= found.time.ToNanoseconds()
    for part in found.parts:
        assert part.HasField("latency") == (part.state == system_service_pb2.PART_STATE_UP)

    never = floats([setpoint(3), readback(3), setpoint(5)], [0.0] * 3)
    never.state[:] = State.NEVER_CONNECTED
    await publisher.publish(never)
    publisher.never_connected = 3

    async def named() -> bool:
        return any(
            (f.code, f.WhichOneof("subject"), f.shard, list(f.pvs))
            == (
                system_service_pb2.FINDING_CODE_NEVER_CONNECTED,
                "shard",
                0,
                [name_of(3), name_of(5)],
            )
            for f in (await summary()).findings
        )

    await eventually(named, "the names of what never connected")
    (later,) = [f for f in (await summary()).findings if f.part == "restore"]
    assert later.since == down.since
    await publisher.stop()
    watch = stub.WatchSystemSummary(
        system_service_pb2.WatchSystemSummaryRequest(), metadata=bearer(admin_key)
    )
    while True:
        answer = await asyncio.wait_for(watch.read(), 60)
        if any("silent" in f.text for f in answer.summary.findings):
            break
    watch.cancel()


async def test_the_summary_tells_of_instances_and_their_iocs(rig, gateway, admin_key):
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    report = InstanceReport(service="monitor", instance="far:1", version="0.0", serving=True)
    report.iocs.add(address="ioc1:5064", channels=9, connected=0, timeouts=4, echo_ns=700)
    report.iocs.add(address="ioc2:5064", channels=1, connected=1, breaker=2, breaker_since_ns=5)
    report.ioc_count = 2
    report.queues.add(name="batches", depth=1, bound=16)
    report.served_twice.add(name="A:PV", taken="ioc1:5064", ignored="ioc2:5064", since_ns=5)
    request = system_service_pb2.GetSystemSummaryRequest()
    found: Any = None

    async def told() -> bool:
        nonlocal found
        await rig.bus.publish(rig.bus.full_subject("instances", "monitor"), b"nonsense")
        await rig.bus.publish(
            rig.bus.full_subject("instances", "monitor"), report.SerializeToString()
        )
        found = (await stub.GetSystemSummary(request, metadata=bearer(admin_key))).summary
        services = {instance.service for instance in found.instances}
        codes = {finding.code for finding in found.findings}
        return services == {"gateway", "monitor"} and (
            system_service_pb2.FINDING_CODE_SERVED_TWICE in codes
        )

    await eventually(told, "both instances and the findings")
    (own,) = [each for each in found.instances if each.service == "gateway"]
    assert own.version and own.start_time.seconds and own.HasField("age")
    down, held = found.iocs
    assert (down.address, down.channels, down.timeouts) == ("ioc1:5064", 9, 4)
    assert down.echo.nanos == 700 and found.ioc_count == 2
    assert [(b.service, b.instance, b.state) for b in held.breakers] == [("monitor", "far:1", 2)]
    subjects = {f.code: getattr(f, f.WhichOneof("subject")) for f in found.findings}
    assert subjects[system_service_pb2.FINDING_CODE_IOC_DOWN] == "ioc1:5064"
    assert subjects[system_service_pb2.FINDING_CODE_BREAKER_OPEN] == "ioc2:5064"
    assert subjects[system_service_pb2.FINDING_CODE_SERVED_TWICE] == "A:PV"


async def test_a_breaker_is_held_told_and_freed(rig, gateway, admin_key, url):
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    told: list[BreakersForced] = []

    async def on_list(message: Any) -> None:
        told.append(BreakersForced.FromString(message.data))

    await rig.bus.subscribe_handler(rig.bus.full_subject("breakers"), on_list)

    async def force(mode: int, reason: str = "", key: str = admin_key) -> Any:
        request = system_service_pb2.ForceBreakerRequest(ioc="x:5064", mode=mode, reason=reason)
        return (await stub.ForceBreaker(request, metadata=bearer(key), timeout=60)).breaker

    async def summary() -> Any:
        request = system_service_pb2.GetSystemSummaryRequest()
        return (await stub.GetSystemSummary(request, metadata=bearer(admin_key))).summary

    held = await force(2, "it is being repaired")
    assert (held.ioc, held.mode, held.actor.principal) == ("x:5064", 2, "admin")
    assert await force(2, "it is being repaired") == held

    async def is_told() -> bool:
        return bool(told) and [(b.address, int(b.mode)) for b in told[-1].breakers] == [
            ("x:5064", 2)
        ]

    await eventually(is_told, "the list on the bus")
    changed = told[-1].changed_ns

    async def is_shown() -> bool:
        found = await summary()
        return any(
            f.code == system_service_pb2.FINDING_CODE_BREAKER_FORCED
            and f.ioc == "x:5064"
            and "it is being repaired" in f.text
            for f in found.findings
        ) and [(ioc.address, ioc.forced.mode) for ioc in found.iocs] == [("x:5064", 2)]

    await eventually(is_shown, "the finding")
    code, reason, _ = await failure(force(7))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await force(1)

    async def is_freed() -> bool:
        return not told[-1].breakers and told[-1].changed_ns > changed

    await eventually(is_freed, "an empty list, newer than the other")
    connection = await asyncpg.connect(url)
    acts = await connection.fetch(
        "SELECT object, before, after FROM audit.entry WHERE action = 'system.breaker.force'"
        " ORDER BY seq"
    )
    await connection.close()
    assert [(a["object"], a["before"], a["after"]) for a in acts] == [
        ("iocs/x:5064", '{"mode":1}', '{"mode":2,"reason":"it is being repaired"}'),
        ("iocs/x:5064", '{"mode":2}', '{"mode":1,"reason":""}'),
    ]


async def test_one_key_walks_the_audit_once_at_a_time(gateway, admin_key, url):
    """Each walk has a connection of the gateway for as long as it takes."""
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(gateway.channel)
    holder, looker = await asyncpg.connect(url), await asyncpg.connect(url)

    async def walks() -> int:
        found: int = await looker.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND query = 'SELECT * FROM audit.entry ORDER BY seq'"
        )
        return found

    async def one_stands() -> bool:
        return await walks() > 0

    async with holder.transaction():
        await holder.execute("LOCK TABLE audit.entry IN ACCESS EXCLUSIVE MODE")
        request = audit_service_pb2.VerifyChainRequest()
        asked = [
            asyncio.create_task(failure(stub.VerifyChain(request, metadata=bearer(admin_key))))
            for _ in range(8)
        ]
        await eventually(one_stands, "a walk that waits for the table")
        for _ in range(20):  # time in which the others would come too
            assert await walks() <= 1
            await asyncio.sleep(0.05)
    await asyncio.gather(*asked)
    await holder.close()
    await looker.close()


async def test_more_breakers_than_can_be_told_are_refused(gateway, admin_key, url):
    """The list is one message of NATS: one that is too large would reach nobody."""
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    connection = await asyncpg.connect(url)
    await connection.executemany(
        "INSERT INTO access.breaker VALUES ($1, 2, $2, 'admin', 'admin', 1)",
        [(f"ioc{n}:5064", "x" * 1000) for n in range(600)],
    )
    await connection.close()

    async def force(ioc: str, mode: int) -> Any:
        request = system_service_pb2.ForceBreakerRequest(ioc=ioc, mode=mode)
        return await failure(stub.ForceBreaker(request, metadata=bearer(admin_key), timeout=60))

    assert (await force("x:5064", 2))[:2] == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RESOURCE_EXHAUSTED",
    )
    for n in range(100):
        assert (await force(f"ioc{n}:5064", 1))[1] == ""
    assert (await force("x:5064", 2))[1] == ""


async def test_each_service_is_ready_by_what_it_needs(rig, gateway):
    """Whoever asks for a service that is forwarded is told of the one behind it."""
    health = health_pb2_grpc.HealthStub(gateway.channel)

    async def serves(service: str) -> bool:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await health.Check(request, timeout=60)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def ready() -> bool:
        return await serves("drey.monitor.v1.MonitorService")

    await eventually(ready, "ready to watch")
    assert await serves("") and await serves("drey.system.v1.SystemService")
    assert not await serves("drey.restore.v1.RestoreService")


async def test_reflection_answers_under_both_of_its_names(gateway, admin_key):
    answers = []
    for version in ("v1", "v1alpha"):
        call = gateway.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(metadata=bearer(admin_key))
        await call.write(
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="drey.monitor.v1.MonitorService"
            )
        )
        await call.done_writing()
        answers.append(await call.read())
    assert answers[0] == answers[1]
    assert answers[0].file_descriptor_response.file_descriptor_proto


async def test_what_this_server_is(gateway, admin_key):
    secret, _ = await make_key(gateway, admin_key, "viewer")
    stub: Any = system_service_pb2_grpc.SystemServiceStub(gateway.channel)
    request = system_service_pb2.GetServerInfoRequest()
    info = await stub.GetServerInfo(request, metadata=bearer(secret))
    assert info.version
    shown = [n for n in await _services(gateway, admin_key) if n.startswith("drey.")]
    assert list(info.services) == sorted(shown)
    assert (info.limits.request_bytes, info.limits.first_message.seconds) == (4 << 20, 10)
    assert info.limits.calls > 0 and info.limits.watches > 0 and 0 < info.limits.key_share <= 1
    for name in info.not_built:
        assert (
            descriptor_pool.Default().FindMethodByName(name).containing_service.full_name in shown
        )
    # the revision is what a client computes from what reflection gives it
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
    files: dict[str, bytes] = {}
    for service in info.services:
        call = reflection.ServerReflectionInfo(metadata=bearer(secret))
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        await call.done_writing()
        answer = await call.read()
        for raw in answer.file_descriptor_response.file_descriptor_proto:
            files[FileDescriptorProto.FromString(raw).name] = raw
    ours = b"".join(files[name] for name in sorted(files) if name.startswith("drey/"))
    assert info.contract_revision == hashlib.sha256(ours).hexdigest()


async def test_watching_goes_on_while_postgres_is_away(rig, tmp_path):
    from drey_runtime.migrate import apply_migrations

    async with Postgres(tmp_path / "pg", fsync=False) as part:
        await apply_migrations(part.url, ["drey_runtime", "drey_gateway"])
        key = await make_first_key(part.url)
        rig.postgres_url = part.url
        gateway = await rig.ready_gateway()
        await part.kill()
        access: Any = pb_grpc.AccessServiceStub(gateway.channel)
        await asyncio.sleep(1.5)
        assert (await failure(access.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(key))))[1] == ""
        code, reason, _ = await failure(
            access.ListKeys(pb.ListKeysRequest(), metadata=bearer(key), timeout=60)
        )
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        late = await rig.gateway()
        await asyncio.sleep(1.5)
        assert not await late.serving()
        await part.start()
        await eventually(late.serving, "ready once Postgres is back")
