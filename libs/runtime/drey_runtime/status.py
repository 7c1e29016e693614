"""Errors to gRPC status, in one place."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from drey_core import errors

DOMAIN = "drey"

_CODES: tuple[tuple[type[errors.DreyError], grpc.StatusCode], ...] = (
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Aborted, grpc.StatusCode.ABORTED),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Unimplemented, grpc.StatusCode.UNIMPLEMENTED),
)

_AWAY_S = 0.5
STATUS_METADATA = "grpc-status-details-bin"


def code_of(error: errors.DreyError) -> grpc.StatusCode:
    """The status code that stands for `error`."""
    for cls, code in _CODES:
        if isinstance(error, cls):
            return code
    return grpc.StatusCode.INTERNAL


def to_status(error: errors.DreyError) -> status_pb2.Status:
    """`google.rpc.Status` with `ErrorInfo`; `BadRequest` and `RetryInfo` where they help."""
    code = code_of(error)
    details = [
        error_details_pb2.ErrorInfo(
            reason=error.reason.name,
            domain=DOMAIN,
            metadata=error.metadata | ({"field": error.field} if error.field else {}),
        )
    ]
    packed = [_pack_any(d) for d in details]
    if error.field and code == grpc.StatusCode.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        packed.append(_pack_any(error_details_pb2.BadRequest(field_violations=[violation])))
    wait_s = error.retry_after_s
    if code == grpc.StatusCode.UNAVAILABLE:
        wait_s = wait_s or _AWAY_S
    if wait_s:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(1, round(wait_s * 1000)))
        packed.append(_pack_any(retry))
    packed += [_pack_any(detail) for detail in error.details if isinstance(detail, Message)]
    return status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=error.message, details=packed
    )


def _pack_any(message: Message) -> AnyProto:
    out = AnyProto()
    out.Pack(message)
    return out


def reason_of(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
    """(reason, metadata) of a failed call as a client sees it; ("", {}) where it has none."""
    trailing: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else ()
    for key, value in trailing or ():
        if key == STATUS_METADATA:
            status_message = status_pb2.Status.FromString(value)
            for detail in status_message.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason, dict(info.metadata)
    return "", {}
