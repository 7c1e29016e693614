"""What the contracts allow in a JSON request, as the tables that `strict_json.lua` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

_PROGRAM = Path(__file__).with_suffix(".lua")
_VERBS = ("get", "post", "patch", "delete", "put")
VARIABLE = re.compile(r"\{([^}=]+)\}")
"""A part of a path that gives a field."""
_LUA_MAGIC = re.compile(r"([-^$()%.\[\]*+?])")


def http_rules(method: MethodDescriptor) -> Iterator[tuple[str, str, http_pb2.HttpRule]]:
    """(verb, path template, rule) of each HTTP route of a method."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb in _VERBS:
            yield verb.upper(), getattr(each, verb), each


def strict_json(services: Iterable[str]) -> str:
    """The program with its tables, for the routes of the named services."""
    pool = descriptor_pool.Default()
    routes: dict[str, list[dict[str, Any]]] = {}
    messages: dict[str, dict[str, str | bool]] = {}
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            for verb, template, rule in http_rules(method):
                _add_message(method.input_type, messages)
                routes.setdefault(verb, []).append(
                    {
                        "pattern": _path_pattern(template),
                        "input": method.input_type.full_name,
                        "body": bool(rule.body),
                        "streams": method.server_streaming,
                    }
                )
    tables = f"local ROUTES = {_lua_literal(routes)}\nlocal MESSAGES = {_lua_literal(messages)}\n"
    return tables + _PROGRAM.read_text()


def _path_pattern(template: str) -> str:
    """A pattern of Lua; a variable stands for one part of a path, and no verb is in it."""
    texts = [_LUA_MAGIC.sub(r"%\1", text) for text in VARIABLE.split(template)[::2]]
    return "^" + "[^/:]+".join(texts) + "$"


def _add_message(message: Descriptor, messages: dict[str, dict[str, str | bool]]) -> None:
    if message.full_name in messages:
        return
    fields: dict[str, str | bool] = {}
    messages[message.full_name] = fields
    for field in message.fields:
        fields[field.name] = fields[field.json_name] = _field_kind(field, messages)


def _field_kind(field: FieldDescriptor, messages: dict[str, dict[str, str | bool]]) -> str:
    """Name of the message or enum of a field; empty for scalars, maps and Google's own types."""
    inner = field.message_type
    if field.enum_type is not None:
        _add_enum(field.enum_type, messages)
        return field.enum_type.full_name
    if inner is None or inner.GetOptions().map_entry or not inner.full_name.startswith("drey."):
        return ""
    _add_message(inner, messages)
    return inner.full_name


def _add_enum(enum: EnumDescriptor, messages: dict[str, dict[str, str | bool]]) -> None:
    messages[enum.full_name] = dict.fromkeys(enum.values_by_name, True)


def _lua_literal(value: Any) -> str:
    """A literal of Lua."""
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"[{_lua_literal(key)}] = {_lua_literal(v)}" for key, v in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "{" + ", ".join(map(_lua_literal, value)) + "}"
    return json.dumps(value)
