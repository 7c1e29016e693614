"""The composition root."""

from __future__ import annotations

import os
import socket

from drey_ca import open_table
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
from drey_restore.usecases.ending import Ending
from drey_restore.usecases.grants import GrantCheck
from drey_restore.usecases.guards import Guards
from drey_restore.usecases.notify import Notifier, RunningRestores
from drey_restore.usecases.plans import Plans
from drey_restore.usecases.record_check import RecordCheck
from drey_restore.usecases.restores import Restores
from drey_restore.usecases.rollback import GoingBack
from drey_restore.usecases.runner import Runner
from drey_restore.usecases.start_check import StartCheck
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


async def main(settings: RestoreSettings, app: App) -> int:
    """Open everything and start the loops; returns the port that it listens on."""
    if settings.trusted_keys is None or settings.signing_key is None:
        raise SettingsError(
            "DREY_TRUSTED_KEYS and DREY_SIGNING_KEY are needed: make them with"
            " python -m drey_runtime.keys FOLDER gateway snapshot monitor restore"
        )
    keep_little()
    signer = TokenSigner.from_file("restore", settings.signing_key)
    verifier = TokenVerifier.from_file(settings.trusted_keys, "restore")
    enter = app.stack.enter_async_context
    database = await enter(
        Database(
            settings.postgres_url.get_secret_value(),
            name="drey-restore",
            checks=[lambda conn: check_connection(conn, SCHEMA_PACKAGES)],
            share=settings.caller_share,
        )
    )
    # restores have connections of their own: those who look or plan cannot keep them waiting
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
    upstream = SignedChannel.channel_signed_by(
        await enter(channel(settings, settings.snapshot_target)), signer, "snapshot"
    )
    bus = Bus.bus_of_service(settings, "drey-restore")
    jobs = JobStore(reserved)

    store, running = RestoreStore(database), RestoreStore(reserved)
    notifier, running_restores = Notifier(), RunningRestores()
    ending = Ending(running, notifier, now_ns)
    limits = Limits(
        settings.connect_timeout,
        settings.read_timeout,
        settings.chunk_size,
        settings.writes_per_ioc,
        guard_silence_s=settings.guard_silence,
    )
    pool = ChannelPool(table, settings.keep_channels)
    feed = ChangeFeed(table)
    catalog = CatalogClient(upstream)
    guards = Guards(
        catalog,
        lambda: open_table(settings.channel_access, settings.ca_environment()),
        limits,
    )
    pulses = Pulses(image, settings.shards)
    live = LiveMachine(image, pulses, settings.shards, settings.stale_after)
    grants = GrantCheck(catalog, store)
    records = RecordCheck(pool.table, limits, now_ns, settings.keep_channels)
    refused = parse_problems(settings.refuse)
    plans = Plans(
        store,
        SnapshotClient(upstream),
        catalog,
        live,
        pool,
        guards,
        limits,
        now_ns,
        records=records,
        protected=Protected(catalog, parse_selectors(settings.approval_required)),
        grants=grants,
        refused=refused,
        share=settings.caller_share,
    )
    beginning = Beginning(store, jobs, settings.caller_share)
    going_back = GoingBack(plans, running, Beginning(running, jobs, settings.caller_share), now_ns)
    runner = Runner(
        running,
        jobs,
        pool,
        feed,
        going_back,
        guards,
        lambda course: StartCheck(course, records, refused),
        ending,
        notifier,
        running_restores,
        limits,
        now_ns,
    )
    worker = JobWorker(
        jobs,
        {JOB_KIND: JobKind(runner.run, runner.interrupted)},
        owner=f"restore@{socket.gethostname()}:{os.getpid()}",
        concurrency=2 * MOST_OPEN,  # each may end in one that goes back
        lease_s=settings.job_lease,
    )
    warm = WarmLoop(catalog, live)
    await bus.subscribe_handler(bus.full_subject("catalog"), warm.on_event)
    await bus.subscribe_handler(bus.full_subject("directory", "*"), warm.on_event)
    restores = Restores(store, jobs, ending, notifier, running_restores, now_ns, grants, beginning)
    approvals = Approvals(store, now_ns, grants)
    servicer = RestoreServicer(plans, restores, approvals, now_ns)

    app.start_loop(bus, "bus")
    app.start_loop(database, "database")
    app.start_loop(reserved, "database of restores")
    app.start_loop(pool, "channels")
    app.start_loop(feed, "changes")
    app.start_loop(records, "records")
    app.start_loop(ReleaseLoop(running, pool, now_ns), "release")
    app.start_loop(worker, "jobs")
    app.start_loop(warm, "warm")
    app.start_loop(pulses, "signs of life")
    app.start_loop(GiveBack(), "memory")
    port, health = await enter(
        serve_grpc(
            settings, settings.listen, "DREY_RESTORE_LISTEN", verifier, [(SERVICE, servicer)]
        )
    )
    app.start_loop(
        Readiness(health, {SERVICE: lambda: database.ready and reserved.ready}), "health"
    )
    breakers = pool.table.book
    await ForcedBreakers(breakers).subscribe_to_bus(bus)
    app.start_loop(
        InstanceReports(bus, "restore", lambda: health.serving, iocs=lambda: breakers.ioc_states),
        "instance",
    )
    return port
