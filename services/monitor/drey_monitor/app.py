"""Composition root of the monitor service."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from drey_ca import open_table
from drey_core.errors import Unavailable
from drey_monitor.adapters.catalog_client import ImageCatalog, directory_client
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.domain.iocs import IocBook
from drey_monitor.loops.balance import Balancer, BalanceRules
from drey_monitor.loops.catalog import CatalogFollower
from drey_monitor.loops.epochs import EpochListener
from drey_monitor.loops.hosts import HostWatch
from drey_monitor.loops.iocs import IocWatch
from drey_monitor.loops.owner import Owner, OwnerParts
from drey_monitor.loops.ready import MonitorReadiness
from drey_monitor.loops.tick import Ticker
from drey_monitor.owned import Shards
from drey_monitor.servicer import SERVICE, ControlServicer
from drey_monitor.settings import MonitorSettings
from drey_runtime.app import App
from drey_runtime.auth import TokenSigner, TokenVerifier
from drey_runtime.bus import Bus
from drey_runtime.image import Image
from drey_runtime.instances import InstanceReports
from drey_runtime.lease import Lease
from drey_runtime.lease_postgres import PostgresLease
from drey_runtime.server import channel, serve_grpc
from drey_runtime.settings import SettingsError
from drey_runtime.signed import SignedChannel

log = logging.getLogger(__name__)

_WAIT_FOR_BUS_S = 0.5


async def main(settings: MonitorSettings, app: App) -> None:
    """Open everything and start every loop.

    It waits for no other part longer than half a second; two for a name service that says nothing.
    """
    enter = app.stack.enter_async_context
    shards = Shards(settings.max_shards)
    _, health = await enter(
        serve_grpc(
            settings,
            settings.listen,
            _make_verifier(settings),
            [(SERVICE, ControlServicer(shards))],
        )
    )
    image = await enter(Image.open_image(settings.redis_url.get_secret_value(), settings.namespace))
    hub = ChannelHub(await enter(open_table(settings.channel_access, settings.ca_environment())))
    app.start_loop(HostWatch(lambda: hub.has_searched), "hosts")
    bus = Bus.bus_of_service(settings, f"drey-monitor-{os.getpid()}")
    app.start_loop(bus, "bus")
    catalog = CatalogFollower(
        directory_client(await _open_upstream(settings, app)),
        ImageCatalog(image, settings.shards),
        shards,
        settings.shards,
        settings.catalog_poll,
    )
    epochs = EpochListener(shards)
    await bus.subscribe_handler(bus.full_subject("catalog"), catalog.on_event)
    await bus.subscribe_handler(bus.full_subject("heartbeats", "*"), epochs.on_heartbeat)
    app.start_loop(catalog, "catalog")
    app.start_loop(MonitorReadiness(health, catalog, bus, image), "readiness")
    book = IocBook()
    app.start_loop(IocWatch(hub, book, shards), "IOCs")
    rules = BalanceRules(
        settings.shards,
        settings.balance,
        settings.warm_standbys,
        settings.lease_duration if settings.lease == "kubernetes" else 0.0,
    )
    balancer = Balancer(shards, epochs, bus, rules)
    balancer.reports = InstanceReports(
        bus,
        "monitor",
        lambda: health.serving,
        iocs=lambda: book.ioc_states,
        doubles=lambda: book.double_names,
        queues=shards.queue_states,
        describe=balancer.describe_load,
    )
    await bus.subscribe_handler(bus.full_subject("instances", "monitor"), balancer.on_report)
    app.start_loop(balancer.reports, "instance")
    app.start_loop(balancer, "balance")
    app.before_stop(balancer.leave_members)
    app.start_loop(Ticker(hub, shards, image, settings.tick), "tick")
    await _wait_for_bus(bus)
    lease = await enter(_open_lease(settings))
    parts = OwnerParts(settings, lease, shards, hub, catalog, epochs, image, bus)
    for shard in range(settings.shards):
        app.start_loop(Owner(shard, parts), f"shard {shard}")


def _make_verifier(settings: MonitorSettings) -> TokenVerifier:
    """Without keys nobody is believed."""
    if settings.trusted_keys is None:
        return TokenVerifier({}, "monitor")
    return TokenVerifier.from_file(settings.trusted_keys, "monitor")


async def _open_upstream(settings: MonitorSettings, app: App) -> grpc.aio.Channel:
    """A channel to the snapshot service, in the monitor's name where it has a key."""
    key = settings.signing_key
    signer = None if key is None else TokenSigner.from_file("monitor", key)
    upstream = await app.stack.enter_async_context(channel(settings, settings.snapshot_target))
    return SignedChannel.channel_signed_by(upstream, signer, "snapshot")


@asynccontextmanager
async def _open_lease(settings: MonitorSettings) -> AsyncIterator[Lease]:
    if settings.lease == "postgres":
        yield PostgresLease(
            settings.postgres_url.get_secret_value(), owner=f"{socket.gethostname()}:{os.getpid()}"
        )
        return
    # aiohttp takes a third of a second and 27 MB
    from drey_runtime.kubernetes_access import NoKubernetesAccess
    from drey_runtime.lease_kubernetes import open_kubernetes

    try:
        async with open_kubernetes(
            namespace=settings.lease_namespace,
            identity=settings.lease_identity,
            prefix=settings.lease_prefix,
            duration_s=settings.lease_duration,
            kubeconfig=settings.lease_kubeconfig,
        ) as lease:
            yield lease
    except NoKubernetesAccess as error:
        raise SettingsError(
            f"DREY_MONITOR_LEASE=kubernetes, but there is no way to its API server ({error}): run"
            " in a pod that has a service account's token, or set DREY_MONITOR_LEASE_KUBECONFIG"
        ) from error


async def _wait_for_bus(bus: Bus) -> None:
    """Give the first batches a chance to be published; goes on without NATS."""
    try:
        await bus.wait_connected(_WAIT_FOR_BUS_S)
    except Unavailable:
        log.warning("starting without NATS")
