"""Messages of `drey.compare.v1` to and from the domain. Protobuf types end here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from drey.common.v1 import form_pb2, state_pb2
from drey.compare.v1 import compare_pb2 as pb
from drey.compare.v1 import compare_service_pb2 as rpc
from drey_core.compare import CLASSES, DifferenceClass, Summary
from drey_core.errors import Unimplemented
from drey_core.ids import parse_uuid
from drey_core.wire_values import wrap_payload
from drey_runtime.mapping.common import in_columns
from drey_runtime.mapping.selector import selector_from_proto
from drey_snapshot.snapshots.domain.comparisons import Order
from drey_snapshot.snapshots.domain.differences import Side
from drey_snapshot.snapshots.mapping import invalid_field, known_enum
from drey_snapshot.snapshots.usecases.compare import (
    Compared,
    ComparedState,
    CompareOrder,
    ComparisonScope,
    ToleranceSource,
)

_ROWS = 2


def compare_order(request: rpc.CompareRequest) -> CompareOrder:
    """The order in a request. Raises `InvalidArgument`, and `Unimplemented`."""
    spec = request.spec
    selector = None
    if spec.HasField("selector"):
        selector = selector_from_proto(spec.selector, "spec.selector")
        selector.validate_selector("spec.selector")
    for number in spec.classes:
        known_enum(DifferenceClass, number, "spec.classes")
    if in_columns(spec.form, "spec.form"):
        raise Unimplemented(
            "spec.form: only VALUE_FORM_ROWS is built in this version", field="spec.form"
        )
    if request.page_size < 0:
        raise invalid_field("page_size", "is negative")
    setpoint, readback = spec.setpoint_tolerance, spec.readback_tolerance
    return CompareOrder(
        reference=read_state(spec.reference, "spec.reference"),
        others=tuple(read_state(each, f"spec.others[{i}]") for i, each in enumerate(spec.others)),
        selector=selector,
        tolerance_source=known_enum(ToleranceSource, spec.tolerance_source, "spec.tolerance_source")
        or ToleranceSource.REFERENCE,
        setpoint_tolerance=(setpoint.absolute, setpoint.relative),
        readback_tolerance=(readback.absolute, readback.relative),
        classes=frozenset(spec.classes),
        order=known_enum(Order, spec.order, "spec.order") or Order.NAME,
        scope=known_enum(ComparisonScope, spec.scope, "spec.scope") or ComparisonScope.REFERENCE,
        with_values=spec.with_values,
        summary_only=request.summary_only,
        page_size=request.page_size,
        page_token=request.page_token,
    )


def read_state(message: state_pb2.StateRef, field: str) -> ComparedState:
    """A state at `field` of a request. Raises `InvalidArgument`, and `Unimplemented`."""
    which = message.WhichOneof("state")
    match which:
        case None:
            raise invalid_field(field, "says no state: set `snapshot_id`, `live` or `golden`")
        case "snapshot_id":
            path = f"{field}.snapshot_id"
            if not message.snapshot_id:
                raise invalid_field(path, "is empty")
            return ComparedState(parse_uuid(message.snapshot_id, path), path)
        case "live":
            return ComparedState("", f"{field}.live")
        case "golden" if not message.golden.scope:
            return ComparedState("", f"{field}.golden.label", message.golden.label)
        case "golden":
            raise Unimplemented(
                f"{field}.golden.scope: saved scopes are not built in this version",
                field=f"{field}.golden.scope",
            )
        case _:
            raise Unimplemented(
                f"{field}.{which} is not built in this version", field=f"{field}.{which}"
            )


def compare_responses(
    compared: Compared, spec: pb.ComparisonSpec
) -> Iterator[rpc.CompareResponse | bytes]:
    """The messages of the stream; rows as encoded bytes."""
    yield rpc.CompareResponse(header=_comparison_header(compared, spec))
    for chunk in compared.row_chunks():
        yield wrap_payload(_ROWS, chunk)
    yield rpc.CompareResponse(end=rpc.ComparisonEnd(next_page_token=compared.next_page_token))


def _comparison_header(compared: Compared, spec: pb.ComparisonSpec) -> pb.ComparisonHeader:
    order, each = compared.order, compared.found.each
    return pb.ComparisonHeader(
        reference=_resolved_state(spec.reference, order.reference, each[0].reference),
        others=[
            _resolved_state(ref, state, one.other)
            for ref, state, one in zip(spec.others, order.others, each, strict=True)
        ],
        summaries=[
            _comparison_summary(one.summary, outside)
            for one, outside in zip(each, compared.outside, strict=True)
        ],
        scope=cast("pb.ComparisonScope.ValueType", int(order.scope)),
        tolerance_source=cast("pb.ToleranceSource.ValueType", int(order.tolerance_source)),
        order=cast("pb.ComparisonOrder.ValueType", int(order.order)),
        total_rows=compared.total,
        form=form_pb2.VALUE_FORM_ROWS,
    )


def _resolved_state(ref: state_pb2.StateRef, state: ComparedState, side: Side) -> pb.ResolvedState:
    time = Timestamp()
    time.FromNanoseconds(side.view.time_ns)
    return pb.ResolvedState(
        state=ref,
        snapshot_id=state.snapshot_id,
        state_time=time,
        stale_shards=side.view.stale_shards,
        by_monitor=side.by_monitor,
    )


def _comparison_summary(summary: Summary, outside: int) -> pb.ComparisonSummary:
    return pb.ComparisonSummary(
        counts=[
            pb.ClassCount(
                difference_class=cast("pb.DifferenceClass.ValueType", number),
                setpoints=summary.setpoints[number],
                readbacks=summary.readbacks[number],
            )
            for number in range(1, CLASSES)
            if summary.setpoints[number] or summary.readbacks[number]
        ],
        pvs=summary.pvs,
        pvs_same=summary.pvs_same,
        pvs_different=summary.pvs_different,
        pvs_unknown=summary.pvs_unknown,
        pvs_outside_scope=outside,
    )
