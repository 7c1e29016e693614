"""Which wishes of a restore policy this version follows: put-callback, readback, the defaults."""

from __future__ import annotations

from drey_core.pv_table import CompletionMode, Policy
from drey_restore.domain.kinds import Completion

_DEFAULT_TIMEOUT_S = 5.0
_FOLLOWED = (CompletionMode.UNSPECIFIED, CompletionMode.PUT_CALLBACK, CompletionMode.READBACK)


def unfollowed(policy: Policy) -> tuple[str, ...]:
    """A sentence for each field that asks for what a restore would not do; empty: it follows all.

    What says the same as the defaults asks for nothing.
    """
    fields: list[tuple[str, object]] = []
    if policy.completion not in _FOLLOWED:
        fields.append(("completion", policy.completion.name.lower()))
    if policy.timeout_s not in (None, _DEFAULT_TIMEOUT_S):
        fields.append(("timeout", f"{policy.timeout_s:g} s"))
    if policy.settle_s:
        fields.append(("settle", f"{policy.settle_s:g} s"))
    if policy.stage:
        fields.append(("stage", policy.stage))
    for name in ("ramp_rate", "ramp_step"):
        value = getattr(policy, name)
        if value is not None:
            fields.append((name, f"{value:g}"))
    low, high = policy.allowed_low, policy.allowed_high
    if low is not None or high is not None:
        shown = ("-inf" if low is None else f"{low:g}", "inf" if high is None else f"{high:g}")
        fields.append(("allowed", f"{shown[0]} to {shown[1]}"))
    return tuple(
        f"its restore policy has {name} {value}, which this version does not follow"
        for name, value in fields
    )


def completion_of(policy: Policy) -> Completion:
    """How the completion of its writes is judged, where the policy is followed."""
    if policy.completion == CompletionMode.READBACK:
        return Completion.READBACK
    return Completion.PUT_CALLBACK
