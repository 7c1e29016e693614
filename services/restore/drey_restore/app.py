"""The composition root."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import grpc

from drey_ca import open_table
from drey_ca.interface import ChannelTable
from drey_core.breaker import BreakerBook
from drey_core.selector import parse_selectors
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.changes import ChangeFeed
from drey_restore.adapters.channels import ChannelPool
from drey_restore.adapters.live import LiveMachine
from drey_restore.adapters.snapshots import SnapshotClient
from drey_restore.adapters.store import SCHEMA_PACKAGES, RestoreStore
from drey_restore.domain.problems import parse_problems
from drey_restore.limits import Limits
from drey_restore.loops.release import ReleaseLoop
from drey_restore.loops.warm import WarmLoop
from drey_restore.servicer import SERVICE, RestoreServicer
from drey_restore.settings import RestoreSettings
from drey_restore.usecases.approvals import Approvals, Protected
from drey_restore.usecases.beginning import JOB_KIND, MOST_OPEN, Beginning
from drey_restore.usecases.course import RunParts
from drey_restore.usecases.ending import Ending
from drey_restore.usecases.gathering import PlanGathering
from drey_restore.usecases.grants import GrantCheck
from drey_restore.usecases.guards import Guards
from drey_restore.usecases.notify import Notifier, RunningRestores
from drey_restore.usecases.plan_reads import PlanReads
from drey_restore.usecases.plans import Plans
from drey_restore.usecases.record_check import RecordCheck
from drey_restore.usecases.restores import Restores
from drey_restore.usecases.rollback import GoingBack
from drey_restore.usecases.runner import Runner
from drey_runtime.app import App
from drey_runtime.app_memory import GiveBack, keep_little
from drey_runtime.auth import TokenSigner, TokenVerifier
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.forced_breakers import ForcedBreakers
from drey_runtime.image import Image
from drey_runtime.instances import InstanceReports
from drey_runtime.jobs import JobKind, JobStore, JobWorker
from drey_runtime.migrate import check_connection
from drey_runtime.pulse import Pulses
from drey_runtime.server import Readiness, channel, serve_grpc
from drey_runtime.settings import SettingsError
from drey_runtime.signed import SignedChannel

_RESERVED_CONNECTIONS = 6
"""Four restores at a time: what each announces, and its lease."""


@dataclass(frozen=True)
class _OpenedParts:
    """What the process has opened, and closes at its end.

    Restores have `reserved`, connections of their own: those who look or plan cannot keep them
    waiting.
    """

    database: Database
    reserved: Database
    image: Image
    table: ChannelTable
    snapshots: grpc.aio.Channel
    bus: Bus


async def main(settings: RestoreSettings, app: App) -> int:
    """Open everything and start the loops; returns the port that it listens on."""
    if settings.trusted_keys is None or settings.signing_key is None:
        raise SettingsError(
            "DREY_TRUSTED_KEYS and DREY_SIGNING_KEY are needed: make them with"
            " python -m drey_runtime.keys FOLDER gateway snapshot monitor restore"
        )
    keep_little()
    verifier = TokenVerifier.from_file(settings.trusted_keys, "restore")
    signer = TokenSigner.from_file("restore", settings.signing_key)
    opened = await _open_parts(settings, app, signer)
    servicer, book = await _start_work(settings, app, opened)
    port, health = await app.stack.enter_async_context(
        serve_grpc(settings, settings.listen, verifier, [(SERVICE, servicer)])
    )
    database, reserved = opened.database, opened.reserved
    app.start_loop(
        Readiness(health, {SERVICE: lambda: database.ready and reserved.ready}), "health"
    )
    await ForcedBreakers(book).subscribe_to_bus(opened.bus)
    app.start_loop(
        InstanceReports(
            opened.bus, "restore", lambda: health.serving, iocs=lambda: book.ioc_states
        ),
        "instance",
    )
    return port


async def _open_parts(settings: RestoreSettings, app: App, signer: TokenSigner) -> _OpenedParts:
    """Open them, their loops started."""
    enter = app.stack.enter_async_context
    database = await enter(
        Database(
            settings.postgres_url.get_secret_value(),
            name="drey-restore",
            checks=[lambda conn: check_connection(conn, SCHEMA_PACKAGES)],
            share=settings.caller_share,
        )
    )
    reserved = await enter(
        Database(
            settings.postgres_url.get_secret_value(),
            name="drey-restore-run",
            min_size=2,
            max_size=_RESERVED_CONNECTIONS,
        )
    )
    image = await enter(Image.open_image(settings.redis_url.get_secret_value(), settings.namespace))
    table = await enter(open_table(settings.channel_access, settings.ca_environment()))
    snapshots = SignedChannel.channel_signed_by(
        await enter(channel(settings, settings.snapshot_target)), signer, "snapshot"
    )
    bus = Bus.bus_of_service(settings, "drey-restore")
    app.start_loop(bus, "bus")
    app.start_loop(database, "database")
    app.start_loop(reserved, "database of restores")
    app.start_loop(GiveBack(), "memory")
    return _OpenedParts(database, reserved, image, table, snapshots, bus)


async def _start_work(
    settings: RestoreSettings, app: App, opened: _OpenedParts
) -> tuple[RestoreServicer, BreakerBook]:
    """The servicer and the breakers of IOCs, with what works behind them started."""
    store, running = RestoreStore(opened.database), RestoreStore(opened.reserved)
    jobs, share = JobStore(opened.reserved), settings.caller_share
    limits = Limits(
        settings.connect_timeout,
        settings.read_timeout,
        settings.chunk_size,
        settings.writes_per_ioc,
        guard_silence_s=settings.guard_silence,
    )
    pool, feed = ChannelPool(opened.table, settings.keep_channels), ChangeFeed(opened.table)
    catalog = CatalogClient(opened.snapshots)
    pulses = Pulses(opened.image, settings.shards)
    live = LiveMachine(opened.image, pulses, settings.shards, settings.stale_after)
    guards = Guards(
        catalog, lambda: open_table(settings.channel_access, settings.ca_environment()), limits
    )
    grants = GrantCheck(catalog, store)
    records = RecordCheck(
        pool.table, limits, now_ns, settings.keep_channels, parse_problems(settings.refuse)
    )
    gathering = PlanGathering(
        *(store, SnapshotClient(opened.snapshots), catalog, live, PlanReads(pool, limits), records)
    )
    protected = Protected(catalog, parse_selectors(settings.approval_required))
    plans = Plans(store, gathering, guards, protected, grants, now_ns, share)
    notifier, running_restores = Notifier(), RunningRestores()
    ending = Ending(running, notifier, now_ns)
    going_back = GoingBack(plans, running, Beginning(running, jobs, share), now_ns)
    parts = RunParts(running, pool, feed, ending, going_back, notifier, limits, now_ns)
    runner = Runner(parts, jobs, guards, records, running_restores)
    worker = JobWorker(
        jobs,
        {JOB_KIND: JobKind(runner.run, runner.interrupted)},
        owner=f"restore@{socket.gethostname()}:{os.getpid()}",
        concurrency=2 * MOST_OPEN,  # each may end in one that goes back
        lease_s=settings.job_lease,
    )
    warm = WarmLoop(catalog, live)
    for subject in (("catalog",), ("directory", "*")):
        await opened.bus.subscribe_handler(opened.bus.full_subject(*subject), warm.on_event)
    app.start_loop(pool, "channels")
    app.start_loop(feed, "changes")
    app.start_loop(records, "records")
    app.start_loop(ReleaseLoop(running, pool, now_ns), "release")
    app.start_loop(worker, "jobs")
    app.start_loop(warm, "warm")
    app.start_loop(pulses, "signs of life")
    beginning = Beginning(store, jobs, share)
    restores = Restores(store, jobs, ending, notifier, running_restores, now_ns, grants, beginning)
    servicer = RestoreServicer(plans, restores, Approvals(store, now_ns, grants), now_ns)
    return servicer, pool.table.book
