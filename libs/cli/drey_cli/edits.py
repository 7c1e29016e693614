"""Edits and values of a plan, as they are typed and in files: `NAME=VALUE`, `PATTERN=FACTOR`."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from drey_cli.contracts import restore_pb2, selector_pb2, value_pb2
from drey_cli.errors import CliError, usage_error


def plan_edits(
    given: Sequence[str] | None, scales: Sequence[str] | None, offsets: Sequence[str] | None
) -> list[restore_pb2.PlanEdit]:
    """Edits of a plan; a name may be a pattern. Scale and offset of one name are one edit.

    A given value counts before a factor of a pattern that chooses the PV too.
    """
    linear: dict[str, restore_pb2.LinearEdit] = {}
    for option, field, texts in (("--scale", "scale", scales), ("--offset", "offset", offsets)):
        for text in texts or ():
            name, value = _split_edit(option, text)
            edit = linear.setdefault(name, restore_pb2.LinearEdit())
            setattr(edit, field, _parse_number(option, text, value))
    edits = [
        restore_pb2.PlanEdit(selector=_name_selector(name), linear=edit)
        for name, edit in linear.items()
    ]
    for text in given or ():
        name, value = _split_edit("--set", text)
        edits.append(
            restore_pb2.PlanEdit(selector=_name_selector(name), value=_parse_value(text, value))
        )
    return edits


def given_values(texts: Sequence[str], file: str | None) -> restore_pb2.ValueSet:
    """Values for PVs by name: those that are typed, and those of a file; one of both is refused."""
    values: dict[str, value_pb2.Value] = {}
    pairs = [("--set", text, *_split_edit("--set", text)) for text in texts]
    if file is not None:
        pairs += [("--values", f"{file}: {name}", name, text) for name, text in _read_values(file)]
    for option, text, name, value in pairs:
        if any(mark in name for mark in "*?["):
            raise _refused_edit(option, text, "a pattern edits a snapshot's values; name one PV")
        if name in values:
            raise _refused_edit(option, text, f"{name} is given twice")
        values[name] = _parse_value(text, value)
    return restore_pb2.ValueSet(
        values=[restore_pb2.PvValue(name=name, value=value) for name, value in values.items()]
    )


_FILE_FORM = 'write {"QUAD:LI21:101:BDES": 1.5}, or a line PV,value and then a line for each PV'


def _read_values(file: str) -> Iterator[tuple[str, str]]:
    """(name, value as it would be typed) of a JSON object, or of CSV with its two columns."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise usage_error(f"--values {file}: cannot be read: {error}", remedy=_FILE_FORM) from error
    if text.lstrip().startswith("{"):
        try:
            values_by_name = json.loads(text, object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            why = f"--values {file}: is not JSON: {error}"
            raise usage_error(why, remedy=_FILE_FORM) from error
        for name, value in values_by_name.items():
            yield name, json.dumps(value)
        return
    csv.field_size_limit(sys.maxsize)  # of the process: an array is a cell, and is large
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from _csv_values(file, rows)
    except csv.Error as error:
        why = f"--values {file}: line {rows.reader.line_num} is not CSV: {error}"
        raise usage_error(why, remedy=_FILE_FORM) from error


def _csv_values(file: str, rows: csv.DictReader[str]) -> Iterator[tuple[str, str]]:
    if not {"PV", "value"} <= set(rows.fieldnames or ()):
        raise usage_error(
            f"--values {file}: is neither a JSON object nor CSV with the columns PV and value",
            remedy=_FILE_FORM,
        )
    for row in rows:
        name, value = ((row[column] or "").strip() for column in ("PV", "value"))
        if not name or not value:
            raise usage_error(
                f"--values {file}: line {rows.line_num} has no PV or no value", remedy=_FILE_FORM
            )
        yield name, value


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values_by_name = dict(pairs)
    if len(values_by_name) < len(pairs):
        raise ValueError("a name is given twice")
    return values_by_name


def _split_edit(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise _refused_edit(option, text, "say PV=VALUE")
    return name, value


def _name_selector(name: str) -> selector_pb2.Selector:
    if any(mark in name for mark in "*?["):
        return selector_pb2.Selector(globs=[name])
    return selector_pb2.Selector(names=[name])


def _parse_number(option: str, text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _refused_edit(option, text, f"{value!r} is not a number")
    return number


def _parse_value(text: str, value: str) -> value_pb2.Value:
    """What is typed as a value; whether the PV can have it is for the server to say."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value  # a label, or a text without quotes
    try:
        return _parsed_value(text, parsed)
    except (ValueError, OverflowError) as error:
        raise _refused_edit("--set", text, "no value can be that large, or that text") from error


def _parsed_value(text: str, parsed: object) -> value_pb2.Value:
    if isinstance(parsed, bool):
        return value_pb2.Value(bool_value=parsed)
    if isinstance(parsed, int) and parsed >= 2**63:
        return value_pb2.Value(uint64_value=parsed)
    if isinstance(parsed, int) and abs(parsed) >= 2**53:
        return value_pb2.Value(int64_value=parsed)
    if isinstance(parsed, int | float):
        return value_pb2.Value(float64_value=parsed)
    if isinstance(parsed, str):
        return value_pb2.Value(string_value=parsed)
    whole = isinstance(parsed, list) and all(type(each) is int for each in parsed)
    if isinstance(parsed, list) and whole and any(abs(each) >= 2**53 for each in parsed):
        return value_pb2.Value(int64_array=value_pb2.Int64Array(elements=parsed))
    if isinstance(parsed, list) and all(type(each) in (int, float) for each in parsed):
        return value_pb2.Value(float64_array=value_pb2.DoubleArray(elements=parsed))
    if isinstance(parsed, list) and all(isinstance(each, str) for each in parsed):
        return value_pb2.Value(string_array=value_pb2.StringArray(elements=parsed))
    raise _refused_edit("--set", text, "a number, a text, or a list of one of them")


def _refused_edit(option: str, text: str, why: str) -> CliError:
    return usage_error(
        f"{option} {text!r}: {why}", remedy=f"for instance {option} 'QUAD:LI21:101:BDES=1.5'"
    )
