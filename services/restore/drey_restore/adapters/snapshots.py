"""Stored values, from the snapshot service, in columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import grpc
import numpy as np

from drey.common.v1 import form_pb2, selector_pb2, value_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as pb
from drey.snapshot.v1 import snapshot_service_pb2_grpc as rpc
from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import Internal
from drey_core.values import I8, Columns, heap_ref
from drey_restore.adapters.upstream import translated
from drey_restore.domain.items import Labels

_SELECTED_AT_ONCE = 50_000


@dataclass(frozen=True)
class StoredValues:
    """The PVs of a snapshot: numbers ascending, and values aligned with them (ABSENT: none)."""

    number: I8
    setpoint: Columns
    readback: Columns


@dataclass(frozen=True)
class StoredName:
    """What a snapshot says of a PV beside its values; addresses empty where it has no such channel.

    An address that is not the catalogue's of now means that the PV was re-addressed since.
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
        numbers, roles, parts, held = [], [], [], list[bytes]()
        async with translated("snapshot"):
            call = self._stub.ReadSnapshot(request, timeout=self._timeout)
            async for message in call:
                if message.HasField("columns") and _is_whole(message.columns, held):
                    number, role, columns = _columns(message.columns)
                    numbers.append(number)
                    roles.append(role)
                    parts.append(columns)
        if not parts:
            return StoredValues(np.zeros(0, np.int64), Columns.empty(), Columns.empty())
        return _by_role(np.concatenate(numbers), np.concatenate(roles), Columns.concat(parts))

    async def names(self, snapshot_id: str, numbers: I8) -> dict[int, StoredName]:
        """Names, enum labels and addresses as of the snapshot, by PV number."""
        out: dict[int, StoredName] = {}
        for at in range(0, len(numbers), _SELECTED_AT_ONCE):
            chosen = numbers[at : at + _SELECTED_AT_ONCE].tolist()
            request = pb.ReadSnapshotRequest(
                id=snapshot_id,
                selector=selector_pb2.Selector(numbers=chosen),
                form=form_pb2.VALUE_FORM_COLUMNS,
                with_metadata=True,
            )
            async with translated("snapshot"):
                call = self._stub.ReadSnapshot(request, timeout=self._timeout)
                async for message in call:
                    for pv in message.metadata.pvs:
                        labels = tuple(text.encode() for text in pv.setpoint.enum_labels)
                        out[pv.number] = StoredName(
                            pv.name, labels, pv.setpoint.address, pv.readback.address
                        )
        return out


def _is_whole(raw: value_pb2.ValueColumns, held: list[bytes]) -> bool:
    """Whether a message is complete: parts of a large value wait in `held` for the last one."""
    if not raw.HasField("part"):
        return True
    held.append(raw.heap)
    if raw.part.first_element + len(raw.heap) < raw.part.total_elements:
        return False
    raw.heap = b"".join(held)
    raw.data[0] = heap_ref(0, len(raw.heap))
    held.clear()
    return True


def _columns(raw: value_pb2.ValueColumns) -> tuple[I8, I8, Columns]:
    n = len(raw.pv_numbers)
    number = np.array(raw.pv_numbers, np.uint64).astype(np.int64)
    columns = Columns(
        key=number,
        kind=np.frombuffer(raw.types, np.uint8),
        state=np.frombuffer(raw.states, np.uint8),
        origin=np.frombuffer(raw.origins, np.uint8),
        severity=np.frombuffer(raw.severities, np.uint8),
        status=np.frombuffer(raw.statuses, "<u2"),
        source_time=np.array(raw.source_times_ns, np.int64),
        receive_time=np.array(raw.receive_times_ns, np.int64),
        data=np.array(raw.data, np.uint64),
        merged=np.zeros(n, np.uint32),
        heap=raw.heap,
    )
    roles = np.frombuffer(raw.roles, np.uint8).astype(np.int64)
    lengths = {len(getattr(columns, name)) for name in Columns.__slots__ if name != "heap"}
    if lengths != {n} or len(roles) != n:
        raise Internal("the columns of a snapshot differ in length")
    return number, roles, columns


def _by_role(number: I8, roles: I8, columns: Columns) -> StoredValues:
    setpoint = _ascending(columns.take(np.flatnonzero(roles == ROLE_SETPOINT)))
    readback = _ascending(columns.take(np.flatnonzero(roles == ROLE_READBACK)))
    numbers = setpoint.key
    if not np.array_equal(numbers, readback.key):
        numbers = merged(numbers, readback.key)
    return StoredValues(numbers, align(setpoint, numbers), align(readback, numbers))


def _ascending(columns: Columns) -> Columns:
    """In the order of the keys, each once; as they came where they came so."""
    if (np.diff(columns.key) > 0).all():
        return columns
    _, rows = np.unique(columns.key, return_index=True)
    return columns.take(rows)


def merged(a: I8, b: I8) -> I8:
    """The numbers of both, ascending, each once."""
    both = np.sort(np.concatenate([a, b]), kind="stable")
    return both[np.concatenate([[True], np.diff(both) != 0])] if len(both) else both


def align(columns: Columns, keys: I8) -> Columns:
    """Columns with ascending keys, brought to `keys`; those not there are absent."""
    if np.array_equal(columns.key, keys):
        return columns
    if len(columns) == 0:
        return Columns.empty(len(keys)).with_key(keys)
    at = np.minimum(np.searchsorted(columns.key, keys), len(columns) - 1)
    missing = columns.key[at] != keys
    out = columns.take(at)
    if not missing.any():
        return out
    kind, state, data = out.kind.copy(), out.state.copy(), out.data.copy()
    kind[missing], state[missing], data[missing] = 0, 0, 0
    return replace(out, key=keys, kind=kind, state=state, data=data)
