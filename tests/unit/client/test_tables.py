"""Tables for pandas, polars and Arrow: a column has its type whatever the rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drey.compare.v1 import compare_pb2
from drey.snapshot.v1 import snapshot_pb2
from drey_client.tables import ValueTable, comparison_table, snapshot_table
from drey_client.values import EnumState

TYPES = {
    "pv": "string",
    "device": "string",
    "channel": "string",
    "number": "double",
    "integer": "int64",
    "text": "string",
    "elements": "list<item: double>",
    "units": "string",
    "state": "string",
    "severity": "string",
    "status": "int64",
    "source_time": "timestamp[ns]",
    "receive_time": "timestamp[ns]",
}


def table_of(values: list[Any]) -> ValueTable:
    texts = ("pv", "device", "channel", "value", "units", "state", "severity")
    columns: dict[str, Any] = {name: ["x"] * len(values) for name in texts}
    columns |= {"value": values, "status": [0] * len(values)}
    stamps = np.full(len(values), np.datetime64("NaT", "ns"))
    return ValueTable(
        snapshot_pb2.Snapshot(), columns | {"source_time": stamps} | {"receive_time": stamps}
    )


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None],
        [1.5, "x", None, np.array([1, 2], "<i2"), EnumState(1, "On"), ["a", b"\xff"], True],
        [2**63, -(2**63), 2**53 + 1, 0],
        [EnumState(0, ""), EnumState(7, "Größe")],
        [b"\xff", ""],
        [np.zeros(0), np.array([np.nan, -0.0])],
    ],
    ids=["empty", "none", "mixed", "64-bit", "enums", "not-utf8", "arrays"],
)
def test_a_column_has_one_type_whatever_the_values_are(values: list[Any]) -> None:
    table = table_of(values)
    arrow, polars, pandas = table.to_arrow(), table.to_polars(), table.to_pandas()
    assert {field.name: str(field.type) for field in arrow.schema} == TYPES
    assert (arrow.num_rows, polars.height, len(pandas)) == (len(values),) * 3
    assert str(pandas["status"].dtype) == "int64"
    assert str(polars.schema["pv"]) == "String" and str(polars.schema["status"]) == "Int64"
    for name in ("number", "integer", "text"):
        assert arrow[name].to_pylist() == polars[name].to_list()


def test_what_is_in_the_parts_of_a_value() -> None:
    arrow = table_of([2**63, 2**53 + 1, True, ["a", b"\xff"], EnumState(1, "On"), 0.5]).to_arrow()
    assert arrow["integer"].to_pylist() == [None, 2**53 + 1, 1, None, None, None]
    assert arrow["number"].to_pylist() == [2.0**63, 2.0**53, 1.0, None, None, 0.5]
    assert arrow["text"].to_pylist()[3] == "a, \\xff"


def test_a_result_without_rows_has_the_columns_of_one_with_rows() -> None:
    empty = snapshot_table(snapshot_pb2.Snapshot(), [], [])
    assert {field.name: str(field.type) for field in empty.to_arrow().schema} == TYPES
    compared = comparison_table(compare_pb2.ComparisonHeader(), [])
    types = {field.name: str(field.type) for field in compared.to_arrow().schema}
    assert types["delta"] == "double" and types["other"] == "int64" and types["pv"] == "string"
    assert str(compared.to_pandas()["deviation"].dtype) == "float64"
    assert compared.to_polars().height == 0
