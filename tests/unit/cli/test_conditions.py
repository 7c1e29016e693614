"""Conditions as people type them, and what the server gets."""

from __future__ import annotations

import pytest

from drey_cli.conditions import PlanRules, rules_text, stage_gate, to_cel
from drey_cli.contracts import restore_pb2
from drey_cli.errors import CliError


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (
            'SR:CURRENT < 0.1 and MODE == "MD"',
            'pv["SR:CURRENT"] < 0.1 && pv["MODE"] == "MD"',
        ),
        ("not (A or B-2)", '! (pv["A"] || pv["B-2"])'),
        ("A - 2 < 1e-7", 'pv["A"] - 2 < 1e-7'),
        ("A-2 < 1", 'pv["A-2"] < 1'),
        ("setpoint(QUAD:1.VAL) >= -3", 'setpoint["QUAD:1.VAL"] >= -3'),
        ("MODE in [\"MD\", 'and B']", 'pv["MODE"] in ["MD", \'and B\']'),
        ("size(WAVE) == 3 && true", 'size(pv["WAVE"]) == 3 && true'),
        # an expression of CEL stays as it is
        ('pv["A"] < 1 && B == 2', 'pv["A"] < 1 && B == 2'),
    ],
)
def test_names_become_pvs(text: str, expression: str) -> None:
    assert to_cel(text, "--guard") == expression


@pytest.mark.parametrize("text", ["A = 1", 'A == "x', "A @ 3", "A & B"])
def test_what_is_not_understood_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(CliError, match=r"--guard: .* not understood at"):
        to_cel(text, "--guard")


def test_gates_are_numbers_or_conditions() -> None:
    assert stage_gate("-1=2") == restore_pb2.StageGate(after_stage=-1, max_failed=2)
    gate = stage_gate("3=V < 1e-7")
    assert (gate.after_stage, gate.must_hold.expression) == (3, 'pv["V"] < 1e-7')
    for text in ("x=1", "3", "3==4", ""):
        with pytest.raises(CliError, match="names no stage"):
            stage_gate(text)


def test_rules_go_into_the_specification_and_are_shown() -> None:
    spec = restore_pb2.PlanSpec()
    PlanRules(guards=("A < 1",), gates=("0=0", "1=B > 2"), rollback_after=0).add_to(spec)
    assert spec.rollback.max_failed == 0
    assert spec.rollback.HasField("max_failed")
    assert list(rules_text(spec)) == [
        ("guard", "A < 1"),
        ("after stage 0", "at most 0 not verified"),
        ("after stage 1", "B > 2"),
        ("goes back", "after more than 0 failures"),
    ]
    bare = restore_pb2.PlanSpec()
    PlanRules().add_to(bare)
    assert bare == restore_pb2.PlanSpec()
