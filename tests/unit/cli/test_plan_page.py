"""A plan as one page for the logbook, and as rows."""

from __future__ import annotations

import csv
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from drey_cli.contracts import catalog_pb2, restore_pb2
from drey_cli.edits import given_values, plan_edits
from drey_cli.errors import CliError
from drey_cli.render.plan_page import plan_csv, plan_html

HOSTILE = "<script src=//x>&\"'"


def number(value: float, severity: int = 1) -> dict[str, object]:
    return {"float64_value": value, "severity": severity, "state": 3}


def an_item(number_of: int, name: str, **more: object) -> restore_pb2.PlanItem:
    return restore_pb2.PlanItem(number=number_of, name=name, **more)


ITEMS = [
    an_item(1, HOSTILE, current=number(1.0), stored=number(2.0, 4), target=number(2.0), delta=1.0),
    an_item(2, "B", target=number(3.0), stage=1, warnings=["edited: 3.0"]),
    an_item(3, "C", skip=restore_pb2.SKIP_REASON_READ_ONLY),
    an_item(4, "D", skip=restore_pb2.SKIP_REASON_POLICY, warnings=["no readback"]),
]
PLAN = restore_pb2.Plan(
    id="0192f3a4",
    digest="ab" * 32,
    pvs=4,
    writes=2,
    stages=[{"stage": 0, "writes": 1}, {"stage": 1, "writes": 1}],
    skips=[
        {"reason": restore_pb2.SKIP_REASON_READ_ONLY, "pvs": 1},
        {"reason": restore_pb2.SKIP_REASON_POLICY, "pvs": 1},
    ],
    actor={"principal": "ann"},
    spec={"comment": HOSTILE},
)


class _Page(HTMLParser):
    """Text, tags, and whatever would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [a for a in attrs if a[0] in ("src", "href", "action", "background")]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_the_page_loads_nothing_and_says_warnings_first_and_what_is_left_out() -> None:
    text = plan_html(PLAN, ITEMS, utc=True)
    page = _Page()
    page.feed(text)
    assert page.loads == [] and not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import", text)
    said = "\n".join(page.said)
    assert said.count(HOSTILE) == 2  # a name and a comment, as texts
    places = [said.index(each) for each in ("Warnings", "The plan", "Stage 0", "Stage 1")]
    places += [said.index(each) for each in ("Left out, read-only", "Left out, policy")]
    assert places == sorted(places)
    assert "no readback" in said and PLAN.digest in said


def test_rows_hold_every_pv_with_its_reason() -> None:
    rows = list(csv.DictReader(io.StringIO(plan_csv(ITEMS, utc=True))))
    assert [row["PV"] for row in rows] == [HOSTILE, "B", "C", "D"]
    assert [row["left out"] for row in rows] == ["", "", "read-only", "policy"]
    assert (rows[0]["now"], rows[0]["target"], rows[0]["delta"]) == ("1", "2", "1.0")
    assert rows[0]["stored alarm"].startswith("INVALID")
    assert rows[3]["notes"] == "no readback"


@pytest.mark.parametrize(
    "value",
    [
        "99999999999999999999",
        "-9223372036854775809",
        f"[1, {'9' * 400}]",
        f"[{2**63}]",
        r'"\ud800"',
        r'["\ud800"]',
        "\udcff",
    ],
)
def test_what_no_value_can_be_is_refused_by_its_option(value: str) -> None:
    for edits in (
        lambda: plan_edits([f"X={value}"], [], []),
        lambda: given_values([f"X={value}"], None),
    ):
        with pytest.raises(CliError) as caught:
            edits()
        assert (caught.value.code, caught.value.reason) == (2, "USAGE")


def test_whole_numbers_are_what_was_typed() -> None:
    typed = [str(2**63 - 1), str(2**63), str(-(2**63)), f"[{2**53 + 1}, -1]", "[" * 5000]
    edits = plan_edits([f"X={value}" for value in typed], [], [])
    first, second, third, fourth, fifth = (edit.value for edit in edits)
    assert (first.int64_value, second.uint64_value, third.int64_value) == (
        2**63 - 1,
        2**63,
        -(2**63),
    )
    assert list(fourth.int64_array.elements) == [2**53 + 1, -1]
    assert fifth.string_value == "[" * 5000


def test_edits_as_they_are_typed() -> None:
    edits = plan_edits(["M=Hold", "X=[1, 2.5]"], ["Q:*=1.02", "A=2"], ["Q:*=-0.5"])
    assert [(list(e.selector.globs), list(e.selector.names)) for e in edits] == [
        (["Q:*"], []),
        ([], ["A"]),
        ([], ["M"]),
        ([], ["X"]),
    ]
    assert (edits[0].linear.scale, edits[0].linear.offset) == (1.02, -0.5)
    assert not edits[1].linear.HasField("offset")
    assert edits[2].value.string_value == "Hold"
    assert list(edits[3].value.float64_array.elements) == [1.0, 2.5]


def test_values_come_from_options_and_from_files(tmp_path: Path) -> None:
    table, document = tmp_path / "values.csv", tmp_path / "values.json"
    table.write_text('comment,value,PV\nx,2.5,B\n,"[1, 2]",C\n', encoding="utf-8-sig")
    document.write_text('{"B": 2.5, "C": [1, 2], "D": "text", "E": NaN}')
    of_table = given_values(["A=Hold"], str(table))
    assert {each.name: each.value.WhichOneof("data") for each in of_table.values} == {
        "A": "string_value",
        "B": "float64_value",
        "C": "float64_array",
    }
    of_document = {each.name: each.value for each in given_values([], str(document)).values}
    assert of_document["B"].float64_value == 2.5 and of_document["D"].string_value == "text"
    assert math.isnan(of_document["E"].float64_value)


def test_a_file_of_values_may_hold_arrays_and_any_text(tmp_path: Path) -> None:
    table = tmp_path / "values.csv"
    array = list(range(30_000))
    table.write_text(f'PV,value\nA,"{array}"\nB,one\x0ctwo\u2028three\n', encoding="utf-8")
    values = {each.name: each.value for each in given_values([], str(table)).values}
    assert values["A"].float64_array.elements == array
    assert values["B"].string_value == "one\x0ctwo\u2028three"


@pytest.mark.parametrize(
    ("texts", "content", "why"),
    [
        (["Q:*=1"], None, "pattern"),
        (["A=1", "A=2"], None, "given twice"),
        (["A=1"], '{"A": 2}', "given twice"),
        ([], '{"A": 1, "A": 2}', "given twice"),
        ([], '{"A": {}}', "a number, a text"),
        ([], '{"A"', "is not JSON"),
        ([], "A,1\n", "columns PV and value"),
        ([], "PV,value\nA,\n", "line 2"),
        ([], "", "columns PV and value"),
        ([], 'PV,value\nA,"1', "line 2 is not CSV"),
        ([], 'PV,value\nA,1\nB,"x"y\n', "line 3 is not CSV"),
    ],
)
def test_values_that_mean_nothing_are_refused(
    tmp_path: Path, texts: list[str], content: str | None, why: str
) -> None:
    file = tmp_path / "values"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CliError, match=why):
        given_values(texts, None if content is None else str(file))
    with pytest.raises(CliError, match="cannot be read"):
        given_values([], str(tmp_path / "nothing"))


def test_rows_say_what_is_followed_and_on_whose_word() -> None:
    item = an_item(1, "Q", target=number(1.0))
    item.policy.ramp_step, item.policy.settle.seconds = 0.5, 2
    item.policy.completion = catalog_pb2.COMPLETION_PUT_CALLBACK
    item.policy.allowed.low, item.policy.allowed.high = -5.0, math.inf
    item.policy_sources.add(policy_field="completion").built_in.SetInParent()
    tag = catalog_pb2.TagRef(group="Kind", tag="weak")
    item.policy_sources.add(policy_field="settle", device="PS:1")
    item.policy_sources.add(policy_field="ramp_step", tag=tag)
    item.policy_sources.add(policy_field="allowed", tag=tag)
    [row] = csv.DictReader(io.StringIO(plan_csv([item], utc=True)))
    assert row["completion"] == (
        "put-callback, settle 2 s, ramp step 0.5, allowed -5 to inf"
        " (settle from device PS:1; ramp step, allowed from tag Kind=weak)"
    )


def test_a_spreadsheet_calculates_nothing_of_what_others_wrote() -> None:
    texts = {"name": "=HYPERLINK(1)", "address": "+A:B", "warnings": ["@SUM(1)"]}
    label = {"enum_value": {"label": "=cmd|'/C calc'!A0"}}
    item = restore_pb2.PlanItem(**texts, delta=-3.0, current=number(-1.5), target=label)
    [row] = csv.DictReader(io.StringIO(plan_csv([item], utc=True)))
    assert (row["PV"], row["address"], row["notes"]) == ("'=HYPERLINK(1)", "'+A:B", "'@SUM(1)")
    assert row["target"].startswith("'=cmd")
    assert (row["now"], row["delta"]) == ("-1.5", "-3.0")
