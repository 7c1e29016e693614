"""The error tree and the contracts say the same, and each reason has a code."""

import grpc
import pytest
from google.rpc import error_details_pb2

from drey.common.v1 import errors_pb2
from drey_core import errors
from drey_runtime import status


def test_reasons_are_those_of_the_contracts() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_"): number
        for name, number in errors_pb2.ErrorReason.items()
    }
    assert contract == {r.name: int(r) for r in errors.Reason}


@pytest.mark.parametrize("kind", errors.DreyError.__subclasses__())
def test_every_error_has_a_status_with_its_reason(kind: type[errors.DreyError]) -> None:
    error = kind("text", field="a.b", metadata={"k": "v"})
    found = status.to_status(error)
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("drey", error.reason.name)
    assert dict(info.metadata) == {"k": "v", "field": "a.b"}
    assert found.code == status.code_of(error).value[0]


def test_bad_input_names_its_field() -> None:
    found = status.to_status(errors.InvalidArgument("no", field="selector.names[3]"))
    bad = error_details_pb2.BadRequest()
    assert found.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "selector.names[3]"
    assert status.code_of(errors.DreyError("x")) == grpc.StatusCode.INTERNAL
