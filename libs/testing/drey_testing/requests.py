"""Requests of any method, made from the limits that its contract says."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from drey.common.v1 import annotations_pb2


def limits_of(field: FieldDescriptor) -> annotations_pb2.Limits:
    """What the contract says that the field may hold."""
    return field.GetOptions().Extensions[annotations_pb2.limits]


def valid_request(descriptor: Descriptor) -> Message:
    """A request that keeps all limits and names nothing that exists."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not limits_of(field).required:
            continue
        if field.message_type is not None:
            if field.message_type.full_name == "google.protobuf.FieldMask":
                getattr(message, field.name).paths.append("description")
                continue
            inner = valid_request(field.message_type)
            if field.message_type.name == "Selector":
                inner.names.append("NO:SUCH:PV")  # type: ignore[attr-defined]
            if field.message_type.name == "StateRef":
                inner.snapshot_id = str(uuid4())  # type: ignore[attr-defined]
            if field.is_repeated:
                getattr(message, field.name).append(inner)
            else:
                getattr(message, field.name).CopyFrom(inner)
                getattr(message, field.name).SetInParent()
            continue
        value = _scalar(field)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def _scalar(field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return str(uuid4()) if limits_of(field).uuid else "NO:SUCH"
    return 1
