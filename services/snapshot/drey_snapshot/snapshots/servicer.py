"""SnapshotService and CompareService: validate, map, call, map."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc

from drey.compare.v1 import compare_service_pb2 as compare_pb
from drey.snapshot.v1 import snapshot_service_pb2 as pb
from drey_core.errors import Unimplemented
from drey_core.ids import parse_uuid
from drey_core.token import decode_page_token, query_hash
from drey_core.wire_values import wrap_payload
from drey_runtime.auth import current_principal
from drey_runtime.database import Connection, Database
from drey_runtime.idempotency import Slot, run_once
from drey_runtime.mapping.common import in_columns
from drey_runtime.mapping.job import job_to_proto
from drey_runtime.mapping.selector import selector_from_proto
from drey_runtime.paging import check_page_size, cut_page
from drey_snapshot.snapshots import compare_mapping, mapping
from drey_snapshot.snapshots.jobs import SnapshotJobs
from drey_snapshot.snapshots.usecases.compare import Comparer
from drey_snapshot.snapshots.usecases.history import Historian
from drey_snapshot.snapshots.usecases.manage import Manager
from drey_snapshot.snapshots.usecases.read import SnapshotReader

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = "drey.snapshot.v1.SnapshotService"
_DEFAULT_WAIT_S = 10.0
_ANSWER_S = 0.05
"""What is kept of the call's deadline for the answer itself."""
_ROWS, _COLUMNS = 3, 4
_LIST = "snapshots"


class SnapshotServicer:
    """The methods by name; streams of values are given as encoded bytes."""

    def __init__(
        self,
        db: Database,
        jobs: SnapshotJobs,
        reader: SnapshotReader,
        manager: Manager,
        historian: Historian,
    ) -> None:
        self._db, self._jobs, self._reader = db, jobs, reader
        self._manager, self._historian = manager, historian

    async def TakeSnapshot(
        self, request: pb.TakeSnapshotRequest, context: Context
    ) -> pb.TakeSnapshotResponse:
        """As the contract says."""
        wait_s = _DEFAULT_WAIT_S
        if request.HasField("wait"):
            wait_s = mapping.duration_ns(request.wait, "wait") / 1e9
        remaining = context.time_remaining()
        if remaining is not None:
            wait_s = min(wait_s, max(remaining - _ANSWER_S, 0))
        taken = await self._jobs.submit_take(request, current_principal.get(), wait_s)
        return pb.TakeSnapshotResponse(
            job=job_to_proto(taken.job),
            snapshot=mapping.snapshot_message(taken.record) if taken.record else None,
        )

    async def ReadRefusal(
        self, request: pb.ReadRefusalRequest, context: Context
    ) -> AsyncIterator[pb.ReadRefusalResponse]:
        """As the contract says."""
        for chunk in mapping.refusal_chunks(
            await self._jobs.read_refusal(parse_uuid(request.id, "id"))
        ):
            yield chunk

    async def GetSnapshot(
        self, request: pb.GetSnapshotRequest, context: Context
    ) -> pb.GetSnapshotResponse:
        """As the contract says."""
        record = await self._manager.get_snapshot(parse_uuid(request.id, "id"))
        return pb.GetSnapshotResponse(snapshot=mapping.snapshot_message(record))

    async def ReadSnapshot(
        self, request: pb.ReadSnapshotRequest, context: Context
    ) -> AsyncIterator[pb.ReadSnapshotResponse | bytes]:
        """As the contract says."""
        as_columns = in_columns(request.form)
        selector = None
        if request.HasField("selector"):
            selector = selector_from_proto(request.selector)
        reading = await self._reader.read_rows(
            parse_uuid(request.id, "id"), selector, request.only_missing
        )
        yield pb.ReadSnapshotResponse(header=mapping.snapshot_message(reading.record))
        if request.with_metadata:
            for chunk in mapping.metadata_chunks(reading.view, reading.rows):
                yield pb.ReadSnapshotResponse(metadata=chunk)
        if as_columns:
            for columns in reading.column_chunks():
                yield wrap_payload(_COLUMNS, columns)
        else:
            for rows in reading.row_chunks():
                yield wrap_payload(_ROWS, rows)

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        """As the contract says."""
        chosen = mapping.list_filter(request)
        query = query_hash(dataclasses.replace(chosen, labels=tuple(sorted(chosen.labels))))
        position = decode_page_token(_LIST, query, request.page_token, (int, int))
        if position is not None:
            time_ns, no = (int(p) for p in position)
            chosen = dataclasses.replace(chosen, after=(time_ns, no))
        if chosen.pv:
            among = await self._historian.snapshots_with(chosen)
            chosen = dataclasses.replace(chosen, among=tuple(among))
        size = check_page_size(request.page_size)
        page, more = cut_page(
            _LIST,
            query,
            await self._manager.list_records(chosen, size + 1),
            size,
            mapping.snapshot_message,
            lambda record: [record.facts.time_ns, record.no],
        )
        total = 0
        if position is None:
            total = await self._manager.count_records(chosen) if more else len(page)
        return pb.ListSnapshotsResponse(snapshots=page, next_page_token=more, total_size=total)

    async def UpdateSnapshot(
        self, request: pb.UpdateSnapshotRequest, context: Context
    ) -> pb.UpdateSnapshotResponse | bytes:
        """As the contract says."""
        snapshot_id = parse_uuid(request.snapshot.id, "snapshot.id")
        changes = mapping.label_changes(request)
        principal = current_principal.get()
        async with (
            self._db.begin_transaction() as conn,
            self._once_only(conn, "UpdateSnapshot", request) as slot,
        ):
            if slot.seen is None:
                record = await self._manager.update_snapshot(
                    conn, snapshot_id, request.snapshot.etag, changes, principal
                )
                answer = pb.UpdateSnapshotResponse(snapshot=mapping.snapshot_message(record))
                slot.response = answer.SerializeToString()
        return slot.response or b""

    async def SetGolden(
        self, request: pb.SetGoldenRequest, context: Context
    ) -> pb.SetGoldenResponse | bytes:
        """As the contract says."""
        snapshot_id = parse_uuid(request.snapshot_id, "snapshot_id")
        key = (request.scope, request.label)
        principal = current_principal.get()
        async with (
            self._db.begin_transaction() as conn,
            self._once_only(conn, "SetGolden", request) as slot,
        ):
            if slot.seen is None:
                record, moved = await self._manager.set_golden(
                    conn, snapshot_id, key, request.reason, request.etag, principal
                )
                answer = pb.SetGoldenResponse(
                    snapshot=mapping.snapshot_message(record), moved_from_id=moved
                )
                slot.response = answer.SerializeToString()
        return slot.response or b""

    async def ClearGolden(
        self, request: pb.ClearGoldenRequest, context: Context
    ) -> pb.ClearGoldenResponse | bytes:
        """As the contract says."""
        snapshot_id = parse_uuid(request.snapshot_id, "snapshot_id")
        key = (request.scope, request.label)
        principal = current_principal.get()
        async with (
            self._db.begin_transaction() as conn,
            self._once_only(conn, "ClearGolden", request) as slot,
        ):
            if slot.seen is None:
                record = await self._manager.clear_golden(
                    conn, snapshot_id, key, request.reason, request.etag, principal
                )
                answer = pb.ClearGoldenResponse(snapshot=mapping.snapshot_message(record))
                slot.response = answer.SerializeToString()
        return slot.response or b""

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Context
    ) -> pb.DeleteSnapshotResponse | bytes:
        """As the contract says."""
        snapshot_id = parse_uuid(request.id, "id")
        principal = current_principal.get()
        async with (
            self._db.begin_transaction() as conn,
            self._once_only(conn, "DeleteSnapshot", request) as slot,
        ):
            if slot.seen is None:
                record = await self._manager.delete_snapshot(
                    conn, snapshot_id, request.etag, principal
                )
                answer = pb.DeleteSnapshotResponse(snapshot=mapping.snapshot_message(record))
                slot.response = answer.SerializeToString()
        return slot.response or b""

    async def UndeleteSnapshot(
        self, request: pb.UndeleteSnapshotRequest, context: Context
    ) -> pb.UndeleteSnapshotResponse | bytes:
        """As the contract says."""
        snapshot_id = parse_uuid(request.id, "id")
        principal = current_principal.get()
        async with (
            self._db.begin_transaction() as conn,
            self._once_only(conn, "UndeleteSnapshot", request) as slot,
        ):
            if slot.seen is None:
                record = await self._manager.undelete_snapshot(conn, snapshot_id, principal)
                answer = pb.UndeleteSnapshotResponse(snapshot=mapping.snapshot_message(record))
                slot.response = answer.SerializeToString()
        return slot.response or b""

    async def GetPvHistory(
        self, request: pb.GetPvHistoryRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """As the contract says, but for `near`."""
        if request.HasField("near"):
            raise Unimplemented("near is not built in this version", field="near")
        order = mapping.history_order(request)
        async for chunk in self._historian.read_history(order):
            yield chunk

    async def VerifySnapshot(
        self, request: pb.VerifySnapshotRequest, context: Context
    ) -> pb.VerifySnapshotResponse:
        """As the contract says."""
        check = await self._manager.verify_snapshot(parse_uuid(request.id, "id"))
        return pb.VerifySnapshotResponse(
            intact=not check.findings, pages=check.pages, findings=check.findings
        )

    def _once_only(
        self,
        conn: Connection,
        method: str,
        request: pb.UpdateSnapshotRequest
        | pb.SetGoldenRequest
        | pb.ClearGoldenRequest
        | pb.DeleteSnapshotRequest
        | pb.UndeleteSnapshotRequest,
    ) -> AbstractAsyncContextManager[Slot]:
        return run_once(
            conn,
            f"/{SERVICE}/{method}",
            current_principal.get().name,
            request.request_id,
            request.SerializeToString(deterministic=True),
        )


class CompareServicer:
    """The one method; rows are given as encoded bytes."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    async def Compare(
        self, request: compare_pb.CompareRequest, context: Context
    ) -> AsyncIterator[compare_pb.CompareResponse | bytes]:
        """As the contract says."""
        compared = await self._comparer.compare(compare_mapping.compare_order(request))
        for response in compare_mapping.compare_responses(compared, request.spec):
            yield response
