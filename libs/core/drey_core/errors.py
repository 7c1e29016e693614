"""The error tree of Drey. Adapters translate into it; one interceptor maps it to gRPC status.

`Reason` has the names and numbers of `drey.common.v1.ErrorReason`, which documents them; a
contract test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum


class Reason(IntEnum):
    """Why a call was refused. Clients branch on it."""

    UNSPECIFIED = 0
    INVALID_FIELD = 1
    EMPTY_SELECTOR = 2
    TOO_MANY = 3
    MALFORMED_ID = 4
    MALFORMED_PAGE_TOKEN = 5
    NOT_FOUND = 6
    ALREADY_EXISTS = 7
    ETAG_MISMATCH = 8
    REQUEST_ID_REUSED = 9
    UNAUTHENTICATED = 10
    KEY_REVOKED = 11
    KEY_EXPIRED = 12
    PERMISSION_DENIED = 13
    MESSAGE_TOO_LARGE = 14
    DEADLINE_EXCEEDED = 15
    IMAGE_NOT_FRESH = 16
    COVERAGE_TOO_SMALL = 17
    DATABASE_UNAVAILABLE = 18
    IMAGE_UNAVAILABLE = 19
    BUS_UNAVAILABLE = 20
    UPSTREAM_UNAVAILABLE = 21
    PLAN_DIGEST_MISMATCH = 22
    PLAN_EXPIRED = 23
    PLAN_EMPTY = 24
    MACHINE_MOVED = 25
    CHANNELS_HELD = 26
    WRONG_STATE = 27
    NOT_IMPLEMENTED = 28
    MALFORMED_FILE = 29
    IN_USE = 30
    PROTECTED = 31
    READER_TOO_SLOW = 32
    VALUE_TOO_LARGE = 33
    INTERNAL = 34
    RESOURCE_EXHAUSTED = 35
    TOKEN_UNKNOWN = 36
    APPROVAL_REQUIRED = 37
    MALFORMED_MESSAGE = 38
    UNKNOWN_METHOD = 39
    DISCONNECTED = 40
    NOT_ALL_VERIFIED = 41
    LABELS_MOVED = 42
    UNKNOWN_FIELD = 43
    GATE_NOT_MET = 44
    OWN_PLAN = 45
    GUARD_FAILED = 46
    POLICY_CONTRADICTION = 47
    TOO_MANY_FAILED = 48


class DreyError(Exception):
    """A refusal with its reason.

    `field` is the request field at fault, as a path (`selector.names[3]`), or empty;
    `metadata` goes into `google.rpc.ErrorInfo`, `retry_after_s` above 0 into
    `google.rpc.RetryInfo`; the text is for people and names the PV, the field and the remedy.
    `details` are messages that go into the status beside these: the edge that knows them adds
    them, and keeps a status under the 8 KiB that gRPC lets through.
    """

    reason: Reason = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.details: tuple[object, ...] = ()
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        if reason is not None:
            self.reason = reason


@contextmanager
def fields_at(**paths: str) -> Iterator[None]:
    """What is refused within it says where the field is in the request that the client sent.

    Who evaluates a part of a request, be it another service, names fields from that part on:
    with `selector="spec.selector"`, `selector.names[3]` becomes `spec.selector.names[3]`.
    """
    try:
        yield
    except DreyError as error:
        head, rest = re.fullmatch(r"(\w*)(.*)", error.field, re.DOTALL).groups()  # type: ignore[union-attr]
        if head in paths:
            own_path, error.field = error.field, paths[head] + rest
            if error.metadata.get("field") == own_path:
                error.metadata["field"] = error.field
            if error.message.startswith(own_path):
                error.message = error.field + error.message.removeprefix(own_path)
                error.args = (error.message,)
        raise


def error_text(error: BaseException) -> str:
    """What an error says; its kind where it has no text, as time-outs have none."""
    return str(error) or type(error).__name__


class InvalidArgument(DreyError):
    """The request itself is wrong, whatever the state of the system."""

    reason = Reason.INVALID_FIELD


class NotFound(DreyError):
    """What was named does not exist."""

    reason = Reason.NOT_FOUND


class AlreadyExists(DreyError):
    """What was to be created is there already."""

    reason = Reason.ALREADY_EXISTS


class FailedPrecondition(DreyError):
    """The system is not in the state that the call needs."""

    reason = Reason.WRONG_STATE


class Aborted(DreyError):
    """Somebody else changed it first; read again and repeat."""

    reason = Reason.ETAG_MISMATCH


class Unauthenticated(DreyError):
    """Nobody known is asking."""

    reason = Reason.UNAUTHENTICATED


class PermissionDenied(DreyError):
    """The one who asks may not."""

    reason = Reason.PERMISSION_DENIED


class ResourceExhausted(DreyError):
    """A limit was met."""

    reason = Reason.RESOURCE_EXHAUSTED


class Unavailable(DreyError):
    """A part is away; try again later."""

    reason = Reason.UPSTREAM_UNAVAILABLE


class DeadlineExceeded(DreyError):
    """The caller's time is over."""

    reason = Reason.DEADLINE_EXCEEDED


class Unimplemented(DreyError):
    """In the contract, not built yet."""

    reason = Reason.NOT_IMPLEMENTED


class Internal(DreyError):
    """A defect of ours."""

    reason = Reason.INTERNAL


class Malformed(Internal):
    """Bytes from the bus, the image or the store that are not what they should be."""
