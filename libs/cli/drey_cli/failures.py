"""From a failed call to the error that is shown: status, details, reason, remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drey_cli.contracts import errors_pb2
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.remedies import remedy_for

if TYPE_CHECKING:
    import grpc


DOMAIN = "drey"
_PREFIX = "ERROR_REASON_"
_AWAY = frozenset({"UNAVAILABLE", "UNAUTHENTICATED", "DEADLINE_EXCEEDED"})


def from_rpc_error(error: grpc.RpcError, *, server: str = "") -> CliError:
    """Translate what gRPC raised. Reads `google.rpc.Status` where the server sent one."""
    call: grpc.Call = error  # type: ignore[assignment]  # every raised RpcError is a Call
    status = call.code().name
    message = call.details() or status
    reason, metadata, field, words = _details(call)
    if not reason:
        reason, message = status, _without_details(status, message, server)
    return CliError(
        message or words,
        reason=reason,
        field=field,
        remedy=remedy_for(reason, status),
        metadata=metadata,
        status=status,
        code=ExitCode.UNAVAILABLE if status in _AWAY else ExitCode.REFUSED,
    )


def _without_details(status: str, message: str, server: str) -> str:
    """Words for a status that no service of ours made: mostly the connection itself."""
    if status == "UNAVAILABLE" and server:
        return f"cannot reach a Drey server at {server}: {message}"
    if status == "DEADLINE_EXCEEDED" and server:
        return f"no answer from {server} in time"
    return message


def _details(call: grpc.Call) -> tuple[str, dict[str, str], str, str]:
    """Reason, metadata, field and description out of the status details; empty where absent."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    try:
        rich = rpc_status.from_call(call)
    except ValueError:
        # The trailer contradicts the status, as a proxy in between can cause: the status counts.
        rich = None
    reason, metadata, field, words = "", {}, "", ""
    for detail in rich.details if rich is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason.removeprefix(_PREFIX)
            metadata = dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
            words = bad.field_violations[0].description
    return reason, metadata, field or metadata.get("field", ""), words


def reason_name(reason: int) -> str:
    """Name of an `ErrorReason` without its prefix; numbers unknown here as `REASON_N`."""
    known = errors_pb2.ErrorReason.values()
    if reason not in known:
        return f"REASON_{reason}"
    return errors_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX)  # type: ignore[arg-type]


def from_item_error(item: errors_pb2.ItemError, *, subject: str = "") -> CliError:
    """Translate the error of one item, of a job or of a restore."""
    reason = reason_name(item.reason)
    message = item.message or reason
    return CliError(
        f"{subject}: {message}" if subject else message,
        reason=reason,
        field=item.field,
        remedy=remedy_for(reason),
    )
