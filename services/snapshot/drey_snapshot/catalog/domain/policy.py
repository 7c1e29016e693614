"""Restore policies as JSON, their rules, and what holds for a PV in the end."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from drey_core.errors import InvalidArgument
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy

DEFAULTS = Policy(
    completion=CompletionMode.PUT_CALLBACK,
    timeout_s=5.0,
    settle_s=0.0,
    stage=0,
    done_value=1.0,
)
"""What holds where a PV says nothing."""

MAX_SECONDS = 86_400.0

_NAMES = tuple(f.name for f in fields(Policy))
_ABSENT: dict[str, Any] = {f.name: f.default for f in fields(Policy)}


def to_json(policy: Policy) -> str:
    """Canonical JSON of what the policy says; empty where it says nothing.

    JSON has no NaN and infinities: numbers that are not finite stand as text.
    """
    own_fields = {
        name: _plain_value(value)
        for name in _NAMES
        if (value := getattr(policy, name)) != _ABSENT[name]
    }
    return json.dumps(own_fields, sort_keys=True, allow_nan=False) if own_fields else ""


def _plain_value(value: Any) -> Any:
    if isinstance(value, CompletionMode):
        return value.name.lower()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


@lru_cache(maxsize=4096)
def from_json(text: str) -> Policy:
    """Inverse of `to_json`; equal texts give the same object."""
    if not text:
        return NO_POLICY
    own_fields: dict[str, Any] = json.loads(text)
    if "completion" in own_fields:
        own_fields["completion"] = CompletionMode[own_fields["completion"].upper()]
    for name, value in own_fields.items():
        if name not in ("completion", "stage", "done_channel"):
            own_fields[name] = float(value)
    return Policy(**own_fields)


def check(policy: Policy, *, has_readback: bool, path: str) -> None:
    """Refuse a policy that contradicts itself or the PV. `path` ends without a dot."""
    if policy.completion == CompletionMode.DONE_CHANNEL and not policy.done_channel:
        raise _refuse_field(
            f"{path}.done_channel", "completion by a done channel needs its address"
        )
    if policy.completion == CompletionMode.READBACK and not has_readback:
        raise _refuse_field(f"{path}.completion", "completion by readback needs a readback address")
    for name in ("timeout_s", "settle_s"):
        value = getattr(policy, name)
        lowest = "more than 0" if name == "timeout_s" else "0 or more"
        good = value is None or (0 <= value <= MAX_SECONDS and (value > 0 or name == "settle_s"))
        if not good:
            field = f"{path}.{name.removesuffix('_s')}"
            raise _refuse_field(field, f"{value} s is not {lowest} and at most a day")
    for name in ("ramp_rate", "ramp_step"):
        value = getattr(policy, name)
        if value is not None and not 0 < value < float("inf"):
            raise _refuse_field(f"{path}.{name}", f"{value} is not a finite number above 0")
    _check_completion(policy, path)
    low, high = policy.allowed_low, policy.allowed_high
    if any(end is not None and math.isnan(end) for end in (low, high)):
        raise _refuse_field(f"{path}.allowed", "an end of the range is NaN")
    if low is not None and high is not None and low > high:
        raise _refuse_field(f"{path}.allowed", f"the range from {low} to {high} is empty")


def _check_completion(policy: Policy, path: str) -> None:
    """Refuse what the completion of the policy leaves without a meaning."""
    completion = policy.completion
    if completion != CompletionMode.DONE_CHANNEL:
        for name in ("done_channel", "done_value"):
            if getattr(policy, name) not in ("", None):
                raise _refuse_field(
                    f"{path}.{name}",
                    "is not looked at unless the completion is COMPLETION_DONE_CHANNEL",
                )
    if completion == CompletionMode.SENT:
        for name in ("ramp_rate", "ramp_step"):
            if getattr(policy, name) is not None:
                raise _refuse_field(
                    f"{path}.{name}",
                    "a ramp waits for each step, and COMPLETION_SENT waits for nothing",
                )
    timeout_s = DEFAULTS.timeout_s if policy.timeout_s is None else policy.timeout_s
    polled = completion in (CompletionMode.READBACK, CompletionMode.DONE_CHANNEL)
    if polled and timeout_s is not None and (policy.settle_s or 0.0) >= timeout_s:
        raise _refuse_field(
            f"{path}.settle",
            f"{policy.settle_s:g} s does not fit into the time-out of {timeout_s:g} s",
        )


def _refuse_field(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


@dataclass(frozen=True, slots=True)
class Effective:
    """The policy that holds, and for each field of the contract whether the PV itself says it."""

    policy: Policy
    sources: tuple[tuple[str, bool], ...]


_CONTRACT_NAMES = {"timeout_s": "timeout", "settle_s": "settle", "allowed_low": "allowed"}


def effective(own: Policy) -> Effective:
    """What holds for a PV whose own policy is `own`."""
    chosen: dict[str, Any] = {}
    sources: dict[str, bool] = {}
    for name in _NAMES:
        value = getattr(own, name)
        is_set = value != _ABSENT[name]
        chosen[name] = value if is_set else getattr(DEFAULTS, name)
        contract = "allowed" if name == "allowed_high" else _CONTRACT_NAMES.get(name, name)
        if is_set or contract not in sources:
            sources[contract] = is_set
    return Effective(Policy(**chosen), tuple(sources.items()))
