"""Rules of a plan that can change nothing: nobody is to rely on them."""

from __future__ import annotations

import numpy as np

from drey_core.errors import InvalidArgument
from drey_restore.domain.items import I4, PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.records import Gate, Rules


def require_effect(rules: Rules, items: PlanItems) -> None:
    """Raise `InvalidArgument` for the first rule that says nothing, whatever happens.

    Those count that are equal already too: a rule that is right for a plan does not become wrong
    because less differs today.
    """
    takes_part = np.isin(items.skip, (Skip.NONE, Skip.EQUAL))
    if not takes_part.any():
        return
    stages = np.unique(items.stage)
    for index, gate in enumerate(rules.gates):
        _check_gate(gate, f"spec.gates[{index}].after_stage", stages)
    back, most = rules.rollback, int(takes_part.sum())
    if back is not None and back.max_failed is not None and back.max_failed >= most:
        raise without_effect(
            "spec.rollback.max_failed",
            f"it would go back after more than {back.max_failed} failures, and has {most} PVs; say"
            f" at most {most - 1}",
        )


def _check_gate(gate: Gate, path: str, stages: I4) -> None:
    after, listed = gate.after_stage, ", ".join(map(str, stages.tolist()))
    if gate.max_failed is not None and after not in stages:
        raise without_effect(path, f"there is no stage {after}; the stages are {listed}")
    if gate.guard is not None and not stages[0] <= after < stages[-1]:
        raise without_effect(
            path,
            f"no stage stands before and another after a gate after stage {after}; the stages are"
            f" {listed}",
        )


def without_effect(path: str, why: str) -> InvalidArgument:
    """The refusal of a rule of a plan, by its path in the request."""
    return InvalidArgument(f"{path}: has no effect: {why}", field=path, metadata={"field": path})
