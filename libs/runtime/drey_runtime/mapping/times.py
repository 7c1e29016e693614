"""Times of the control plane as messages."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_INT64 = 2**63 - 1


def timestamp_message(at_ns: int) -> Timestamp | None:
    """Nanoseconds since 1970 UTC as a message; None, which leaves the field absent, for 0."""
    if at_ns == 0:
        return None
    seconds, nanos = divmod(at_ns, 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)


def time_bound(request: Message, field: str) -> int | None:
    """A bound of a list in nanoseconds since 1970 UTC, within 64 bits; None where it is absent."""
    if not request.HasField(field):
        return None
    given: Timestamp = getattr(request, field)
    return min(max(given.ToNanoseconds(), -_INT64), _INT64)
