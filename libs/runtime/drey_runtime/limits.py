"""Limits of request fields, from the annotations in the contracts.

The checks of one message type are compiled once from its descriptor. A violation is an
`InvalidArgument` with the path of the field: `selector.names[3]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from drey.common.v1 import annotations_pb2
from drey_core.errors import InvalidArgument, Reason
from drey_core.names import name_problem, one_form, text_problem

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_DEPTH = 8
_MAX_ITEMS = 100_000
"""Of a list whose annotation gives no number; those of numbers are bound by the message's size."""
_MAX_PARTS = 100_000
"""Most messages within a request, at any depth."""
_MOST_NANOS = 999_999_999
_MOST_DURATION_S = 315_576_000_000
_FIRST_TIME_S, _LAST_TIME_S = -62_135_596_800, 253_402_300_799
_SMALL_BYTES = 64 << 10
"""Requests up to here are parsed at once: what they can become is small."""

Check = Callable[[Message, str, int], None]


def check_limits(message: Message) -> None:
    """Raise `InvalidArgument` for the first field of `message` that breaks its limits."""
    _check_message(message, "", 0)


def _check_message(message: Message, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"{path} is nested too deep", field=path)
    for field_check in _field_checks(message.DESCRIPTOR):
        field_check(message, path, depth)


# --- before a request is parsed ---


def check_outline(descriptor: Descriptor, raw: bytes) -> None:
    """Raise `InvalidArgument` when `raw` would become far more than its bytes.

    Two bytes make an empty message of a list, and parsed it takes a hundred times that. So lists
    are counted in an outline, in which messages within a message are left as bytes.
    """
    if len(raw) > _SMALL_BYTES:
        _check_outline(descriptor, raw, "", 0, 0)


def _check_outline(descriptor: Descriptor, raw: bytes, path: str, depth: int, parts: int) -> int:
    """How many messages there are so far, this one and those within it included."""
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"{path} is nested too deep", field=path)
    outline, fields = _message_outline(descriptor)
    try:
        outline_message = outline.FromString(raw)
    except DecodeError:
        return parts  # the parser says so in better words
    for name, most, inner in fields:
        items = getattr(outline_message, name)
        if len(items) > most:
            _refuse_too_many(f"{path}{name}", len(items), most)
        if inner is None:
            continue
        if parts + len(items) > _MAX_PARTS:
            _refuse_too_many(f"{path}{name}", parts + len(items), _MAX_PARTS)
        for item in items:
            parts = _check_outline(inner, item, f"{path}{name}.", depth + 1, parts + 1)
    return parts


@cache
def _message_outline(
    descriptor: Descriptor,
) -> tuple[type[Message], tuple[tuple[str, int, Descriptor | None], ...]]:
    """A message with the lists of texts and the messages of another, as bytes; and their limits."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"outline/{descriptor.full_name}", syntax="proto3"
    )
    message = file.message_type.add(name="Outline")
    fields: list[tuple[str, int, Descriptor | None]] = []
    for field in descriptor.fields:
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not field.is_repeated:
            continue
        if field.cpp_type not in (
            FieldDescriptor.CPPTYPE_STRING,
            FieldDescriptor.CPPTYPE_MESSAGE,
        ):
            continue
        message.field.add(
            name=field.name,
            number=field.number,
            type=FieldDescriptor.TYPE_BYTES,
            label=FieldDescriptor.LABEL_REPEATED,
        )
        limits = field.GetOptions().Extensions[annotations_pb2.limits]
        most = (limits.max_items or _MAX_ITEMS) if field.is_repeated else _MAX_PARTS
        fields.append((field.name, most, field.message_type))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message_type = pool.FindMessageTypeByName("Outline")
    return message_factory.GetMessageClass(message_type), tuple(fields)


# --- when it is parsed ---


def check_known_fields(message: Message, raw: bytes) -> None:
    """Raise `InvalidArgument` when `raw`, which became `message`, has a field of no name here.

    A call that acts must not be done without what an older server does not know, such as a guard.
    """
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() == size:
        return
    path = _unknown_field(type(message).FromString(raw), "")
    raise InvalidArgument(
        f"{path} is not known to this server, which would act without it; update the"
        " server, or leave it out",
        reason=Reason.UNKNOWN_FIELD,
        field=path,
        metadata={"field": path},
    )


def _unknown_field(message: Message, path: str) -> str:
    """Path of the first unknown field: names as far as they are known, then its number."""
    unknown = unknown_fields.UnknownFieldSet(message)
    if len(unknown):
        return f"{path}{unknown[0].field_number}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            items = [(f"{path}{field.name}.", value)]
        elif field.message_type.GetOptions().map_entry:
            continue
        else:
            items = [(f"{path}{field.name}[{index}].", item) for index, item in enumerate(value)]
        for inner, item in items:
            if unknown_path := _unknown_field(item, inner):
                return unknown_path
    return ""


@cache
def _field_checks(descriptor: Descriptor) -> tuple[Check, ...]:
    out: list[Check] = []
    for field in descriptor.fields:
        limits = field.GetOptions().Extensions[annotations_pb2.limits]
        has_limits = field.GetOptions().HasExtension(annotations_pb2.limits)
        nested = field.message_type is not None and field.message_type.full_name.startswith("drey.")
        if has_limits:
            out.append(_field_check(field, limits))
        if nested:
            out.append(_nested_check(field))
        if field.message_type is not None and field.message_type.full_name in _TIME_PROBLEMS:
            out.append(_time_check(field, _TIME_PROBLEMS[field.message_type.full_name]))
        if field.enum_type is not None:
            out.append(_enum_check(field, field.enum_type))
    return tuple(out)


def _nested_check(field: FieldDescriptor) -> Check:
    name = field.name

    def check_one(message: Message, path: str, depth: int) -> None:
        if message.HasField(name):
            _check_message(getattr(message, name), f"{path}{name}.", depth + 1)

    def check_many(message: Message, path: str, depth: int) -> None:
        for i, item in enumerate(getattr(message, name)):
            _check_message(item, f"{path}{name}[{i}].", depth + 1)

    return check_many if field.is_repeated else check_one


def _duration_problem(seconds: int, nanos: int) -> str:
    if abs(nanos) > _MOST_NANOS or abs(seconds) > _MOST_DURATION_S or seconds * nanos < 0:
        return f"{seconds} s and {nanos} ns are no Duration: nanos below 1 s, of the same sign"
    return ""


def _timestamp_problem(seconds: int, nanos: int) -> str:
    if not (0 <= nanos <= _MOST_NANOS and _FIRST_TIME_S <= seconds <= _LAST_TIME_S):
        return f"{seconds} s and {nanos} ns are no Timestamp: years 1 to 9999, nanos 0 to 1 s"
    return ""


_TIME_PROBLEMS: dict[str, Callable[[int, int], str]] = {
    "google.protobuf.Duration": _duration_problem,
    "google.protobuf.Timestamp": _timestamp_problem,
}
"""What is wrong with seconds and nanos, by type; empty: nothing. As the types' own docs say."""


def _time_check(field: FieldDescriptor, problem_of: Callable[[int, int], str]) -> Check:
    name = field.name

    def run(message: Message, path: str, depth: int) -> None:
        value = getattr(message, name)
        if not field.is_repeated and not message.HasField(name):
            return
        for item in value if field.is_repeated else (value,):
            if problem := problem_of(item.seconds, item.nanos):
                _refuse_field(f"{path}{name}", problem)

    return run


def _enum_check(field: FieldDescriptor, enum: EnumDescriptor) -> Check:
    name = field.name
    known_numbers = frozenset(v.number for v in enum.values)

    def run(message: Message, path: str, depth: int) -> None:
        value = getattr(message, name)
        for item in value if field.is_repeated else (value,):
            if item not in known_numbers:
                _refuse_field(f"{path}{name}", f"{item} is no {enum.name}")

    return run


def _refuse_field(
    path: str, why: str, reason: Reason = Reason.INVALID_FIELD, **metadata: str
) -> None:
    raise InvalidArgument(
        f"{path}: {why}", reason=reason, field=path, metadata={"field": path, **metadata}
    )


def _refuse_too_many(path: str, count: int, most: int) -> None:
    why = f"{count} elements, at most {most} are allowed"
    _refuse_field(path, why, Reason.TOO_MANY, limit=str(most))


def _field_check(field: FieldDescriptor, limits: annotations_pb2.Limits) -> Check:
    name = field.name
    in_oneof = field.containing_oneof is not None

    def run(message: Message, path: str, depth: int) -> None:
        where = path + name
        if in_oneof and not message.HasField(name):
            return
        value = getattr(message, name)
        if limits.normalized and field.is_repeated:
            value[:] = [_one_spelling(item, limits) for item in value]
        elif isinstance(value, str) and (spelling := _one_spelling(value, limits)) != value:
            setattr(message, name, spelling)
            value = spelling
        if limits.required and not _is_present(message, field, value):
            _refuse_field(where, "is required")
        if field.is_repeated:
            _check_list(where, value, limits)
        elif isinstance(value, str):
            _check_text(where, value, limits)
        else:
            _check_number(where, value, limits)

    return run


def _one_spelling(value: str, limits: annotations_pb2.Limits) -> str:
    """What has several spellings, in one: otherwise a repeat in another would do everything twice,
    and two names that nobody can tell apart would stand beside each other.
    """
    if limits.uuid:
        return value.lower()
    return one_form(value) if limits.normalized else value


def _is_present(message: Message, field: FieldDescriptor, value: Any) -> bool:
    if field.is_repeated:
        return len(value) > 0
    if field.message_type is not None:
        return bool(message.HasField(field.name))
    return bool(value)


def _check_list(where: str, values: Any, limits: annotations_pb2.Limits) -> None:
    if limits.max_items and len(values) > limits.max_items:
        _refuse_too_many(where, len(values), limits.max_items)
    if limits.unique and len(set(values)) != len(values):
        _refuse_field(where, "has two equal elements")
    if len(values) and isinstance(values[0], str):
        _check_texts(where, values, limits)


def _check_texts(where: str, values: Iterable[str], limits: annotations_pb2.Limits) -> None:
    for i, value in enumerate(values):
        if limits.epics_name and not value:
            _refuse_field(f"{where}[{i}]", "is empty; a name has 1 to 500 bytes")
        _check_text(f"{where}[{i}]", value, limits)


def _check_text(where: str, value: str, limits: annotations_pb2.Limits) -> None:
    if not value:
        return
    if limits.max_bytes and len(value.encode()) > limits.max_bytes:
        _refuse_field(where, f"is longer than {limits.max_bytes} bytes")
    if limits.uuid and not _UUID.fullmatch(value):
        _refuse_field(where, f"{value[:60]!r} is not a UUID", Reason.MALFORMED_ID)
    if limits.epics_name and (problem := name_problem(value)):
        _refuse_field(where, f"{value[:60]!r} cannot be the name of a PV: it {problem}")
    if limits.text and (problem := text_problem(value, multiline=limits.multiline)):
        _refuse_field(where, problem)


def _check_number(where: str, value: Any, limits: annotations_pb2.Limits) -> None:
    if limits.non_negative and not (math.isfinite(value) and value >= 0):
        _refuse_field(where, f"{value} is not a finite number of 0 or more")
    if limits.max_value and value > limits.max_value:
        _refuse_field(where, f"{value} is more than {limits.max_value}")
