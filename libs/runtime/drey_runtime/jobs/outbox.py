"""What a transaction announces leaves after its commit, at least once."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.errors import BadRequestError

from drey_core.errors import Reason, Unavailable
from drey_runtime import telemetry
from drey_runtime.backoff import backoff
from drey_runtime.bus import Unpublishable
from drey_runtime.cancellation import reraise_cancellation
from drey_runtime.database import Connection, Database
from drey_runtime.jobs.ports import JobBus
from drey_runtime.jobs.wire import stream_name, work_subject

_log = logging.getLogger(__name__)
_BATCH = 200
# a batch is one transaction: its session must not stand still for longer than it may
_BATCH_S = 10.0
_PUBLISH_S = 3.0
_FAILED = "UPDATE jobs.outbox SET attempts = attempts + 1 WHERE id = $1"


async def enqueue(
    conn: Connection,
    subject: str,
    payload: bytes,
    *,
    durable: bool = False,
    message_id: str = "",
    job_id: str | None = None,
) -> None:
    """Announce within the caller's transaction; `subject` is what follows `{namespace}.v1.`.

    `durable` goes into the stream of jobs and so must be a subject of it.
    """
    await conn.execute(
        "INSERT INTO jobs.outbox (subject, payload, durable, message_id, job_id, traceparent)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        subject,
        payload,
        durable,
        message_id,
        job_id,
        telemetry.headers().get("traceparent", ""),
    )


async def ensure_stream(bus: JobBus) -> None:
    """Make the stream of jobs where it is missing: a work queue on disk. Raises NatsError."""
    config = StreamConfig(
        name=stream_name(bus.namespace),
        subjects=[bus.subject(work_subject("*"))],
        retention=RetentionPolicy.WORK_QUEUE,
        duplicate_window=120.0,
    )
    try:
        await bus.js.add_stream(config)
    except BadRequestError:
        # it exists with other settings (replicas, limits), which are its operator's business
        await bus.js.stream_info(stream_name(bus.namespace))


@dataclass(frozen=True)
class _Row:
    id: int
    subject: str
    payload: bytes
    durable: bool
    message_id: str
    traceparent: str
    over: bool


class OutboxRelay:
    """Publishes the outbox, then deletes. Any number of them may run: each takes other rows.

    A row stays until the server has acknowledged it, so it leaves at least once; nothing is lost
    while NATS is away. `wake()` after a commit publishes at once instead of within `poll_s`.
    """

    def __init__(self, database: Database, bus: JobBus, *, poll_s: float = 0.5) -> None:
        self._database = database
        self._bus = bus
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._stream_known = False

    def wake(self) -> None:
        """There is something to publish."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled; waits out an absence of NATS or Postgres."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                more = await self.step()
                failures = 0
            except Unavailable as error:
                _log.warning("outbox waits", extra={"error": error.message})
                await asyncio.sleep(backoff(failures, first_s=0.2, cap_s=2.0))
                failures += 1
                continue
            if not more:
                await self._idle()

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def step(self) -> bool:
        """Publish one batch; whether there may be more. `Unavailable` leaves the rest there.

        What went out is deleted whatever became of the rest, and what can never go out is thrown
        away: who waits for it looks by himself. A row that failed comes after those that did not.
        """
        if not self._bus.connected:
            raise Unavailable("NATS is away", reason=Reason.BUS_UNAVAILABLE)
        end = time.monotonic() + _BATCH_S
        failure: Unavailable | asyncio.CancelledError | None = None
        async with self._database.transaction() as conn:
            rows = await self._take(conn)
            done: list[int] = []
            for row in rows:
                try:
                    await self._publish(row)
                except Unpublishable as error:
                    _log.error("a message was thrown away: %s", error.message)
                    telemetry.refused_messages.add(1, {"subject": row.subject})
                except (Unavailable, asyncio.CancelledError) as error:
                    failure = error
                    await conn.execute(_FAILED, row.id)
                    break
                done.append(row.id)
                if time.monotonic() > end:
                    break
            await conn.execute("DELETE FROM jobs.outbox WHERE id = ANY($1)", done)
        if failure is not None:
            raise failure
        return len(rows) == _BATCH or len(done) < len(rows)

    async def _take(self, conn: Connection) -> list[_Row]:
        rows = await conn.fetch(
            "SELECT o.id, o.subject, o.payload, o.durable, o.message_id, o.traceparent,"
            " j.state IS NOT NULL AND j.state NOT IN ('queued', 'running') AS over"
            " FROM jobs.outbox o LEFT JOIN jobs.job j ON j.id = o.job_id"
            " ORDER BY o.attempts, o.id LIMIT $1 FOR UPDATE OF o SKIP LOCKED",
            _BATCH,
        )
        return [_Row(**dict(row)) for row in rows]

    async def _publish(self, row: _Row) -> None:
        if row.over:
            return  # it was done before it could be delivered
        subject = self._bus.subject(row.subject)
        if not row.durable:
            await self._bus.publish(subject, row.payload)
            return
        headers = {"Nats-Msg-Id": row.message_id} if row.message_id else {}
        if row.traceparent:
            headers["traceparent"] = row.traceparent
        try:
            async with asyncio.timeout(_PUBLISH_S):
                if not self._stream_known:
                    await ensure_stream(self._bus)
                    self._stream_known = True
                await self._bus.js.publish(subject, row.payload, headers=headers)
        except (BadSubjectError, MaxPayloadError) as error:
            raise Unpublishable(
                f"NATS does not take a message of {len(row.payload)} bytes for {subject!r}: {error}"
            ) from error
        except (NatsError, TimeoutError, OSError) as error:
            reraise_cancellation()
            self._stream_known = False
            raise Unavailable(
                f"NATS took no message for {subject}: {error or type(error).__name__}",
                reason=Reason.BUS_UNAVAILABLE,
            ) from error
