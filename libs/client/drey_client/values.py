"""Values as objects that cannot be taken for what they are not. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np

from drey.common.v1 import value_pb2


@dataclass(frozen=True, slots=True)
class EnumState:
    """State of an enumeration. It is no number: neither its truth nor its index stands for it.

    `label` is empty where it is not known.
    """

    index: int
    label: str

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is the state of an enumeration: compare its label or its index")

    def __str__(self) -> str:
        return self.label or f"#{self.index}"


class ArrayDecimation(IntEnum):
    """How the elements of an extract are chosen, as `drey.common.v1.ArrayDecimation` says."""

    FIRST = 1
    STRIDE = 2
    MIN_MAX = 3


@dataclass(frozen=True, slots=True)
class ArrayExtract:
    """Some elements of an array, as a watch with `ArrayLimits` has them. It is not the array.

    `elements` is as the data of a whole array. Element i, or with `MIN_MAX` the elements 2i and
    2i + 1, stand for those of the whole array from i * `step` on.
    """

    elements: Any
    total: int
    decimation: ArrayDecimation
    step: int

    def __str__(self) -> str:
        return f"{len(self.elements)} of {self.total} elements ({self.decimation.name.lower()})"


class ChannelState(IntEnum):
    """Connection of a channel, as `drey.common.v1.ConnectionState`; 0: nothing is known yet."""

    UNKNOWN = 0
    NEVER_CONNECTED = 1
    DISCONNECTED = 2
    CONNECTED = 3
    UNSUPPORTED = 4


class AlarmSeverity(IntEnum):
    """Alarm severity; `NONE`: no value has come. Numbered as EPICS does, but for that."""

    NONE = -1
    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3


@dataclass(frozen=True, slots=True)
class ChannelValue:
    """The latest value of one channel, and how far to believe it.

    `data`: float, int, bool, str, bytes (a string that is not UTF-8), `EnumState`, a numpy array of
    one dimension of the channel's own type (indices of an enumeration as uint16), a list of
    strings, `ArrayExtract` where the watch limits arrays; None: no value has ever come, or it
    cannot be sent, and then `problem` says why. Times are nanoseconds since 1970 UTC, 0 without a
    value.
    """

    data: Any
    state: ChannelState
    fresh: bool
    severity: AlarmSeverity
    status: str
    source_time_ns: int
    receive_time_ns: int
    source_time_suspect: bool
    problem: str = ""

    @property
    def usable(self) -> bool:
        """It has a value, is connected, and that value can be believed to be the present one."""
        return self.data is not None and self.state == ChannelState.CONNECTED and self.fresh

    @property
    def source_time(self) -> datetime | None:
        """Time given by the IOC, in UTC, to the microsecond."""
        return (
            datetime.fromtimestamp(self.source_time_ns / 1e9, UTC) if self.source_time_ns else None
        )

    def __str__(self) -> str:
        if self.state in (ChannelState.NEVER_CONNECTED, ChannelState.UNSUPPORTED):
            return self.state.name.lower().replace("_", " ")
        shown = self.problem or "no value" if self.data is None else str(self.data)
        if self.state == ChannelState.DISCONNECTED:
            return f"disconnected, was {shown}"
        return shown if self.fresh else f"{shown} (stale)"


@dataclass(frozen=True, slots=True)
class LivePv:
    """A PV with what is known of it now. A channel that it has not, or that is unasked, is None.

    The metadata (units, limits, labels, host) are messages of the contract; None while not known.
    """

    name: str
    number: int
    setpoint: ChannelValue | None
    readback: ChannelValue | None
    setpoint_metadata: value_pb2.ChannelMetadata | None = None
    readback_metadata: value_pb2.ChannelMetadata | None = None

    @property
    def units(self) -> str:
        """Units of the setpoint, else of the readback; empty where they are not known."""
        channels = (self.setpoint_metadata, self.readback_metadata)
        return next((each.units for each in channels if each is not None and each.units), "")


def value_of(value: value_pb2.Value) -> ChannelValue:
    """A value of the contract as an object. Its parts have to be joined (`parts.whole_rows`)."""
    kind = value.WhichOneof("data")
    return ChannelValue(
        _DATA[kind](getattr(value, kind)) if kind in _DATA else None,
        ChannelState(value.state),
        value.freshness == value_pb2.FRESHNESS_FRESH,
        AlarmSeverity(value.severity - 1),
        _status_name(value.status),
        value.source_time_ns,
        value.receive_time_ns,
        value.source_time_suspect,
        _problem_of(value, kind),
    )


def pv_of_row(
    row: value_pb2.PvRow,
    setpoint_metadata: value_pb2.ChannelMetadata | None = None,
    readback_metadata: value_pb2.ChannelMetadata | None = None,
) -> LivePv:
    """A row of the contract as an object."""
    return LivePv(
        row.name,
        row.number,
        value_of(row.setpoint) if row.HasField("setpoint") else None,
        value_of(row.readback) if row.HasField("readback") else None,
        setpoint_metadata,
        readback_metadata,
    )


def _problem_of(value: value_pb2.Value, kind: str | None) -> str:
    if kind == "unsent":
        return value.unsent.message
    return f"this client does not know values of kind {kind}" if kind and kind not in _DATA else ""


def _status_name(status: int) -> str:
    try:
        name = value_pb2.AlarmStatus.Name(status)  # type: ignore[arg-type]
    except ValueError:
        return f"STATUS_{status}"
    return name.removeprefix("ALARM_STATUS_").replace("UNSPECIFIED", "")


def _same_data(data: Any) -> Any:
    return data


def _array_of(dtype: type[np.generic], data: Any) -> np.ndarray[Any, Any]:
    return np.array(data.elements, dtype)


def _extract_of(data: value_pb2.ArrayExtract) -> ArrayExtract:
    elements = value_of(data.elements).data
    return ArrayExtract(elements, data.total_elements, ArrayDecimation(data.decimation), data.step)


_SCALARS = (
    *("float64_value", "float32_value", "bool_value", "string_value", "raw_string_value"),
    *(f"{sign}int{bits}_value" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_DATA: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_SCALARS, _same_data),
    "enum_value": lambda data: EnumState(data.index, data.label),
    "uint8_array": lambda data: np.frombuffer(data, np.uint8),
    "string_array": lambda data: list(data.elements or data.raw_elements),
    "bool_array": partial(_array_of, np.bool_),
    "enum_array": partial(_array_of, np.uint16),
    **{
        f"{name}_array": partial(_array_of, getattr(np, name))
        for name in ("int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
    },
    "float32_array": partial(_array_of, np.float32),
    "float64_array": partial(_array_of, np.float64),
    "extract": _extract_of,
}
"""How the field of a value becomes data."""
