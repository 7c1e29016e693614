"""Edits of a plan as they are typed: `NAME=VALUE`, `PATTERN=FACTOR`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

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
            name, value = _split(option, text)
            edit = linear.setdefault(name, restore_pb2.LinearEdit())
            setattr(edit, field, _number(option, text, value))
    edits = [
        restore_pb2.PlanEdit(selector=_selector(name), linear=edit) for name, edit in linear.items()
    ]
    for text in given or ():
        name, value = _split("--set", text)
        edits.append(restore_pb2.PlanEdit(selector=_selector(name), value=_value(text, value)))
    return edits


def _split(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise _refused(option, text, "say PV=VALUE")
    return name, value


def _selector(name: str) -> selector_pb2.Selector:
    if any(mark in name for mark in "*?["):
        return selector_pb2.Selector(globs=[name])
    return selector_pb2.Selector(names=[name])


def _number(option: str, text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _refused(option, text, f"{value!r} is not a number")
    return number


def _value(text: str, value: str) -> value_pb2.Value:
    try:
        found = json.loads(value)
    except ValueError:
        found = value  # a label, or a text without quotes
    if isinstance(found, bool):
        return value_pb2.Value(bool_value=found)
    if isinstance(found, int) and abs(found) >= 2**53:
        return value_pb2.Value(int64_value=found)
    if isinstance(found, int | float):
        return value_pb2.Value(float64_value=found)
    if isinstance(found, str):
        return value_pb2.Value(string_value=found)
    if isinstance(found, list) and all(type(each) in (int, float) for each in found):
        return value_pb2.Value(float64_array=value_pb2.DoubleArray(elements=found))
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return value_pb2.Value(string_array=value_pb2.StringArray(elements=found))
    raise _refused("--set", text, "a number, a text, or a list of one of them")


def _refused(option: str, text: str, why: str) -> CliError:
    return usage_error(f"{option} {text!r}: {why}", remedy=f"for instance {option} 'QUAD:01:I=1.5'")
