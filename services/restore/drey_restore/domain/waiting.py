"""What the stages of a plan wait for, and how long, by its policies."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from drey_core.pv_table import Policy
from drey_core.values import I8, as_float64
from drey_restore.domain.items import F8, PlanItems

_S = 10**9


@dataclass(frozen=True)
class StageWait:
    """One stage: what ExecutePlan waits for at least, and until a write is late (None: its own).

    `completions`: writes by how their completion is judged, (mode, writes), by mode. `ramps` of the
    writes go in steps, at most `ramp_steps` of them with the target; the steps of `unpaced_ramps`
    have no rate, and follow one another as soon as the device lets them.
    """

    least_ns: int
    most_ns: int | None
    completions: tuple[tuple[int, int], ...]
    ramps: int = 0
    ramp_steps: int = 0
    unpaced_ramps: int = 0


def stage_waits(items: PlanItems) -> tuple[StageWait, ...]:
    """Of each stage, in order."""
    return tuple(_stage_wait(items, rows) for rows in items.rows_by_stage)


def _stage_wait(items: PlanItems, rows: I8) -> StageWait:
    is_value = items.is_value[rows]
    # limits and modes are complete before a value is sent
    spans = [_longest_wait(items, part) for part in (rows[~is_value], rows[is_value])]
    least, most = (sum(span[index] for span in spans) for index in (0, 1))
    modes, counts = np.unique(items.completion[rows], return_counts=True)
    ramped = [row for row in rows.tolist() if row in items.ramps]
    return StageWait(
        round(least * _S),
        None if most == inf else round(most * _S),
        tuple(zip(modes.tolist(), counts.tolist(), strict=True)),
        len(ramped),
        max((len(items.ramps[row]) + 1 for row in ramped), default=0),
        sum(_policy_of(items, row).ramp_rate is None for row in ramped),
    )


def _longest_wait(items: PlanItems, rows: I8) -> tuple[float, float]:
    """(least, most) seconds of writes that are under way beside one another; most may be inf."""
    least = most = 0.0
    for number in np.unique(items.policy_of[rows]).tolist():
        policy = items.policies[number]
        least = max(least, policy.settle_s or 0.0)
        most = max(most, inf if policy.timeout_s is None else policy.timeout_s)
    for row in set(rows.tolist()) & items.ramps.keys():
        policy, way = _policy_of(items, row), _way_of_rows(items, row)
        timeout_s = inf if policy.timeout_s is None else policy.timeout_s
        least = max(least, _ramp_s(policy, way, policy.settle_s or 0.0))
        most = max(most, _ramp_s(policy, way, timeout_s))
    return least, most


def _ramp_s(policy: Policy, way: F8, step_s: float) -> float:
    """Seconds of a ramp whose steps, and the target, take `step_s` each where its rate allows."""
    pace = way / (policy.ramp_rate or inf)
    return float(np.maximum(step_s, pace).sum()) + step_s


def _way_of_rows(items: PlanItems, row: int) -> F8:
    """How far each step of a row is from the one before; the target is none of them."""
    current = items.current
    now = as_float64(current.kind[row : row + 1], current.data[row : row + 1])
    return np.abs(np.diff(np.concatenate([now, items.ramps[row]])))


def _policy_of(items: PlanItems, row: int) -> Policy:
    return items.policies[int(items.policy_of[row])]
