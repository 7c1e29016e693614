"""Times, spans, counts and names of enums for people, and messages as JSON.

Times are whole nanoseconds since 1970 UTC; 0 is none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

NONE = "—"
_NS = 1_000_000_000


def format_time(ns: int, *, utc: bool) -> str:
    """ISO 8601: local time to the millisecond, or UTC to the nanosecond. 0 gives a dash."""
    if not ns:
        return NONE
    seconds, rest = divmod(ns, _NS)
    try:
        if utc:
            moment = datetime.fromtimestamp(seconds, UTC)
            return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
        moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    except (OverflowError, OSError, ValueError):
        # Beyond the calendar, as a broken clock of an IOC can be: still shown, never dropped.
        return f"{ns} ns"
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}{offset[:3]}:{offset[3:]}"


def format_stamp(stamp: Timestamp, *, utc: bool) -> str:
    """As `format_time`, of a message."""
    return format_time(stamp.ToNanoseconds(), utc=utc)


def stamp_text(message: Message, field: str, *, utc: bool) -> str:
    """Text of a time that a message may have; empty where it has none."""
    return format_stamp(getattr(message, field), utc=utc) if message.HasField(field) else ""


def format_span(ns: int) -> str:
    """A duration with the unit that suits it: `3.2 ms`, `12.0 s`, `5 min 3 s`."""
    if ns < 0:
        return "-" + format_span(-ns)
    if ns < 1_000:
        return f"{ns} ns"
    if ns < 1_000_000:
        return f"{ns / 1e3:.1f} µs"
    if ns < _NS:
        return f"{ns / 1e6:.1f} ms"
    seconds = ns // _NS
    if seconds < 60:
        return f"{ns / 1e9:.1f} s"
    if seconds < 3600:
        return _two_units(seconds, 60, "min", 1, "s")
    if seconds < 86400:
        return _two_units(seconds, 3600, "h", 60, "min")
    return _two_units(seconds, 86400, "d", 3600, "h")


def _two_units(seconds: int, size: int, name: str, small_size: int, small_name: str) -> str:
    rest = seconds % size // small_size
    return f"{seconds // size} {name}" + (f" {rest} {small_name}" if rest else "")


def format_count(number: int) -> str:
    """A count with its groups: `40,000`."""
    return f"{number:,}"


def plural(number: int, word: str) -> str:
    """`1 PV`, `2 PVs`."""
    return f"{format_count(number)} {word}" + ("" if number == 1 else "s")


def short_name(enum: _EnumTypeWrapper[Any], number: int) -> str:
    """`SKIP_REASON_READ_ONLY` as `read-only`; the zero as an empty text, the unknown as `#17`."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return f"#{number}"
    if number == 0:
        return ""
    return str(value.name).removeprefix(_prefix_of(enum)).lower().replace("_", "-")


def number_of(enum: _EnumTypeWrapper[Any], name: str | None) -> Any:
    """The number of a short name, zero for none; KeyError for one that the enum has not."""
    if name is None:
        return 0
    wanted = _prefix_of(enum) + name.upper().replace("-", "_")
    return cast("Any", enum.DESCRIPTOR.values_by_name[wanted].number)


def _prefix_of(enum: _EnumTypeWrapper[Any]) -> str:
    """The prefix that all values of an enum share: `SKIP_REASON_`."""
    zero = str(enum.DESCRIPTOR.values_by_number[0].name)
    return zero.removesuffix("UNSPECIFIED")


def as_document(message: Message) -> dict[str, Any]:
    """The message as a JSON-ready dictionary: the standard mapping, with the names of the protos.

    64-bit integers are strings, so that no reader rounds them; NaN and infinities are strings;
    bytes are base64. Fields without presence are always there, so that scripts need no defaults.
    """
    from google.protobuf.json_format import MessageToDict

    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document
