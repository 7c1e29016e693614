"""The connection of an asyncio program."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc.aio

from drey.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import form_pb2, state_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2, compare_service_pb2_grpc
from drey.job.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2
from drey.restore.v1 import restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey_client.audit import AuditedRestore, make_record, record_targets
from drey_client.choosing import Chosen, choose
from drey_client.errors import ClientError, from_call_error, reason_name
from drey_client.parts import whole_rows
from drey_client.pv_files import PvImport, import_requests, read_import
from drey_client.settings import Connection
from drey_client.tables import ComparisonTable, ValueTable, comparison_table, snapshot_table
from drey_client.values import LivePv, pv_of_row
from drey_client.watch import SILENCE_S, LiveWatch

M = TypeVar("M")
STREAM_TIMEOUT_S = 600.0
_MESSAGE_BYTES = 16 << 20
_ENDED = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_INTERRUPTED,
    }
)
_SOURCES = {
    "image": snapshot_pb2.SNAPSHOT_SOURCE_IMAGE,
    "read": snapshot_pb2.SNAPSHOT_SOURCE_READ,
    "image-then-read": snapshot_pb2.SNAPSHOT_SOURCE_IMAGE_THEN_READ,
}


class Client:
    """One server, asked with one key. Of the event loop in which it is entered.

    Every call raises `ClientError` when it is refused or the server is away, and may be cancelled;
    only a watch connects again by itself. A request that acts is given a `request_id`, under which
    the client repeats nothing on its own.
    """

    def __init__(
        self,
        server: str,
        key: str = "",
        *,
        tls: bool = False,
        ca: str | Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`server` is `host:port`. `ca`: PEM file of the authorities to trust, implies `tls`."""
        self.server, self.timeout_s = server, timeout_s
        self._roots = Path(ca).read_bytes() if ca is not None else None
        self._tls = tls or ca is not None
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._channel: grpc.aio.Channel | None = None

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Of what `find_connection` found."""
        return cls(**asdict(connection))

    async def __aenter__(self) -> Client:
        self._channel = self._open_channel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    @property
    def channel(self) -> grpc.aio.Channel:
        """For the stubs of services that have no method here."""
        if self._channel is None:
            raise RuntimeError("the client is not entered: async with Client(...) as drey")
        return self._channel

    def _open_channel(self) -> grpc.aio.Channel:
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.primary_user_agent", "drey-client-python"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if not self._tls:
            return grpc.aio.insecure_channel(self.server, options=options)
        credentials = grpc.ssl_channel_credentials(root_certificates=self._roots)
        return grpc.aio.secure_channel(self.server, credentials, options=options)

    async def call(self, method: Any, request: M, *, timeout_s: float | None = None) -> Any:
        """Call a unary method of a stub. A request that acts is given a request id."""
        message: Any = request
        if "request_id" in message.DESCRIPTOR.fields_by_name and not message.request_id:
            message.request_id = "" if getattr(message, "dry_run", False) else str(uuid4())
        try:
            return await method(
                request, timeout=timeout_s or self.timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise from_call_error(error) from error

    async def stream(
        self, method: Any, request: M, *, timeout_s: float | None = STREAM_TIMEOUT_S
    ) -> AsyncIterator[Any]:
        """Messages of a stream of a stub that ends by itself. Leaving it cancels the call.

        `timeout_s` None: however long it takes.
        """
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        try:
            # closed, for one that is left half read keeps the call, which keeps it and its message
            async with aclosing(call.__aiter__()) as messages:
                async for message in messages:
                    yield message
        except grpc.aio.AioRpcError as error:
            raise from_call_error(error) from error
        finally:
            call.cancel()

    def watch(
        self,
        chosen: Chosen,
        *,
        fields: str = "both",
        min_interval_s: float = 0.0,
        deadband: watch_pb2.Deadband | None = None,
        arrays: watch_pb2.ArrayLimits | None = None,
        with_metadata: bool = True,
        allow_unknown: bool = False,
        silence_s: float = SILENCE_S,
    ) -> LiveWatch:
        """Follow PVs: `async for change in drey.watch("tag:Area=LI21")`. See `LiveWatch`.

        `fields`: `both`, `setpoint` or `readback`. `allow_unknown`: names that nothing has yet are
        waited for; else they are an error. `arrays` limits how much of arrays comes: what is above
        comes as `ArrayExtract`, and `get` has the whole. It has a connection of its own, also where
        the client is not entered.
        """
        spec = watch_pb2.WatchSpec(
            selector=choose(chosen),
            fields=watch_pb2.WatchFields.Value(f"WATCH_FIELDS_{fields.upper()}"),
            deadband=deadband,
            array_limits=arrays,
            with_metadata=with_metadata,
            allow_unknown=allow_unknown,
        )
        if min_interval_s:
            spec.min_interval.FromNanoseconds(round(min_interval_s * 1e9))
        return LiveWatch(self._open_channel, self._metadata, spec, silence_s=silence_s)

    async def get(self, chosen: Chosen) -> list[LivePv]:
        """The latest values, as the monitors have them; nothing is read from an IOC.

        Names may be addresses of channels. Raises `NOT_FOUND` with the names that nothing has.
        """
        request = monitor_service_pb2.GetValuesRequest(selector=choose(chosen), with_metadata=True)
        stub: Any = monitor_service_pb2_grpc.MonitorServiceStub(self.channel)
        rows, metadata, unknown = [], {}, []
        async for message in self.stream(stub.GetValues, request):
            rows.extend(message.rows)
            metadata.update({row.number: (row.setpoint, row.readback) for row in message.metadata})
            unknown.extend(message.not_found)
        if unknown:
            raise ClientError(f"nothing is named {', '.join(unknown[:10])}", reason="NOT_FOUND")
        return [pv_of_row(row, *metadata.get(row.number, (None, None))) for row in whole_rows(rows)]

    async def find(self, address: str) -> catalog_pb2.Pv:
        """The catalog's entry of a PV, by its name or the address of one of its channels."""
        stub: Any = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        request = catalog_service_pb2.ListPvsRequest(selector=choose([address]), page_size=2)
        answer = await self.call(stub.ListPvs, request)
        if not answer.pvs:
            raise ClientError(f"nothing is named {address}", reason="NOT_FOUND")
        entry: catalog_pb2.Pv = answer.pvs[0]
        return entry

    async def import_pvs(
        self, path: str | Path, *, dry_run: bool = False, keep_existing: bool = False
    ) -> PvImport:
        """Import a CSV file of PVs: all of it, or, when any row is refused, nothing.

        It does not raise for a refused row: see `summary.refused`. `dry_run`: only say what would
        be done. `keep_existing`: PVs that are there stay as they are. OSError: the file.
        """
        stub: Any = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        file = io.BytesIO(await asyncio.to_thread(Path(path).read_bytes))
        requests = import_requests(
            file, Path(path).name, dry_run=dry_run, keep_existing=keep_existing
        )
        return read_import([message async for message in self.stream(stub.ImportPvs, requests)])

    async def snapshots(self, limit: int = 100, **filters: Any) -> list[snapshot_pb2.Snapshot]:
        """The newest snapshots (0: all); `filters` are fields of `ListSnapshotsRequest`."""
        stub: Any = snapshot_service_pb2_grpc.SnapshotServiceStub(self.channel)
        request = snapshot_service_pb2.ListSnapshotsRequest(**filters)
        return await self._list_items(stub.ListSnapshots, request, "snapshots", limit)

    async def acts(self, limit: int = 100, **filters: Any) -> list[audit_pb2.AuditEvent]:
        """The newest acts of the audit trail (0: all); `filters` as of `ListEventsRequest`."""
        stub: Any = audit_service_pb2_grpc.AuditServiceStub(self.channel)
        request = audit_service_pb2.ListEventsRequest(**filters)
        return await self._list_items(stub.ListEvents, request, "events", limit)

    async def _list_items(self, method: Any, request: Any, field: str, limit: int) -> list[Any]:
        items: list[Any] = []
        while True:
            request.page_size = min(1000, limit - len(items)) if limit else 1000
            answer = await self.call(method, request)
            items.extend(getattr(answer, field))
            request.page_token = answer.next_page_token
            if not request.page_token or 0 < limit <= len(items):
                return items[: limit or None]

    async def read_record(self, restore_id: str) -> AuditedRestore:
        """All that is kept of a restore: it, its plan, the acts on both, and each value."""
        stub: Any = restore_service_pb2_grpc.RestoreServiceStub(self.channel)
        of_restore = restore_service_pb2.GetRestoreRequest(id=restore_id)
        restore = (await self.call(stub.GetRestore, of_restore)).restore
        of_plan = restore_service_pb2.GetPlanRequest(id=restore.plan_id)
        plan = (await self.call(stub.GetPlan, of_plan)).plan
        acts = [act for each in record_targets(restore) for act in await self.acts(0, target=each)]
        of_items = restore_service_pb2.ReadRestoreRequest(id=restore.id)
        messages = [message async for message in self.stream(stub.ReadRestore, of_items)]
        items = whole_rows(item for message in messages for item in message.items)
        return make_record(restore, plan, acts, items)

    async def take_snapshot(
        self,
        chosen: Chosen = "*",
        *,
        title: str = "",
        comment: str = "",
        labels: tuple[str, ...] = (),
        source: str = "image",
        max_missing: int | None = 0,
        timeout_s: float = 300.0,
    ) -> snapshot_pb2.Snapshot:
        """Take a snapshot, and wait until it is durable.

        `source`: `image`, `read` or `image-then-read`. `max_missing`: PVs that may be without a
        value or not connected (None: any number; the gaps are recorded); more, and it is refused
        with `COVERAGE_TOO_SMALL`. TimeoutError after `timeout_s`: then, as where it is cancelled, a
        job is left that goes on.
        """
        gates = snapshot_pb2.Gates()
        if max_missing is None:
            gates.any_missing.SetInParent()
        else:
            gates.max_missing = max_missing
        request = snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=choose(chosen),
                source=_SOURCES[source],
                gates=gates,
                title_template=title,
                comment=comment,
                labels=labels,
            )
        )
        request.wait.FromSeconds(2)
        stub: Any = snapshot_service_pb2_grpc.SnapshotServiceStub(self.channel)
        answer = await self.call(stub.TakeSnapshot, request, timeout_s=self.timeout_s + 2)
        if answer.HasField("snapshot"):
            snapshot: snapshot_pb2.Snapshot = answer.snapshot
            return snapshot
        async with asyncio.timeout(timeout_s):
            job = await self._wait_job(answer.job)
        if job.state != job_pb2.JOB_STATE_SUCCEEDED:
            reason = _job_reason(job)
            raise ClientError(job.error.message or f"job {job.id} ended without it", reason=reason)
        taken = await self.call(
            stub.GetSnapshot, snapshot_service_pb2.GetSnapshotRequest(id=job.snapshot_id)
        )
        snapshot = taken.snapshot
        return snapshot

    async def _wait_job(self, job: job_pb2.Job) -> job_pb2.Job:
        stub: Any = job_service_pb2_grpc.JobServiceStub(self.channel)
        while job.state not in _ENDED:
            await asyncio.sleep(0.25)
            job = (await self.call(stub.GetJob, job_service_pb2.GetJobRequest(id=job.id))).job
        return job

    async def read_snapshot(self, snapshot_id: str, chosen: Chosen | None = None) -> ValueTable:
        """The values of a snapshot, all or of chosen PVs, as columns."""
        request = snapshot_service_pb2.ReadSnapshotRequest(
            id=snapshot_id, form=form_pb2.VALUE_FORM_COLUMNS, with_metadata=True
        )
        if chosen is not None:
            request.selector.CopyFrom(choose(chosen))
        stub: Any = snapshot_service_pb2_grpc.SnapshotServiceStub(self.channel)
        snapshot, metadata, parts = snapshot_pb2.Snapshot(), [], []
        async for message in self.stream(stub.ReadSnapshot, request):
            part = message.WhichOneof("part")
            if part == "header":
                snapshot = message.header
            elif part == "metadata":
                metadata.extend(message.metadata.pvs)
            elif part == "columns":
                parts.append(message.columns)
        return snapshot_table(snapshot, metadata, parts)

    async def compare(
        self,
        reference: str,
        other: str | None = None,
        *,
        chosen: Chosen | None = None,
        everything: bool = False,
    ) -> ComparisonTable:
        """What differs from a snapshot: the live machine (None), or another snapshot, by their ids.

        `everything`: also the PVs that are equal or within tolerance.
        """
        spec = compare_pb2.ComparisonSpec(
            reference=state_pb2.StateRef(snapshot_id=reference), with_values=True
        )
        state = spec.others.add()
        if other is None:
            state.live.SetInParent()
        else:
            state.snapshot_id = other
        if chosen is not None:
            spec.selector.CopyFrom(choose(chosen))
        if everything:
            spec.classes.extend(n for n in compare_pb2.DifferenceClass.values() if n)
        stub: Any = compare_service_pb2_grpc.CompareServiceStub(self.channel)
        header, rows = compare_pb2.ComparisonHeader(), []
        request = compare_service_pb2.CompareRequest(spec=spec)
        async for message in self.stream(stub.Compare, request):
            part = message.WhichOneof("part")
            if part == "header":
                header = message.header
            elif part == "rows":
                rows.extend(message.rows.rows)
        return comparison_table(header, rows)


def _job_reason(job: job_pb2.Job) -> str:
    """Reason of a job's error, or the state in which it ended."""
    if job.HasField("error"):
        return reason_name(job.error.reason)
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
