"""Specifications, policies and times of the contract, and what the domain makes of them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from drey.catalog.v1 import catalog_pb2
from drey.restore.v1 import restore_pb2
from drey_core.pv_table import Policy
from drey_restore.domain.policy import PartSource, PolicyOrigin
from drey_restore.domain.records import Gate, Guard, Rollback, Rules

_S = 10**9


def rules_of(spec: restore_pb2.PlanSpec) -> Rules:
    """The rules of a plan."""
    back = spec.rollback
    most = back.max_failed if back.HasField("max_failed") else None
    return Rules(
        guards=tuple(map(_guard_of_spec, spec.guards)),
        gates=tuple(map(_gate_of_spec, spec.gates)),
        rollback=Rollback(most, back.on_guard) if spec.HasField("rollback") else None,
    )


def undo_spec(restore_id: str, comment: str) -> bytes:
    """What the plan of the way back of a restore is made of, as a message of the contract."""
    spec = restore_pb2.PlanSpec(undo=restore_pb2.UndoOf(restore_id=restore_id), comment=comment)
    return spec.SerializeToString(deterministic=True)


def _guard_of_spec(guard: restore_pb2.Guard) -> Guard:
    return Guard(guard.expression, guard.description)


def _gate_of_spec(gate: restore_pb2.StageGate) -> Gate:
    return Gate(
        gate.after_stage,
        gate.max_failed if gate.HasField("max_failed") else None,
        _guard_of_spec(gate.must_hold) if gate.HasField("must_hold") else None,
    )


def policy_message(policy: Policy) -> catalog_pb2.RestorePolicy:
    """A policy with what it says."""
    message = catalog_pb2.RestorePolicy(
        completion=int(policy.completion),  # type: ignore[arg-type]
        timeout=_duration_of_seconds(policy.timeout_s),
        settle=_duration_of_seconds(policy.settle_s),
        stage=policy.stage,
        done_channel=policy.done_channel,
        done_value=policy.done_value,
        ramp_rate=policy.ramp_rate,
        ramp_step=policy.ramp_step,
    )
    low, high = policy.allowed_low, policy.allowed_high
    if low is not None or high is not None:
        message.allowed.low = float("-inf") if low is None else low
        message.allowed.high = float("inf") if high is None else high
    return message


def source_message(source: PartSource) -> catalog_pb2.PolicySource:
    """Who says a part of a policy."""
    message = catalog_pb2.PolicySource(policy_field=source.part)
    match source.origin:
        case PolicyOrigin.PV:
            message.pv.SetInParent()
        case PolicyOrigin.DEVICE:
            message.device = source.name
        case PolicyOrigin.TAG:
            message.tag.group, message.tag.tag = source.group, source.name
        case PolicyOrigin.BUILT_IN:
            message.built_in.SetInParent()
    return message


def _duration_of_seconds(seconds: float | None) -> Duration | None:
    return None if seconds is None else duration_message(round(seconds * _S))


def duration_message(nanoseconds: int) -> Duration:
    """A duration, not negative."""
    whole, nanos = divmod(nanoseconds, _S)
    return Duration(seconds=whole, nanos=nanos)
