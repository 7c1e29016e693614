"""Numbers that the core shares with the contracts without importing them."""

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import errors_pb2, value_pb2
from drey.compare.v1 import compare_pb2
from drey_core.compare import DifferenceClass
from drey_core.errors import Reason
from drey_core.pv_table import CompletionMode, PvProtocol
from drey_core.values import Kind, Origin, Severity, State


def names(enum) -> dict[str, int]:
    return {member.name: int(member) for member in enum}


def contract(enum, prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): number for name, number in enum.items()}


def renamed(numbers: dict[str, int], zero: str) -> dict[str, int]:
    return {zero if name == "UNSPECIFIED" else name: n for name, n in numbers.items()}


def test_enums_of_the_core_are_those_of_the_contracts():
    assert names(Reason) == contract(errors_pb2.ErrorReason, "ERROR_REASON_")
    assert names(DifferenceClass) == contract(compare_pb2.DifferenceClass, "DIFFERENCE_CLASS_")
    assert names(CompletionMode) == contract(catalog_pb2.Completion, "COMPLETION_")
    assert names(PvProtocol) == contract(catalog_pb2.Protocol, "PROTOCOL_")
    kinds = contract(value_pb2.ValueType, "VALUE_TYPE_")
    assert names(Kind) == renamed(kinds, "NONE")
    states = contract(value_pb2.ConnectionState, "CONNECTION_STATE_")
    assert names(State) == renamed(states, "ABSENT")
    assert names(Origin) == renamed(contract(value_pb2.ValueOrigin, "VALUE_ORIGIN_"), "NONE")
    severities = contract(value_pb2.AlarmSeverity, "ALARM_SEVERITY_")
    assert {n: s + 1 for n, s in names(Severity).items()} | {"UNSPECIFIED": 0} == severities
