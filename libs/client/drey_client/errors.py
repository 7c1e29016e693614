"""The one error of the client, and what a refusal of the server says. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage

_PREFIX = "ERROR_REASON_"


class ClientError(Exception):
    """Something could not be done.

    `reason` is the name to branch on (`NOT_FOUND`, `COVERAGE_TOO_SMALL`), `status` that of gRPC,
    `field` the field of the request at fault or empty, `metadata` what the server added.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        status: str = "",
        field: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}" + (f" (field {field})" if field else ""))
        self.message = message
        self.reason = reason
        self.status = status
        self.field = field
        self.metadata = dict(metadata or {})


@dataclass(frozen=True, slots=True)
class RefusalDetails:
    """What the details of a status say; empty where they say nothing."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    field: str = ""
    words: str = ""


def read_details(details: Iterable[AnyMessage]) -> RefusalDetails:
    """Reason, metadata, field at fault and its description out of a `google.rpc.Status`."""
    from google.rpc import error_details_pb2

    reason, at_fault, words = "", "", ""
    metadata: dict[str, str] = {}
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason.removeprefix(_PREFIX)
            metadata = dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            at_fault = bad.field_violations[0].field
            words = bad.field_violations[0].description
    return RefusalDetails(reason, metadata, at_fault or metadata.get("field", ""), words)


def reason_name(reason: int) -> str:
    """Name of an `ErrorReason` without its prefix; numbers unknown here as `REASON_N`."""
    from drey.common.v1 import errors_pb2

    if reason not in errors_pb2.ErrorReason.values():
        return f"REASON_{reason}"
    return errors_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX)  # type: ignore[arg-type]


def call_details(call: grpc.Call | grpc.aio.AioRpcError) -> RefusalDetails:
    """What the server says of a refusal; nothing where somebody in between has refused."""
    from google.rpc import status_pb2

    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            told = status_pb2.Status.FromString(value)
            # a proxy can put a status of its own before these details: then that counts
            if told.code == call.code().value[0]:
                return read_details(told.details)
    return RefusalDetails()


def from_call_error(error: grpc.aio.AioRpcError) -> ClientError:
    """Translate what gRPC raised."""
    details = call_details(error)
    status = error.code().name
    return ClientError(
        error.details() or details.words or status,
        reason=details.reason or status,
        status=status,
        field=details.field,
        metadata=details.metadata,
    )
