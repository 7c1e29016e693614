"""Making a plan: for every PV of the selection a write, or the one reason why not.

Reasons in order of precedence; the first that holds is given:

1. EXCLUDED, DELETED, NO_SETPOINT, READ_ONLY, UNSUPPORTED: the PV is none to be written at all;
2. NOT_IN_SNAPSHOT: there is no stored value to write;
3. DISCONNECTED, STALE: the present value is not known;
4. NOT_WRITABLE (also a record that is disabled), TYPE_CHANGED, COUNT_TOO_LARGE, LABEL_GONE: the
   channel takes no such value;
5. EQUAL: it has the value already, so the rest does not matter (NaN equals NaN);
6. CHANGED_SINCE: of the way back, somebody has written it since the restore;
7. POLICY: its restore policy cannot be followed; INVALID_SOURCE: what is stored was no value;
8. NOT_FINITE, OUT_OF_RANGE: the record would refuse or clip it, or its policy does not allow it;
9. DUPLICATE_ADDRESS: a PV with a smaller number writes the same record's value;
10. NOT_WRITABLE, DUPLICATE_ADDRESS again, by what the records of the writes say themselves
   (`record_facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drey_core.compare import Comparison, DifferenceClass, compare
from drey_core.values import (
    ARRAY,
    ELEMENT_DTYPE,
    I8,
    U1,
    Columns,
    Kind,
    Severity,
    State,
    as_float64,
    unpack_strings,
)
from drey_restore.domain.addresses import (
    DISABLING,
    field_key,
    field_name,
    field_of,
    limit_field,
)
from drey_restore.domain.conversion import Converted, convert_values, in_heap
from drey_restore.domain.edits import Edited, Given, Linear, edit_source, give_values
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.policy import (
    Followable,
    PolicyRows,
    SaidPolicy,
    allowed_text,
    effective_policy,
    policy_obstacles,
)
from drey_restore.domain.problems import PlanProblem, PlanWarnings, blank_rows
from drey_restore.domain.ramping import Steps, step_size, steps_between

Mask = NDArray[np.bool_]
_DISABLED, _UNDEFINED = 18, 17
"""EPICS alarm statuses."""
_MOST_TEXT = 39
"""Bytes of a text that Channel Access carries: 40 with the zero at its end."""
_OTHER_FORMS = (".VAL", ".RVAL", "$")
"""In addresses that may name a field which another address names too."""
PROTOCOL_PVA = 2


@dataclass(frozen=True)
class WayBack:
    """What a plan of the way back knows besides the values; every column has n entries.

    `left` is what the restore left at the setpoint, as far as it was seen, and `channel` the number
    of the channel that it wrote. `stage`: those of the restore in reverse. `also_changed`: also
    write what somebody has changed since.
    """

    left: Columns
    channel: I8
    stage: NDArray[np.int32]
    also_changed: bool


@dataclass(frozen=True)
class PlanInput:
    """What is known of the n PVs of a selection; every array and list has n entries.

    Ordered by `number`, each once. `deleted`: not in today's catalog. `stored` and
    `stored_readback` are the snapshot's values (state ABSENT: none). `live` is the present value
    of the setpoint; `stale`: not to be believed. `live_count`: greatest number of elements.
    Control limits are NaN where there are none. `policies`: what is said of how rows are restored.
    `warnings`: what is known to be told, by row. `done`: rows whose done channel is connected and a
    number. `given`: the source is these values of the caller, by row. `edits`, each with its rows.
    `problems`: why rows cannot be given or edited so; `unstored`: rows whose values were.
    `refused`: problems for which a PV is left out; others are warnings.
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
    policies: PolicyRows
    excluded: Mask | None = None
    warnings: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    done: frozenset[int] = frozenset()
    back: WayBack | None = None
    given: Mapping[int, Given] = field(default_factory=dict)
    edits: Sequence[tuple[I8, Given | Linear]] = ()
    problems: Mapping[int, Skip] = field(default_factory=dict)
    unstored: frozenset[int] = frozenset()
    refused: frozenset[PlanProblem] = frozenset({PlanProblem.DISABLED})


class _Skips:
    """Reasons so far; the first one stays."""

    def __init__(self, n: int) -> None:
        self.skip = np.zeros(n, np.uint8)

    def skip_where(self, mask: Mask, reason: Skip) -> None:
        self.skip[mask & (self.skip == Skip.NONE)] = reason

    @property
    def still_open(self) -> Mask:
        mask: Mask = self.skip == Skip.NONE
        return mask


def make_plan(known: PlanInput, *, exact: bool = False) -> PlanItems:
    """The items. `exact`: also write what is within tolerance, unless equal bit for bit."""
    source = known = _with_given(known)
    known = _with_edits(known)
    skips = _skip_unwritable(known)
    warnings = PlanWarnings(known.warnings)
    _refuse_disabled(known, skips, warnings)
    converted = _convert_targets(known, skips, warnings)
    target = converted.target
    compared = compare(target, known.live, known.absolute, known.relative)
    equal = (compared.cls == DifferenceClass.EQUAL) | (
        compared.cls == DifferenceClass.WITHIN_TOLERANCE
    )
    skips.skip_where(_same_bits(target, known.live, equal) if exact else equal, Skip.EQUAL)
    if known.back is not None:
        _refuse_changed(known, known.back, skips, warnings)
    for row, texts in converted.warnings.items():
        if row not in known.given:  # nobody stored it as anything
            warnings.add_warning(row, *texts)
    ramps = _ramp_steps(known, target, skips)
    _refuse_policies(known, target, ramps, skips, warnings)
    _refuse_invalid(known, target, skips, warnings)
    stage = _stage_numbers(known)
    _refuse_values(target, _with_own_limits(known, target, stage, skips), skips, warnings)
    _refuse_duplicates(known.addresses, skips)
    made = _Made(target, compared, stage, skips, warnings, ramps)
    return _plan_items(known, source, made)


class _Made(NamedTuple):
    """What was decided of each PV."""

    target: Columns
    compared: Comparison
    stage: NDArray[np.int32]
    skips: _Skips
    warnings: PlanWarnings
    ramps: Mapping[int, Steps | None]


def _plan_items(known: PlanInput, source: PlanInput, made: _Made) -> PlanItems:
    """As they are stored; `source` has the stored values before they were edited."""
    followed: dict[SaidPolicy, int] = {}
    places = [
        followed.setdefault(effective_policy(replace(said, contradictions=())), len(followed))
        for said in known.policies.listed
    ]
    label_sets: dict[Labels, int] = {}
    label_of = _intern_labels(known.live, known.live_labels, label_sets)
    stored_label_of = _intern_labels(
        source.stored, lambda row: source.stored_labels.get(row, ()), label_sets
    )
    skip = made.skips.skip
    target = blank_rows(made.target, ~made.skips.still_open)
    return PlanItems(
        number=known.number,
        names=known.names,
        addresses=known.addresses,
        readback_addresses=known.readback_addresses,
        current=known.live.with_key(known.setpoint_channel),
        stored=source.stored.with_key(known.setpoint_channel),
        target=target.with_key(known.setpoint_channel),
        stored_readback=known.stored_readback.with_key(known.readback_channel),
        absolute=known.absolute,
        relative=known.relative,
        readback_absolute=known.readback_absolute,
        readback_relative=known.readback_relative,
        delta=0.0 - made.compared.delta,
        deviation=made.compared.deviation,
        stage=made.stage,
        policy_of=np.array(places, np.int32)[known.policies.index],
        skip=skip,
        label_of=label_of,
        stored_label_of=stored_label_of,
        policies=[said.policy for said in followed],
        policy_sources=[said.sources for said in followed],
        label_sets=list(label_sets),
        warnings=made.warnings.by_row,
        ramps={row: steps for row, steps in made.ramps.items() if steps and not skip[row]},
    )


def _convert_targets(known: PlanInput, skips: _Skips, warnings: PlanWarnings) -> Converted:
    """The stored values as today's channels take them; what cannot be is skipped."""
    rows = np.flatnonzero(skips.still_open)
    converted = convert_values(
        known.stored,
        known.live,
        known.live_count,
        rows,
        known.stored_labels,
        known.live_labels,
    )
    skips.skip[rows] = converted.problem[rows]
    for row, problem in known.problems.items():
        if skips.skip[row] == Skip.NONE:
            skips.skip[row] = problem
    _refuse_long_texts(known.addresses, converted.target, skips, warnings)
    return converted


def _skip_unwritable(known: PlanInput) -> _Skips:
    """What is not written whatever its value would be, each by the first reason."""
    skips = _Skips(len(known.number))
    if known.excluded is not None:
        skips.skip_where(known.excluded, Skip.EXCLUDED)
    skips.skip_where(known.deleted, Skip.DELETED)
    skips.skip_where(known.setpoint_channel == 0, Skip.NO_SETPOINT)
    skips.skip_where(known.read_only, Skip.READ_ONLY)
    skips.skip_where(known.protocol == PROTOCOL_PVA, Skip.UNSUPPORTED)
    skips.skip_where(_without_value(known.stored), Skip.NOT_IN_SNAPSHOT)
    skips.skip_where(_without_value(known.live), Skip.DISCONNECTED)
    skips.skip_where(known.stale, Skip.STALE)
    skips.skip_where(~known.writable, Skip.NOT_WRITABLE)
    return skips


def _with_given(known: PlanInput) -> PlanInput:
    """With the values of the caller as the source."""
    if not known.given:
        return known
    edited = give_values(known.stored, known.live.kind, known.live_labels, known.given)
    return _with_source(known, edited)


def _with_edits(known: PlanInput) -> PlanInput:
    """With the source as it was edited."""
    if not known.edits:
        return known
    edited = edit_source(
        known.stored, known.stored_labels, known.live.kind, known.live_labels, known.edits
    )
    return _with_source(known, edited)


def _with_source(known: PlanInput, found: Edited) -> PlanInput:
    """With another source. Of what is not as it was stored the stored readback says nothing."""
    changed = np.zeros(len(known.number), bool)
    changed[found.rows] = True
    rows = known.warnings.keys() | found.warnings.keys()
    problems = {row: why for row, why in known.problems.items() if not changed[row]}
    return replace(
        known,
        stored=found.values,
        stored_labels=found.labels,
        stored_readback=blank_rows(known.stored_readback, changed),
        warnings={r: (*found.warnings.get(r, ()), *known.warnings.get(r, ())) for r in rows},
        problems={**problems, **found.problems},
        unstored=known.unstored | set(found.rows.tolist()),
    )


def _without_value(columns: Columns) -> Mask:
    mask: Mask = (columns.state != State.CONNECTED) | (columns.kind == Kind.NONE)
    return mask


def _stage_numbers(known: PlanInput) -> NDArray[np.int32]:
    """The stage in which each is written, if it is."""
    if known.back is not None:
        return known.back.stage
    stages = [said.policy.stage or 0 for said in known.policies.listed]
    return np.array(stages, np.int32)[known.policies.index]


def _refuse_disabled(known: PlanInput, skips: _Skips, warnings: PlanWarnings) -> None:
    """A record that is disabled (.DISA) takes a value and does nothing with it."""
    disabled = skips.still_open & (known.live.status == _DISABLED)
    for row in np.flatnonzero(disabled).tolist():
        if field_name(known.addresses[row]) in DISABLING:
            disabled[row] = False  # what would enable it
        else:
            warnings.add_warning(row, "the record is disabled: .DISA equals .DISV")
    if PlanProblem.DISABLED in known.refused:
        skips.skip_where(disabled, Skip.NOT_WRITABLE)


def _refuse_invalid(
    known: PlanInput, target: Columns, skips: _Skips, warnings: PlanWarnings
) -> None:
    """What may never have been a value of the machine: undefined, INVALID, or cut short."""
    invalid = skips.still_open & (known.stored.severity == Severity.INVALID)
    undefined = invalid & (known.stored.status == _UNDEFINED)
    cut = _maybe_cut(known, skips.still_open & (target.kind & ~np.uint8(ARRAY) == Kind.STRING))
    for problem, rows, text in (
        (PlanProblem.UNDEFINED, undefined, "the stored value was never set (UDF)"),
        (
            PlanProblem.INVALID,
            invalid & ~undefined,
            "the stored value was INVALID when it was stored",
        ),
        (
            PlanProblem.TRUNCATED,
            cut,
            f"the stored text has the {_MOST_TEXT} bytes that Channel Access carries, and may have"
            " been cut: give the PV the address with $",
        ),
    ):
        for row in np.flatnonzero(rows).tolist():
            warnings.add_warning(row, text)
        if problem in known.refused:
            skips.skip_where(rows, Skip.INVALID_SOURCE)


def _maybe_cut(known: PlanInput, texts: Mask) -> Mask:
    """Which stored texts are as long as the transport carries; long strings have no such end."""
    cut = np.zeros(len(texts), bool)
    for row in np.flatnonzero(texts).tolist():
        if not known.addresses[row].endswith("$") and row not in known.unstored:
            cut[row] = _longest_text(known.stored, row) >= _MOST_TEXT
    return cut


def _refuse_long_texts(
    addresses: list[str], target: Columns, skips: _Skips, warnings: PlanWarnings
) -> None:
    """Texts that Channel Access does not carry; it would refuse the write."""
    texts = skips.still_open & (target.kind & ~np.uint8(ARRAY) == Kind.STRING)
    for row in np.flatnonzero(texts).tolist():
        size = _longest_text(target, row)
        if any(b"\0" in text for text in _texts_of(target, row)):
            warnings.add_warning(
                row, "the text has a NUL byte, and texts of Channel Access end with it"
            )
            continue
        texts[row] = size > _MOST_TEXT and not addresses[row].endswith("$")
        if texts[row]:
            warnings.add_warning(
                row,
                f"the text has {size} bytes, and Channel Access carries {_MOST_TEXT}: give the PV"
                " the address with $",
            )
    skips.skip_where(texts, Skip.COUNT_TOO_LARGE)


def _longest_text(columns: Columns, row: int) -> int:
    """Bytes of a text, or of the longest of an array of texts."""
    return max(map(len, _texts_of(columns, row)), default=0)


def _texts_of(columns: Columns, row: int) -> list[bytes]:
    """A text, or those of an array of texts."""
    raw = columns.heap_bytes(row)
    return unpack_strings(raw) if int(columns.kind[row]) & ARRAY else [raw]


def _with_own_limits(
    known: PlanInput, target: Columns, stage: NDArray[np.int32], skips: _Skips
) -> PlanInput:
    """With the control limits as they are once the plan has written the limit fields itself.

    Fields that are no later in the order of the plan than the value that they limit.
    """
    rows = np.flatnonzero(skips.still_open).tolist()
    fields = [row for row in rows if "." in known.addresses[row]]
    limits = {row: limited for row in fields if (limited := limit_field(known.addresses[row]))}
    if not limits:
        return known
    value_rows = {field_of(known.addresses[row]): row for row in rows}
    low, high = known.control_low.copy(), known.control_high.copy()
    numbers = as_float64(target.kind, target.data)
    for row, (record, is_high) in limits.items():
        value_row = value_rows.get(record)
        if value_row is not None and stage[row] <= stage[value_row]:
            (high if is_high else low)[value_row] = numbers[row]
    return replace(known, control_low=low, control_high=high)


def _refuse_changed(known: PlanInput, back: WayBack, skips: _Skips, warnings: PlanWarnings) -> None:
    """Leave out what is not as the restore left it, unless told; with a warning in any case.

    A channel that the restore did not write, for the PV has been re-addressed, is never as it left
    it, whatever its value is.
    """
    cls = compare(back.left, known.live, known.absolute, known.relative).cls
    changed = skips.still_open & ~np.isin(
        cls, (DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE)
    )
    for row in np.flatnonzero(changed).tolist():
        warnings.add_warning(row, "changed since the restore that is undone")
    another = skips.still_open & (back.channel != known.setpoint_channel)
    for row in np.flatnonzero(another).tolist():
        warnings.add_warning(row, "re-addressed: the restore that is undone wrote another channel")
    if not back.also_changed:
        skips.skip_where(changed | another, Skip.CHANGED_SINCE)


def _ramp_steps(known: PlanInput, target: Columns, skips: _Skips) -> dict[int, Steps | None]:
    """Values on the way to the target of each that ramps; None where they cannot be told."""
    steps_by_row: dict[int, Steps | None] = {}
    for said, rows in known.policies.rows_by_policy(skips.still_open):
        policy, size = said.policy, step_size(said.policy)
        if size is None:
            continue
        low, high = policy.allowed_low, policy.allowed_high
        least, most = -inf if low is None else low, inf if high is None else high
        now, goal = (
            as_float64(columns.kind[rows], columns.data[rows]).tolist()
            for columns in (known.live, target)
        )
        for row, begin, end in zip(rows.tolist(), now, goal, strict=True):
            kind = int(target.kind[row])
            if kind & ARRAY or kind in (Kind.STRING, Kind.ENUM, Kind.BOOL):
                steps_by_row[row] = None
                continue
            whole = kind not in (Kind.FLOAT32, Kind.FLOAT64)
            steps = steps_between(begin, end, size, whole=whole)
            steps_by_row[row] = (
                steps if all(least <= step <= most for step in steps or ()) else None
            )
    return steps_by_row


def _refuse_policies(
    known: PlanInput,
    target: Columns,
    ramps: Mapping[int, Steps | None],
    skips: _Skips,
    warnings: PlanWarnings,
) -> None:
    """Leave out what could not be restored as its policy says, with why."""
    n = len(skips.skip)
    if not known.policies.index.any():
        return  # nobody says anything
    refused, elements = np.zeros(n, bool), target.kind & ~np.uint8(ARRAY)
    done, ramp = np.zeros(n, bool), np.ones(n, bool)
    done[list(known.done)] = True
    ramp[[row for row, steps in ramps.items() if steps is None]] = False
    facts = np.stack(
        [
            np.fromiter(map(bool, known.readback_addresses), bool, n),
            ~_without_value(known.stored_readback),
            (elements != Kind.STRING) & (elements != Kind.ENUM),
            done,
            ramp,
        ]
    )
    alike = (1 << np.arange(len(facts))) @ facts
    for said, rows in known.policies.rows_by_policy(skips.still_open):
        for each in np.unique(alike[rows]).tolist():
            part = rows[alike[rows] == each]
            followable = Followable(*facts[:, part[0]].tolist())
            why = (*said.contradictions, *policy_obstacles(said.policy, followable))
            refused[part] = bool(why)
            for row in part.tolist() if why else ():
                warnings.add_warning(row, *why)
    skips.skip_where(refused, Skip.POLICY)


def _same_bits(a: Columns, b: Columns, among: Mask) -> Mask:
    """Which rows are equal bit for bit; only those `among` are looked at."""
    same: Mask = among & (a.kind == b.kind) & (a.data == b.data)
    for row in in_heap(a, np.flatnonzero(among & (a.kind == b.kind))).tolist():
        same[row] = a.heap_bytes(row) == b.heap_bytes(row)
    return same


def _refuse_values(
    target: Columns, known: PlanInput, skips: _Skips, warnings: PlanWarnings
) -> None:
    """NaN, infinities, what lies outside control limits or policies; of arrays any element."""
    values = as_float64(target.kind, target.data)
    floats = (target.kind == Kind.FLOAT64) | (target.kind == Kind.FLOAT32)
    low, high = values.copy(), values.copy()
    finite = ~floats | np.isfinite(values)
    numbers = (target.kind != Kind.ENUM) & ~np.isnan(values)
    for row in in_heap(target, np.flatnonzero(skips.still_open)).tolist():
        kind = int(target.kind[row])
        if not kind & ARRAY or kind & ~ARRAY in (Kind.STRING, Kind.ENUM):
            continue
        elements = np.frombuffer(target.heap_bytes(row), ELEMENT_DTYPE[kind & ~ARRAY])
        if len(elements):
            finite[row] = bool(np.isfinite(elements).all())
            low[row], high[row] = float(elements.min()), float(elements.max())
            numbers[row] = True
    skips.skip_where(~finite, Skip.NOT_FINITE)
    with np.errstate(invalid="ignore"):
        limited = known.control_low < known.control_high
        outside = (low < known.control_low) | (high > known.control_high)
    skips.skip_where(numbers & limited & outside, Skip.OUT_OF_RANGE)
    forbidden = np.zeros(len(low), bool)
    for said, rows in known.policies.rows_by_policy(skips.still_open & numbers):
        least, most = said.policy.allowed_low, said.policy.allowed_high
        if least is not None:
            forbidden[rows] |= low[rows] < least
        if most is not None:
            forbidden[rows] |= high[rows] > most
        for row in rows[forbidden[rows]].tolist():
            warnings.add_warning(row, f"its restore policy allows {allowed_text(said.policy)}")
    skips.skip_where(forbidden, Skip.OUT_OF_RANGE)


def _refuse_duplicates(addresses: list[str], skips: _Skips) -> None:
    rows = np.flatnonzero(skips.still_open).tolist()
    listed = [addresses[row] for row in rows]
    joined = "\n".join(listed)
    if len(set(listed)) == len(listed) and not any(mark in joined for mark in _OTHER_FORMS):
        return
    records = [field_key(address) for address in listed]
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
