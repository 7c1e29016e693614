"""A rule that could never do anything is refused; one that may is not, whatever differs today."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drey_core.errors import InvalidArgument
from drey_restore.domain.effect import require_effect
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import make_plan
from drey_restore.domain.records import Gate, Guard, Rollback, Rules

from .test_planning import known

STAGES = np.array([-1, 0, 0, 2, 5], np.int32)
HOLDS = Guard("true")


def items_of(*skips: Skip) -> PlanItems:
    """Five PVs in the stages -1, 0, 2 and 5."""
    items = make_plan(known([1.0] * 5, [0.0] * 5))
    skip = np.array(skips or [Skip.NONE] * 5, items.skip.dtype)
    return replace(items, stage=STAGES, skip=skip)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        (Rules(rollback=Rollback(5)), "spec.rollback.max_failed"),
        (Rules(gates=(Gate(0, 0), Gate(1, 0))), "spec.gates[1].after_stage"),
        (Rules(gates=(Gate(-2, guard=HOLDS),)), "spec.gates[0].after_stage"),
        (Rules(gates=(Gate(5, guard=HOLDS),)), "spec.gates[0].after_stage"),
    ],
)
def test_what_can_do_nothing_is_refused(rules: Rules, field: str) -> None:
    with pytest.raises(InvalidArgument, match="no effect") as refused:
        require_effect(rules, items_of())
    assert refused.value.field == field
    # where nothing takes part nothing is executed, and the plan says why
    require_effect(rules, items_of(*[Skip.DISCONNECTED] * 5))


@pytest.mark.parametrize(
    "rules",
    [
        Rules(rollback=Rollback(4)),
        Rules(gates=(Gate(0, 9), Gate(-1, 0), Gate(5, 0))),  # its stage is read back for it
        Rules(gates=tuple(Gate(stage, guard=HOLDS) for stage in range(-1, 5))),
    ],
)
def test_what_may_count_is_taken_whatever_differs(rules: Rules) -> None:
    require_effect(rules, items_of())
    require_effect(rules, items_of(*[Skip.EQUAL] * 4, Skip.NONE))
    with pytest.raises(InvalidArgument):  # one PV less than five takes part
        require_effect(Rules(rollback=Rollback(4)), items_of(*[Skip.NONE] * 4, Skip.READ_ONLY))
