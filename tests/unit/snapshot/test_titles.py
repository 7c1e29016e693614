"""Titles with what is filled in."""

from __future__ import annotations

import pytest

from drey_core.errors import InvalidArgument
from drey_snapshot.snapshots.domain.titles import (
    MAX_TITLE_BYTES,
    check_title,
    escape_title,
    fill_title,
    title_values,
)

VALUES = title_values(1_772_348_400_999_999_999, "injector", "image-then-read", 40_000)


@pytest.mark.parametrize(
    ("template", "title"),
    [
        ("", ""),
        ("before the shift: 50 % ü", "before the shift: 50 % ü"),
        ("{date} {time}", "2026-03-01 2026-03-01T07:00:00Z"),
        ("{scope} by {source} of {pv_count}", "injector by image-then-read of 40000"),
        ("{{time}} {{", "{time} {"),
    ],
)
def test_placeholders_are_filled_in(template: str, title: str) -> None:
    assert fill_title(template, VALUES) == title


@pytest.mark.parametrize("title", ["plain", "{time}", "a { b } c", "{{}}", "}{"])
def test_an_escaped_title_stays_itself(title: str) -> None:
    assert fill_title(escape_title(title), VALUES) == title


@pytest.mark.parametrize(
    "template", ["{run}", "{}", "{ time }", "{TIME}", "{time!r}", "{time:%d}", "a { b", "b } c"]
)
def test_what_is_no_placeholder_is_refused_with_its_field(template: str) -> None:
    with pytest.raises(InvalidArgument, match=r"spec\.title_template: .*(\{\{|\}\})") as caught:
        check_title(template, "", "image", "spec.title_template")
    assert caught.value.field == "spec.title_template"


def test_a_title_that_would_be_too_long_is_refused_before_it_is_taken() -> None:
    check_title("x" * MAX_TITLE_BYTES, "", "image", "title_template")
    check_title("{scope}" * 5, "s" * 100, "image", "title_template")
    with pytest.raises(InvalidArgument, match="600 bytes"):
        check_title("{scope}" * 6, "s" * 100, "image", "title_template")
