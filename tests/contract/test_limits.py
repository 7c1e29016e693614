"""Every string that a request can carry has a rule of what it may hold."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

import drey
from drey.common.v1 import annotations_pb2
from drey.events.v1 import changes_pb2
from drey_core.errors import InvalidArgument
from drey_runtime import limits
from drey_testing.corpus import HOSTILE_CHARACTERS

UNREAD = frozenset({"page_token", "token", "etag", "digest"})
"""Compared with what the server made, by themselves or by a checksum; never shown."""
VALUES = frozenset(
    {"drey.common.v1.Value", "drey.common.v1.EnumValue", "drey.common.v1.StringArray"}
)
"""What a machine says keeps every bit."""
MADE_BY_THE_SERVER = frozenset(
    {
        ("drey.snapshot.v1.Snapshot", "id"),
        ("drey.snapshot.v1.Snapshot", "digest"),
        ("drey.snapshot.v1.Snapshot", "job_id"),
        ("drey.snapshot.v1.ScopeVersion", "id"),
        ("drey.snapshot.v1.SnapshotOrigin", "snapshot_id"),
        ("drey.common.v1.Actor", "principal"),
        ("drey.common.v1.Actor", "roles"),
        ("drey.common.v1.Actor", "on_behalf_of"),
    }
)
"""Of a resource that an update carries; what it says of these is not taken."""


def _requests() -> list[Descriptor]:
    for module in pkgutil.walk_packages(drey.__path__, "drey."):
        if module.name.endswith("_service_pb2"):
            importlib.import_module(module.name)
    return [
        method.input_type
        for name, module in sorted(sys.modules.items())
        if name.startswith("drey.") and name.endswith("_service_pb2")
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def _strings(message: Descriptor, within: tuple[str, ...] = ()) -> Iterator[FieldDescriptor]:
    if message.full_name in VALUES or message.full_name in within:
        return
    for field in message.fields:
        if field.type == field.TYPE_STRING:
            yield field
        elif field.message_type is not None and field.message_type.full_name.startswith("drey."):
            yield from _strings(field.message_type, (*within, message.full_name))


FIELDS = {
    field.full_name: field
    for request in _requests()
    for field in _strings(request)
    if field.name not in UNREAD
    and field.containing_type is not None
    and (field.containing_type.full_name, field.name) not in MADE_BY_THE_SERVER
}


def test_the_fields_are_found():
    assert len(FIELDS) > 30
    assert changes_pb2.AccessChanged.DESCRIPTOR.fields_by_name["key_id"].full_name not in FIELDS


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_characters_that_act_on_a_display_are_refused(name):
    field = FIELDS[name]
    rules = field.GetOptions().Extensions[annotations_pb2.limits]
    assert rules.max_bytes or rules.epics_name or rules.uuid, f"{name} may have any length"
    for char in HOSTILE_CHARACTERS.replace("\ud800", ""):
        message = GetMessageClass(field.containing_type)()
        if field.is_repeated:
            getattr(message, field.name).append(f"a{char}b")
        else:
            setattr(message, field.name, f"a{char}b")
        with pytest.raises(InvalidArgument) as caught:
            for check in limits._field_checks(field.containing_type):
                check(message, "", 0)
        assert caught.value.field
