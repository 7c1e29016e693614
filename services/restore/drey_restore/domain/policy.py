"""Which wishes of a restore policy this version follows: put-callback, readback, the defaults."""

from __future__ import annotations

import struct
from dataclasses import replace
from math import inf, isnan, nan

from drey_core.pv_table import CompletionMode, Policy

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


def effective(policy: Policy) -> Policy:
    """What a PV says, with the server's defaults."""
    if policy.completion != CompletionMode.UNSPECIFIED:
        return policy
    return replace(policy, completion=CompletionMode.PUT_CALLBACK)


DEFAULT = effective(Policy())

_HEAD = struct.Struct("<iqqBiI")
_TAIL = struct.Struct("<5d")
_NUMBERS = ("done_value", "ramp_rate", "ramp_step", "allowed_low", "allowed_high")
_S = 10**9


def policy_bytes(policy: Policy) -> bytes:
    """Canonical bytes of a policy: they are stored, and lie within the digest of a plan."""
    done = policy.done_channel.encode("utf-8", "replace")
    times = (policy.timeout_s, policy.settle_s)
    timeout, settle = (-1 if time is None else round(time * _S) for time in times)
    stage = policy.stage
    head = _HEAD.pack(
        int(policy.completion), timeout, settle, stage is not None, stage or 0, len(done)
    )
    numbers = [getattr(policy, name) for name in _NUMBERS]
    if (policy.allowed_low, policy.allowed_high) != (None, None):
        # an end of the range that is none is infinite, as in the contract
        numbers[3] = -inf if numbers[3] is None else numbers[3]
        numbers[4] = inf if numbers[4] is None else numbers[4]
    return head + done + _TAIL.pack(*(nan if number is None else number for number in numbers))


def policy_of_bytes(raw: bytes) -> Policy:
    """Inverse of `policy_bytes`. Raises `struct.error` or `ValueError` on anything else."""
    completion, timeout, settle, has_stage, stage, length = _HEAD.unpack_from(raw)
    done = raw[_HEAD.size : _HEAD.size + length].decode()
    numbers = _TAIL.unpack(raw[_HEAD.size + length :])
    found = {
        name: None if isnan(number) else number
        for name, number in zip(_NUMBERS, numbers, strict=True)
    }
    return Policy(
        completion=CompletionMode(completion),
        timeout_s=None if timeout < 0 else timeout / _S,
        settle_s=None if settle < 0 else settle / _S,
        stage=stage if has_stage else None,
        done_channel=done,
        **found,
    )
