"""Conditions over PVs: which are taken, what they look at, and when they cannot be judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drey_core.errors import InvalidArgument
from drey_restore.adapters.expressions import NotKnownError, compile_condition, plain_value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            'pv["SR:CURRENT"] < 0.1 && setpoint["MODE"] == "MD"',
            [("pv", "SR:CURRENT"), ("setpoint", "MODE")],
        ),
        ('pv["A{1}-b.VAL"][0] > 1 || !(pv["B"] in [1, 2])', [("pv", "A{1}-b.VAL"), ("pv", "B")]),
        ('pv["A"] == pv["A"] ? pv["B"] > -pv["C"] : false', [("pv", n) for n in "ABC"]),
        ('pv["A"].startsWith("x")', [("pv", "A")]),
        ("pv['A']", [("pv", "A")]),
    ],
)
def test_the_names_that_an_expression_looks_at(text: str, names: list[tuple[str, str]]) -> None:
    assert list(compile_condition(text, "f").names) == names


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no expression"),
        ('pv["A"] <', "no expression"),
        ("SR_CURRENT < 0.1", "undeclared"),
        ('pv["A"] > 1 && 1 > "x"', "no matching overload"),
        ('pv["A"] + 1', "no truth"),
        ("true", "looks at no PV"),
        ('pv["A" + "B"] > 1', "no constant text"),
        ('pv[pv["A"]] > 1', "no constant text"),
        ("size(pv) > 1", "without a name"),
        ("pv.A > 1", "without a name"),
        ("pv.all(k, pv[k] > 1)", "macro"),
        ('[1].exists(x, x > 1) && pv["A"] > 1', "macro"),
        ('{"a": pv["A"]}["a"] > 1', "macro"),
        ('pv["A"].matches("(a|b)*a(a|b){900}c")', "regular expression"),
        ('matches(pv["A"], pv["B"])', "regular expression"),
        ("(" * 400 + 'pv["A"] > 1' + ")" * 400, "recursion"),
        ('pv["A"] > 1' + " " * 4000, "longer"),
        (" && ".join(f'pv["A{i}"] > 1' for i in range(101)), "more than 100"),
    ],
)
def test_what_no_condition_is_is_refused_by_its_field(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as refused:
        compile_condition(text, "spec.guards[3].expression")
    assert refused.value.field == "spec.guards[3].expression"


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ('pv["A"] < 1', 0, True),
        ('pv["A"] < 1', 0.5, True),
        ('pv["A"] == 1', 1.0, True),
        ('pv["A"] == 1.0', 1, True),
        ('pv["A"] == "MD"', "MD", True),
        ('pv["A"] == "MD"', "ID", False),
        ('pv["A"]', True, True),
        ('pv["A"][1] == 3', [1, 3], True),
        ('pv["A"] == 9007199254740993', 9007199254740993, True),
    ],
)
def test_a_condition_is_judged(text: str, value: Any, holds: bool) -> None:
    assert compile_condition(text, "f").holds_for({("pv", "A"): value}) is holds


@pytest.mark.parametrize(
    ("text", "value"),
    [('pv["A"] < 1', "x"), ('pv["A"]', 3), ('pv["A"][5] > 1', [1]), ('!pv["A"]', 1.0)],
)
def test_what_does_not_fit_cannot_be_known(text: str, value: Any) -> None:
    with pytest.raises(NotKnownError):
        compile_condition(text, "f").holds_for({("pv", "A"): value})


def test_nan_is_not_known() -> None:
    with pytest.raises(NotKnownError, match="NaN"):
        plain_value(float("nan"))
    assert plain_value(b"\xffx") == "�x"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" || ".join(['-1.0 in pv["A"]'] * 21), [0.0] * 1000),
        ("size(" + "+".join(['pv["A"]'] * 21) + ") > 0", "x" * 1000),
        ('pv["A"][0] == "x"', ["x" * 100] * 201),
    ],
)
def test_what_would_cost_much_is_not_judged(text: str, value: Any) -> None:
    with pytest.raises(NotKnownError, match="more than 20000"):
        compile_condition(text, "f").holds_for({("pv", "A"): value})


@pytest.mark.parametrize("value", [b"x" * 20_001, np.zeros(20_001), [b"x" * 101] * 200])
def test_a_large_value_is_not_even_unpacked(value: Any) -> None:
    with pytest.raises(NotKnownError, match="more than 20000"):
        plain_value(value)
    assert plain_value(value[:100])
