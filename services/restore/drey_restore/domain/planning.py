"""Making a plan: for every PV of the selection a write, or the one reason why not.

Reasons in order of precedence; the first that holds is given:

1. EXCLUDED, DELETED, NO_SETPOINT, READ_ONLY, UNSUPPORTED: the PV is none to be written at all;
2. NOT_IN_SNAPSHOT: there is no stored value to write;
3. DISCONNECTED, STALE: the present value is not known;
4. NOT_WRITABLE, TYPE_CHANGED, COUNT_TOO_LARGE, LABEL_GONE: the channel takes no such value;
5. EQUAL: it has the value already, so the rest does not matter (NaN equals NaN);
6. POLICY: its restore policy asks for what a restore would not do;
7. NOT_FINITE, OUT_OF_RANGE: the record would refuse or clip it;
8. DUPLICATE_ADDRESS: a PV with a smaller number writes the same record's value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import DifferenceClass, compare
from drey_core.names import record_of
from drey_core.pv_table import Policy
from drey_core.values import ARRAY, ELEMENT_DTYPE, I8, U1, Columns, Kind, State, as_float64
from drey_restore.domain.conversion import convert, in_heap
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.policy import DEFAULT, effective, unfollowed

Mask = NDArray[np.bool_]
PROTOCOL_PVA = 2


@dataclass(frozen=True)
class PlanInput:
    """What is known of the n PVs of a selection; every array and list has n entries.

    Ordered by `number`, each once. `deleted`: not in today's catalog. `stored` and
    `stored_readback` are the snapshot's values (state ABSENT: none). `live` is the present value
    of the setpoint; `stale`: not to be believed. `live_count`: greatest number of elements.
    Control limits are NaN where there are none. `policies`: what PVs say themselves, by row.
    `warnings`: what is known to be told, by row.
    """

    number: I8
    names: list[str]
    addresses: list[str]
    readback_addresses: list[str]
    setpoint_channel: I8
    readback_channel: I8
    protocol: U1
    read_only: Mask
    deleted: Mask
    absolute: F8
    relative: F8
    readback_absolute: F8
    readback_relative: F8
    stored: Columns
    stored_readback: Columns
    stored_labels: Mapping[int, Labels]
    live: Columns
    live_count: I8
    live_labels: Callable[[int], Labels]
    stale: Mask
    writable: Mask
    control_low: F8
    control_high: F8
    excluded: Mask | None = None
    policies: Mapping[int, Policy] = field(default_factory=dict)
    warnings: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class _Skips:
    """Reasons so far; the first one stays."""

    def __init__(self, n: int) -> None:
        self.skip = np.zeros(n, np.uint8)

    def where(self, mask: Mask, reason: Skip) -> None:
        self.skip[mask & (self.skip == Skip.NONE)] = reason

    @property
    def open(self) -> Mask:
        mask: Mask = self.skip == Skip.NONE
        return mask


def make_plan(known: PlanInput, *, exact: bool = False) -> PlanItems:
    """The items. `exact`: also write what is within tolerance, unless equal bit for bit."""
    n = len(known.number)
    skips = _Skips(n)
    if known.excluded is not None:
        skips.where(known.excluded, Skip.EXCLUDED)
    skips.where(known.deleted, Skip.DELETED)
    skips.where(known.setpoint_channel == 0, Skip.NO_SETPOINT)
    skips.where(known.read_only, Skip.READ_ONLY)
    skips.where(known.protocol == PROTOCOL_PVA, Skip.UNSUPPORTED)
    skips.where(_without_value(known.stored), Skip.NOT_IN_SNAPSHOT)
    skips.where(_without_value(known.live), Skip.DISCONNECTED)
    skips.where(known.stale, Skip.STALE)
    skips.where(~known.writable, Skip.NOT_WRITABLE)
    rows = np.flatnonzero(skips.open)
    converted = convert(
        known.stored,
        known.live,
        known.live_count,
        rows,
        known.stored_labels,
        known.live_labels,
    )
    skips.skip[rows] = converted.problem[rows]
    target = converted.target
    compared = compare(target, known.live, known.absolute, known.relative)
    equal = (compared.cls == DifferenceClass.EQUAL) | (
        compared.cls == DifferenceClass.WITHIN_TOLERANCE
    )
    skips.where(_same_bits(target, known.live, equal) if exact else equal, Skip.EQUAL)
    warnings = dict(known.warnings)
    for row, texts in converted.warnings.items():
        warnings[row] = (*warnings.get(row, ()), *texts)
    warnings = _refuse_policies(known.policies, skips, warnings)
    _refuse_values(target, known, skips)
    _refuse_duplicates(known.addresses, skips)
    left_out = ~skips.open
    policies = {DEFAULT: 0}
    policy_of = np.zeros(n, np.int32)
    for row, policy in known.policies.items():
        policy_of[row] = policies.setdefault(effective(policy), len(policies))
    label_sets: dict[Labels, int] = {}
    label_of = _intern_labels(known.live, known.live_labels, label_sets)
    stored_label_of = _intern_labels(
        known.stored, lambda row: known.stored_labels.get(row, ()), label_sets
    )
    return PlanItems(
        number=known.number,
        names=known.names,
        addresses=known.addresses,
        readback_addresses=known.readback_addresses,
        current=known.live.with_key(known.setpoint_channel),
        stored=known.stored.with_key(known.setpoint_channel),
        target=_blank(target, left_out).with_key(known.setpoint_channel),
        stored_readback=known.stored_readback.with_key(known.readback_channel),
        absolute=known.absolute,
        relative=known.relative,
        readback_absolute=known.readback_absolute,
        readback_relative=known.readback_relative,
        delta=0.0 - compared.delta,
        deviation=compared.deviation,
        stage=np.zeros(n, np.int32),
        policy_of=policy_of,
        skip=skips.skip,
        label_of=label_of,
        stored_label_of=stored_label_of,
        policies=list(policies),
        label_sets=list(label_sets),
        warnings=warnings,
    )


def _without_value(columns: Columns) -> Mask:
    mask: Mask = (columns.state != State.CONNECTED) | (columns.kind == Kind.NONE)
    return mask


def _blank(columns: Columns, rows: Mask) -> Columns:
    """The columns with no value in `rows`."""
    kind, data = columns.kind.copy(), columns.data.copy()
    kind[rows], data[rows] = Kind.NONE, 0
    return replace(columns, kind=kind, data=data)


def _refuse_policies(
    policies: Mapping[int, Policy], skips: _Skips, warnings: dict[int, tuple[str, ...]]
) -> dict[int, tuple[str, ...]]:
    """Leave out what would not be restored as its policy says; the warnings with why."""
    found = dict(warnings)
    refused = np.zeros(len(skips.skip), bool)
    for row, policy in policies.items():
        why = unfollowed(policy)
        if why and skips.skip[row] == Skip.NONE:
            refused[row] = True
            found[row] = (*found.get(row, ()), *why)
    skips.where(refused, Skip.POLICY)
    return found


def _same_bits(a: Columns, b: Columns, among: Mask) -> Mask:
    """Which rows are equal bit for bit; only those `among` are looked at."""
    same: Mask = among & (a.kind == b.kind) & (a.data == b.data)
    for row in in_heap(a, np.flatnonzero(among & (a.kind == b.kind))).tolist():
        same[row] = a.heap_bytes(row) == b.heap_bytes(row)
    return same


def _refuse_values(target: Columns, known: PlanInput, skips: _Skips) -> None:
    """NaN, infinities, and what lies outside the control limits; of arrays any element."""
    values = as_float64(target.kind, target.data)
    floats = (target.kind == Kind.FLOAT64) | (target.kind == Kind.FLOAT32)
    low, high = values.copy(), values.copy()
    finite = ~floats | np.isfinite(values)
    numbers = (target.kind != Kind.ENUM) & ~np.isnan(values)
    for row in in_heap(target, np.flatnonzero(skips.open)).tolist():
        kind = int(target.kind[row])
        if not kind & ARRAY or kind & ~ARRAY in (Kind.STRING, Kind.ENUM):
            continue
        elements = np.frombuffer(target.heap_bytes(row), ELEMENT_DTYPE[kind & ~ARRAY])
        if len(elements):
            finite[row] = bool(np.isfinite(elements).all())
            low[row], high[row] = float(elements.min()), float(elements.max())
            numbers[row] = True
    skips.where(~finite, Skip.NOT_FINITE)
    with np.errstate(invalid="ignore"):
        limited = known.control_low < known.control_high
        outside = (low < known.control_low) | (high > known.control_high)
    skips.where(numbers & limited & outside, Skip.OUT_OF_RANGE)


def _refuse_duplicates(addresses: list[str], skips: _Skips) -> None:
    rows = np.flatnonzero(skips.open).tolist()
    listed = [addresses[row] for row in rows]
    if len(set(listed)) == len(listed) and ".VAL" not in "\n".join(listed):
        return
    records = [record_of(address) for address in listed]
    if len(set(records)) == len(records):
        return
    seen: set[str] = set()
    for row, record in zip(rows, records, strict=True):
        if record in seen:
            skips.skip[row] = Skip.DUPLICATE_ADDRESS
        seen.add(record)


def _intern_labels(
    columns: Columns, labels_of: Callable[[int], Labels], sets: dict[Labels, int]
) -> NDArray[np.int32]:
    """Which list of labels each row has (-1: none); each list once in `sets`."""
    label_of = np.full(len(columns), -1, np.int32)
    for row in np.flatnonzero(columns.kind & ~np.uint8(ARRAY) == Kind.ENUM).tolist():
        labels = labels_of(row)
        if labels:
            label_of[row] = sets.setdefault(labels, len(sets))
    return label_of
