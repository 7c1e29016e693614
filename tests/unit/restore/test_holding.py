"""A write that may still take place holds its field under every name of its record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drey_core.errors import FailedPrecondition, Reason
from drey_restore.domain.execution import Execution
from drey_restore.domain.planning import make_plan
from drey_restore.domain.records import HeldWrite
from drey_restore.usecases.ending import unanswered_of
from drey_restore.usecases.holding import fields_of, refuse_held

from .test_planning import known


def held(field: str) -> HeldWrite:
    return HeldWrite("r", "ann", 1, "PV", "ADDRESS", field, "ioc:5064", 10**18)


@pytest.mark.parametrize(
    ("address", "record", "is_held"),
    [
        ("R", "", True),
        ("R.VAL", "", True),
        ("R$", "", True),
        ("R.RVAL", "", True),
        ("A", "R", True),
        ("A.VAL$", "R", True),
        ("R.DRVH", "", False),
        ("A.DRVH", "R", False),
        ("A", "", False),
        ("R", "OTHER", False),
    ],
)
def test_a_held_field_is_known_by_its_record(address: str, record: str, is_held: bool) -> None:
    plan = make_plan(replace(known([1.0], [0.0]), addresses=[address]))
    plan = replace(plan, records={0: record} if record else {})
    if is_held:
        with pytest.raises(FailedPrecondition) as caught:
            refuse_held([held("R")], plan)
        assert caught.value.reason == Reason.CHANNELS_HELD
    else:
        refuse_held([held("R")], plan)


def test_what_is_held_is_kept_by_its_record() -> None:
    plan = make_plan(replace(known([1.0, 1.0], [0.0, 0.0]), addresses=["A.VAL", "B.DRVL"]))
    plan = replace(plan, records={0: "R", 1: "R"})
    assert fields_of(plan) == {"R", "R.DRVL"}
    found = unanswered_of(plan, Execution(plan), np.array([0, 1]), {})
    assert (found.addresses, found.fields) == (["A.VAL", "B.DRVL"], ["R", "R.DRVL"])
