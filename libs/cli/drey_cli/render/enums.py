"""Names of enum values without their prefix, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper


def short_name(enum: _EnumTypeWrapper[Any], number: int) -> str:
    """`SKIP_REASON_READ_ONLY` as `read-only`; the zero as an empty text, the unknown as `#17`."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return f"#{number}"
    if number == 0:
        return ""
    return str(value.name).removeprefix(prefix_of(enum)).lower().replace("_", "-")


def number_of(enum: _EnumTypeWrapper[Any], name: str) -> Any:
    """The number of a short name; KeyError if there is none."""
    wanted = prefix_of(enum) + name.upper().replace("-", "_")
    return cast("Any", enum.DESCRIPTOR.values_by_name[wanted].number)


def prefix_of(enum: _EnumTypeWrapper[Any]) -> str:
    """The prefix that all values of an enum share: `SKIP_REASON_`."""
    zero = str(enum.DESCRIPTOR.values_by_number[0].name)
    return zero.removesuffix("UNSPECIFIED")
