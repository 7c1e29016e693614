"""What the stages of a plan wait for, and how long, by its policies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drey_core.pv_table import Policy
from drey_core.values import I8
from drey_restore.domain.items import PlanItems

_S = 10**9


@dataclass(frozen=True)
class StageWait:
    """One stage: what ExecutePlan waits for at least, and until a write is late (None: its own).

    `completions`: writes by how their completion is judged, (mode, writes), by mode.
    """

    least_ns: int
    most_ns: int | None
    completions: tuple[tuple[int, int], ...]


def stage_waits(items: PlanItems) -> tuple[StageWait, ...]:
    """Of each stage, in order."""
    return tuple(_stage_wait(items, rows) for rows in items.stages)


def _stage_wait(items: PlanItems, rows: I8) -> StageWait:
    least, most, endless = 0.0, 0.0, False
    counts: dict[int, int] = {}
    for number in np.unique(items.policy_of[rows]).tolist():
        policy = items.policies[number]
        own = rows[items.policy_of[rows] == number]
        mode = int(policy.completion)
        counts[mode] = counts.get(mode, 0) + len(own)
        least = max(least, (policy.settle_s or 0.0) + _ramp_s(items, own, policy))
        most = max(most, policy.timeout_s or 0.0)
        endless = endless or policy.timeout_s is None
    return StageWait(
        round(least * _S), None if endless else round(most * _S), tuple(sorted(counts.items()))
    )


def _ramp_s(items: PlanItems, rows: I8, policy: Policy) -> float:
    """Seconds that the longest way of the rows takes at the rate of the policy."""
    if not policy.ramp_rate:
        return 0.0
    ways = np.abs(items.delta[rows])
    return float(np.nanmax(ways, initial=0.0)) / policy.ramp_rate
