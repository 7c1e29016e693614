"""Selectors: what is refused, and what is chosen."""

import fnmatch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, NotFound, Reason, Unimplemented
from drey_core.ids import new_uuid7
from drey_core.search import SearchIndex
from drey_core.selector import Selector, SelectorIndex, TagFilter

IDS = [new_uuid7(1_785_000_000_000_000_000 + i * 10**6, bytes([i] * 8)) for i in range(5)]
NAMES = ["SR01:QF1", "SR01:QF2", "SR02:QF1", "SR02:BPM", "Über[1]"]


def index(**more) -> SelectorIndex:
    return SelectorIndex(
        numbers=np.array([10, 11, 12, 13, 99]),
        names=NAMES,
        setpoint_addresses=["SR01:QF1", "SR01:QF2:SP", "SR02:QF1:SP", "", "U"],
        readback_addresses=["SR01:QF1:RB", "SHARED", "SHARED", "SR02:BPM", ""],
        ids=IDS,
        devices=["QUAD", "QUAD", "QUAD", "BPM", ""],
        descriptions=["first 50%", "second a_b", "third", "position", ""],
        tags={"Area": {"LI21": np.array([0, 1]), "LI22": np.array([2])}, "Kind": {"M": [1, 2]}},
        **more,
    )


def chosen(selector: Selector, **more) -> list[int]:
    return index(**more).select_rows(selector).rows.tolist()


@pytest.mark.parametrize(
    ("selector", "rows"),
    [
        (Selector(all=True), [0, 1, 2, 3, 4]),
        (Selector(names=("SR01:QF1", "SR01:QF1")), [0]),
        (Selector(names=("SR01:QF1:RB", "SR02:QF1:SP")), [0, 2]),
        (Selector(names=("SHARED",)), [1, 2]),
        (Selector(numbers=(99, 10)), [0, 4]),
        (Selector(ids=(IDS[2].upper(), IDS[0])), [0, 2]),
        (Selector(globs=("SR01:*", "*BPM")), [0, 1, 3]),
        (Selector(globs=("SR0?:QF[12]",)), [0, 1, 2]),
        (Selector(globs=("sr01:*",)), []),
        (Selector(globs=("*[[]1]",)), [4]),
        (Selector(devices=("QUAD",)), [0, 1, 2]),
        (Selector(devices=("QUAD", "BPM", "NONE SUCH")), [0, 1, 2, 3]),
        (Selector(tags=(TagFilter("area", ("li21", "LI22")),)), [0, 1, 2]),
        (Selector(tags=(TagFilter("AREA"), TagFilter("kind", ("m",)))), [1, 2]),
        (Selector(names=("SR01:QF1", "SR02:BPM"), devices=("BPM",)), [3]),
        (Selector(all=True, excluding=Selector(devices=("QUAD",))), [3, 4]),
        (
            Selector(
                all=True,
                excluding=Selector(devices=("QUAD",), excluding=Selector(names=("SR01:QF1",))),
            ),
            [0, 3, 4],
        ),
    ],
)
def test_what_is_chosen(selector, rows):
    assert chosen(selector) == rows


@pytest.mark.parametrize(
    ("selector", "reason", "field"),
    [
        (Selector(), Reason.EMPTY_SELECTOR, "selector"),
        (Selector(excluding=Selector(all=True)), Reason.EMPTY_SELECTOR, "selector"),
        (
            Selector(all=True, excluding=Selector()),
            Reason.EMPTY_SELECTOR,
            "selector.excluding",
        ),
        (Selector(all=True, names=("A",)), Reason.INVALID_FIELD, "selector.all"),
        (Selector(globs=("*", "")), Reason.INVALID_FIELD, "selector.globs[1]"),
        (Selector(tags=(TagFilter(""),)), Reason.INVALID_FIELD, "selector.tags[0].group"),
        (Selector(ids=(IDS[0], "x")), Reason.MALFORMED_ID, "selector.ids[1]"),
    ],
)
def test_what_is_refused(selector, reason, field):
    with pytest.raises(InvalidArgument) as caught:
        chosen(selector)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_nesting_has_an_end():
    selector = Selector(all=True)
    for _ in range(3):
        selector = Selector(all=True, excluding=selector)
    selector.validate_selector()
    with pytest.raises(InvalidArgument, match="deeper than 4"):
        Selector(all=True, excluding=selector).validate_selector()


def test_unknown_names_are_errors_or_are_listed():
    unknown = "019000000000-7000-8000-000000000000"
    unknown = f"{unknown[:8]}-{unknown[8:12]}-7000-8000-000000000000"
    selector = Selector(names=("X", "SR01:QF1", ""), numbers=(5,), ids=(unknown,))
    with pytest.raises(NotFound, match="X") as caught:
        chosen(selector)
    assert caught.value.field == "selector.names[0]"
    assert caught.value.metadata["id"] == "X"
    found = index().select_rows(selector, allow_unknown=True)
    assert found.not_found == ["X", "", unknown, "5"]
    assert found.rows.tolist() == [0]
    tags = index().select_rows(
        Selector(tags=(TagFilter("area", ("LI21", "q")), TagFilter("no"))), allow_unknown=True
    )
    assert tags.not_found == ["area/q", "no"]
    assert tags.count == 0


def test_saved_scopes():
    scopes = {"quads": Selector(devices=("QUAD",)), "loop": Selector(scope="loop")}
    assert chosen(Selector(scope="quads", names=("SR02:BPM",)), scope_of=scopes.get) == [0, 1, 2, 3]
    with pytest.raises(Unimplemented):
        chosen(Selector(scope="quads"))
    with pytest.raises(NotFound):
        chosen(Selector(scope="none"), scope_of=scopes.get)
    with pytest.raises(InvalidArgument, match="nest"):
        chosen(Selector(scope="loop"), scope_of=scopes.get)


@given(st.text("SR01:QF*?[]!-", min_size=1, max_size=8), st.lists(st.text("SR01:QF"), max_size=20))
@settings(max_examples=200, deadline=None)
def test_globs_match_as_fnmatch_does(glob, names):
    blank = [""] * len(names)
    catalog = SelectorIndex(
        numbers=np.arange(len(names)),
        names=names,
        setpoint_addresses=blank,
        readback_addresses=blank,
    )
    expected = [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, glob)]
    assert catalog.select_rows(Selector(globs=(glob,))).rows.tolist() == expected


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("qf1", [0, 2]),
        ("QUAD sr01", [0, 1]),
        ("50%", [0]),
        ("a_b", [1]),
        ("a?b", [1]),
        ("sr*1", [0, 1, 2]),
        ("über", [4]),
        ("r[1]", [4]),
        ("quad*second", []),
        ("qf1 position", []),
    ],
)
def test_search(text, rows):
    assert np.flatnonzero(index().search_mask(text)).tolist() == rows


def test_search_of_nothing():
    assert SearchIndex([], []).matching_mask("x").tolist() == []


def test_a_record_and_its_val_field_are_one():
    catalog = SelectorIndex(
        numbers=np.array([1, 2, 3, 4]),
        names=["A", "B.VAL", "C", "C.VAL"],
        setpoint_addresses=["A:SP", "", "", ""],
        readback_addresses=["A:RB.VAL", "", "", ""],
    )

    def rows(*names: str) -> list[int]:
        return catalog.select_rows(Selector(names=names)).rows.tolist()

    assert rows("A.VAL") == rows("A:SP.VAL") == rows("A:RB") == [0]
    assert rows("B") == [1]
    assert rows("C") == [2] and rows("C.VAL") == [3]
    for other in ("A.DESC", "A.VAL.VAL", "A.VAL$", "A.val"):
        with pytest.raises(NotFound):
            rows(other)


def test_names_that_are_not_the_pvs_own_are_linked_to_them():
    links = index().links
    assert links(["SR01:QF1", "SR02:BPM", "NONE"]) == {}
    assert links(["SR01:QF1:RB", "SR01:QF2:SP", "SHARED", "SR02:BPM.VAL", "SHARED.VAL"]) == {
        "SR01:QF1:RB": [(0, 2)],
        "SR01:QF2:SP": [(1, 1)],
        "SHARED": [(1, 2), (2, 2)],
        "SR02:BPM.VAL": [(3, 0)],
        "SHARED.VAL": [(1, 2), (2, 2)],
    }
