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

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from drey.common.v1 import annotations_pb2
from drey_core.errors import InvalidArgument, Reason
from drey_core.names import name_problem, text_problem

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_DEPTH = 8

Check = Callable[[Message, str, int], None]


def check(message: Message) -> None:
    """Raise `InvalidArgument` for the first field of `message` that breaks its limits."""
    _check_message(message, "", 0)


def _check_message(message: Message, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"{path} is nested too deep", field=path)
    for field_check in _checks(message.DESCRIPTOR):
        field_check(message, path, depth)


@cache
def _checks(descriptor: Descriptor) -> tuple[Check, ...]:
    out: list[Check] = []
    for field in descriptor.fields:
        limits = field.GetOptions().Extensions[annotations_pb2.limits]
        has_limits = field.GetOptions().HasExtension(annotations_pb2.limits)
        nested = field.message_type is not None and field.message_type.full_name.startswith("drey.")
        if has_limits:
            out.append(_field_check(field, limits))
        if nested:
            out.append(_nested_check(field))
        if field.enum_type is not None:
            out.append(_enum_check(field, field.enum_type))
    return tuple(out)


def _nested_check(field: FieldDescriptor) -> Check:
    name = field.name

    def one(message: Message, path: str, depth: int) -> None:
        if message.HasField(name):
            _check_message(getattr(message, name), f"{path}{name}.", depth + 1)

    def many(message: Message, path: str, depth: int) -> None:
        for i, item in enumerate(getattr(message, name)):
            _check_message(item, f"{path}{name}[{i}].", depth + 1)

    return many if field.is_repeated else one


def _enum_check(field: FieldDescriptor, enum: EnumDescriptor) -> Check:
    name = field.name
    known = frozenset(v.number for v in enum.values)

    def run(message: Message, path: str, depth: int) -> None:
        value = getattr(message, name)
        for item in value if field.is_repeated else (value,):
            if item not in known:
                _refuse(f"{path}{name}", f"{item} is no {enum.name}")

    return run


def _refuse(path: str, why: str, reason: Reason = Reason.INVALID_FIELD, **metadata: str) -> None:
    raise InvalidArgument(
        f"{path}: {why}", reason=reason, field=path, metadata={"field": path, **metadata}
    )


def _field_check(field: FieldDescriptor, limits: annotations_pb2.Limits) -> Check:
    name = field.name
    in_oneof = field.containing_oneof is not None

    def run(message: Message, path: str, depth: int) -> None:
        where = path + name
        if in_oneof and not message.HasField(name):
            return
        value = getattr(message, name)
        if limits.required and not _present(message, field, value):
            _refuse(where, "is required")
        if field.is_repeated:
            _check_list(where, value, limits)
        elif isinstance(value, str):
            _check_text(where, value, limits)
        else:
            _check_number(where, value, limits)

    return run


def _present(message: Message, field: FieldDescriptor, value: Any) -> bool:
    if field.is_repeated:
        return len(value) > 0
    if field.message_type is not None:
        return bool(message.HasField(field.name))
    return bool(value)


def _check_list(where: str, values: Any, limits: annotations_pb2.Limits) -> None:
    if limits.max_items and len(values) > limits.max_items:
        _refuse(
            where,
            f"{len(values)} elements, at most {limits.max_items} are allowed",
            Reason.TOO_MANY,
            limit=str(limits.max_items),
        )
    if limits.unique and len(set(values)) != len(values):
        _refuse(where, "has two equal elements")
    if len(values) and isinstance(values[0], str):
        _check_texts(where, values, limits)


def _check_texts(where: str, values: Iterable[str], limits: annotations_pb2.Limits) -> None:
    for i, value in enumerate(values):
        if limits.epics_name and not value:
            _refuse(f"{where}[{i}]", "is empty; a name has 1 to 500 bytes")
        _check_text(f"{where}[{i}]", value, limits)


def _check_text(where: str, value: str, limits: annotations_pb2.Limits) -> None:
    if not value:
        return
    if limits.max_bytes and len(value.encode()) > limits.max_bytes:
        _refuse(where, f"is longer than {limits.max_bytes} bytes")
    if limits.uuid and not _UUID.fullmatch(value):
        _refuse(where, f"{value[:60]!r} is not a UUID", Reason.MALFORMED_ID)
    if limits.epics_name and (problem := name_problem(value)):
        _refuse(where, f"{value[:60]!r} cannot be the name of a PV: it {problem}")
    if limits.text and (problem := text_problem(value, multiline=limits.multiline)):
        _refuse(where, problem)


def _check_number(where: str, value: Any, limits: annotations_pb2.Limits) -> None:
    if limits.non_negative and not (math.isfinite(value) and value >= 0):
        _refuse(where, f"{value} is not a finite number of 0 or more")
    if limits.max_value and value > limits.max_value:
        _refuse(where, f"{value} is more than {limits.max_value}")
