"""The form of values that a request asks for."""

from __future__ import annotations

import pytest

from drey.common.v1 import form_pb2
from drey_core.errors import InvalidArgument, Unimplemented
from drey_runtime.mapping.common import in_columns


def test_rows_are_the_default() -> None:
    assert not in_columns(form_pb2.VALUE_FORM_UNSPECIFIED)
    assert not in_columns(form_pb2.VALUE_FORM_ROWS)
    assert in_columns(form_pb2.VALUE_FORM_COLUMNS)


def test_arrow_and_numbers_of_no_form_are_refused() -> None:
    with pytest.raises(Unimplemented, match=r"^spec\.form: Arrow IPC"):
        in_columns(form_pb2.VALUE_FORM_ARROW, "spec.form")
    with pytest.raises(InvalidArgument, match="form: 17 is not one"):
        in_columns(17)
