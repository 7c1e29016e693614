"""Events and the audit trail, followed at running gateways."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from drey.event.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc
from drey_gateway.bootstrap import make_first_key
from drey_gateway.following import follow_log
from drey_gateway.loops.event_feed import EventFeed
from drey_gateway.mapping_events import Place, decode_place, encode_place
from drey_gateway.servicers.events import FollowedEvents, WantedEvents
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.event_log import (
    EventKind,
    Position,
    Resource,
    ResourceChange,
    forget_events,
    record_events,
)
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing.fixtures_gateway import Gateway, GatewayRig, eventually
from tests.integration.gateway.test_access import bearer, failure, make_key
from tests.integration.gateway.test_living_keys import end_of

WAIT_S = 60.0


@pytest.fixture
async def gateway(rig: GatewayRig) -> Gateway:
    return await rig.ready_gateway()


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    async with Database(url) as found:
        yield found


async def tell(conn: Connection, *ids: str) -> None:
    changes = [ResourceChange(Resource.PV, EventKind.UPDATED, id, f"name of {id}") for id in ids]
    await record_events(conn, changes, principal="ann", role="editor", time_ns=now_ns())


async def tell_at_once(db: Database, *ids: str) -> None:
    async with db.begin_transaction() as conn:
        await tell(conn, *ids)


class Reader:
    """One WatchEvents, and what came of it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.parts: list[str] = []
        self.events: list[event_pb2.Event] = []
        self.token = ""
        self.resumed = False
        self.stalled = False
        self.reason = ""

    async def read(self) -> str:
        """The part of the next message."""
        message = await asyncio.wait_for(self.call.read(), WAIT_S)
        if message is grpc.aio.EOF:
            raise EOFError(await self.call.code())
        part: str = message.WhichOneof("part")
        self.parts.append(part)
        found = getattr(message, part)
        if part == "begin":
            self.token, self.resumed = found.token, found.resumed
        elif part == "checkpoint":
            self.token, self.stalled = found.token, found.stalled
        elif part == "events":
            self.events += found.events
            self.token = found.events[-1].token
        else:
            self.reason = found.reason
        return part

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await self.read()

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


@asynccontextmanager
async def reading(gateway: Gateway, key: str, **request: Any) -> AsyncIterator[Reader]:
    stub: Any = event_service_pb2_grpc.EventServiceStub(gateway.channel)
    call = stub.WatchEvents(event_service_pb2.WatchEventsRequest(**request), metadata=bearer(key))
    try:
        yield Reader(call)
    finally:
        call.cancel()


async def begun(gateway: Gateway, key: str) -> str:
    """The token of the present."""
    async with reading(gateway, key) as reader:
        await reader.until(lambda: "begin" in reader.parts)
        return reader.token


async def test_a_change_is_told_with_all_that_a_list_needs(gateway, admin_key):
    async with reading(gateway, admin_key) as reader:
        assert await reader.read() == "begin" and not reader.resumed
        _, key_id = await make_key(gateway, admin_key, "viewer", "ops")
        stub: Any = access_service_pb2_grpc.AccessServiceStub(gateway.channel)
        request = access_service_pb2.RevokeKeyRequest(id=key_id)
        await stub.RevokeKey(request, metadata=bearer(admin_key))
        await reader.until(lambda: len(reader.events) == 2)
    made, revoked = reader.events
    assert (made.resource, made.kind) == (
        event_pb2.EVENT_RESOURCE_KEY,
        event_pb2.EVENT_KIND_CREATED,
    )
    assert (made.id, made.name, made.actor.principal) == (key_id, "ops", "admin")
    assert made.actor.roles == ["admin"] and not made.HasField("bulk") and made.time.seconds
    assert (revoked.kind, revoked.id) == (event_pb2.EVENT_KIND_DELETED, key_id)


async def test_filters_and_what_a_viewer_may_not_see(gateway, admin_key, db):
    viewer, _ = await make_key(gateway, admin_key, "viewer")
    ids = {"ids": ["b"], "kinds": ["EVENT_KIND_UPDATED", "EVENT_KIND_CREATED"]}
    async with reading(gateway, viewer) as all_seen, reading(gateway, admin_key, **ids) as some:
        await all_seen.read()
        await some.read()
        await make_key(gateway, admin_key, "viewer")
        async with db.begin_transaction() as conn:
            await tell(conn, "a", "b")
            await record_events(
                conn,
                [
                    ResourceChange(Resource.PV, EventKind.DELETED, "b"),
                    ResourceChange(Resource.TAG, EventKind.UPDATED, created=2, updated=3),
                ],
                principal="",
                role="",
                time_ns=1,
            )
        await tell_at_once(db, "end")
        await all_seen.until(lambda: "end" in all_seen.ids)
        assert all_seen.ids == ["a", "b", "b", "", "end"]
        await some.until(lambda: len(some.events) == 2)
        assert some.ids == ["b", ""]
        bulk = some.events[1].bulk
        assert (bulk.created, bulk.updated, bulk.deleted, bulk.undeleted) == (2, 3, 0, 0)
    async with reading(gateway, viewer, resources=["EVENT_RESOURCE_KEY"]) as refused:
        code, reason, _ = await failure(refused.call)
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_who_loses_the_right_to_keys_is_shown_none_any_more(rig, admin_key, db, url):
    gateway = await rig.ready_gateway(gateway_poll="0.1")
    secret, key_id = await make_key(gateway, admin_key, "admin")
    keys = {"resources": ["EVENT_RESOURCE_KEY"]}
    async with reading(gateway, secret) as reader, reading(gateway, secret, **keys) as of_keys:
        await reader.read()
        await of_keys.read()
        await db_execute(url, "UPDATE access.key SET roles = ARRAY['viewer'] WHERE id = $1", key_id)
        stub: Any = access_service_pb2_grpc.AccessServiceStub(gateway.channel)

        async def is_viewer() -> bool:
            who = await stub.WhoAmI(access_service_pb2.WhoAmIRequest(), metadata=bearer(secret))
            return list(who.roles) == ["viewer"]

        await eventually(is_viewer, "the other role is known")
        _, hidden = await make_key(gateway, admin_key, "viewer")
        await tell_at_once(db, "end")
        await reader.until(lambda: "end" in reader.ids)
        # its own key may have been told of while it was one of an admin
        assert hidden not in reader.ids and set(reader.ids) <= {key_id, "end"}
        assert await end_of(of_keys.call) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
        )


async def db_execute(url: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *arguments)
    await connection.close()


async def test_one_that_began_first_and_commits_last_is_told_first(gateway, admin_key, db):
    async with reading(gateway, admin_key) as reader, db.acquire_connection() as slow:
        await reader.read()
        transaction = slow.transaction()
        await transaction.start()
        await tell(slow, "slow")
        await tell_at_once(db, "fast")
        await reader.until(lambda: "checkpoint" in reader.parts)
        assert reader.ids == []
        await transaction.commit()
        await reader.until(lambda: len(reader.events) == 2)
        assert reader.ids == ["slow", "fast"]


async def test_no_gap_and_no_repeat_across_resumes_at_any_gateway(rig, admin_key, db):
    """Writers whose commits come in another order than they began, and a reader who keeps leaving.

    They leave at any message, with the token of the last event, or of a checkpoint.
    """
    gateways = [await rig.ready_gateway(), await rig.ready_gateway()]
    token, seen, writers, each = await begun(gateways[0], admin_key), [], 5, 30
    dice = random.Random(7)

    async def write(writer: int) -> None:
        for number in range(each):
            async with db.begin_transaction() as conn:
                await tell(conn, f"{writer}.{number}.0")
                await asyncio.sleep(0.002 * (writer % 3))
                await tell(conn, f"{writer}.{number}.1")

    async with asyncio.TaskGroup() as group:
        for writer in range(writers):
            group.create_task(write(writer))
        resumes = 0
        async with asyncio.timeout(WAIT_S * 2):
            while len(seen) < 2 * writers * each:
                async with reading(gateways[resumes % 2], admin_key, token=token) as reader:
                    messages = dice.randint(2, 4)
                    while len(reader.parts) < messages and (
                        len(seen) + len(reader.events) < 2 * writers * each
                    ):
                        await reader.read()
                assert reader.resumed and "resync_required" not in reader.parts
                seen += reader.ids
                token, resumes = reader.token, resumes + 1
    assert resumes > 5
    assert len(seen) == len(set(seen)) == 2 * writers * each
    async with reading(gateways[1], admin_key, token=token) as reader:
        await reader.until(lambda: "checkpoint" in reader.parts)
        assert reader.ids == []


async def test_a_place_within_one_transaction_is_gone_on_from(gateway, admin_key, db):
    token = await begun(gateway, admin_key)
    await tell_at_once(db, *"abc")
    async with reading(gateway, admin_key, token=token) as reader:
        await reader.until(lambda: len(reader.events) == 3)
    async with reading(gateway, admin_key, token=reader.events[0].token) as reader:
        await reader.until(lambda: len(reader.events) == 2)
    assert reader.ids == ["b", "c"]


async def test_a_token_that_is_too_old_asks_for_a_resync(rig, gateway, admin_key, db, url):
    token = await begun(gateway, admin_key)
    await tell_at_once(db, "old")
    await db_execute(url, "UPDATE event_log.event SET at_ns = 1")
    await tell_at_once(db, "young")
    async with db.begin_transaction() as conn:
        assert await forget_events(conn, now_ns=now_ns()) > 0
    # the first gateway has them in its memory still, and goes on from there
    other = await rig.ready_gateway()
    async with reading(other, admin_key, token=token) as reader:
        assert [await reader.read(), await reader.read()] == ["resync_required", "begin"]
        assert "week" in reader.reason and not reader.resumed
        await tell_at_once(db, "next")
        await reader.until(lambda: bool(reader.events))
        assert reader.ids == ["next"]


@pytest.mark.parametrize("where", ["another timeline", "ahead"])
async def test_a_token_of_another_database_asks_for_a_resync(gateway, admin_key, where):
    place = decode_place(await begun(gateway, admin_key))
    other = {
        "another timeline": Place("1-1", place.position),
        "ahead": Place(place.timeline, Position(place.position.transaction + 10**6, 0)),
    }[where]
    async with reading(gateway, admin_key, token=encode_place(other)) as reader:
        assert [await reader.read(), await reader.read()] == ["resync_required", "begin"]


@pytest.mark.parametrize("token", ["x", "é", "AAAA"])
async def test_a_token_that_is_none_is_refused(gateway, admin_key, token):
    async with reading(gateway, admin_key, token=token) as reader:
        code, reason, metadata = await failure(reader.call)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_UNKNOWN")
    assert metadata["field"] == "token"


async def test_a_quiet_stream_gives_signs_of_life(gateway, admin_key):
    async with reading(gateway, admin_key) as reader:
        await reader.until(lambda: reader.parts.count("checkpoint") == 2)
        assert not reader.stalled


async def test_a_reader_behind_what_is_kept_in_memory_misses_nothing(db):
    feed = EventFeed(db, kept_events=50)
    loop = asyncio.create_task(feed.run())
    try:
        await eventually(async_of(lambda: not feed.stalled), "the feed reads")
        followed = FollowedEvents(
            feed, WantedEvents(frozenset(), frozenset(), frozenset()), lambda: True
        )
        await followed.begin_at(None)
        ids = [f"{n}" for n in range(700)]
        for start in range(0, len(ids), 100):
            await tell_at_once(db, *ids[start : start + 100])
        await eventually(async_of(lambda: last_in(feed) == ids[-1]), "all are read")
        assert len(feed._events) <= 55
        seen: list[str] = []
        async with asyncio.timeout(WAIT_S):
            async for message in follow_log(followed, feed.changed):
                seen += [event.id for event in message.events.events]
                if len(seen) >= len(ids):
                    break
        assert seen == ids
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


def last_in(feed: EventFeed) -> str:
    return feed._events[-1].change.id if feed._events else ""


def async_of(condition: Callable[[], bool]) -> Callable[[], Any]:
    async def ask() -> bool:
        return condition()

    return ask


async def test_while_postgres_is_away_the_stream_says_so_and_then_goes_on(tmp_path: Path):
    part = Postgres(tmp_path / "postgres")
    await part.start()
    try:
        await apply_migrations(part.url, ["drey_runtime", "drey_gateway"])
        admin_key = await make_first_key(part.url)
        async with GatewayRig(tmp_path / "rig", part.url) as rig:
            gateway = await rig.ready_gateway()
            async with reading(gateway, admin_key) as reader, auditing(gateway, admin_key) as acts:
                await reader.read()
                await acts.until(lambda: bool(acts.checkpoints))
                async with Database(part.url) as db:
                    await tell_at_once(db, "before")
                    await reader.until(lambda: "before" in reader.ids)
                await part.stop()
                await reader.until(lambda: reader.stalled)
                await acts.until(lambda: acts.checkpoints[-1].stalled)
                async with reading(gateway, admin_key) as refused:
                    code, reason, _ = await failure(refused.call)
                assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                await part.start()
                async with Database(part.url) as db:
                    await tell_at_once(db, "after")
                    await reader.until(lambda: "after" in reader.ids)
                    assert reader.ids == ["before", "after"]
                    await reader.until(lambda: not reader.stalled)

                    async def made() -> bool:
                        stub: Any = access_service_pb2_grpc.AccessServiceStub(gateway.channel)
                        request = access_service_pb2.CreateKeyRequest(
                            name="again", grants=[{"role": "viewer"}], request_id=str(REQUEST)
                        )
                        code, _, _ = await failure(
                            stub.CreateKey(request, metadata=bearer(admin_key))
                        )
                        return code is grpc.StatusCode.OK

                    await eventually(made, "a key is made")
                await acts.until(lambda: "access.key.create" in acts.actions)
                assert "resync_required" not in reader.parts
    finally:
        await part.stop()


REQUEST = uuid.uuid4()


class AuditReader:
    """One WatchEvents of the audit trail."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.acts: list[Any] = []
        self.checkpoints: list[Any] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                message = await self.call.read()
                if message is grpc.aio.EOF:
                    raise EOFError(await self.call.code())
                if message.WhichOneof("part") == "checkpoint":
                    self.checkpoints.append(message.checkpoint)
                else:
                    self.acts += message.events.events

    @property
    def actions(self) -> list[str]:
        return [act.action for act in self.acts]


@asynccontextmanager
async def auditing(gateway: Gateway, key: str, **request: Any) -> AsyncIterator[AuditReader]:
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(gateway.channel)
    call = stub.WatchEvents(audit_service_pb2.WatchEventsRequest(**request), metadata=bearer(key))
    try:
        yield AuditReader(call)
    finally:
        call.cancel()


async def test_acts_are_followed_and_got(gateway, admin_key):
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(gateway.channel)
    async with auditing(gateway, admin_key) as reader:
        await reader.until(lambda: bool(reader.checkpoints))
        last = reader.checkpoints[0].sequence
        _, first_id = await make_key(gateway, admin_key, "viewer")
        _, second_id = await make_key(gateway, admin_key, "viewer")
        await reader.until(lambda: len(reader.acts) == 2)
    assert [act.target for act in reader.acts] == [f"keys/{first_id}", f"keys/{second_id}"]
    assert [act.sequence for act in reader.acts] == [last + 1, last + 2]
    async with auditing(gateway, admin_key, after_sequence=last + 1) as resumed:
        await resumed.until(lambda: bool(resumed.acts))
        assert [act.sequence for act in resumed.acts] == [last + 2]
    wanted = {"after_sequence": 0, "target": f"keys/{first_id}"}
    async with auditing(gateway, admin_key, **wanted) as chosen:
        await chosen.until(lambda: bool(chosen.acts) and len(chosen.checkpoints) > 1)
        assert [act.sequence for act in chosen.acts] == [last + 1]
        assert chosen.checkpoints[-1].sequence == last + 2
    async with auditing(gateway, admin_key, after_sequence=last + 100) as refused:
        code, _, metadata = await failure(refused.call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT and metadata["field"] == "after_sequence"
    request = audit_service_pb2.GetEventRequest(sequence=last + 1)
    got = await stub.GetEvent(request, metadata=bearer(admin_key))
    assert got.act == reader.acts[0]
    request = audit_service_pb2.GetEventRequest(sequence=last + 100)
    code, reason, _ = await failure(stub.GetEvent(request, metadata=bearer(admin_key)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
