"""Nouns of `drey.common.v1` that many messages have: times, who acted, the form of values."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from drey.common.v1 import form_pb2
from drey.common.v1.actor_pb2 import Actor
from drey_core.errors import InvalidArgument, Unimplemented

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


def actor(principal: str, roles_text: str) -> Actor:
    """Of a name and the roles as they are stored: `operator,editor`."""
    return Actor(principal=principal, roles=[r for r in roles_text.split(",") if r])


def in_columns(form: int, field: str = "form") -> bool:
    """Whether values are to be sent as columns, else as rows; unspecified means rows.

    Raises `Unimplemented` for Arrow IPC, `InvalidArgument` for a number that is no form.
    """
    if form == form_pb2.VALUE_FORM_ARROW:
        raise Unimplemented(
            f"{field}: Arrow IPC is not built in this version; ask for rows or columns",
            field=field,
        )
    if form not in form_pb2.ValueForm.values():
        raise InvalidArgument(f"{field}: {form} is not one of its values", field=field)
    return form == form_pb2.VALUE_FORM_COLUMNS
