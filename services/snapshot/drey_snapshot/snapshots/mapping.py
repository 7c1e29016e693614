"""Messages of `drey.snapshot.v1` to and from the domain. Protobuf types end here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TypeVar, cast

from google.protobuf.duration_pb2 import Duration

from drey.common.v1 import value_pb2
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_core import errors
from drey_core.directory import Metadata
from drey_core.errors import DreyError, InvalidArgument, Reason
from drey_core.page_storage import load_text
from drey_core.values import ARRAY, I8
from drey_runtime.jobs import JobError
from drey_runtime.mapping.actor import actor
from drey_runtime.mapping.selector import selector_from_proto, selector_to_proto
from drey_runtime.paging import in_chunks
from drey_snapshot.snapshots.adapters.store import Filter
from drey_snapshot.snapshots.domain.chosen import decode_selector, shortened
from drey_snapshot.snapshots.domain.order import (
    DEFAULT_MAX_AGE_NS,
    DEFAULT_READ_TIMEOUT_S,
    MAX_READ_TIMEOUT_S,
    Gates,
    TakeOrder,
)
from drey_snapshot.snapshots.domain.records import GoldenMark, Record, Source
from drey_snapshot.snapshots.domain.views import ValuesView
from drey_snapshot.snapshots.usecases.history import HistoryOrder

E = TypeVar("E", bound=IntEnum)
Pv = snapshot_service_pb2.PvMetadata

JOB_KIND = "snapshot"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_EDITABLE = ("title", "comment", "labels")


def invalid(field: str, message: str) -> InvalidArgument:
    """A field that breaks its documented limits."""
    return InvalidArgument(f"{field}: {message}", field=field, metadata={"field": field})


def duration_ns(message: Duration, field: str) -> int:
    """A duration in nanoseconds; refuses negative ones."""
    nanos = message.seconds * 10**9 + message.nanos
    if nanos < 0:
        raise invalid(field, "is negative")
    return nanos


# --- taking -------------------------------------------------------------------------------------


def take_order(request: snapshot_service_pb2.TakeSnapshotRequest) -> TakeOrder:
    """The order in a request. Raises `InvalidArgument`."""
    selector = selector_from_proto(request.selector)
    selector.validate()
    timeout = DEFAULT_READ_TIMEOUT_S
    if request.HasField("read_timeout"):
        timeout = duration_ns(request.read_timeout, "read_timeout") / 1e9
        if not 0 < timeout <= MAX_READ_TIMEOUT_S:
            raise invalid("read_timeout", f"must be above 0, at most {MAX_READ_TIMEOUT_S:.0f} s")
    return TakeOrder(
        selector=selector,
        source=known_enum(Source, request.source, "source") or Source.IMAGE,
        gates=_gates(request.gates),
        title=request.title,
        comment=request.comment,
        labels=_labels(request.labels, "labels"),
        read_timeout_s=timeout,
    )


def _gates(message: snapshot_pb2.Gates) -> Gates:
    age = DEFAULT_MAX_AGE_NS
    if message.HasField("max_age"):
        age = duration_ns(message.max_age, "gates.max_age")
    missing: int | None = message.max_missing
    if message.allow_any_missing:
        missing = None
    return Gates(age, missing, tuple(message.required_names))


def _labels(labels: Sequence[str], field: str) -> tuple[str, ...]:
    for i, label in enumerate(labels):
        if not label.strip():
            raise invalid(f"{field}[{i}]", "is empty")
    return tuple(dict.fromkeys(labels))


def known_enum(cls: type[E], number: int, field: str) -> E:
    """The member of an enum of the core by its number. Raises `InvalidArgument`."""
    try:
        return cls(number)
    except ValueError as error:
        raise invalid(field, f"{number} is not one of its values") from error


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
        time_ns=facts.time_ns,
        title=labels.title,
        comment=labels.comment,
        labels=labels.labels,
        golden_marks=[_golden(mark) for mark in record.golden],
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
        delete_time_ns=labels.delete_time_ns,
        scope=facts.scope,
        duration_ns=facts.duration_ns,
    )
    if record.chosen is not None:
        selector = decode_selector(load_text([record.chosen])[0])
        shown = shortened(selector)
        snapshot.selector.CopyFrom(selector_to_proto(shown))
        snapshot.selector_shortened = shown is not selector
    return snapshot


def _golden(mark: GoldenMark) -> snapshot_pb2.GoldenMark:
    message = snapshot_pb2.GoldenMark(scope=mark.scope, label=mark.label, reason=mark.reason)
    if mark.mark_time_ns:
        message.actor.CopyFrom(actor(mark.principal, mark.roles))
        message.mark_time.FromNanoseconds(mark.mark_time_ns)
    return message


def list_filter(request: snapshot_service_pb2.ListSnapshotsRequest) -> Filter:
    """The filter of a list. Raises `InvalidArgument`, and `Unimplemented` for a PV held."""
    if request.pv:
        raise errors.Unimplemented(
            "pv: listing the snapshots that hold a PV is not built in this version; the history of"
            " the PV names them",
            field="pv",
        )
    if request.digest and not _DIGEST.fullmatch(request.digest):
        raise invalid("digest", "is not 64 hexadecimal digits")
    return Filter(
        search=request.search,
        labels=tuple(dict.fromkeys(request.labels)),
        golden_only=request.golden_only,
        from_time_ns=request.from_time_ns,
        to_time_ns=request.to_time_ns,
        include_deleted=request.include_deleted,
        scope=request.scope,
        principal=request.principal,
        digest=bytes.fromhex(request.digest) if request.digest else None,
    )


def label_changes(request: snapshot_service_pb2.UpdateSnapshotRequest) -> dict[str, object]:
    """New values by field name. Raises `InvalidArgument` for an empty or a wrong mask."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    if not paths:
        raise invalid("update_mask", f"names no field; it may name {', '.join(_EDITABLE)}")
    changes: dict[str, object] = {}
    for path in paths:
        if path not in _EDITABLE:
            raise invalid(
                "update_mask", f"{path!r} cannot be changed; only {', '.join(_EDITABLE)} can"
            )
        value = getattr(request.snapshot, path)
        changes[path] = _labels(value, "snapshot.labels") if path == "labels" else value
    return changes


# --- metadata -----------------------------------------------------------------------------------


def metadata_chunks(view: ValuesView, rows: I8) -> Iterator[snapshot_service_pb2.MetadataChunk]:
    """Metadata of the channels of some rows, in their order."""
    directory, get = view.where.directory, view.where.metadata.get
    columns = list(
        zip(
            rows.tolist(),
            directory.pv_number[rows].tolist(),
            directory.setpoint_channel[rows].tolist(),
            directory.readback_channel[rows].tolist(),
            strict=True,
        )
    )

    def described(row: int, number: int, setpoint: int, readback: int) -> Pv:
        pv = Pv(number=number, name=directory.names[row], device=directory.devices[row])
        if setpoint:
            _fill(pv.setpoint, directory.setpoint_address[row], get(setpoint))
        if readback:
            _fill(pv.readback, directory.readback_address[row], get(readback))
        return pv

    for pvs in in_chunks((described(*column) for column in columns), Pv.ByteSize):
        yield snapshot_service_pb2.MetadataChunk(pvs=pvs)


def _fill(message: value_pb2.ChannelMetadata, address: str, known: Metadata | None) -> None:
    message.address = address
    if known is None:
        return
    message.native_type = cast("value_pb2.ValueType.ValueType", known.kind & ~ARRAY)
    message.element_count = known.count
    message.units = known.units.decode(errors="replace")
    if known.precision >= 0:
        message.precision = known.precision
    for name, at in (("display", 0), ("warning", 2), ("alarm", 4), ("control", 6)):
        low, high = known.limits[at], known.limits[at + 1]
        if not (math.isnan(low) and math.isnan(high)):
            limits = getattr(message, name)
            limits.low, limits.high = low, high
    message.enum_labels.extend(label.decode(errors="replace") for label in known.labels)
    message.readable, message.writable = known.readable, known.writable
    message.host = known.host


# --- looking back ------------------------------------------------------------------------------


def history_order(request: snapshot_service_pb2.GetPvHistoryRequest) -> HistoryOrder:
    """The order in a request. Raises `InvalidArgument`."""
    if not request.number and not request.name:
        raise invalid("number", "say which PV, by number or by name")
    if request.role not in value_pb2.ChannelRole.values():
        raise invalid("role", f"{request.role} is not one of its values")
    return HistoryOrder(
        request.number, request.name, request.role, request.from_time_ns, request.to_time_ns
    )
