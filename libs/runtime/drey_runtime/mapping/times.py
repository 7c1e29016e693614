"""Times of the control plane as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at_ns: int) -> Timestamp | None:
    """Nanoseconds since 1970 UTC as a message; None, which leaves the field absent, for 0."""
    if at_ns == 0:
        return None
    seconds, nanos = divmod(at_ns, 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)
