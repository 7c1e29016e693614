"""The contract's messages and ours."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from drey.common.v1 import actor_pb2, errors_pb2
from drey.job.v1 import job_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_ca import eca
from drey_core.errors import InvalidArgument, Reason, ResourceExhausted
from drey_core.values import I8, Columns, Kind
from drey_core.wire import (
    MAX_CHUNK_BYTES,
    MAX_VALUE_BYTES,
    RowEncoder,
    chunk,
    encode_value_message,
    varint,
    wrap,
)
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import Skip, Verdict
from drey_restore.domain.records import PlanRecord, RestoreRecord
from drey_restore.usecases.plans import PlanRequest
from drey_restore.usecases.restores import ExecuteRequest
from drey_runtime.jobs import Job

_S = 10**9
_DAY = 86_400 * _S
_ROWS_AT_ONCE = 2_000
_VALUE_TAG = b"\x1a"
"""Of `PvRow.setpoint`, the field that a value has in an encoded row."""
_ROW_HEAD = 11
"""Bytes of an empty name and a number, which come before it."""


def _duration(
    request: object, name: str, default_ns: int, most_ns: int, *, least_ns: int = 0
) -> int:
    """A Duration field in nanoseconds; INVALID_FIELD outside `least_ns` to `most_ns`."""
    if not request.HasField(name):  # type: ignore[attr-defined]
        return default_ns
    value = getattr(request, name)
    found = int(value.seconds) * _S + int(value.nanos)
    if not least_ns <= found <= most_ns:
        raise InvalidArgument(
            f"{name}: {found / _S:g} s is not between {least_ns / _S:g} s and {most_ns / _S:g} s",
            field=name,
            metadata={"field": name},
        )
    return found


def plan_request(request: restore_service_pb2.CreatePlanRequest) -> PlanRequest:
    """What CreatePlan asks for. Raises `InvalidArgument`."""
    return PlanRequest(
        snapshot_id=request.snapshot_id.lower(),
        selector=request.selector if request.HasField("selector") else None,
        exact=request.exact,
        lifetime_ns=_duration(request, "lifetime", 900 * _S, _DAY, least_ns=1),
        comment=request.comment,
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def execute_request(request: restore_service_pb2.ExecutePlanRequest) -> ExecuteRequest:
    """What ExecutePlan asks for. Raises `InvalidArgument`."""
    hour = 3600 * _S
    return ExecuteRequest(
        plan_id=request.plan_id.lower(),
        digest=request.digest,
        start_deadline_ns=_duration(request, "start_deadline", 30 * _S, hour, least_ns=1),
        write_timeout_ns=_duration(request, "write_timeout", 10 * _S, hour, least_ns=1),
        verify_timeout_ns=_duration(request, "verify_timeout", 10 * _S, hour),
        accept_moved=request.accept_moved,
        comment=request.comment,
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def plan_message(plan: PlanRecord, now_ns: int) -> restore_pb2.Plan:
    """A plan without its items."""
    return restore_pb2.Plan(
        id=plan.id,
        digest=plan.digest,
        snapshot_id=plan.snapshot_id,
        state=int(plan.state(now_ns)),  # type: ignore[arg-type]
        pvs=plan.pvs,
        writes=plan.writes,
        skips=[
            restore_pb2.SkipCount(reason=reason, pvs=count)  # type: ignore[arg-type]
            for reason, count in enumerate(plan.skips)
            if count
        ],
        stages=[restore_pb2.StageCount(stage=0, writes=plan.writes)] if plan.writes else [],
        actor=actor_pb2.Actor(principal=plan.principal, role=plan.role),
        create_time_ns=plan.create_time_ns,
        expire_time_ns=plan.expire_time_ns,
        comment=plan.comment,
        undoes_restore_id=plan.undoes_restore_id or "",
        restore_id=plan.restore_id or "",
    )


def restore_message(restore: RestoreRecord) -> restore_pb2.Restore:
    """A restore without its items."""
    out = restore_pb2.Restore(
        id=restore.id,
        plan_id=restore.plan_id,
        plan_digest=restore.plan_digest,
        snapshot_id=restore.snapshot_id,
        state=int(restore.state),  # type: ignore[arg-type]
        verdicts=[
            restore_pb2.VerdictCount(verdict=verdict, pvs=count)  # type: ignore[arg-type]
            for verdict, count in enumerate(restore.verdicts)
            if count
        ],
        all_verified=restore.all_verified,
        actor=actor_pb2.Actor(principal=restore.principal, role=restore.role),
        job_id=restore.job_id,
        create_time_ns=restore.create_time_ns,
        start_time_ns=restore.start_time_ns,
        end_time_ns=restore.end_time_ns,
        comment=restore.comment,
    )
    if restore.error_reason:
        out.error.CopyFrom(_item_error(restore.error_reason, restore.error_message))
    return out


def _item_error(reason: Reason, message: str, field: str = "") -> errors_pb2.ItemError:
    return errors_pb2.ItemError(reason=int(reason), field=field, message=message)  # type: ignore[arg-type]


_JOB_KINDS = {
    "snapshot": job_pb2.JOB_KIND_SNAPSHOT,
    "restore": job_pb2.JOB_KIND_RESTORE,
    "import": job_pb2.JOB_KIND_IMPORT,
}


def job_message(job: Job) -> job_pb2.Job:
    """A job."""
    out = job_pb2.Job(
        id=job.id,
        kind=_JOB_KINDS.get(job.kind, job_pb2.JOB_KIND_UNSPECIFIED),
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state.value.upper()}"),
        actor=actor_pb2.Actor(principal=job.principal, role=job.role),
        done=job.done,
        total=job.total,
        phase=job.phase,
        result=job.result,
        attempts=job.attempts,
        create_time_ns=job.create_time_ns,
        start_time_ns=job.start_time_ns,
        end_time_ns=job.end_time_ns,
        trace_id=job.trace_id,
    )
    if job.error is not None:
        out.error.CopyFrom(_item_error(job.error.reason, job.error.message, job.error.field))
    return out


# ---- items, encoded in columns as far as that goes


class _Values:
    """Encodes values of some columns as fields of any message, many at a time."""

    def __init__(self, items: PlanItems) -> None:
        self._items = items
        self._encoder = RowEncoder([""], np.zeros(1, np.int64))

    def fields(
        self, number: int, columns: Columns, rows: I8, *, labelled: bool = True
    ) -> list[bytes]:
        """Field `number` with the `Value` of each row; empty where there is no value."""
        taken = columns.take(rows).with_key(rows)
        present = taken.kind != Kind.NONE
        encoded = self._encoder.encode(
            np.zeros(len(rows), np.int64),
            taken,
            None,
            sp_present=present,
            labels=self._items.labels if labelled else None,
        )
        tag = varint(number << 3 | 2)
        out = []
        for at, (row, has) in enumerate(zip(encoded, present.tolist(), strict=True)):
            if not has:
                out.append(b"")
            elif len(row) > MAX_CHUNK_BYTES:
                out.append(self._large(number, taken, at))
            else:
                start = 1 + _varint_length(row, 1) + _ROW_HEAD + len(_VALUE_TAG)
                out.append(tag + row[start:])
        return out

    def _large(self, number: int, taken: Columns, at: int) -> bytes:
        """A value that rows would send in parts, whole; VALUE_TOO_LARGE where that cannot be."""
        raw = encode_value_message(taken, at)
        if len(raw) > MAX_VALUE_BYTES // 4:
            name = self._items.names[int(taken.key[at])]
            raise ResourceExhausted(
                f"the value of {name} has {len(raw)} bytes, too many for an item",
                reason=Reason.VALUE_TOO_LARGE,
                metadata={"pv": name, "bytes": str(len(raw))},
            )
        return wrap(number, raw)


def _varint_length(raw: bytes, at: int) -> int:
    length = 1
    while raw[at] & 0x80:
        at, length = at + 1, length + 1
    return length


def plan_chunks(items: PlanItems, *, writes_only: bool, skips: Sequence[int]) -> Iterator[bytes]:
    """ReadPlanResponse messages: writes by stage and name, then what is left out by name."""
    wanted = np.isin(items.skip, list(skips)) if skips else np.ones(len(items), bool)
    if skips or writes_only:
        write = items.skip == Skip.NONE
        wanted = write if writes_only else wanted
    rows = np.flatnonzero(wanted).tolist()
    left_out, stages = items.skip.astype(bool).tolist(), items.stage.tolist()
    rows.sort(key=lambda r: (left_out[r], stages[r], items.names[r]))
    yield from _chunks(rows, lambda part: _plan_items(items, part))


def restore_chunks(
    items: PlanItems, outcome: Outcome, *, verdicts: Sequence[int]
) -> Iterator[bytes]:
    """ReadRestoreResponse messages, by name."""
    wanted = np.isin(outcome.verdict, list(verdicts)) if verdicts else np.ones(len(items), bool)
    rows = sorted(np.flatnonzero(wanted).tolist(), key=items.names.__getitem__)
    yield from _chunks(rows, lambda part: _restore_items(items, outcome, part))


def _chunks(rows: list[int], encode: Callable[[I8], list[bytes]]) -> Iterator[bytes]:
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        part = np.array(rows[at : at + _ROWS_AT_ONCE], np.int64)
        yield from chunk([wrap(1, body) for body in encode(part)])


def _heads(items: PlanItems, rows: I8) -> list[bytes]:
    """Number and name."""
    return [
        b"\x09" + struct.pack("<Q", number) + wrap(2, _utf8(items.names[row]))
        for number, row in zip(items.number[rows].tolist(), rows.tolist(), strict=True)
    ]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _optional_double(tag: bytes, value: float) -> bytes:
    return b"" if value != value else tag + struct.pack("<d", value)  # noqa: PLR0124  NaN


def _plan_items(items: PlanItems, rows: I8) -> list[bytes]:
    values = _Values(items)
    columns = (
        _heads(items, rows),
        values.fields(4, items.current, rows),
        values.fields(5, items.target, rows),
        rows.tolist(),
    )
    out = []
    for head, current, target, row in zip(*columns, strict=True):
        parts = [
            head,
            wrap(3, _utf8(items.addresses[row])),
            current,
            target,
            _optional_double(b"\x31", float(items.delta[row])),
            _optional_double(b"\x39", float(items.deviation[row])),
            b"\x40" + varint(int(items.stage[row])),
            b"\x48" + varint(int(items.completion[row])),
            b"\x50" + varint(int(items.skip[row])),
        ]
        parts += [wrap(11, _utf8(text)) for text in items.warnings.get(row, ())]
        out.append(b"".join(parts))
    return out


def _restore_items(items: PlanItems, outcome: Outcome, rows: I8) -> list[bytes]:
    values = _Values(items)
    columns = (
        _heads(items, rows),
        values.fields(5, outcome.before, rows),
        values.fields(6, items.target, rows),
        values.fields(7, outcome.seen, rows),
        values.fields(8, outcome.readback, rows, labelled=False),
        rows.tolist(),
    )
    out = []
    for head, before, target, seen, readback, row in zip(*columns, strict=True):
        verdict = int(outcome.verdict[row])
        skip = int(items.skip[row]) if verdict == Verdict.SKIPPED else 0
        code, reached = int(outcome.code[row]), int(outcome.readback_reached[row])
        parts = [
            head,
            b"\x18" + varint(verdict) + b"\x20" + varint(skip),
            before,
            target,
            seen,
            readback,
            wrap(9, eca.name(code).encode()) if code else b"",
            b"\x50" + varint(int(items.stage[row])),
            b"\x59" + struct.pack("<q", int(outcome.sent_time[row])),
            b"\x61" + struct.pack("<q", int(outcome.completion_time[row])),
            b"" if reached < 0 else b"\x68" + varint(reached),
        ]
        out.append(b"".join(parts))
    return out
