"""What a line of a setting chooses."""

from __future__ import annotations

import pytest

from drey_core.errors import InvalidArgument
from drey_core.selector import Selector, TagFilter, parse_selectors


def test_each_kind_of_entry_is_a_way_to_choose() -> None:
    found = parse_selectors("SR:HV:*, tag:Safety=Interlock, device:RF 01, X, tag:Vacuum,scope:all")
    assert found == (
        Selector(tags=(TagFilter("Safety", ("Interlock",)),)),
        Selector(tags=(TagFilter("Vacuum"),)),
        Selector(scope="all"),
        Selector(globs=("SR:HV:*", "X")),
        Selector(devices=("RF 01",)),
    )
    assert parse_selectors("tag:Safety, *") == (Selector(all=True),)
    assert parse_selectors(" , ") == ()


@pytest.mark.parametrize("text", ["tag:", "device:", "scope:", "tag:=x"])
def test_an_entry_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_selectors(text)
