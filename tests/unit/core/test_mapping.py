"""Selectors and values from the wire into the core."""

import pytest

from drey.common.v1 import selector_pb2, value_pb2
from drey_core.errors import InvalidArgument, Unimplemented
from drey_core.selector import Selector, TagFilter
from drey_runtime.mapping.selector import selector_from_proto, selector_to_proto
from drey_runtime.mapping.value import from_proto


def test_selectors_round_trip():
    selector = Selector(
        names=("A", "B"),
        ids=("x",),
        numbers=(2**64 - 1,),
        globs=("*",),
        devices=("D",),
        tags=(TagFilter("g", ("t", "u")), TagFilter("h")),
        scope="s",
        excluding=Selector(all=True, excluding=Selector()),
    )
    message = selector_pb2.Selector.FromString(selector_to_proto(selector).SerializeToString())
    assert selector_from_proto(message) == selector


def test_deep_selectors_are_refused_before_the_stack_is():
    message = selector_pb2.Selector(all=True)
    for _ in range(50):
        outer = selector_pb2.Selector(all=True)
        outer.excluding.CopyFrom(message)
        message = outer
    with pytest.raises(InvalidArgument, match="nest"):
        selector_from_proto(message)


@pytest.mark.parametrize(
    "value",
    [
        value_pb2.Value(int8_value=128),
        value_pb2.Value(uint16_value=65536),
        value_pb2.Value(enum_value=value_pb2.EnumValue(index=65536)),
        value_pb2.Value(int16_array=value_pb2.Int32Array(elements=[0, -32769])),
        value_pb2.Value(enum_array=value_pb2.UInt32Array(elements=[70000])),
        value_pb2.Value(part=value_pb2.ArrayPart(), uint8_array=b"x"),
        value_pb2.Value(string_array=value_pb2.StringArray(elements=["a"], raw_elements=[b"\xff"])),
    ],
)
def test_values_that_do_not_fit_are_refused(value):
    with pytest.raises(InvalidArgument):
        from_proto(value)


@pytest.mark.parametrize("kind", ["structure", "table", "nd_array"])
def test_values_of_kinds_that_are_not_built_are_refused(kind):
    value = value_pb2.Value()
    getattr(value, kind).SetInParent()
    with pytest.raises(Unimplemented, match=f"^{kind}: "):
        from_proto(value)
