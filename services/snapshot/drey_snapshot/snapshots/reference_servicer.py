"""`drey.internal.reference.v1.ReferenceService`: a snapshot in columns, for our own parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from drey.internal.reference.v1 import reference_service_pb2 as rpc
from drey_core.errors import Unimplemented
from drey_core.wire_values import wrap_payload
from drey_runtime.directory_codec import encode_catalog, encode_metadata
from drey_runtime.paging import in_chunks
from drey_snapshot.snapshots.compare_mapping import read_state
from drey_snapshot.snapshots.domain.records import Record
from drey_snapshot.snapshots.usecases.read import SnapshotReader, SnapshotRows

Context = grpc.aio.ServicerContext[Any, Any]
_COLUMNS = 5


class ReferenceServicer:
    """The one method."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader

    async def _find_record(self, request: rpc.ReadReferenceRequest) -> Record:
        # what is wrong is told to the client of a watch, by the path in its request
        state = read_state(request.state, "spec.reference")
        if state.golden is not None:
            return await self._reader.golden(state.golden, state.field)
        if not state.snapshot_id:
            raise Unimplemented(
                f"{state.field}: the live machine cannot be the reference; name a snapshot",
                field=state.field,
            )
        return await self._reader.living_snapshot(state.snapshot_id, state.field)

    async def ReadReference(
        self, request: rpc.ReadReferenceRequest, context: Context
    ) -> AsyncIterator[rpc.ReadReferenceResponse | bytes]:
        """As the contract says."""
        record = await self._find_record(request)
        snapshot_id = record.facts.id
        yield rpc.ReadReferenceResponse(snapshot_id=snapshot_id, time_ns=record.facts.time_ns)
        if snapshot_id == request.known_id:
            return
        view = await self._reader.view(record)
        catalog = map(encode_catalog, view.where.directory.pages.values())
        for pages in in_chunks(catalog, len):
            yield rpc.ReadReferenceResponse(catalog_pages=pages)
        metadata = map(encode_metadata, view.where.metadata.pages.values())
        for pages in in_chunks(metadata, len):
            yield rpc.ReadReferenceResponse(metadata_pages=pages)
        for chunk in SnapshotRows(record, view, view.rows).column_chunks():
            yield wrap_payload(_COLUMNS, chunk)
