"""Write the OpenAPI document of the routes that the contracts give as `google.api.http`.

From the contracts alone, comments included. Run by `make contracts`; the arguments are the file to
write and buf.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2 as pb

# the permission of a method is an option of ours; known before any options are read
from drey.common.v1 import annotations_pb2 as drey_annotations_pb2

ROOT = Path(__file__).resolve().parents[3]
VERBS = ("get", "post", "patch", "delete", "put")
VARIABLE = re.compile(r"\{([^}=]+)[^}]*\}")
ABOUT = """\
Drey over HTTP. Every path needs a key: `authorization: Bearer KEY`. JSON is that of proto3: names \
in lowerCamelCase (those of the contracts are taken too), 64-bit integers as strings, bytes as \
base64. What a request does not have is refused with UNKNOWN_FIELD. An error is a google.rpc.Status \
with an ErrorInfo; branch on its `reason`. A stream is one JSON object a line, or server-sent events \
where `accept` asks for text/event-stream."""
NUMBERS = {
    pb.FieldDescriptorProto.TYPE_INT32: "int32",
    pb.FieldDescriptorProto.TYPE_SINT32: "int32",
    pb.FieldDescriptorProto.TYPE_SFIXED32: "int32",
    pb.FieldDescriptorProto.TYPE_UINT32: "uint32",
    pb.FieldDescriptorProto.TYPE_FIXED32: "uint32",
}
LONG_NUMBERS = {
    pb.FieldDescriptorProto.TYPE_INT64: "int64",
    pb.FieldDescriptorProto.TYPE_SINT64: "int64",
    pb.FieldDescriptorProto.TYPE_SFIXED64: "int64",
    pb.FieldDescriptorProto.TYPE_UINT64: "uint64",
    pb.FieldDescriptorProto.TYPE_FIXED64: "uint64",
}
REALS = (pb.FieldDescriptorProto.TYPE_DOUBLE, pb.FieldDescriptorProto.TYPE_FLOAT)
REAL = {"oneOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
WELL_KNOWN: dict[str, dict[str, Any]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "description": "Seconds, as `1.5s`."},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Names with commas between."},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
}
STATUS = ".google.rpc.Status"


Locations = dict[tuple[int, ...], str]


class Contracts:
    """Messages, enums and services by name, and the comments above them and their members."""

    def __init__(self, files: pb.FileDescriptorSet) -> None:
        self.messages: dict[str, pb.DescriptorProto] = {}
        self.enums: dict[str, pb.EnumDescriptorProto] = {}
        self.services: dict[str, pb.ServiceDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        for file in files.file:
            texts = {
                tuple(each.path): " ".join(each.leading_comments.split())
                for each in file.source_code_info.location
            }
            scope = f".{file.package}"
            for index, message in enumerate(file.message_type):
                self._add_message(f"{scope}.{message.name}", message, texts, (4, index))
            for index, enum in enumerate(file.enum_type):
                self._add_enum(f"{scope}.{enum.name}", enum, texts, (5, index))
            for index, service in enumerate(file.service):
                name = f"{file.package}.{service.name}"
                self.services[name] = service
                self.comments[name] = texts.get((6, index), "")
                for number, method in enumerate(service.method):
                    text = texts.get((6, index, 2, number), "")
                    self.comments[f"{name}.{method.name}"] = text

    def _add_message(
        self, name: str, message: pb.DescriptorProto, texts: Locations, path: tuple[int, ...]
    ) -> None:
        self.messages[name] = message
        self.comments[name] = texts.get(path, "")
        for index, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = texts.get((*path, 2, index), "")
        for index, inner in enumerate(message.nested_type):
            self._add_message(f"{name}.{inner.name}", inner, texts, (*path, 3, index))
        for index, enum in enumerate(message.enum_type):
            self._add_enum(f"{name}.{enum.name}", enum, texts, (*path, 4, index))

    def _add_enum(
        self, name: str, enum: pb.EnumDescriptorProto, texts: Locations, path: tuple[int, ...]
    ) -> None:
        self.enums[name] = enum
        self.comments[name] = texts.get(path, "")


class Document:
    """The document, with the schemas that its paths refer to."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._schemas: dict[str, dict[str, Any]] = {}
        self._paths: dict[str, dict[str, Any]] = {}
        for name, service in contracts.services.items():
            for method in service.method:
                for index, (verb, path, rule) in enumerate(routes(method)):
                    operation = self._operation(name, method, path, rule)
                    if index:
                        operation["operationId"] += f"_{index + 1}"
                    self._paths.setdefault(VARIABLE.sub(r"{\1}", path), {})[verb] = operation

    def whole(self) -> dict[str, Any]:
        """All of it, in an order that does not depend on the files'."""
        return {
            "openapi": "3.1.0",
            "info": {"title": "Drey", "version": "v1", "description": ABOUT},
            "security": [{"key": []}],
            "tags": [
                {"name": service.name, "description": self._contracts.comments[name]}
                for name, service in sorted(self._contracts.services.items())
            ],
            "paths": dict(sorted(self._paths.items())),
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": dict(sorted(self._schemas.items())),
            },
        }

    def _operation(
        self, service: str, method: pb.MethodDescriptorProto, path: str, rule: http_pb2.HttpRule
    ) -> dict[str, Any]:
        bound = VARIABLE.findall(path)
        found: dict[str, Any] = {
            "operationId": f"{service.rpartition('.')[2]}_{method.name}",
            "tags": [service.rpartition(".")[2]],
            "description": self._contracts.comments[f"{service}.{method.name}"],
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in bound
            ],
            "responses": self._answers(method),
        }
        options = method.options.Extensions
        found["x-permission"] = options[drey_annotations_pb2.permission]
        if options[drey_annotations_pb2.not_built]:
            found["description"] += " Not built yet: answers 501, NOT_IMPLEMENTED."
        if rule.body:
            schema = self._reference(method.input_type)
            found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        else:
            found["parameters"] += self._query(method.input_type, bound)
        return found

    def _answers(self, method: pb.MethodDescriptorProto) -> dict[str, Any]:
        schema = {"schema": self._reference(method.output_type)}
        forms = ["application/json"]
        if method.server_streaming:
            forms = ["application/x-ndjson", "text/event-stream"]
        refusal = {"application/json": {"schema": self._reference(STATUS)}}
        return {
            "200": {"description": "The answer.", "content": dict.fromkeys(forms, schema)},
            "default": {"description": "Refused, and why.", "content": refusal},
        }

    def _query(self, message: str, bound: list[str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "in": "query", "description": text, "schema": schema}
            for name, text, schema in self._flat_fields(message, "", ())
            if name not in bound
        ]

    def _flat_fields(
        self, message: str, prefix: str, above: tuple[str, ...]
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Fields that a query can name: scalars, lists of them, and those of messages inside."""
        for field in self._contracts.messages[message].field:
            repeated = field.label == pb.FieldDescriptorProto.LABEL_REPEATED
            name = prefix + field.name
            inner = field.type_name
            if field.type != pb.FieldDescriptorProto.TYPE_MESSAGE or inner in WELL_KNOWN:
                yield name, self._contracts.comments[f"{message}.{field.name}"], self._schema(field)
            elif not repeated and inner not in above:
                yield from self._flat_fields(inner, f"{name}.", (*above, message))

    def _reference(self, name: str) -> dict[str, Any]:
        key = name.removeprefix(".")
        if key not in self._schemas:
            self._schemas[key] = {}  # a message may hold itself
            if name in self._contracts.enums:
                self._schemas[key] = self._enum(name)
            else:
                self._schemas[key] = self._message(name)
        return {"$ref": f"#/components/schemas/{key}"}

    def _enum(self, name: str) -> dict[str, Any]:
        labels = [value.name for value in self._contracts.enums[name].value]
        return {"type": "string", "description": self._contracts.comments[name], "enum": labels}

    def _message(self, name: str) -> dict[str, Any]:
        message = self._contracts.messages[name]
        properties = {}
        for field in message.field:
            text = self._contracts.comments[f"{name}.{field.name}"]
            if field.HasField("oneof_index") and not field.proto3_optional:
                text += f" At most one of `{message.oneof_decl[field.oneof_index].name}`."
            schema = self._schema(field)
            properties[field.json_name] = {**schema, "description": text} if text else schema
        return {
            "type": "object",
            "description": self._contracts.comments[name],
            "properties": properties,
        }

    def _schema(self, field: pb.FieldDescriptorProto) -> dict[str, Any]:
        entry = self._contracts.messages.get(field.type_name)
        if entry is not None and entry.options.map_entry:
            return {"type": "object", "additionalProperties": self._one(entry.field[1])}
        one = self._one(field)
        if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
            return {"type": "array", "items": one}
        return one

    def _one(self, field: pb.FieldDescriptorProto) -> dict[str, Any]:
        kind = field.type
        if field.type_name:
            known = WELL_KNOWN.get(field.type_name)
            return dict(known) if known is not None else self._reference(field.type_name)
        if kind == pb.FieldDescriptorProto.TYPE_BOOL:
            return {"type": "boolean"}
        if kind in REALS:
            return dict(REAL)
        if kind in NUMBERS:
            return {"type": "integer", "format": NUMBERS[kind]}
        if kind in LONG_NUMBERS:
            return {"type": "string", "format": LONG_NUMBERS[kind]}
        if kind == pb.FieldDescriptorProto.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return {"type": "string"}


def routes(method: pb.MethodDescriptorProto) -> Iterator[tuple[str, str, http_pb2.HttpRule]]:
    """(verb, path, rule) of each route of a method."""
    rule = method.options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb in VERBS:
            yield verb, getattr(each, verb), each


def main() -> None:
    out, buf = sys.argv[1:]
    command = [buf, "build", "proto", "-o", "-#format=binpb"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    document = Document(Contracts(pb.FileDescriptorSet.FromString(built))).whole()
    Path(out).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
