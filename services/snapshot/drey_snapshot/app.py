"""The composition root of the snapshot service."""

from __future__ import annotations

from drey_runtime.app import App
from drey_runtime.app_memory import GiveBack, keep_little
from drey_runtime.auth import TokenVerifier
from drey_runtime.bus import Bus
from drey_runtime.database import Connection, Database
from drey_runtime.forced_breakers import ForcedBreakers
from drey_runtime.housekeeping import Housekeeping
from drey_runtime.image import Image
from drey_runtime.instances import InstanceReports
from drey_runtime.migrate import check_connection
from drey_runtime.server import Readiness, serve_grpc
from drey_runtime.settings import SettingsError
from drey_snapshot import snapshots
from drey_snapshot.catalog.directory_servicer import DirectoryServicer
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.rpc import Parts
from drey_snapshot.catalog.servicer import CatalogServicer
from drey_snapshot.catalog.servicer_policies import SERVICE as POLICY_SERVICE
from drey_snapshot.catalog.servicer_policies import PolicyServicer
from drey_snapshot.catalog.usecases.writer import CatalogWriter
from drey_snapshot.context import Context
from drey_snapshot.settings import SnapshotSettings

CATALOG_SERVICE = "drey.catalog.v1.CatalogService"
DIRECTORY_SERVICE = "drey.internal.directory.v1.DirectoryService"
SNAPSHOT_SERVICE = "drey.snapshot.v1.SnapshotService"
COMPARE_SERVICE = "drey.compare.v1.CompareService"
REFERENCE_SERVICE = "drey.internal.reference.v1.ReferenceService"
PACKAGES = ("drey_runtime", "drey_snapshot")


async def main(settings: SnapshotSettings, app: App) -> None:
    """Open everything, start the loops, serve."""
    keep_little()
    context = await open_context(settings, app)
    (
        snapshots_servicer,
        compare_servicer,
        reference_servicer,
        breakers,
    ) = await snapshots.setup_snapshots(context)
    parts = Parts(
        context.db,
        context.image,
        context.catalog,
        CatalogWriter(context.db, context.catalog),
        settings.import_limit,
    )
    services: list[tuple[str, object]] = [
        (CATALOG_SERVICE, CatalogServicer(parts)),
        (POLICY_SERVICE, PolicyServicer(parts)),
        (DIRECTORY_SERVICE, DirectoryServicer(context.catalog)),
        (SNAPSHOT_SERVICE, snapshots_servicer),
        (COMPARE_SERVICE, compare_servicer),
        (REFERENCE_SERVICE, reference_servicer),
    ]
    assert settings.trusted_keys is not None, "open_context has checked it"
    _, health = await app.stack.enter_async_context(
        serve_grpc(
            settings,
            settings.listen,
            TokenVerifier.from_file(settings.trusted_keys, "snapshot"),
            services,
        )
    )
    app.start_loop(GiveBack(), "memory")
    # the catalog is read from memory; snapshots are not
    catalog, db = context.catalog, context.db
    app.start_loop(
        Readiness(
            health,
            {
                name: lambda: catalog.is_loaded
                for name in (CATALOG_SERVICE, POLICY_SERVICE, DIRECTORY_SERVICE)
            }
            | {
                name: lambda: catalog.is_loaded and db.ready
                for name in (SNAPSHOT_SERVICE, COMPARE_SERVICE, REFERENCE_SERVICE)
            },
        ),
        "health",
    )
    await ForcedBreakers(breakers).subscribe_to_bus(context.bus)
    app.start_loop(
        InstanceReports(
            context.bus, "snapshot", lambda: health.serving, iocs=lambda: breakers.ioc_states
        ),
        "instance",
    )


async def open_context(settings: SnapshotSettings, app: App) -> Context:
    """Pools and loops; nothing here waits for Postgres, NATS or Redis."""
    if settings.trusted_keys is None:
        raise SettingsError(
            "DREY_TRUSTED_KEYS is not set: without the gateway's public key every call would be"
            " refused. Set it to the file trusted.json beside the services' keys"
        )
    db = await app.stack.enter_async_context(
        Database(
            settings.postgres_url.get_secret_value(),
            name="drey-snapshot",
            min_size=2,
            command_timeout=30,
            checks=[_check_migrations],
            share=settings.caller_share,
        )
    )
    bus = Bus.bus_of_service(settings, "snapshot")
    image = await app.stack.enter_async_context(
        Image.open_image(settings.redis_url.get_secret_value(), settings.namespace)
    )
    catalog = LiveCatalog(db, bus, settings.catalog_poll)
    app.start_loop(db, "database")
    app.start_loop(bus, "bus")
    app.start_loop(catalog, "catalog")
    app.start_loop(Housekeeping(db), "housekeeping")
    return Context(settings, app, db, bus, image, catalog)


async def _check_migrations(connection: Connection) -> None:
    await check_connection(connection, PACKAGES)
