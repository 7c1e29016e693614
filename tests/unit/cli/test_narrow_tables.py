"""Every table of the commands on narrow terminals, with names as long as facilities have them."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from rich.console import Console

import drey_cli.commands
import drey_cli.render
from drey_cli.output import rich_table
from drey_cli.render.table import Table, fitted_table, text_of

TEXTS = {
    "id": "0193f3a4-0000-7000-8000-00000000abcd",
    "target": "snapshots/0193f3a4-0000-7000-8000-00000000abcd",
    "action": "snapshot.golden.set",
    "principal": "alice.operator",
    "name": "QUAD:LI21:101:BDES",
    "address": "10.20.30.140",
}
DEPTH = 6
KNOWN: dict[str, Any] = {"utc": True, "permissions": False}
"""What tables are told besides their messages; one that is told more is not drawn here."""


def fill_message(message: Message, depth: int = DEPTH) -> Message:
    """Every field has something, of the length that it has in a facility."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and (
            depth == 0 or field.message_type.GetOptions().map_entry
        ):
            continue
        if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
            continue
        place = getattr(message, field.name)
        if field.message_type is None:
            value = sample_of(field)
            if field.is_repeated:
                place.append(value)
            else:
                setattr(message, field.name, value)
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            place.FromNanoseconds(1_763_000_000_123_456_789)
        else:
            fill_message(place.add() if field.is_repeated else place, depth - 1)
            if not field.is_repeated:
                place.SetInParent()
    return message


def sample_of(field: FieldDescriptor) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds: dict[int, object] = {
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: -123456.789,
        FieldDescriptor.CPPTYPE_FLOAT: 1.5,
        FieldDescriptor.CPPTYPE_STRING: TEXTS.get(field.name, "a few words of text"),
    }
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\0" * 8
    return kinds.get(field.cpp_type, 40_000)


def table_functions() -> Iterator[tuple[str, Callable[..., Table], type[Message]]]:
    """Those that draw messages of one kind, by name."""
    for package in (drey_cli.commands, drey_cli.render):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ != module.__name__ or "table" not in name:
                    continue
                first, *others = inspect.signature(function).parameters.values()
                if not all(each.name in KNOWN for each in others):
                    continue
                named = re.search(r"(\w+_pb2)\.(\w+)\]?$", first.annotation)
                message = named and getattr(vars(module)[named[1]], named[2])
                if message:
                    yield f"{found.name}.{name}", function, message


TABLES = {name: (function, message) for name, function, message in table_functions()}


CUT_AT_80 = {
    "drey_cli.render.comparisons.differences_table",
    "drey_cli.render.restores.plan_table",
    "drey_cli.render.restores.restore_items_table",
}
"""Those that cannot help it with names so long; the list only shrinks."""


def make_table(function: Callable[..., Table], message: type[Message]) -> Table:
    first, *others = inspect.signature(function).parameters.values()
    sample = fill_message(message())
    single = first.annotation.endswith(message.__name__)
    more = {each.name: KNOWN[each.name] for each in others if each.name in KNOWN}
    return function(sample if single else [sample] * 3, **more)


def drawn_lines(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(rich_table(table, width))
    return capture.get().splitlines()


def words_cut(table: Table, width: int) -> set[str]:
    """Words of columns that may not be folded which stand on no line as a whole."""
    shown = fitted_table(table, width)
    lines = drawn_lines(table, width)
    return {
        word
        for row in shown.rows
        for cell, column in zip(row, shown.columns, strict=True)
        if not column.fold
        for word in text_of(cell).split()
        if not any(word in line for line in lines)
    }


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_no_wider_than_the_terminal(name, width):
    table = make_table(*TABLES[name])
    assert table.rows
    assert max(map(len, drawn_lines(table, width))) <= width


@pytest.mark.parametrize("name", [name for name in TABLES if name not in CUT_AT_80])
def test_no_word_is_cut_in_two_at_80_columns(name):
    assert words_cut(make_table(*TABLES[name]), 80) == set()


@pytest.mark.parametrize("name", TABLES)
def test_what_is_left_out_is_said(name):
    table = make_table(*TABLES[name])
    shown = fitted_table(table, 60)
    missing = {column.title for column in table.columns} - {each.title for each in shown.columns}
    assert all(f"“{title}”" in shown.note for title in missing)
