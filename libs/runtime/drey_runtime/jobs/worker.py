"""Takes jobs from the queue, from `kick`, and from the table itself, and runs them.

The row in Postgres decides who runs a job; the ways by which a worker hears of it only differ in
speed: `kick` in the process that created it, a delivery of JetStream, and a look at the table,
which finds what both have missed (NATS away, its disk lost, a worker killed).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from drey_core.errors import Unavailable
from drey_runtime import telemetry
from drey_runtime.backoff import backoff
from drey_runtime.cancellation import reraise_cancellation
from drey_runtime.jobs.model import Claim, Holder, Job, JobLost, JobState, Verdict
from drey_runtime.jobs.outbox import ensure_stream
from drey_runtime.jobs.ports import JobBus
from drey_runtime.jobs.runner import JobRunner, Kind
from drey_runtime.jobs.store import JobStore
from drey_runtime.jobs.wire import decode_delivery, stream_name, work_subject

__all__ = ["JobWorker", "Kind"]

_log = logging.getLogger(__name__)
# a request that waits is lost with its server: short, so that the next one follows soon
_FETCH_S = 2.0
_NATS_ERRORS = (NatsError, TimeoutError, OSError)
_BUSY_CAP_S = 10.0


class Place:
    """A place of a worker, kept for a job that is about to be created; see `JobWorker.place`."""

    def __init__(self, worker: JobWorker, holder: Holder) -> None:
        self.holder = holder
        self.used = False
        self._worker = worker
        self._since = time.monotonic()

    def begin(self, job: Job) -> None:
        """Run the job, created with this `holder` and committed. Does not block."""
        self._worker.begin_claimed(job, self._since)
        self.used = True


class JobWorker:
    """Runs at most `concurrency` jobs of its kinds at a time.

    `owner` names this process in the rows. A job whose worker died is begun again elsewhere after
    at most `lease_s` and `sweep_s` seconds. What finds all places taken is not queued here: it
    stays in the table, and is taken from there as soon as a place is free.
    """

    def __init__(
        self,
        store: JobStore,
        bus: JobBus,
        kinds: Mapping[str, Kind],
        *,
        owner: str,
        concurrency: int = 4,
        lease_s: float = 10.0,
        sweep_s: float = 2.0,
    ) -> None:
        self._store = store
        self._bus = bus
        self._kinds = dict(kinds)
        self._owner = owner
        self._free = concurrency
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._group: asyncio.TaskGroup | None = None
        self._sweep_now = asyncio.Event()
        self._place_free = asyncio.Event()
        self._turned_away = False

    def kick(self, job_id: str) -> bool:
        """Run a job now if there is a place; call it right after the commit that created it.

        Does not block. False: no place or not running; it will be taken from the table.
        """
        return self._begin(job_id, None)

    @contextmanager
    def place(self) -> Iterator[Place | None]:
        """Keep a place for a job that the body creates with `place.holder` and begins.

        Spares the claim. None: no place or not running; create the job without a holder then.
        """
        if self._group is None or self._free <= 0:
            self._turned_away = True
            yield None
            return
        self._free -= 1
        place = Place(self, Holder(self._owner, self._lease_s))
        try:
            yield place
        finally:
            if not place.used:
                self._vacate()

    def begin_claimed(self, job: Job, claimed_at: float) -> None:
        """Run a job that is ours, in a place that was taken for it. For `Place`."""
        if self._group is None:
            raise Unavailable("this process is stopping; the job is begun elsewhere")
        self._group.create_task(self._work_claimed(job, claimed_at), name=f"job {job.id}")

    async def run(self) -> None:
        """Work until cancelled; running jobs are given back then, within five seconds."""
        await self._store.changes.subscribe()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._sweep())
                for kind in self._kinds:
                    group.create_task(self._consume(kind))
        finally:
            self._group = None

    # ---- places

    def _begin(self, job_id: str, message: Msg | None) -> bool:
        if self._group is None or self._free <= 0:
            self._turned_away = True
            return False
        self._free -= 1
        self._group.create_task(self._work(job_id, message), name=f"job {job_id}")
        return True

    async def _work(self, job_id: str, message: Msg | None) -> None:
        try:
            if message is None:
                await self._try(job_id)
            else:
                await self._try_delivered(job_id, message)
        finally:
            self._vacate()

    async def _work_claimed(self, job: Job, claimed_at: float) -> None:
        try:
            await self._run_claimed(Verdict.RUN, job, claimed_at)
        finally:
            self._vacate()

    def _vacate(self) -> None:
        self._free += 1
        self._place_free.set()
        if self._turned_away:
            self._sweep_now.set()

    # ---- one job

    async def _try(self, job_id: str) -> Claim | None:
        """Claim and run; None where Postgres is away, or another claimed it meanwhile."""
        begun = time.monotonic()
        try:
            claim = await self._store.claim(job_id, self._owner, self._lease_s, list(self._kinds))
            if claim.job is not None:
                await self._run_claimed(claim.verdict, claim.job, begun)
            return claim
        except Unavailable as error:
            _log.warning("job put off", extra={"job": job_id, "error": error.message})
            return None
        except JobLost:
            # our lease ran out while we ended an interrupted job: whoever has it now ends it
            _log.warning("job was lost to another claim", extra={"job": job_id})
            return None

    async def _run_claimed(self, verdict: Verdict, job: Job, begun: float) -> None:
        runner = JobRunner(self._store, self._kinds[job.kind], job, self._lease_s, begun)
        if verdict is Verdict.INTERRUPTED:
            await runner.interrupted()
        else:
            await runner.run()

    async def _try_delivered(self, job_id: str, message: Msg) -> None:
        keeper = asyncio.create_task(self._hold(message))
        try:
            claim = await self._try(job_id)
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
        delay = await self._delay_after(claim)
        await _answer(message, delay)

    async def _delay_after(self, claim: Claim | None) -> float | None:
        """After how many seconds the delivery must come again; None: it is done with."""
        if claim is None:
            return 1.0
        if claim.verdict is Verdict.BUSY:
            return min(max(claim.retry_s, 0.05), _BUSY_CAP_S)
        if claim.job is None:
            return None
        try:
            after = await self._store.get(claim.job.id)
        except Unavailable:
            return 1.0
        return None if after.state.ended else _still_open_s(after)

    async def _hold(self, message: Msg) -> None:
        """Tell JetStream that it is being worked on."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await message.in_progress()
            except _NATS_ERRORS:
                # it will be delivered again, and the row says that we have it
                _log.debug("delivery not prolonged")

    # ---- the ways of hearing of one

    async def _sweep(self) -> None:
        """Look at the table for what nobody works on."""
        while True:
            self._turned_away = False
            try:
                if self._free > 0:
                    await self._sweep_once()
            except Unavailable as error:
                _log.debug("jobs not looked for: %s", error.message)
            await _wait(self._sweep_now, self._sweep_s)
            self._sweep_now.clear()

    async def _sweep_once(self) -> None:
        # what was turned away has waited already; anything else may be about to be kicked
        limit = self._free + 1
        for job_id in await self._store.claimable(list(self._kinds), limit, grace_s=0.5):
            if not self._begin(job_id, None):
                return

    async def _consume(self, kind: str) -> None:
        """Take deliveries of one kind; starts over after any trouble with NATS."""
        failures = 0
        while True:
            try:
                if self._bus.connected:
                    subscription = await self._subscribe(kind)
                    failures = 0
                    await self._fetch(subscription)
            except (*_NATS_ERRORS, asyncio.CancelledError) as error:
                # a client of NATS that closes cancels who waits for a message: that is not our end
                reraise_cancellation()
                _log.warning(
                    "deliveries stopped",
                    extra={"kind": kind, "error": str(error) or type(error).__name__},
                )
            await asyncio.sleep(backoff(failures, first_s=0.1, cap_s=2.0))
            failures += 1

    async def _subscribe(self, kind: str) -> JetStreamContext.PullSubscription:
        await ensure_stream(self._bus)
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._lease_s,
            # the row counts the attempts: a delivery that meets a busy job is none
            max_deliver=-1,
            max_ack_pending=1000,
        )
        return await self._bus.js.pull_subscribe(
            self._bus.subject(work_subject(kind)),
            durable=f"work_{kind}",
            stream=stream_name(self._bus.namespace),
            config=config,
        )

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> None:
        try:
            while True:
                await self._until_free()
                try:
                    messages = await subscription.fetch(1, timeout=_FETCH_S)
                except TimeoutError:
                    if not self._bus.connected:
                        return
                    continue
                for message in messages:
                    await self._receive(message)
        finally:
            await _unsubscribe(subscription)

    async def _until_free(self) -> None:
        while self._free <= 0:
            self._place_free.clear()
            await self._place_free.wait()

    async def _receive(self, message: Msg) -> None:
        job_id = decode_delivery(message.data)
        if job_id is None:
            telemetry.refused_messages.add(1, {"subject": message.subject})
            _log.error(
                "a delivery that is none was thrown away",
                extra={"subject": message.subject, "bytes": message.data[:64].hex()},
            )
            await message.term()
        elif not self._begin(job_id, message):
            await message.nak(delay=0.2)


def _still_open_s(job: Job) -> float:
    """Seconds until a job that was not ended may be worth another look."""
    return 0.1 if job.state is JobState.QUEUED else 1.0


async def _answer(message: Msg, delay: float | None) -> None:
    try:
        if delay is None:
            await message.ack()
        else:
            await message.nak(delay=delay)
    except _NATS_ERRORS:
        # it comes again, and finds in the row that there is nothing to do
        _log.debug("delivery not answered")


async def _unsubscribe(subscription: JetStreamContext.PullSubscription) -> None:
    try:
        async with asyncio.timeout(1):
            await subscription.unsubscribe()
    except _NATS_ERRORS:
        _log.debug("subscription went with its connection")


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
