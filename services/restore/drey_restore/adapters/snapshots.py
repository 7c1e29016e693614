"""Stored values, from the snapshot service, in columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import grpc
import numpy as np
from numpy.typing import NDArray

from drey.common.v1 import form_pb2, selector_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as pb
from drey.snapshot.v1 import snapshot_service_pb2_grpc as rpc
from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import NotFound
from drey_core.values import I8, U1, Columns
from drey_restore.domain.items import Labels
from drey_runtime.mapping.columns import ColumnsReader
from drey_runtime.upstream import read_stream, translate_errors

_SELECTED_AT_ONCE = 50_000


@dataclass(frozen=True)
class StoredValues:
    """The PVs of a snapshot: numbers ascending, and values aligned with them (ABSENT: none).

    The channels are those of which the values were taken (0: none).
    """

    number: I8
    setpoint: Columns
    readback: Columns
    setpoint_channel: I8
    readback_channel: I8

    def values_of_numbers(self, numbers: I8) -> StoredValues:
        """Of other PVs, in ascending order; those of which nothing is stored are absent."""
        if np.array_equal(numbers, self.number):
            return self
        return StoredValues(
            numbers,
            align_columns(self.setpoint, numbers),
            align_columns(self.readback, numbers),
            _aligned_channels(self.number, self.setpoint_channel, numbers),
            _aligned_channels(self.number, self.readback_channel, numbers),
        )


@dataclass(frozen=True)
class StoredName:
    """What a snapshot says of a PV beside its values; addresses empty where it has no such channel.

    An address that is not the catalog's of now means that the PV was re-addressed since.
    """

    name: str
    setpoint_labels: Labels
    setpoint_address: str = ""
    readback_address: str = ""


class SnapshotClient:
    """`SnapshotService`. Raises `NotFound`, and `Unavailable` while it is away."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float = 10.0) -> None:
        self._stub = rpc.SnapshotServiceStub(channel)
        self._timeout = timeout_s

    async def values(
        self, snapshot_id: str, selector: selector_pb2.Selector | None
    ) -> StoredValues:
        """The values of a snapshot, or of those PVs of it that a selector chooses."""
        request = pb.ReadSnapshotRequest(
            id=snapshot_id, selector=selector, form=form_pb2.VALUE_FORM_COLUMNS
        )
        roles, channels, parts, reader = [], [], [], ColumnsReader()
        async with (
            translate_errors("snapshot"),
            read_stream(self._stub.ReadSnapshot(request, timeout=self._timeout)) as messages,
        ):
            async for message in messages:
                read_columns = (
                    reader.join_columns(message.columns) if message.HasField("columns") else None
                )
                if read_columns is not None:
                    roles.append(read_columns.roles)
                    channels.append(read_columns.columns.key)
                    parts.append(replace(read_columns.columns, key=read_columns.pv_numbers))
        if not parts:
            nothing = np.zeros(0, np.int64)
            return StoredValues(
                nothing, Columns.empty_columns(), Columns.empty_columns(), nothing, nothing
            )
        return _by_role(
            np.concatenate(roles), np.concatenate(channels), Columns.concat_columns(parts)
        )

    async def golden_id(self, scope: str, label: str) -> str:
        """The snapshot that is golden for a scope and label now. NotFound."""
        token = ""
        while True:
            request = pb.ListSnapshotsRequest(golden_only=True, page_size=1000, page_token=token)
            async with translate_errors("snapshot"):
                page = await self._stub.ListSnapshots(request, timeout=self._timeout)
            for snapshot in page.snapshots:
                if any(
                    (mark.scope, mark.label) == (scope, label) for mark in snapshot.golden_marks
                ):
                    return str(snapshot.id)
            token = page.next_page_token
            if not token:
                raise NotFound(
                    f"no snapshot is golden for the scope {scope!r} (empty: the whole catalog) and"
                    f" the label {label!r}; mark one with SetGolden",
                    field="spec.state.golden",
                    metadata={"resource": "golden snapshot", "scope": scope, "label": label},
                )

    async def names(self, snapshot_id: str, numbers: I8) -> dict[int, StoredName]:
        """Names, enum labels and addresses as of the snapshot, by PV number."""
        out: dict[int, StoredName] = {}
        for start in range(0, len(numbers), _SELECTED_AT_ONCE):
            chosen = numbers[start : start + _SELECTED_AT_ONCE].tolist()
            request = pb.ReadSnapshotRequest(
                id=snapshot_id,
                selector=selector_pb2.Selector(numbers=chosen),
                form=form_pb2.VALUE_FORM_COLUMNS,
                with_metadata=True,
            )
            async with (
                translate_errors("snapshot"),
                read_stream(self._stub.ReadSnapshot(request, timeout=self._timeout)) as messages,
            ):
                async for message in messages:
                    for pv in message.metadata.pvs:
                        labels = tuple(text.encode() for text in pv.setpoint.enum_labels)
                        out[pv.number] = StoredName(
                            pv.name, labels, pv.setpoint.address, pv.readback.address
                        )
        return out


def _by_role(roles: U1, channels: I8, columns: Columns) -> StoredValues:
    setpoint, setpoint_channel = _of_role(roles == ROLE_SETPOINT, channels, columns)
    readback, readback_channel = _of_role(roles == ROLE_READBACK, channels, columns)
    numbers = setpoint.key
    if not np.array_equal(numbers, readback.key):
        numbers = merge_numbers(numbers, readback.key)
    return StoredValues(
        numbers,
        align_columns(setpoint, numbers),
        align_columns(readback, numbers),
        _aligned_channels(setpoint.key, setpoint_channel, numbers),
        _aligned_channels(readback.key, readback_channel, numbers),
    )


def _of_role(mask: NDArray[np.bool_], channels: I8, columns: Columns) -> tuple[Columns, I8]:
    """(values, channels) of one role, ascending by the number of the PV, each once."""
    rows = np.flatnonzero(mask)
    keys = columns.key[rows]
    if not (np.diff(keys) > 0).all():
        rows = rows[np.unique(keys, return_index=True)[1]]
    return columns.take_rows(rows), channels[rows]


def _aligned_channels(keys: I8, channels: I8, numbers: I8) -> I8:
    """The channel of each number, 0 where it is not among the ascending keys."""
    if len(keys) == 0:
        return np.zeros(len(numbers), np.int64)
    index = np.minimum(np.searchsorted(keys, numbers), len(keys) - 1)
    aligned: I8 = np.where(keys[index] == numbers, channels[index], 0)
    return aligned


def merge_numbers(a: I8, b: I8) -> I8:
    """The numbers of both, ascending, each once."""
    both = np.sort(np.concatenate([a, b]), kind="stable")
    return both[np.concatenate([[True], np.diff(both) != 0])] if len(both) else both


def align_columns(columns: Columns, keys: I8) -> Columns:
    """Columns with ascending keys, brought to `keys`; those not there are absent."""
    if np.array_equal(columns.key, keys):
        return columns
    if len(columns) == 0:
        return Columns.empty_columns(len(keys)).with_key(keys)
    places = np.minimum(np.searchsorted(columns.key, keys), len(columns) - 1)
    missing = columns.key[places] != keys
    out = columns.take_rows(places)
    if not missing.any():
        return out
    kind, state, data = out.kind.copy(), out.state.copy(), out.data.copy()
    kind[missing], state[missing], data[missing] = 0, 0, 0
    return replace(out, key=keys, kind=kind, state=state, data=data)
