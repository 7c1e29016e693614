"""What a refused call says, as the client and the command read it."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from drey_cli.errors import ExitCode, from_rpc_error
from drey_client.errors import from_call_error


def refusal(status: grpc.StatusCode) -> grpc.aio.AioRpcError:
    """A call that ended so, with the details of a NOT_FOUND."""
    info = error_details_pb2.ErrorInfo(
        reason="ERROR_REASON_NOT_FOUND", metadata={"field": "id", "id": "7"}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    told = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such PV", details=[detail])
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", told.SerializeToString()))
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailers, "no such PV")


def test_the_details_of_a_refusal_are_read_alike() -> None:
    error = refusal(grpc.StatusCode.NOT_FOUND)
    client, cli = from_call_error(error), from_rpc_error(error)
    assert (client.reason, client.field, client.metadata["id"]) == ("NOT_FOUND", "id", "7")
    assert (cli.reason, cli.field, cli.metadata["id"]) == ("NOT_FOUND", "id", "7")
    assert cli.code is ExitCode.REFUSED


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_the_status_of_a_proxy_counts_and_not_the_details_behind_it(
    status: grpc.StatusCode,
) -> None:
    error = refusal(status)
    assert (from_call_error(error).reason, from_call_error(error).metadata) == (status.name, {})
    assert (from_rpc_error(error).reason, from_rpc_error(error).metadata) == (status.name, {})
