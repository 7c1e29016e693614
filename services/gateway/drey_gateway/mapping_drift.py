"""What clients ask for when they watch drift, and what they are told of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from drey.common.v1 import form_pb2, state_pb2, value_pb2
from drey.compare.v1 import compare_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import watch_pb2
from drey_core import errors
from drey_core.compare import CLASSES
from drey_core.values import I8
from drey_core.wire import chunk_rows
from drey_core.wire_values import encode_varint, wrap_payload
from drey_gateway.domain.drift import DriftCounts, DriftTable, DriftTolerances, DriftWanted
from drey_gateway.domain.resume import decode_token
from drey_gateway.domain.wire import MESSAGE_BYTES
from drey_gateway.mapping_asked import read_interval, read_selector
from drey_gateway.mapping_told import freshness_change
from drey_runtime.mapping.common import in_columns

_BASELINE, _CHANGED = 2, 4
_LEFT = 3
_MERGED_TAG = b"\x20"
_NUMBERS = 20_000


def read_drift(request: pb.WatchDriftRequest) -> DriftWanted:
    """A request, checked but for its state. Raises `InvalidArgument`, `Unimplemented`."""
    spec = request.spec
    if in_columns(spec.form, "spec.form"):
        raise errors.Unimplemented(
            "spec.form: only VALUE_FORM_ROWS is built in this version", field="spec.form"
        )
    if spec.hysteresis > 1:
        raise errors.InvalidArgument(
            f"spec.hysteresis: {spec.hysteresis} is more than 1; it is a part of the tolerance",
            field="spec.hysteresis",
        )
    tolerances = int(spec.tolerance_source) or DriftTolerances.REFERENCE
    if tolerances not in set(DriftTolerances):
        raise errors.InvalidArgument(
            "spec.tolerance_source: say the reference's, the catalog's, or exact; a tolerance for"
            " all PVs cannot be given here",
            field="spec.tolerance_source",
        )
    path = "spec.selector"
    return DriftWanted(
        reference=spec.reference.SerializeToString(deterministic=True),
        reference_text=_reference_text(spec.reference),
        golden=spec.reference.HasField("golden"),
        selector=read_selector(spec.selector, path) if spec.HasField("selector") else None,
        tolerances=DriftTolerances(tolerances),
        hysteresis=spec.hysteresis or 1.0,
        min_interval_s=read_interval(spec.min_interval, "spec.min_interval"),
        token=decode_token(request.token) if request.token else None,
    )


def _reference_text(state: state_pb2.StateRef) -> str:
    """What metrics call it."""
    if state.HasField("golden"):
        return f"golden/{state.golden.label}"
    return f"snapshots/{state.snapshot_id.lower()}"


def encode_drift(**part: object) -> bytes:
    """A `WatchDriftResponse`."""
    raw: bytes = pb.WatchDriftResponse(**part).SerializeToString()  # type: ignore[arg-type]
    return raw


def begin_message(table: DriftTable, pv_count: int, keeps_state: bool) -> bytes:
    """Begins a baseline."""
    time = Timestamp()
    time.FromNanoseconds(table.reference.time_ns)
    return encode_drift(
        baseline_begin=pb.DriftBegin(
            pv_count=pv_count,
            keeps_state=keeps_state,
            form=form_pb2.VALUE_FORM_ROWS,
            snapshot_id=table.reference.snapshot_id,
            state_time=time,
            tolerance_source=int(table.tolerances),  # type: ignore[arg-type]
        )
    )


def end_message(token: str) -> bytes:
    """Ends a baseline."""
    return encode_drift(baseline_end=watch_pb2.BaselineEnd(token=token))


def resync_message(reason: str) -> bytes:
    """A baseline follows; why."""
    return encode_drift(resync_required=watch_pb2.ResyncRequired(reason=reason))


def all_fresh_message() -> bytes:
    """All values can be believed; what cannot is told next."""
    return encode_drift(freshness=freshness_change(value_pb2.FRESHNESS_FRESH, "", numbers=None))


def baseline_messages(rows: list[bytes]) -> Iterator[bytes]:
    """Encoded rows, as many at a time as fit into one message."""
    return (wrap_payload(_BASELINE, part) for part in chunk_rows(rows, MESSAGE_BYTES))


def change_messages(rows: list[bytes], left: I8, merged: int) -> list[bytes]:
    """`WatchDriftResponse` messages of one change: who left first; the first has `merged`."""
    bodies = [
        wrap_payload(_LEFT, np.ascontiguousarray(left[start : start + _NUMBERS], "<u8").tobytes())
        for start in range(0, len(left), _NUMBERS)
    ]
    bodies += chunk_rows(rows, MESSAGE_BYTES)
    if len(bodies) > 1 and len(left) and len(bodies[0]) + len(bodies[1]) <= MESSAGE_BYTES:
        bodies[:2] = [bodies[0] + bodies[1]]
    if bodies and merged:
        bodies[0] += _MERGED_TAG + encode_varint(merged)
    return [wrap_payload(_CHANGED, body) for body in bodies]


def summary_of(counts: DriftCounts) -> pb.DriftSummary:
    """How many differ."""
    summary = counts.summary
    return pb.DriftSummary(
        different=summary.pvs_different,
        unknown=summary.pvs_unknown,
        compared=summary.pvs,
        same=summary.pvs_same,
        stale=counts.stale,
        counts=[
            compare_pb2.ClassCount(
                difference_class=number,  # type: ignore[arg-type]
                setpoints=summary.setpoints[number],
                readbacks=summary.readbacks[number],
            )
            for number in range(1, CLASSES)
            if summary.setpoints[number] or summary.readbacks[number]
        ],
    )
