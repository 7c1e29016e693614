"""SnapshotService, CompareService, ReferenceService; `setup` builds them from the context."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from drey_core.breaker import BreakerBook
from drey_runtime.jobs import JobStore, JobWorker
from drey_runtime.pulse import Pulses
from drey_snapshot.snapshots.adapters.library import Library
from drey_snapshot.snapshots.adapters.live import LiveSource
from drey_snapshot.snapshots.adapters.metadata import MetadataSource
from drey_snapshot.snapshots.adapters.reader import CaReader
from drey_snapshot.snapshots.adapters.store import SnapshotStore
from drey_snapshot.snapshots.jobs import SnapshotJobs
from drey_snapshot.snapshots.mapping import JOB_KIND
from drey_snapshot.snapshots.reference_servicer import ReferenceServicer
from drey_snapshot.snapshots.servicer import CompareServicer, SnapshotServicer
from drey_snapshot.snapshots.usecases.compare import Comparer
from drey_snapshot.snapshots.usecases.history import Historian
from drey_snapshot.snapshots.usecases.manage import Manager
from drey_snapshot.snapshots.usecases.read import SnapshotReader
from drey_snapshot.snapshots.usecases.take import Taker

if TYPE_CHECKING:
    from drey_snapshot.context import Context

__all__ = ["CompareServicer", "ReferenceServicer", "SnapshotServicer", "setup"]


async def setup_snapshots(
    context: Context,
) -> tuple[SnapshotServicer, CompareServicer, ReferenceServicer, BreakerBook]:
    """The servicers and the breakers of IOCs, their loops started, among them the worker of jobs.

    Waits for nothing. Channels are opened with the first snapshot that reads them.
    """
    settings, db = context.settings, context.db
    store = SnapshotStore(db)
    pulses = Pulses(context.image, settings.shards)
    context.app.start_loop(pulses, "signs of life")
    library = Library(store)
    channels = CaReader(settings.channel_access, settings.ca_environment(), context.app.stack)
    context.app.start_loop(channels, "channels")
    taker = Taker(
        store,
        library,
        context.catalog,
        LiveSource(context.image, pulses, settings.shards),
        MetadataSource(context.image, settings.shards),
        channels,
    )
    job_store = JobStore(db)
    jobs = SnapshotJobs(db, job_store, store, taker, settings.caller_share)
    owner = f"{socket.gethostname()}:{os.getpid()}"
    worker = JobWorker(job_store, {JOB_KIND: jobs.kind()}, owner=owner)
    context.app.start_loop(worker, "snapshot jobs")
    reader = SnapshotReader(store, library, context.catalog)
    return (
        SnapshotServicer(db, jobs, reader, Manager(store), Historian(store)),
        CompareServicer(Comparer(reader, taker, context.catalog)),
        ReferenceServicer(reader),
        channels.breakers,
    )
