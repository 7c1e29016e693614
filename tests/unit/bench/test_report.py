"""The form of a result."""

import pytest

from bench.report import Result, unit_of


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("connect_s", "s"),
        ("p99_ms", "ms"),
        ("memory_mb", "mb"),
        ("updates_per_s", "1/s"),
        ("cpu_share_at_40k", "cores"),
    ],
)
def test_the_unit_is_in_the_name(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_the_document_has_medians_targets_and_ratios() -> None:
    result = Result("x", 10)
    result.figure("total_s", [3.0, 1.0, 2.0], 5.0)
    result.peer("other", "total_s", [8.0])
    document = result.document()
    assert document["figures"] == {"total_s": {"value": 2.0, "unit": "s", "target": 5.0}}
    assert document["peers"] == {"other": {"total_s": 8.0}}
    assert document["ratios"] == {"other/total_s": 4.0}


def test_a_lower_bound_is_missed_from_below() -> None:
    result = Result("x", 10)
    result.figure("updates_per_s", [299_999.0], 300_000.0, at_least=True)
    assert "MISSED" in result.table()
    result.figure("updates_per_s", [300_000.0], 300_000.0, at_least=True)
    assert "MISSED" not in result.table()
