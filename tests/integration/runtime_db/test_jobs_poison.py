"""What cannot be what it should be is counted, logged and thrown away; nothing ends over it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from nats.aio.msg import Msg

from drey.events.v1 import changes_pb2
from drey_core.errors import Unavailable
from drey_runtime.bus import Bus
from drey_runtime.clock import new_id
from drey_runtime.database import Database
from drey_runtime.jobs import JobContext, JobState, JobStore, JobWorker, Kind, OutboxRelay
from drey_runtime.jobs.outbox import enqueue, ensure_stream
from drey_runtime.jobs.wire import stream_name, work_subject

from .conftest import running, until

NO_DELIVERIES = [
    b"",
    b"\xff",
    b"\x00" * 1000,
    b"{}",
    changes_pb2.JobDelivery(job_id="not an id").SerializeToString(),
    changes_pb2.JobDelivery(job_id="1").SerializeToString(),
    changes_pb2.JobDelivery(job_id="9" * 100_000).SerializeToString(),
    changes_pb2.JobDelivery(job_id="'; DROP TABLE jobs.job").SerializeToString(),
    changes_pb2.JobDelivery(job_id="nul\0nul").SerializeToString(),
    # of a version that says something else in this field, and one that has more fields
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    changes_pb2.JobChanged(job_id="x", revision=2**64 - 1).SerializeToString(),
]


async def test_poison_among_deliveries_ends_nobody(db: Database, bus: Bus) -> None:
    done: list[str] = []

    async def handler(context: JobContext) -> str:
        done.append(context.job.id)
        return ""

    store = JobStore(db, bus)
    async with db.transaction() as conn:
        fields = {"principal": "p", "role": "r", "payload": b""}
        other = await store.create(conn, kind="other", **fields)
        job = await store.create(conn, kind="mine", **fields)
    await ensure_stream(bus)
    subject = bus.subject(work_subject("mine"))
    unknown = changes_pb2.JobDelivery(job_id=new_id()).SerializeToString()
    wrong_kind = changes_pb2.JobDelivery(job_id=other.id).SerializeToString()
    later = changes_pb2.JobDelivery(job_id=job.id).SerializeToString() + b"\xf2\x7f\x03abc"
    for payload in [*NO_DELIVERIES, unknown, wrong_kind, later]:
        await bus.js.publish(subject, payload)
    # it never looks at the table, so what it runs was delivered
    worker = JobWorker(store, bus, {"mine": Kind(handler)}, owner="w", sweep_s=3600)
    async with running(worker):
        await until(lambda: done == [job.id], 20)

        async def all_answered() -> bool:
            state = (await bus.js.stream_info(stream_name(bus.namespace))).state
            return state.messages == 0

        await until(all_answered, 20)
    assert (await store.get(other.id)).state is JobState.QUEUED


async def test_poison_among_changes_ends_nobody(db: Database, bus: Bus) -> None:
    store = JobStore(db, bus)
    async with db.transaction() as conn:
        job = await store.create(conn, kind="k", principal="p", role="r", payload=b"")
    seen: list[int] = []
    await store.changes.subscribe()
    huge = changes_pb2.JobChanged(job_id=job.id, revision=2**64 - 1).SerializeToString()
    with store.changes.listen(job.id, seen.append):
        for payload in (b"\xff", b"\x00", b"", huge):
            await bus.publish(bus.subject("jobs", job.id), payload)
        await until(lambda: seen == [2**64 - 1])


async def test_what_postgres_cannot_hold_does_not_end_a_worker(db: Database, bus: Bus) -> None:
    async def handler(context: JobContext) -> str:
        context.progress(2**70, -(2**70), "phase\0 \udcff")
        context.result = "result\0"
        await asyncio.sleep(0.3)
        return "made\0\udcff"

    store = JobStore(db, bus)
    async with running(JobWorker(store, bus, {"k": Kind(handler)}, owner="w", sweep_s=0.05)):
        async with db.transaction() as conn:
            job = await store.create(conn, kind="k", principal="p", role="r", payload=b"")
        ended = await store.wait(job.id, 20)
    assert ended.state is JobState.SUCCEEDED
    assert (ended.done, ended.total) == (2**63 - 1, -(2**63))


async def test_a_reason_of_a_later_version_can_be_read(db: Database) -> None:
    store = JobStore(db)
    async with db.transaction() as conn:
        job = await store.create(conn, kind="k", principal="p", role="r", payload=b"")
        await conn.execute(
            "UPDATE jobs.job SET state = 'failed', error_reason = 9999, error_message = 'why'"
        )
    error = (await store.get(job.id)).error
    assert error is not None and error.message == "why"


class Failing(Bus):
    """Takes messages until one says that it shall fail."""

    def __init__(self) -> None:
        super().__init__("nats://127.0.0.1:1", "t", "test")
        self.published: list[bytes] = []
        self.fails = True

    @property
    def connected(self) -> bool:
        return True

    async def publish(self, subject: str, payload: bytes) -> None:
        if payload == b"fails" and self.fails:
            raise Unavailable("not now")
        self.published.append(payload)


async def outbox(db: Database) -> list[bytes]:
    async with db.acquire() as conn:
        rows = await conn.fetch("SELECT payload FROM jobs.outbox ORDER BY id")
        return [row["payload"] for row in rows]


async def announce(db: Database, *payloads: bytes, subject: str = "access") -> None:
    async with db.transaction() as conn:
        for payload in payloads:
            await enqueue(conn, subject, payload)


async def test_what_went_out_before_a_failure_goes_out_once(db: Database) -> None:
    bus = Failing()
    relay = OutboxRelay(db, bus)
    await announce(db, b"1", b"2", b"fails", b"3", b"4")
    with pytest.raises(Unavailable):
        await relay.step()
    assert await outbox(db) == [b"fails", b"3", b"4"]
    # the one that failed stands in nobody's way
    with pytest.raises(Unavailable):
        await relay.step()
    assert bus.published == [b"1", b"2", b"3", b"4"]
    assert await outbox(db) == [b"fails"]
    bus.fails = False
    await relay.step()
    assert bus.published == [b"1", b"2", b"3", b"4", b"fails"]
    assert await outbox(db) == []


async def test_what_went_out_before_a_cancel_goes_out_once(db: Database) -> None:
    bus = Failing()
    entered = asyncio.Event()

    async def publish(subject: str, payload: bytes) -> None:
        if payload == b"3":
            entered.set()
            await asyncio.Event().wait()
        bus.published.append(payload)

    bus.publish = publish  # type: ignore[method-assign]
    await announce(db, b"1", b"2", b"3")
    stepping = asyncio.create_task(OutboxRelay(db, bus).step())
    await entered.wait()
    stepping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stepping
    assert await outbox(db) == [b"3"]


async def test_what_can_never_go_out_is_thrown_away(
    db: Database, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await bus.subscribe(bus.subject("access"), hear)
    await bus.nc.flush()
    await announce(db, b"bad subject", subject="a b..\r\n")
    await announce(db, bytes(bus.nc.max_payload + 1))
    async with db.transaction() as conn:
        large = bytes(bus.nc.max_payload + 1)
        await enqueue(conn, work_subject("k"), large, durable=True)
    await announce(db, b"good")
    with caplog.at_level(logging.ERROR):
        async with running(OutboxRelay(db, bus, poll_s=0.05)):
            await until(lambda: heard == [b"good"], 20)

            async def all_gone() -> bool:
                return await outbox(db) == []

            await until(all_gone, 20)
    assert sum("thrown away" in record.message for record in caplog.records) == 3
