"""Conditions over PVs: expressions of CEL, by the library of its makers.

`pv["NAME"]` is the value of a PV, `setpoint["NAME"]` that of its setpoint. Names are constant, so
that which PVs an expression looks at is known before it is judged. It is judged on the loop of the
process, so what could cost much is refused: comprehensions, regular expressions, deep nesting (by
the library), more than `MOST_PVS` PVs, and more than `MOST_ELEMENTS` of values that are looked at.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from drey_core.errors import InvalidArgument

if TYPE_CHECKING:
    from cel_expr_python import cel

MOST_PVS = 100
MOST_BYTES = 4000
MOST_ELEMENTS = 20_000
"""Elements of arrays and bytes of texts, each as often as an expression names it."""
MAPS = ("pv", "setpoint")
Name = tuple[str, str]
"""Which of `MAPS`, and the name of a PV."""


class NotKnownError(Exception):
    """The value of a condition cannot be told; says why."""


@dataclass(frozen=True)
class Condition:
    """An expression that gives a truth, and how often it looks at which names."""

    text: str
    looks: Mapping[Name, int]
    expression: cel.Expression

    @property
    def names(self) -> tuple[Name, ...]:
        """The names that it looks at, in their order."""
        return tuple(self.looks)

    def holds_for(self, values: Mapping[Name, Any]) -> bool:
        """Whether it holds for values of all its names. NotKnownError: types do not fit, say."""
        data: dict[str, dict[str, Any]] = {each: {} for each in MAPS}
        elements = sum(_tree_size(values[name]) * times for name, times in self.looks.items())
        if elements > MOST_ELEMENTS:
            raise NotKnownError(
                f"it looks at {elements} elements and bytes of arrays and texts,"
                f" more than {MOST_ELEMENTS}"
            )
        for name in self.looks:
            data[name[0]][name[1]] = values[name]
        cel = _cel_library()
        found = self.expression.eval(data=data)
        if found.type() == cel.Type.ERROR or found.type() == cel.Type.UNKNOWN:
            raise NotKnownError(str(found.value()))
        if not isinstance(found.value(), bool):
            raise NotKnownError(f"it gives a {found.type().name()}, and no truth")
        return bool(found.value())


def compile_condition(text: str, field: str) -> Condition:
    """The condition that `text` says. InvalidArgument names the `field` and what is wrong."""
    if len(text.encode()) > MOST_BYTES:
        raise _refused_condition(field, f"is longer than {MOST_BYTES} bytes")
    cel = _cel_library()
    try:
        compiled = _cel_environment().compile(text)
    except RuntimeError as error:
        raise _refused_condition(field, f"is no expression of CEL: {error}") from error
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise _refused_condition(field, f"gives a {compiled.return_type().name()}, and no truth")
    looks = Counter(_names_in_tree(_checked_tree(compiled, field), field))
    if not looks:
        raise _refused_condition(field, 'looks at no PV: write pv["NAME"]')
    if len(looks) > MOST_PVS:
        raise _refused_condition(field, f"looks at more than {MOST_PVS} PVs")
    return Condition(text, looks, compiled)


def plain_value(value: Any) -> Any:
    """A value as an expression sees it. NotKnownError for one that none can see."""
    if _tree_size(value) > MOST_ELEMENTS:
        raise NotKnownError(f"has more than {MOST_ELEMENTS} elements, or bytes of text")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise NotKnownError("is NaN")
        return value
    return [plain_value(each.item() if hasattr(each, "item") else each) for each in value]


def _tree_size(value: Any) -> int:
    """Elements of an array, bytes of a text or of all texts of an array; 0 for a single number."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, list):
        return sum(max(_tree_size(each), 1) for each in value)
    return getattr(value, "size", 0) if getattr(value, "ndim", 0) else 0


def _cel_library() -> Any:
    # Imported here: where no restore has a condition it would be 4 MB of memory for nothing.
    from cel_expr_python import cel

    return cel


@cache
def _cel_environment() -> cel.Env:
    cel = _cel_library()
    of_pvs = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables=dict.fromkeys(MAPS, of_pvs))


def _refused_condition(field: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


def _checked_tree(compiled: cel.Expression, field: str) -> Any:
    """The checked expression, as far as `_expression_class` knows of it."""
    try:
        whole = any_pb2.Any.FromString(compiled.serialize())
        return _checked_class().FromString(whole.value).expr
    except DecodeError as error:
        raise _refused_condition(field, f"is not understood: {error}") from error


def _names_in_tree(tree: Any, field: str) -> Iterator[Name]:
    """The names that a tree looks at; what is bounded neither in cost nor in names is refused."""
    if tree.comprehension or tree.struct:
        raise _refused_condition(
            field, "has a macro or a structure (all, exists, map, filter, {...})"
        )
    if tree.ident.name in MAPS:
        raise _refused_condition(
            field, f'{tree.ident.name} stands without a name: write pv["NAME"]'
        )
    call = tree.call
    if call.function == "matches":
        raise _refused_condition(
            field, "has a regular expression: compare with ==, startsWith, endsWith or contains"
        )
    if call.function == "_[_]" and call.args and call.args[0].ident.name in MAPS:
        name = call.args[1].const.string
        if not name:
            raise _refused_condition(field, 'names a PV by no constant text: write pv["NAME"]')
        yield call.args[0].ident.name, name
        return
    parts = [*call.args, *tree.list.elements]
    parts += [call.target] if call.HasField("target") else []
    parts += [tree.select.operand] if tree.HasField("select") else []
    for part in parts:
        yield from _names_in_tree(part, field)


@cache
def _checked_class() -> Any:
    """`cel.expr.CheckedExpr`, a public format, with the fields that `_names` looks at.

    Declared here, since no package brings it; what is not declared is passed over.
    """
    field = descriptor_pb2.FieldDescriptorProto
    package = "drey_restore.cel"

    def message(name: str, *fields: tuple[str, int, str]) -> descriptor_pb2.DescriptorProto:
        found = descriptor_pb2.DescriptorProto(name=name)
        for label, number, kind in fields:
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            found.field.add(
                name=label,
                number=number,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type={"string": field.TYPE_STRING, "bytes": field.TYPE_BYTES}.get(
                    kind, field.TYPE_MESSAGE
                ),
                type_name=None if kind in {"string", "bytes"} else f".{package}.{kind}",
            )
        return found

    file = descriptor_pb2.FileDescriptorProto(
        name="drey_restore/cel.proto", package=package, syntax="proto3"
    )
    file.message_type.extend(
        [
            message("Checked", ("expr", 4, "Expr")),
            message(
                *("Expr", ("const", 3, "Constant"), ("ident", 4, "Ident"), ("select", 5, "Select")),
                *(("call", 6, "Call"), ("list", 7, "List")),
                *(("struct", 8, "bytes"), ("comprehension", 9, "bytes")),
            ),
            message("Constant", ("string", 6, "string")),
            message("Ident", ("name", 1, "string")),
            message("Select", ("operand", 1, "Expr")),
            message("Call", ("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "*Expr")),
            message("List", ("elements", 1, "*Expr")),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Checked"))
