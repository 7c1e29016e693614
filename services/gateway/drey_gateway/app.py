"""The gateway's composition root."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import grpc

# The contracts of everything that is served or forwarded have to be in the descriptor pool.
from drey.access.v1 import access_service_pb2 as _access
from drey.audit.v1 import audit_service_pb2 as _audit
from drey.catalog.v1 import catalog_service_pb2 as _catalog
from drey.compare.v1 import compare_service_pb2 as _compare
from drey.event.v1 import event_service_pb2 as _event
from drey.job.v1 import job_service_pb2 as _job
from drey.monitor.v1 import monitor_service_pb2 as _monitor
from drey.policy.v1 import policy_service_pb2 as _policy
from drey.restore.v1 import restore_service_pb2 as _restore
from drey.snapshot.v1 import snapshot_service_pb2 as _snapshot
from drey.system.v1 import system_service_pb2 as _system
from drey_gateway.access import KeyAuthenticator, KeyLoop, KeyStore
from drey_gateway.adapters.references import ReferenceClient
from drey_gateway.adapters.resolver import CatalogResolver
from drey_gateway.breakers import BreakerOverrides
from drey_gateway.context import WatchContext, WatcherLimit
from drey_gateway.domain.keys import KeyRing
from drey_gateway.domain.live import LiveState
from drey_gateway.drift_book import DriftBook
from drey_gateway.forwarding import Forwarder
from drey_gateway.loops.event_feed import EventFeed
from drey_gateway.loops.feed import Feed
from drey_gateway.probes import (
    Probes,
    probe_nats,
    probe_postgres,
    probe_redis,
    probe_service,
)
from drey_gateway.server_info import server_info
from drey_gateway.servicers.access import AccessServicer
from drey_gateway.servicers.audit import AuditServicer
from drey_gateway.servicers.events import EventServicer
from drey_gateway.servicers.jobs import JobServicer
from drey_gateway.servicers.monitor import MonitorServicer
from drey_gateway.servicers.system import SystemServicer
from drey_gateway.servicers.system_gauges import SystemGauges
from drey_gateway.session_relay import SessionRelay
from drey_gateway.sessions import SessionBook
from drey_gateway.settings import GatewaySettings, read_networks
from drey_runtime import migrate
from drey_runtime.app import App
from drey_runtime.app_memory import GiveBack, keep_little
from drey_runtime.audit_anchor import AnchorFile, AuditAnchors
from drey_runtime.auth import GATEWAY, TokenSigner
from drey_runtime.bus import Bus
from drey_runtime.database import Connection, Database
from drey_runtime.image import Image
from drey_runtime.instances import InstanceReports
from drey_runtime.interceptor import Calls
from drey_runtime.jobs import JobStore
from drey_runtime.server import Health, PublicServing, channel, serve_grpc
from drey_runtime.settings import SettingsError
from drey_runtime.signed import SignedChannel
from drey_runtime.waiting import ChangeSignal

log = logging.getLogger(__name__)

PACKAGES = ("drey_runtime", "drey_gateway")
MONITOR = _monitor.DESCRIPTOR.services_by_name["MonitorService"].full_name
ACCESS = _access.DESCRIPTOR.services_by_name["AccessService"].full_name
AUDIT = _audit.DESCRIPTOR.services_by_name["AuditService"].full_name
EVENT = _event.DESCRIPTOR.services_by_name["EventService"].full_name
JOB = _job.DESCRIPTOR.services_by_name["JobService"].full_name
SYSTEM = _system.DESCRIPTOR.services_by_name["SystemService"].full_name
FORWARDED = {
    _catalog.DESCRIPTOR.services_by_name["CatalogService"].full_name: "snapshot",
    _snapshot.DESCRIPTOR.services_by_name["SnapshotService"].full_name: "snapshot",
    _compare.DESCRIPTOR.services_by_name["CompareService"].full_name: "snapshot",
    _policy.DESCRIPTOR.services_by_name["PolicyService"].full_name: "snapshot",
    _restore.DESCRIPTOR.services_by_name["RestoreService"].full_name: "restore",
}
"""Public services that others serve: a new one needs its name here."""
_ASKED = {
    "snapshot": "drey.snapshot.v1.SnapshotService",
    "monitor": "drey.internal.control.v1.ControlService",
    "restore": "drey.restore.v1.RestoreService",
}
"""Service of each part whose health tells of the part."""


class GatewayReadiness:
    """Says of each service whether this gateway can serve it.

    Watching takes the image, which has been read once and is in memory since; what this gateway
    keeps in Postgres takes that; what it forwards takes the service behind it.
    """

    def __init__(
        self, health: Health, feed: Feed, ring: KeyRing, db: Database, probes: Probes
    ) -> None:
        self._health, self._feed, self._ring = health, feed, ring
        self._db, self._probes = db, probes

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_here())
            group.create_task(self._ask_parts())

    async def _look_here(self) -> None:
        while True:
            keys = self._ring.loaded
            await self._health.set(keys, SYSTEM)
            await self._health.set(keys and self._db.ready, ACCESS, AUDIT, EVENT, JOB)
            if keys and self._feed.loaded.is_set() and not self._health.serves_service(MONITOR):
                await self._health.set(True, MONITOR)
                log.info("ready")
            # a start is waited for
            await asyncio.sleep(0.2 if self._health.serves_service(MONITOR) else 0.02)

    async def _ask_parts(self) -> None:
        while True:
            answering = {part.name for part in await self._probes.ask_parts() if part.up}
            for service, part in FORWARDED.items():
                await self._health.set(self._ring.loaded and part in answering, service)
            await asyncio.sleep(1.0)


async def main(settings: GatewaySettings, app: App) -> None:
    """Open everything and start the loops."""
    keep_little()
    opened = await _open_parts(settings, app)
    db, bus = opened.db, opened.bus
    live, changed, ring, calls = LiveState(settings.shards), ChangeSignal(), KeyRing(), Calls()
    feed = Feed(live, bus, opened.image, settings.poll, changed.notify_change)
    context = WatchContext(
        live,
        changed,
        WatcherLimit(settings.max_watchers, settings.caller_share),
        CatalogResolver(opened.signed_channel("snapshot")),
        lambda: feed.stale,
        lambda: bus.connected,
    )

    def keys_changed() -> None:
        calls.recheck_calls()
        changed.notify_change()

    store, probes, events = KeyStore(db, bus, ring), _make_probes(opened), EventFeed(db)
    keys = KeyLoop(store, bus, settings.poll, keys_changed)
    authenticator = _make_authenticator(settings, ring)
    services: list[tuple[str, object]] = [
        (MONITOR, await _start_watching(settings, app, opened, context, feed, events)),
        (ACCESS, AccessServicer(store)),
        (AUDIT, _start_audit(settings, app, db, events, context)),
        (EVENT, EventServicer(events, context.limiter, authenticator.renew_principal)),
        (JOB, _start_jobs(app, db)),
    ]
    info = server_info(settings, [*(name for name, _ in services), SYSTEM, *FORWARDED])
    overrides = BreakerOverrides(db, bus)
    system = SystemServicer(context, probes, JobStore(db), info, feed.instances, overrides)
    await keys.subscribe_to_bus()
    forwarder = Forwarder(
        {service: (part, opened.channels[part]) for service, part in FORWARDED.items()},
        opened.signer,
    )
    side = PublicServing(
        calls, authenticator.address_of, settings.stall_cut, (list(FORWARDED), forwarder)
    )
    services.append((SYSTEM, system))
    _, health = await app.stack.enter_async_context(
        serve_grpc(settings, settings.listen, authenticator, services, public=side)
    )
    for loop in (bus, db, feed, keys, events, overrides):
        app.start_loop(loop)
    if settings.metrics_listen or settings.otlp_endpoint:
        app.start_loop(SystemGauges(context, probes, feed.instances, system.find_findings))
    app.start_loop(GiveBack(), "memory")
    app.start_loop(GatewayReadiness(health, feed, ring, db, probes))
    app.start_loop(InstanceReports(bus, "gateway", lambda: health.serves_service(MONITOR)))


@dataclass(frozen=True)
class _GatewayParts:
    """What the process has opened, and closes at its end; `channels` to the parts behind it."""

    db: Database
    bus: Bus
    image: Image
    channels: dict[str, grpc.aio.Channel]
    signer: TokenSigner

    def signed_channel(self, part: str) -> grpc.aio.Channel:
        """A channel whose calls are the gateway's own."""
        return SignedChannel.channel_signed_by(self.channels[part], self.signer, part)


async def _open_parts(settings: GatewaySettings, app: App) -> _GatewayParts:
    if settings.signing_key is None:
        raise SettingsError(
            "DREY_SIGNING_KEY is not set: the services behind the gateway believe nobody without"
            " it; make keys with `python -m drey_runtime.keys FOLDER gateway snapshot …`"
        )
    signer = TokenSigner.from_file(GATEWAY, settings.signing_key)
    enter = app.stack.enter_async_context
    db = await enter(_open_database(settings))
    image = await enter(Image.open_image(settings.redis_url.get_secret_value(), settings.namespace))
    targets = {
        "snapshot": settings.snapshot_target,
        "monitor": settings.monitor_target,
        "restore": settings.restore_target,
    }
    channels = {part: await enter(channel(settings, target)) for part, target in targets.items()}
    return _GatewayParts(db, Bus.bus_of_service(settings, "drey-gateway"), image, channels, signer)


async def _start_watching(
    settings: GatewaySettings,
    app: App,
    opened: _GatewayParts,
    context: WatchContext,
    feed: Feed,
    events: EventFeed,
) -> MonitorServicer:
    sessions = SessionBook(context)
    relay = SessionRelay(sessions, opened.bus, opened.signer)
    references = ReferenceClient(opened.signed_channel("snapshot"))
    drifts = DriftBook(context, references, events, settings.caller_share)
    await feed.subscribe_to_bus()
    await relay.subscribe_to_bus()
    app.start_loop(drifts)
    return MonitorServicer(context, feed, sessions, relay, drifts)


def _start_audit(
    settings: GatewaySettings, app: App, db: Database, events: EventFeed, context: WatchContext
) -> AuditServicer:
    anchor_file = None
    if settings.audit_anchors is not None and settings.signing_key is not None:
        anchor_file = AnchorFile.open_file(settings.audit_anchors, settings.signing_key)
    anchors = AuditAnchors(db, anchor_file, settings.audit_anchor_period)
    app.start_loop(anchors)
    return AuditServicer(db, anchors, events.changed, context.limiter, settings.caller_share)


def _start_jobs(app: App, db: Database) -> JobServicer:
    jobs = JobStore(db)
    app.start_loop(jobs.changes)
    return JobServicer(jobs, db)


def _make_authenticator(settings: GatewaySettings, ring: KeyRing) -> KeyAuthenticator:
    secret = settings.proxy_secret.read_text().strip() if settings.proxy_secret else ""
    return KeyAuthenticator(ring, read_networks(settings.trusted_proxies), secret)


def _make_probes(opened: _GatewayParts) -> Probes:
    services = {
        part: probe_service(upstream, _ASKED[part]) for part, upstream in opened.channels.items()
    }
    return Probes(
        {
            "postgres": probe_postgres(opened.db),
            "nats": probe_nats(opened.bus),
            "redis": probe_redis(opened.image),
            **services,
        }
    )


def _open_database(settings: GatewaySettings) -> contextlib.AbstractAsyncContextManager[Database]:
    async def check_migrations(conn: Connection) -> None:
        await migrate.check_connection(conn, PACKAGES)

    return Database(
        settings.postgres_url.get_secret_value(),
        name="drey-gateway",
        checks=[check_migrations],
        share=settings.caller_share,
    )
