"""Restore policies as JSON, their rules, and what holds for a PV in the end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

from drey_core.errors import InvalidArgument
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy, PvProtocol, split_scheme

DEFAULTS = Policy(
    completion=CompletionMode.PUT_CALLBACK,
    settle_s=0.0,
    stage=0,
    done_value=1.0,
)
"""What holds where nobody says anything."""
USUAL_TIMEOUT_S = 10.0
"""Of a write without a time-out of its own, unless whoever executes the plan says another."""

MAX_SECONDS = 86_400.0

_FIELD = re.compile(r"\.[A-Za-z0-9_]+\$?")
"""A field of a record, as it is written behind its name."""

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


def check_policy(policy: Policy, *, has_readback: bool, path: str) -> None:
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
    if policy.done_value is not None and not math.isfinite(policy.done_value):
        raise _refuse_field(
            f"{path}.done_value", f"{policy.done_value} is not finite, and no channel is done by it"
        )
    scheme, rest = split_scheme(policy.done_channel)
    if scheme != PvProtocol.UNSPECIFIED:
        raise _refuse_field(
            f"{path}.done_channel",
            f"begins with its protocol, and is read by that of the PV: write {rest}",
        )
    if policy.done_channel.startswith(".") and not _FIELD.fullmatch(policy.done_channel):
        raise _refuse_field(
            f"{path}.done_channel",
            f"{policy.done_channel} is no field of a record: write one as .DMOV",
        )
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
    timeout_s = USUAL_TIMEOUT_S if policy.timeout_s is None else policy.timeout_s
    polled = completion in (CompletionMode.READBACK, CompletionMode.DONE_CHANNEL)
    if polled and (policy.settle_s or 0.0) >= timeout_s:
        raise _refuse_field(
            f"{path}.settle",
            f"{policy.settle_s:g} s does not fit into the time-out of {timeout_s:g} s",
        )


def _refuse_field(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


PARTS = {
    "completion": ("completion", "done_channel", "done_value"),
    "timeout": ("timeout_s",),
    "settle": ("settle_s",),
    "stage": ("stage",),
    "ramp_rate": ("ramp_rate",),
    "ramp_step": ("ramp_step",),
    "allowed": ("allowed_low", "allowed_high"),
}
"""What is said together, by the field of the contract."""


class SpeakerKind(IntEnum):
    """Who says a part of a policy; the numbers in the `oneof` of `PolicySource`."""

    PV = 2
    DEVICE = 3
    TAG = 4
    BUILT_IN = 5


@dataclass(frozen=True, slots=True)
class PolicySpeaker:
    """Who says a part: for a device its name, for a tag its name and its group."""

    kind: SpeakerKind
    name: str = ""
    group: str = ""

    @property
    def speaker_text(self) -> str:
        """For people."""
        if self.kind == SpeakerKind.TAG:
            return f"the tag {self.group}={self.name}"
        return f"the device {self.name}" if self.kind == SpeakerKind.DEVICE else "the PV itself"


OF_PV, BUILT_IN = PolicySpeaker(SpeakerKind.PV), PolicySpeaker(SpeakerKind.BUILT_IN)
Said = tuple[PolicySpeaker, Policy]


@dataclass(frozen=True, slots=True)
class Effective:
    """What is said for a PV: the policy, by part who says it, and what contradicts itself in it.

    What nobody says is absent in the policy, and has no source.
    """

    policy: Policy
    sources: tuple[tuple[str, PolicySpeaker], ...] = ()
    contradictions: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()
    """The part that each of these is about."""


def effective_policy(
    own: Policy, tags: Sequence[Said] = (), device: Said | None = None
) -> Effective:
    """What holds for a PV that says `own`: part by part the PV, its tags, its device."""
    chosen: dict[str, Any] = {}
    sources: list[tuple[str, PolicySpeaker]] = []
    contradictions: list[tuple[str, str]] = []
    for part, names in PARTS.items():
        for statements in ([(OF_PV, own)], tags, [] if device is None else [device]):
            speaking = [each for each in statements if _speaks_of(each[1], names)]
            if speaking:
                values, counting = _strictest_values(part, names, speaking)
                chosen |= values
                sources += [(part, source) for source in counting]
                if len(speaking) > 1:
                    why = _find_contradictions(part, names, values, speaking)
                    contradictions += [(part, each) for each in why]
                break
    policy = Policy(**chosen)
    if not contradictions:
        contradictions = _own_contradictions(policy)
    return Effective(
        policy,
        tuple(sources),
        tuple(why for _, why in contradictions),
        tuple(part for part, _ in contradictions),
    )


def part_at_fault(policy: Policy, part: str) -> str:
    """The part of a policy by which the effective one contradicts itself in `part`; empty: none."""
    spoken = (each for each in (part, "completion", "timeout") if _speaks_of(policy, PARTS[each]))
    return next(spoken, "")


def _speaks_of(policy: Policy, names: Sequence[str]) -> bool:
    return any(getattr(policy, name) != _ABSENT[name] for name in names)


def _strictest_values(
    part: str, names: Sequence[str], statements: Sequence[Said]
) -> tuple[dict[str, Any], list[PolicySpeaker]]:
    """(values by name, who says them), of several that speak of a part; else the first."""
    if part in {"settle", "ramp_rate", "ramp_step"}:
        pick = max if part == "settle" else min
        source, policy = pick(statements, key=lambda each: getattr(each[1], names[0]))
        return {names[0]: getattr(policy, names[0])}, [source]
    if part == "allowed":
        lows = [policy.allowed_low for _, policy in statements if policy.allowed_low is not None]
        highs = [policy.allowed_high for _, policy in statements if policy.allowed_high is not None]
        low, high = max(lows, default=None), min(highs, default=None)
        counting = [
            source
            for source, policy in statements
            if (low is not None and policy.allowed_low == low)
            or (high is not None and policy.allowed_high == high)
        ]
        return {"allowed_low": low, "allowed_high": high}, counting
    source, policy = statements[0]
    return {name: getattr(policy, name) for name in names}, [source]


def _find_contradictions(
    part: str, names: Sequence[str], values: dict[str, Any], statements: Sequence[Said]
) -> list[str]:
    """Why several that speak of a part cannot all be followed."""
    who = " and ".join(source.speaker_text for source, _ in statements)
    if part == "allowed":
        low, high = values["allowed_low"], values["allowed_high"]
        if low is not None and high is not None and low > high:
            return [f"{who} allow ranges that have nothing in common"]
        return []
    different = (
        len({tuple(getattr(policy, name) for name in names) for _, policy in statements}) > 1
    )
    if different and part in {"completion", "timeout", "stage"}:
        return [f"{who} say different things of {part}"]
    return []


def _own_contradictions(policy: Policy) -> list[tuple[str, str]]:
    try:
        check_policy(policy, has_readback=True, path="policy")
    except InvalidArgument as error:
        name = error.field.removeprefix("policy.")
        part = name if name in PARTS else "completion"
        return [(part, error.message.removeprefix("policy."))]
    return []


def with_built_in(effective_policy: Effective) -> Effective:
    """With what Drey does by itself where nobody says anything; the rest stays absent."""
    stated_policy = effective_policy.policy
    by_done = stated_policy.completion == CompletionMode.DONE_CHANNEL
    policy = replace(
        stated_policy,
        **{
            name: getattr(DEFAULTS, name)
            for name in _NAMES
            if getattr(stated_policy, name) == _ABSENT[name] and (name != "done_value" or by_done)
        },
    )
    stated_parts = {part for part, _ in effective_policy.sources}
    sources = [(part, BUILT_IN) for part in PARTS if part not in stated_parts]
    return replace(effective_policy, policy=policy, sources=(*effective_policy.sources, *sources))
