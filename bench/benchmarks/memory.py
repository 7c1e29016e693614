"""Resident memory of each service after an import, snapshots, comparisons and plans."""

from __future__ import annotations

from uuid import uuid4

import psutil

from bench.report import Result
from bench.site import EVERYTHING, BenchSite, catalog_csv, site
from drey.common.v1 import state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey.snapshot.v1 import snapshot_service_pb2

_TARGETS = {"snapshot": 190.0, "restore": 170.0, "gateway": 180.0}


async def _work_once(bench_site: BenchSite) -> None:
    """Everything that the services do, once."""
    await bench_site.drift(setpoints=min(1000, bench_site.pvs))
    before = await bench_site.take()
    await bench_site.drift(setpoints=min(1000, bench_site.pvs))
    after = await bench_site.take()
    compare = compare_service_pb2.CompareRequest(
        spec=compare_pb2.ComparisonSpec(
            reference=state_pb2.StateRef(snapshot_id=before.id),
            others=[state_pb2.StateRef(snapshot_id=after.id)],
            with_values=True,
        )
    )
    async for _ in bench_site.comparisons.Compare(compare, **bench_site.call):
        pass
    async for _ in bench_site.snapshots.ReadSnapshot(
        snapshot_service_pb2.ReadSnapshotRequest(id=after.id), **bench_site.call
    ):
        pass
    await bench_site.restores.CreatePlan(
        restore_service_pb2.CreatePlanRequest(
            spec=restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=before.id)),
            request_id=str(uuid4()),
        ),
        **bench_site.call,
    )
    values = monitor_service_pb2_grpc.MonitorServiceStub(bench_site.channel).GetValues(
        monitor_service_pb2.GetValuesRequest(selector=EVERYTHING), **bench_site.call
    )
    async for _ in values:
        pass


async def run(pvs: int, runs: int) -> Result:
    """The figure of a run is the largest resident size seen after each piece of work."""
    result = Result("memory", pvs)
    seen: dict[str, list[float]] = {name: [] for name in _TARGETS}
    async with site(pvs) as bench_site:
        await bench_site.import_csv(catalog_csv(pvs))  # the same file again, as sites do
        for _ in range(runs):
            await _work_once(bench_site)
            for status in bench_site.stack.supervisor.child_statuses():
                if status.pid is not None:
                    size = psutil.Process(status.pid).memory_info().rss / 1e6
                    seen[status.name].append(size)
    for name, target in _TARGETS.items():
        result.figure(f"{name}_mb", seen[name], target)
    result.notes.append("without a monitor: the image is written by the benchmark")
    return result
