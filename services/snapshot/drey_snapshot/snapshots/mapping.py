"""Messages of `drey.snapshot.v1` to and from the domain. Protobuf types end here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.unknown_fields import UnknownFieldSet

from drey.common.v1 import value_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_core import errors
from drey_core.directory import Metadata
from drey_core.errors import DreyError, InvalidArgument, Reason
from drey_core.page_storage import load_text
from drey_core.values import ARRAY, I8
from drey_runtime.jobs import JobError
from drey_runtime.mapping.common import actor, time_bound, timestamp_message
from drey_runtime.mapping.selector import selector_from_proto, selector_to_proto
from drey_runtime.paging import in_chunks
from drey_snapshot.snapshots.adapters.store import SnapshotFilter
from drey_snapshot.snapshots.domain.chosen import decode_selector, shorten_selector
from drey_snapshot.snapshots.domain.gates import MissingPv
from drey_snapshot.snapshots.domain.order import (
    DEFAULT_MAX_AGE_NS,
    DEFAULT_READ_TIMEOUT_S,
    MAX_READ_TIMEOUT_S,
    Gates,
    TakeOrder,
)
from drey_snapshot.snapshots.domain.records import GoldenMark, Record, Source
from drey_snapshot.snapshots.domain.titles import check_title, escape_title
from drey_snapshot.snapshots.domain.views import ValuesView
from drey_snapshot.snapshots.usecases.history import HistoryOrder

E = TypeVar("E", bound=IntEnum)
Pv = snapshot_service_pb2.PvMetadata

JOB_KIND = "snapshot"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_MAX_INT32 = 2**31 - 1
_MOST_SHOWN, _MOST_SHOWN_BYTES = 10, 2000
"""PVs in a status, whose other details and text need room within 8 KiB too."""
_EDITABLE = ("title", "comment", "labels")


def invalid_field(field: str, message: str) -> InvalidArgument:
    """A field that breaks its documented limits."""
    return InvalidArgument(f"{field}: {message}", field=field, metadata={"field": field})


def duration_ns(message: Duration, field: str) -> int:
    """A duration in nanoseconds; refuses negative ones."""
    nanos = message.seconds * 10**9 + message.nanos
    if nanos < 0:
        raise invalid_field(field, "is negative")
    return nanos


# --- taking -------------------------------------------------------------------------------------


def take_order(spec: snapshot_pb2.SnapshotSpec) -> TakeOrder:
    """The order in a specification. Raises `InvalidArgument`, `Unimplemented` for an instant."""
    if spec.HasField("instant_ns"):
        raise errors.Unimplemented(
            "spec.instant_ns: snapshots of a past instant are not built in this version",
            field="spec.instant_ns",
        )
    selector = selector_from_proto(spec.selector, "spec.selector")
    selector.validate_selector("spec.selector")
    timeout = DEFAULT_READ_TIMEOUT_S
    if spec.HasField("read_timeout"):
        timeout = duration_ns(spec.read_timeout, "spec.read_timeout") / 1e9
        if not 0 < timeout <= MAX_READ_TIMEOUT_S:
            raise invalid_field(
                "spec.read_timeout", f"must be above 0, at most {MAX_READ_TIMEOUT_S:.0f} s"
            )
    source = known_enum(Source, spec.source, "spec.source") or Source.IMAGE
    check_title(spec.title_template, selector.scope, source.text, "spec.title_template")
    return TakeOrder(
        selector=selector,
        source=source,
        gates=_gates_of(spec.gates),
        title_template=spec.title_template,
        comment=spec.comment,
        labels=_check_labels(spec.labels, "spec.labels"),
        read_timeout_s=timeout,
    )


def _gates_of(message: snapshot_pb2.Gates) -> Gates:
    age = DEFAULT_MAX_AGE_NS
    if message.HasField("max_age"):
        age = duration_ns(message.max_age, "spec.gates.max_age")
    if message.max_missing < 0:
        raise invalid_field("spec.gates.max_missing", "is negative; leave it out to allow none")
    missing = None if message.HasField("any_missing") else message.max_missing
    required = None
    if message.HasField("required"):
        required = selector_from_proto(message.required, "spec.gates.required")
        required.validate_selector("spec.gates.required")
    return Gates(age, missing, required)


def queued_payload(request: snapshot_service_pb2.TakeSnapshotRequest) -> bytes:
    """A request as its job keeps it."""
    essential = snapshot_service_pb2.TakeSnapshotRequest()
    essential.CopyFrom(request)
    essential.ClearField("wait")
    return essential.SerializeToString(deterministic=True)


def queued_order(payload: bytes) -> tuple[TakeOrder, str]:
    """The order that a job keeps, also one of the first edition, and its request id."""
    request = snapshot_service_pb2.TakeSnapshotRequest.FromString(payload)
    spec = request.spec if request.HasField("spec") else _first_spec(payload)
    return take_order(spec), request.request_id


def _first_spec(payload: bytes) -> snapshot_pb2.SnapshotSpec:
    """From a request of the first edition, whose fields had the numbers that they have in a spec.

    It had a title, and gates that held `max_missing` as 2, unsigned, `allow_any_missing` as 3 and
    `required_names` as 4.
    """
    spec = snapshot_pb2.SnapshotSpec.FromString(payload)
    spec.title_template = escape_title(spec.title_template)
    gates = spec.gates
    unknown = UnknownFieldSet(gates)
    for field in map(unknown.__getitem__, range(len(unknown))):
        if field.field_number == 2 and not gates.HasField("any_missing"):
            gates.max_missing = min(field.data, _MAX_INT32)
        elif field.field_number == 3 and field.data:
            gates.any_missing.SetInParent()
        elif field.field_number == 4:
            gates.required.names.append(field.data.decode())
    return spec


# --- refusals -----------------------------------------------------------------------------------


def refusal_detail(missing: Sequence[MissingPv], refusal_id: str) -> snapshot_pb2.CoverageRefusal:
    """The detail of a status; `refusal_id` is empty where the list is not kept."""
    detail = snapshot_pb2.CoverageRefusal(missing_count=len(missing), refusal_id=refusal_id)
    for pv in missing[:_MOST_SHOWN]:
        message = _missing_pv(pv)
        if detail.ByteSize() + message.ByteSize() > _MOST_SHOWN_BYTES:
            break
        detail.first_missing.append(message)
    return detail


def refusal_chunks(
    missing: Sequence[MissingPv],
) -> Iterator[snapshot_service_pb2.ReadRefusalResponse]:
    """All that is missing, in messages."""
    for part in in_chunks(map(_missing_pv, missing), snapshot_pb2.MissingPv.ByteSize):
        yield snapshot_service_pb2.ReadRefusalResponse(missing=part)


def _missing_pv(pv: MissingPv) -> snapshot_pb2.MissingPv:
    message = snapshot_pb2.MissingPv(number=pv.number, name=pv.name, required=pv.required)
    for role, reason in (
        (value_pb2.CHANNEL_ROLE_SETPOINT, pv.setpoint),
        (value_pb2.CHANNEL_ROLE_READBACK, pv.readback),
    ):
        if reason:
            message.channels.add(
                role=role, reason=cast("snapshot_pb2.MissingReason.ValueType", reason)
            )
    return message


def _check_labels(labels: Sequence[str], field: str) -> tuple[str, ...]:
    for i, label in enumerate(labels):
        if not label.strip():
            raise invalid_field(f"{field}[{i}]", "is empty")
    return tuple(dict.fromkeys(labels))


def known_enum(cls: type[E], number: int, field: str) -> E:
    """The member of an enum of the core by its number. Raises `InvalidArgument`."""
    try:
        return cls(number)
    except ValueError as error:
        raise invalid_field(field, f"{number} is not one of its values") from error


_CLASS_OF_REASON: dict[Reason, type[DreyError]] = {
    Reason.INVALID_FIELD: errors.InvalidArgument,
    Reason.EMPTY_SELECTOR: errors.InvalidArgument,
    Reason.MALFORMED_ID: errors.InvalidArgument,
    Reason.NOT_FOUND: errors.NotFound,
    Reason.IMAGE_NOT_FRESH: errors.FailedPrecondition,
    Reason.COVERAGE_TOO_SMALL: errors.FailedPrecondition,
    Reason.WRONG_STATE: errors.FailedPrecondition,
    Reason.DATABASE_UNAVAILABLE: errors.Unavailable,
    Reason.IMAGE_UNAVAILABLE: errors.Unavailable,
    Reason.BUS_UNAVAILABLE: errors.Unavailable,
    Reason.UPSTREAM_UNAVAILABLE: errors.Unavailable,
    Reason.NOT_IMPLEMENTED: errors.Unimplemented,
    Reason.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    Reason.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
}


def refusal_of(error: JobError) -> DreyError:
    """The refusal that a job's record speaks of, as it would have come from the call."""
    cls = _CLASS_OF_REASON.get(error.reason, errors.Internal)
    return cls(error.message, reason=error.reason, field=error.field)


# --- snapshots ----------------------------------------------------------------------------------


def snapshot_message(record: Record) -> snapshot_pb2.Snapshot:
    """A snapshot without its values."""
    facts, labels, counts, skew = (
        record.facts,
        record.labels,
        record.facts.counts,
        record.facts.skew,
    )
    snapshot = snapshot_pb2.Snapshot(
        id=facts.id,
        take_time=timestamp_message(facts.time_ns),
        title=labels.title,
        comment=labels.comment,
        labels=labels.labels,
        golden_marks=[_golden_mark(mark) for mark in record.golden],
        actor=actor(facts.principal, facts.role),
        source=cast("snapshot_pb2.SnapshotSource.ValueType", facts.source),
        pv_count=facts.pv_count,
        counts=snapshot_pb2.StateCounts(
            channels=counts.channels,
            connected=counts.connected,
            disconnected=counts.disconnected,
            never_connected=counts.never_connected,
            in_alarm=counts.in_alarm,
            source_time_suspect=counts.source_time_suspect,
            by_monitor=counts.by_monitor,
            unsupported=counts.unsupported,
        ),
        skew=snapshot_pb2.Skew(
            oldest_source_time_ns=skew.oldest_source_time_ns,
            newest_source_time_ns=skew.newest_source_time_ns,
            median_age_ns=skew.median_age_ns,
            p99_age_ns=skew.p99_age_ns,
        ),
        digest=facts.digest.hex(),
        shards=[
            snapshot_pb2.ShardStamp(
                shard=s.shard, epoch=s.epoch, sequence=s.sequence, age_ns=s.age_ns
            )
            for s in facts.shards
        ],
        job_id=facts.job_id,
        etag=labels.etag,
        delete_time=timestamp_message(labels.delete_time_ns),
    )
    snapshot.take_duration.FromNanoseconds(facts.duration_ns)
    if record.chosen is not None:
        selector = decode_selector(load_text([record.chosen])[0])
        shown = shorten_selector(selector)
        snapshot.selector.CopyFrom(selector_to_proto(shown))
        snapshot.selector_shortened = shown is not selector
    return snapshot


def _golden_mark(mark: GoldenMark) -> snapshot_pb2.GoldenMark:
    message = snapshot_pb2.GoldenMark(scope=mark.scope, label=mark.label, reason=mark.reason)
    if mark.mark_time_ns:
        message.actor.CopyFrom(actor(mark.principal, mark.roles))
        message.mark_time.FromNanoseconds(mark.mark_time_ns)
    return message


def list_filter(request: snapshot_service_pb2.ListSnapshotsRequest) -> SnapshotFilter:
    """The filter of a list. Raises `InvalidArgument`."""
    if request.digest and not _DIGEST.fullmatch(request.digest):
        raise invalid_field("digest", "is not 64 hexadecimal digits")
    return SnapshotFilter(
        search=request.search,
        labels=tuple(dict.fromkeys(request.labels)),
        golden_only=request.golden_only,
        from_time_ns=time_bound(request, "from_time") or 0,
        to_time_ns=time_bound(request, "to_time") or 0,
        include_deleted=request.include_deleted,
        scope=request.scope,
        principal=request.principal,
        digest=bytes.fromhex(request.digest) if request.digest else None,
        pv=request.pv,
    )


def label_changes(request: snapshot_service_pb2.UpdateSnapshotRequest) -> dict[str, object]:
    """New values by field name. Raises `InvalidArgument` for an empty or a wrong mask."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    if not paths:
        raise invalid_field("update_mask", f"names no field; it may name {', '.join(_EDITABLE)}")
    changes: dict[str, object] = {}
    for path in paths:
        if path not in _EDITABLE:
            raise invalid_field(
                "update_mask", f"{path!r} cannot be changed; only {', '.join(_EDITABLE)} can"
            )
        value = getattr(request.snapshot, path)
        changes[path] = _check_labels(value, "snapshot.labels") if path == "labels" else value
    return changes


# --- metadata -----------------------------------------------------------------------------------


def metadata_chunks(view: ValuesView, rows: I8) -> Iterator[snapshot_service_pb2.MetadataChunk]:
    """Metadata of the channels of some rows, in their order."""
    directory, get = view.where.directory, view.where.metadata.metadata_of
    columns = list(
        zip(
            rows.tolist(),
            directory.pv_number[rows].tolist(),
            directory.setpoint_channel[rows].tolist(),
            directory.readback_channel[rows].tolist(),
            strict=True,
        )
    )

    def describe_pv(row: int, number: int, setpoint: int, readback: int) -> Pv:
        pv = Pv(number=number, name=directory.names[row], device=directory.devices[row])
        if setpoint:
            _fill_metadata(pv.setpoint, directory.setpoint_address[row], get(setpoint))
        if readback:
            _fill_metadata(pv.readback, directory.readback_address[row], get(readback))
        return pv

    for pvs in in_chunks((describe_pv(*column) for column in columns), Pv.ByteSize):
        yield snapshot_service_pb2.MetadataChunk(pvs=pvs)


def _fill_metadata(
    message: value_pb2.ChannelMetadata, address: str, known_metadata: Metadata | None
) -> None:
    message.address = address
    if known_metadata is None:
        return
    message.native_type = cast("value_pb2.ValueType.ValueType", known_metadata.kind & ~ARRAY)
    message.element_count = known_metadata.count
    message.units = known_metadata.units.decode(errors="replace")
    if known_metadata.precision >= 0:
        message.precision = known_metadata.precision
    for name, index in (("display", 0), ("warning", 2), ("alarm", 4), ("control", 6)):
        low, high = known_metadata.limits[index], known_metadata.limits[index + 1]
        if not (math.isnan(low) and math.isnan(high)):
            limits = getattr(message, name)
            limits.low, limits.high = low, high
    message.enum_labels.extend(label.decode(errors="replace") for label in known_metadata.labels)
    message.readable, message.writable = known_metadata.readable, known_metadata.writable
    message.host = known_metadata.host


# --- looking back ------------------------------------------------------------------------------


def history_order(request: snapshot_service_pb2.GetPvHistoryRequest) -> HistoryOrder:
    """The order in a request. Raises `InvalidArgument`."""
    if not request.number and not request.name:
        raise invalid_field("number", "say which PV, by number or by name")
    if request.role not in value_pb2.ChannelRole.values():
        raise invalid_field("role", f"{request.role} is not one of its values")
    return HistoryOrder(
        request.number,
        request.name,
        request.role,
        time_bound(request, "from_time") or 0,
        time_bound(request, "to_time") or 0,
    )
