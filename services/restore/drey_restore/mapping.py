"""The contract's messages and ours."""

from __future__ import annotations

import math
from itertools import zip_longest

from drey.common.v1 import errors_pb2, value_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2
from drey_core.errors import DreyError, InvalidArgument, Reason, Unimplemented
from drey_core.token import query_hash
from drey_restore.adapters.specs import duration_message, rules_of
from drey_restore.domain.approval import Approval
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.effect import without_effect
from drey_restore.domain.kinds import ApprovalState
from drey_restore.domain.records import Chosen, PlanRecord, RestoreRecord
from drey_restore.domain.waiting import StageWait
from drey_restore.usecases.approvals import Decision
from drey_restore.usecases.gathering import PlanRequest, Undo
from drey_restore.usecases.restores import ExecuteRequest, ResumeRequest
from drey_runtime.mapping.common import actor, time_bound, timestamp_message
from drey_runtime.mapping.value import from_proto as value_from_proto

_S = 10**9
_DAY = 86_400 * _S


def _checked_duration(
    request: object,
    name: str,
    default_ns: int,
    most_ns: int,
    *,
    least_ns: int = 0,
    within: str = "",
) -> int:
    """A Duration field in nanoseconds; INVALID_FIELD outside `least_ns` to `most_ns`."""
    if not request.HasField(name):  # type: ignore[attr-defined]
        return default_ns
    value = getattr(request, name)
    span_ns = int(value.seconds) * _S + int(value.nanos)
    if not least_ns <= span_ns <= most_ns:
        name = within + name
        raise InvalidArgument(
            f"{name}: {span_ns / _S:g} s is not between {least_ns / _S:g} s and {most_ns / _S:g} s",
            field=name,
            metadata={"field": name},
        )
    return span_ns


def _missing_field(path: str) -> InvalidArgument:
    return InvalidArgument(f"{path}: is required", field=path, metadata={"field": path})


def _not_built(path: str) -> Unimplemented:
    return Unimplemented(
        f"{path} is not built in this version", field=path, metadata={"field": path}
    )


_ListRequest = restore_service_pb2.ListPlansRequest | restore_service_pb2.ListRestoresRequest


def list_query(request: _ListRequest | restore_service_pb2.ListApprovalsRequest) -> bytes:
    """What a page token belongs to: the filters of a list."""
    asked = type(request).FromString(request.SerializeToString())
    asked.ClearField("page_size")
    asked.ClearField("page_token")
    return query_hash(asked.SerializeToString(deterministic=True))


def chosen_filter(request: _ListRequest) -> Chosen:
    """The filters of a list. Raises `Unimplemented` for a PV."""
    for name in ("pv_name", "pv_number"):
        if getattr(request, name):
            raise _not_built(name)
    return Chosen(
        snapshot_id=request.snapshot_id.lower() or None,
        principal=request.principal,
        states=list(map(int, request.states)) or None,
        from_ns=time_bound(request, "from_time"),
        to_ns=time_bound(request, "to_time"),
    )


def plan_request(request: restore_service_pb2.CreatePlanRequest) -> PlanRequest:
    """What CreatePlan asks for. Raises `InvalidArgument`."""
    spec = request.spec
    source = spec.WhichOneof("source")
    if source is None:
        raise _missing_field("spec.state")
    state = spec.state.WhichOneof("state")
    if source == "state" and state is None:
        raise _missing_field("spec.state.snapshot_id")
    if source == "state" and state not in {"snapshot_id", "golden"}:
        raise _not_built(f"spec.state.{state}")
    golden = spec.state.golden
    if golden.scope:
        path = "spec.state.golden.scope"
        raise Unimplemented(
            f"{path}: saved scopes are not built in this version; leave it empty for the golden"
            " snapshots of the whole catalog",
            field=path,
            metadata={"field": path},
        )
    for index, gate in enumerate(spec.gates):
        _check_gate(gate, f"spec.gates[{index}]")
    _check_rollback(spec)
    return PlanRequest(
        snapshot_id=spec.state.snapshot_id.lower(),
        golden=(golden.scope, golden.label) if state == "golden" else None,
        undo=(
            Undo(spec.undo.restore_id.lower(), spec.undo.also_changed) if source == "undo" else None
        ),
        given=_given_values(spec.values) if source == "values" else None,
        selector=spec.selector if spec.HasField("selector") else None,
        edits=tuple(
            (edit.selector, _edit_of(edit, f"spec.edits[{index}]"))
            for index, edit in enumerate(spec.edits)
        ),
        exact=spec.exact,
        lifetime_ns=_checked_duration(spec, "lifetime", 900 * _S, _DAY, least_ns=1, within="spec."),
        comment=spec.comment,
        rules=rules_of(spec),
        spec=_kept_spec(spec),
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def _given_values(values: restore_pb2.ValueSet) -> tuple[tuple[str, Given], ...]:
    return tuple(
        (each.name, _given_value(each.value, f"spec.values.values[{index}].value"))
        for index, each in enumerate(values.values)
    )


def _kept_spec(spec: restore_pb2.PlanSpec) -> bytes:
    """A specification as a plan keeps it: given values are in its items."""
    kept = restore_pb2.PlanSpec.FromString(spec.SerializeToString())
    if kept.HasField("values"):
        del kept.values.values[:]
    return kept.SerializeToString(deterministic=True)


def _given_value(value: value_pb2.Value, path: str) -> Given:
    if value.WhichOneof("data") is None:
        raise _missing_field(f"{path}.data")
    try:
        kind, data = value_from_proto(value)
    except DreyError as error:
        error.field = f"{path}.{error.field}"
        raise
    return Given(kind, data, value.enum_value.label.encode())


def _edit_of(edit: restore_pb2.PlanEdit, path: str) -> Given | Linear:
    match edit.WhichOneof("edit"):
        case "linear":
            if not (edit.linear.HasField("scale") or edit.linear.HasField("offset")):
                raise _missing_field(f"{path}.linear.scale")
            scale = edit.linear.scale if edit.linear.HasField("scale") else 1.0
            offset = edit.linear.offset if edit.linear.HasField("offset") else 0.0
            for name, number in (("scale", scale), ("offset", offset)):
                if not math.isfinite(number):
                    field = f"{path}.linear.{name}"
                    raise InvalidArgument(
                        f"{field}: {number} is not finite", field=field, metadata={"field": field}
                    )
            return Linear(scale, offset)
        case "value":
            return _given_value(edit.value, f"{path}.value")
        case _:
            raise _missing_field(f"{path}.value")


def _check_gate(gate: restore_pb2.StageGate, path: str) -> None:
    match gate.WhichOneof("condition"):
        case "max_failed" if gate.max_failed < 0:
            raise InvalidArgument(f"{path}.max_failed: is negative", field=f"{path}.max_failed")
        case None:
            raise _missing_field(f"{path}.max_failed")


def _check_rollback(spec: restore_pb2.PlanSpec) -> None:
    path = "spec.rollback.max_failed"
    if spec.rollback.max_failed < 0:
        raise InvalidArgument(f"{path}: is negative", field=path)
    if spec.HasField("rollback") and not (
        spec.rollback.HasField("max_failed") or spec.rollback.on_guard
    ):
        raise _missing_field(path)
    if spec.rollback.on_guard and not spec.guards:
        why = "there is no guard that could fail; add guards, or leave it out"
        raise without_effect("spec.rollback.on_guard", why)


def execute_request(request: restore_service_pb2.ExecutePlanRequest) -> ExecuteRequest:
    """What ExecutePlan asks for. Raises `InvalidArgument`."""
    hour = 3600 * _S
    if request.HasField("these"):
        raise _not_built("these")
    if request.max_unreachable < 0:
        raise InvalidArgument("max_unreachable: is negative", field="max_unreachable")
    return ExecuteRequest(
        plan_id=request.plan_id.lower(),
        digest=request.digest,
        start_deadline_ns=_checked_duration(request, "start_deadline", 30 * _S, hour, least_ns=1),
        write_timeout_ns=_checked_duration(request, "write_timeout", 10 * _S, hour, least_ns=1),
        verify_timeout_ns=_checked_duration(request, "verify_timeout", 10 * _S, hour),
        accept_moved=request.HasField("all"),
        max_unreachable=request.max_unreachable if request.HasField("max_unreachable") else None,
        comment=request.comment,
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def resume_request(request: restore_service_pb2.ResumeRestoreRequest) -> ResumeRequest:
    """What ResumeRestore asks for. Raises `InvalidArgument`."""
    hour = 3600 * _S
    if request.HasField("these"):
        raise _not_built("these")
    if request.max_unreachable < 0:
        raise InvalidArgument("max_unreachable: is negative", field="max_unreachable")
    verify = _checked_duration(request, "verify_timeout", 0, hour)
    return ResumeRequest(
        restore_id=request.id.lower(),
        also_unknown=request.also_unknown,
        accept_moved=request.HasField("all"),
        start_deadline_ns=_checked_duration(request, "start_deadline", 30 * _S, hour, least_ns=1),
        write_timeout_ns=_checked_duration(request, "write_timeout", 0, hour, least_ns=1) or None,
        verify_timeout_ns=verify if request.HasField("verify_timeout") else None,
        max_unreachable=request.max_unreachable if request.HasField("max_unreachable") else None,
        comment=request.comment,
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def decision_of(
    request: restore_service_pb2.ApprovePlanRequest | restore_service_pb2.RejectPlanRequest,
) -> Decision:
    """What ApprovePlan or RejectPlan asks for. Raises `InvalidArgument`."""
    state, digest, lifetime = ApprovalState.REJECTED, "", 0
    if isinstance(request, restore_service_pb2.ApprovePlanRequest):
        state, digest = ApprovalState.APPROVED, request.digest
        lifetime = _checked_duration(request, "lifetime", 0, _DAY, least_ns=1)
    return Decision(
        plan_id=request.id.lower(),
        state=state,
        digest=digest,
        lifetime_ns=lifetime or None,
        reason=request.reason,
        request_id=request.request_id,
        raw=request.SerializeToString(deterministic=True),
    )


def approval_message(approval: Approval, now_ns: int) -> restore_pb2.Approval:
    """The decision of a second person, or that it is waited for."""
    return restore_pb2.Approval(
        id=approval.id,
        plan_id=approval.plan_id,
        digest=approval.digest,
        state=int(approval.state_at(now_ns)),  # type: ignore[arg-type]
        requester=actor(approval.requester, approval.requester_role),
        approver=actor(approval.approver, approval.approver_role) if approval.approver else None,
        reason=approval.reason,
        create_time=timestamp_message(approval.create_time_ns),
        decide_time=timestamp_message(approval.decide_time_ns),
        expire_time=timestamp_message(approval.expire_time_ns),
        pvs=approval.pvs,
        first_pv=approval.first_pv,
    )


def plan_message(plan: PlanRecord, now_ns: int) -> restore_pb2.Plan:
    """A plan without its items."""
    return restore_pb2.Plan(
        id=plan.id,
        digest=plan.digest,
        digest_recipe=plan.recipe,
        spec=restore_pb2.PlanSpec.FromString(plan.spec) if plan.spec else None,
        snapshot_id=plan.snapshot_id,
        state=int(plan.state(now_ns)),  # type: ignore[arg-type]
        pvs=plan.pvs,
        writes=plan.writes,
        skips=[
            restore_pb2.SkipCount(reason=reason, pvs=count)  # type: ignore[arg-type]
            for reason, count in enumerate(plan.skips)
            if count
        ],
        stages=[
            _stage_count(stage, writes, wait)
            for stage, writes, wait in zip_longest(plan.stages, plan.stage_writes, plan.stage_waits)
        ],
        actor=actor(plan.principal, plan.role),
        create_time=timestamp_message(plan.create_time_ns),
        expire_time=timestamp_message(plan.expire_time_ns),
        undoes_restore_id=plan.undoes_restore_id or "",
        restore_id=plan.restore_id or "",
        approval=None if plan.approval is None else approval_message(plan.approval, now_ns),
    )


def _stage_count(stage: int, writes: int, wait: StageWait | None) -> restore_pb2.StageCount:
    if wait is None:
        return restore_pb2.StageCount(stage=stage, writes=writes)
    most = wait.most_ns
    return restore_pb2.StageCount(
        stage=stage,
        writes=writes,
        least_duration=duration_message(wait.least_ns),
        most_duration=None if most is None else duration_message(most),
        completions=[
            restore_pb2.CompletionCount(completion=mode, writes=count)  # type: ignore[arg-type]
            for mode, count in wait.completions
        ],
        ramps=wait.ramps,
        ramp_steps=wait.ramp_steps,
        unpaced_ramps=wait.unpaced_ramps,
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
        actor=actor(restore.principal, restore.role),
        job_id=restore.job_id,
        create_time=timestamp_message(restore.create_time_ns),
        start_time=timestamp_message(restore.start_time_ns),
        end_time=timestamp_message(restore.end_time_ns),
        comment=restore.comment,
        may_still_fire=restore.may_still_fire,
        continues_restore_id=restore.continues_restore_id or "",
        continued_by_restore_id=restore.continued_by_restore_id or "",
        interfered=restore.interfered,
        rollback_restore_id=restore.rollback_restore_id or "",
    )
    if restore.rollback_error_reason:
        out.rollback_error.CopyFrom(
            _item_error(restore.rollback_error_reason, restore.rollback_error_message)
        )
    if restore.error_reason:
        out.error.CopyFrom(_item_error(restore.error_reason, restore.error_message))
    return out


def _item_error(reason: Reason, message: str, field: str = "") -> errors_pb2.ItemError:
    return errors_pb2.ItemError(reason=int(reason), field=field, message=message)  # type: ignore[arg-type]
