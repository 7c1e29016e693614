"""Restore policies: what holds and who says so, what stands against following one, their bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray

from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import I8
from drey_restore.domain.addresses import record_name


class PolicyOrigin(IntEnum):
    """Who says a part of a policy; the numbers in the `oneof` of `drey.catalog.v1.PolicySource`."""

    PV = 2
    DEVICE = 3
    TAG = 4
    BUILT_IN = 5


@dataclass(frozen=True)
class PartSource:
    """Who says a part of a policy: of a device its name, of a tag its name and its group."""

    part: str
    origin: PolicyOrigin
    name: str = ""
    group: str = ""


Sources = tuple[PartSource, ...]


@dataclass(frozen=True)
class SaidPolicy:
    """What is said of some PVs, by whom, and why it contradicts itself (empty: it does not)."""

    policy: Policy
    sources: Sources = ()
    contradictions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyRows:
    """What is said for n rows: for row i `listed[index[i]]`; the first of the list says nothing."""

    index: I8
    listed: Sequence[SaidPolicy]

    @classmethod
    def same_for_rows(cls, n: int, policies: Mapping[int, Policy]) -> PolicyRows:
        """Of n rows, some of which say something themselves."""
        index = np.zeros(n, np.int64)
        listed = [NOTHING]
        for row, policy in policies.items():
            index[row] = len(listed)
            listed.append(SaidPolicy(policy))
        return cls(index, listed)

    def rows_by_policy(self, among: NDArray[np.bool_]) -> Iterator[tuple[SaidPolicy, I8]]:
        """Policies that say something, each with its rows of those that are `among`."""
        rows = np.flatnonzero(among & (self.index != 0))
        if len(rows):
            rows = rows[np.argsort(self.index[rows], kind="stable")]
            ends = np.flatnonzero(np.diff(self.index[rows])) + 1
            for part in np.split(rows, ends):
                yield self.listed[int(self.index[part[0]])], part


@dataclass(frozen=True)
class PolicyTable:
    """What is said of PVs: of `numbers[i]`, ascending, `listed[index[i]]`; of others nothing."""

    numbers: I8
    index: I8
    listed: Sequence[SaidPolicy]

    def rows(self, numbers: I8) -> PolicyRows:
        """Of the PVs of some numbers."""
        index = np.zeros(len(numbers), np.int64)
        if len(self.numbers):
            places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
            has_policy = self.numbers[places] == numbers
            index[has_policy] = self.index[places[has_policy]] + 1
        return PolicyRows(index, [NOTHING, *self.listed])


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


def policy_obstacles(policy: Policy, known: Followable) -> tuple[str, ...]:
    """A sentence for each part of a policy that cannot be followed; empty: all of it can."""
    texts: list[str] = []
    if policy.completion == CompletionMode.READBACK:
        if not known.readback:
            texts.append("its restore policy completes by readback, and the PV has none")
        elif not known.stored_readback:
            texts.append(
                "its restore policy completes by readback, and the source has no value of it"
            )
    if policy.completion == CompletionMode.DONE_CHANNEL and not known.done:
        texts.append(
            f"its restore policy completes by {policy.done_channel or 'a done channel'}, which is"
            " not connected or not a number"
        )
    if not known.ramp:
        texts.append(
            "its restore policy has a ramp, and the values on the way cannot be told: they and the"
            f" target must be single numbers, within what it allows, and at most {MAX_STEPS} steps"
        )
    if not known.number and (policy.allowed_low, policy.allowed_high) != (None, None):
        texts.append(f"its restore policy allows {allowed_text(policy)}, and it is not a number")
    return tuple(texts)


def allowed_text(policy: Policy) -> str:
    """The range outside which a policy never writes, for people."""
    low, high = policy.allowed_low, policy.allowed_high
    return f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"


def effective_policy(stated_policy: SaidPolicy) -> SaidPolicy:
    """What is said, with the server's defaults."""
    if stated_policy.policy.completion != CompletionMode.UNSPECIFIED:
        return stated_policy
    return SaidPolicy(
        replace(stated_policy.policy, completion=CompletionMode.PUT_CALLBACK),
        (PartSource("completion", PolicyOrigin.BUILT_IN), *stated_policy.sources),
    )


def done_address(policy: Policy, address: str) -> str:
    """Address of the channel by which a write to `address` is complete; empty: by none."""
    if policy.completion != CompletionMode.DONE_CHANNEL:
        return ""
    done = policy.done_channel
    return record_name(address) + done if done.startswith(".") else done


MAX_STEPS = 1000
"""Of a ramp."""
NOTHING = SaidPolicy(Policy())
_DEFAULT = effective_policy(NOTHING)
DEFAULT, DEFAULT_SOURCES = _DEFAULT.policy, _DEFAULT.sources

_HEAD = struct.Struct("<iqqBiI")
_TAIL = struct.Struct("<5d")
_NUMBERS = ("done_value", "ramp_rate", "ramp_step", "allowed_low", "allowed_high")
_S = 10**9


def sources_bytes(sources: Sources) -> bytes:
    """Canonical bytes of who says what; they lie within the digest of a plan."""
    return b"".join(
        _text_bytes(source.part)
        + struct.pack("<B", source.origin)
        + {
            PolicyOrigin.DEVICE: _text_bytes(source.name),
            PolicyOrigin.TAG: _text_bytes(source.group) + _text_bytes(source.name),
        }.get(source.origin, b"")
        for source in sources
    )


def _text_bytes(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return struct.pack("<I", len(raw)) + raw


def sources_of_bytes(raw: bytes) -> Sources:
    """Inverse of `sources_bytes`. Raises `struct.error` or `ValueError` on anything else."""
    sources, offset = [], 0

    def next_text() -> str:
        nonlocal offset
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4 + length
        if offset > len(raw):
            raise ValueError("a text that ends too early")
        return raw[offset - length : offset].decode()

    while offset < len(raw):
        part, origin = next_text(), PolicyOrigin(raw[offset])
        offset += 1
        group = next_text() if origin == PolicyOrigin.TAG else ""
        name = next_text() if origin in (PolicyOrigin.TAG, PolicyOrigin.DEVICE) else ""
        sources.append(PartSource(part, origin, name, group))
    return tuple(sources)


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
    fields = {
        name: None if isnan(number) else number
        for name, number in zip(_NUMBERS, numbers, strict=True)
    }
    return Policy(
        completion=CompletionMode(completion),
        timeout_s=None if timeout < 0 else timeout / _S,
        settle_s=None if settle < 0 else settle / _S,
        stage=stage if has_stage else None,
        done_channel=done,
        **fields,
    )
