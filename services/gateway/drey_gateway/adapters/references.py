"""Reads stored states whole, from `ReferenceService` of the snapshot service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

from drey.common.v1 import state_pb2
from drey.internal.reference.v1 import reference_service_pb2 as pb
from drey.internal.reference.v1 import reference_service_pb2_grpc as pb_grpc
from drey_core.directory import Directory, MetadataIndex
from drey_core.values import Columns
from drey_gateway.domain.drift import Reference
from drey_runtime.directory_codec import decode_catalog, decode_metadata
from drey_runtime.mapping.columns import ColumnsReader
from drey_runtime.upstream import read_stream, translate_errors

_DEADLINE_S = 20.0


class ReferenceClient:
    """Over a channel to the snapshot service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.ReferenceServiceStub(channel)

    async def read_reference(
        self, state: bytes, known_references: Mapping[str, Reference], likely: str
    ) -> Reference:
        """The snapshot that an encoded `StateRef` is: by id one of `known_references`, if it can.

        `likely` is the id that it probably has; empty: nobody knows. Raises `NotFound` and what
        else is wrong with the state, `Unavailable` where the service does not answer within 20 s.
        """
        request = pb.ReadReferenceRequest(
            state=state_pb2.StateRef.FromString(state),
            known_id=likely if likely in known_references else "",
        )
        parts: list[pb.ReadReferenceResponse] = []
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.ReadReference(request, timeout=_DEADLINE_S)) as messages,
        ):
            async for part in messages:
                if not parts and part.snapshot_id in known_references:
                    return known_references[part.snapshot_id]
                parts.append(part)
        return await asyncio.to_thread(_assemble_reference, parts)


def _assemble_reference(parts: list[pb.ReadReferenceResponse]) -> Reference:
    reader, read_parts = ColumnsReader(), []
    for part in parts:
        columns = reader.join_columns(part.columns) if part.HasField("columns") else None
        if columns is not None:
            read_parts.append(columns)
    reference = Reference.of_columns(
        parts[0].snapshot_id,
        parts[0].time_ns,
        Directory.from_pages(0, [decode_catalog(raw) for p in parts for raw in p.catalog_pages]),
        MetadataIndex(decode_metadata(raw) for p in parts for raw in p.metadata_pages),
        np.concatenate([f.pv_numbers for f in read_parts]) if read_parts else np.zeros(0, np.int64),
        np.concatenate([f.roles for f in read_parts]) if read_parts else np.zeros(0, np.uint8),
        Columns.concat_columns([f.columns for f in read_parts]),
    )
    # made here, where the event loop does not wait for it
    assert reference.row_encoder and reference.selector_index
    return reference
