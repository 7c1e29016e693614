"""Fields of refusals, told as the client knows them."""

from __future__ import annotations

import pytest

from drey_core.errors import InvalidArgument, NotFound, fields_at


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("selector.names[3]", "spec.selector.names[3]"),
        ("selector", "spec.selector"),
        ("selectors", "selectors"),
        ("spec.selector.names[3]", "spec.selector.names[3]"),
        ("id", "spec.state.snapshot_id"),
        ("", ""),
    ],
)
def test_a_field_is_told_by_where_it_stands(inner: str, outer: str) -> None:
    with (
        pytest.raises(InvalidArgument) as caught,
        fields_at(selector="spec.selector", id="spec.state.snapshot_id"),
    ):
        raise InvalidArgument(f"{inner}: is wrong", field=inner, metadata={"field": inner})
    assert caught.value.field == caught.value.metadata["field"] == outer
    assert caught.value.message == str(caught.value) == f"{outer}: is wrong"


def test_a_text_that_does_not_name_the_field_is_kept() -> None:
    with pytest.raises(NotFound, match="nothing is called X") as caught, fields_at(name="pv"):
        raise NotFound("nothing is called X", field="name")
    assert caught.value.field == "pv"
    assert caught.value.metadata == {}
