"""Calls to other services: their errors as ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from drey_core import errors
from drey_core.errors import DreyError, Reason
from drey_runtime import status

_CLASSES: dict[grpc.StatusCode, type[DreyError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
}


@asynccontextmanager
async def translated(service: str) -> AsyncIterator[None]:
    """Errors of calls in the body as `DreyError`, with the reason that the other service gave."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _translate(service, error) from error


def _translate(service: str, error: grpc.aio.AioRpcError) -> DreyError:
    code = error.code()
    name, details = status.reason_of(error)
    cls = _CLASSES.get(code, errors.Internal)
    text = error.details() or code.name
    if name in Reason.__members__:
        return cls(text, reason=Reason[name], field=details.get("field", ""), metadata=details)
    if cls is errors.Unavailable:
        return errors.Unavailable(
            f"the {service} service is away: {text}",
            reason=Reason.UPSTREAM_UNAVAILABLE,
            metadata={"service": service},
        )
    return cls(f"the {service} service: {text}")
