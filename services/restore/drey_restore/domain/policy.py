"""Restore policies: what holds, what stands against following one, and their canonical bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import inf, isnan, nan

from drey_core.pv_table import CompletionMode, Policy


@dataclass(frozen=True)
class Followable:
    """What is known of a PV that decides whether its policy can be followed.

    `readback`: it has a readback address; `stored_readback`: the source has a value of it;
    `number`: what is to be written is a number or an array of numbers; `done`: its done channel
    is connected, and is a number. `ramp`: the values on the way to its target can be told.
    """

    readback: bool
    stored_readback: bool
    number: bool
    done: bool
    ramp: bool = True


def obstacles(policy: Policy, known: Followable) -> tuple[str, ...]:
    """A sentence for each part of a policy that cannot be followed; empty: all of it can."""
    found: list[str] = []
    if policy.completion == CompletionMode.READBACK:
        if not known.readback:
            found.append("its restore policy completes by readback, and the PV has none")
        elif not known.stored_readback:
            found.append(
                "its restore policy completes by readback, and the source has no value of it"
            )
    if policy.completion == CompletionMode.DONE_CHANNEL and not known.done:
        found.append(
            f"its restore policy completes by {policy.done_channel or 'a done channel'}, which is"
            " not connected or not a number"
        )
    if not known.ramp:
        found.append(
            "its restore policy has a ramp, and the values on the way cannot be told: they and the"
            f" target must be single numbers, within what it allows, and at most {MAX_STEPS} steps"
        )
    if not known.number and (policy.allowed_low, policy.allowed_high) != (None, None):
        found.append(f"its restore policy allows {allowed_text(policy)}, and it is not a number")
    return tuple(found)


def allowed_text(policy: Policy) -> str:
    """The range outside which a policy never writes, for people."""
    low, high = policy.allowed_low, policy.allowed_high
    return f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"


def effective(policy: Policy) -> Policy:
    """What a PV says, with the server's defaults."""
    if policy.completion != CompletionMode.UNSPECIFIED:
        return policy
    return replace(policy, completion=CompletionMode.PUT_CALLBACK)


MAX_STEPS = 1000
"""Of a ramp."""
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
