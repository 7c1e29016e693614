"""What clients ask for when they watch: specifications, checked."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from google.protobuf.duration_pb2 import Duration

from drey.common.v1 import selector_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import watch_pb2
from drey_core import errors
from drey_core.extracts import ArrayShape, Decimation
from drey_core.selector import Selector
from drey_gateway import mapping
from drey_gateway.domain.array_limits import ArrayLimits
from drey_gateway.domain.deadband import Deadband
from drey_gateway.domain.resume import decode_token
from drey_gateway.domain.terms import SelectorTerm
from drey_gateway.domain.wanted import SubscriptionChange, Wanted, with_added, with_removed
from drey_runtime.mapping.common import in_columns
from drey_runtime.mapping.selector import selector_from_proto

_MAX_INTERVAL_S = 3600.0
_MAX_ELEMENTS = 1_000_000


def read_selector(message: selector_pb2.Selector, path: str) -> Selector:
    """A selector that says something. Raises `InvalidArgument`."""
    selector = selector_from_proto(message, path)
    selector.validate_selector(path)
    return selector


def read_interval(message: Duration, path: str) -> float:
    """Seconds between two messages. Raises `InvalidArgument`."""
    interval = message.ToNanoseconds() / 1e9
    if not 0 <= interval <= _MAX_INTERVAL_S:
        raise errors.InvalidArgument(
            f"{path}: {interval} s is not between 0 and an hour", field=path
        )
    return interval


def read_wanted(spec: watch_pb2.WatchSpec, token: str = "", path: str = "spec") -> Wanted:
    """A specification at `path` of a request. Raises `InvalidArgument`, `Unimplemented`."""
    return Wanted(
        terms=(SelectorTerm(True, read_selector(spec.selector, f"{path}.selector")),),
        fields=mapping.fields_of_mask(spec.fields),
        in_columns=in_columns(spec.form, f"{path}.form"),
        min_interval_s=read_interval(spec.min_interval, f"{path}.min_interval"),
        with_metadata=spec.with_metadata,
        allow_unknown=spec.allow_unknown,
        deadband=_read_deadband(spec, f"{path}.deadband"),
        arrays=_read_array_limits(spec.array_limits, f"{path}.array_limits"),
        token=decode_token(token) if token else None,
        path=f"{path}.selector",
    )


def _read_deadband(spec: watch_pb2.WatchSpec, path: str) -> Deadband | None:
    kind = spec.deadband.WhichOneof("kind") if spec.HasField("deadband") else None
    if kind is None:
        if spec.HasField("deadband"):
            raise errors.InvalidArgument(
                f"{path}: say one of absolute, relative and tolerances", field=path
            )
        return None
    width: float = getattr(spec.deadband, kind)
    if not math.isfinite(width) or width < 0:
        raise errors.InvalidArgument(
            f"{path}.{kind}: {width} is not a number from 0 up", field=f"{path}.{kind}"
        )
    return Deadband(**{kind: width})


def _read_array_limits(limits: watch_pb2.ArrayLimits, path: str) -> ArrayLimits:
    """Limits, of which each may be absent. Raises `InvalidArgument`."""
    for name in ("max_elements", "max_bytes_per_s"):
        if getattr(limits, name) < 0:
            raise errors.InvalidArgument(
                f"{path}.{name}: {getattr(limits, name)} is below 0", field=f"{path}.{name}"
            )
    return ArrayLimits(
        shape=_read_shape(limits, path),
        min_interval_s=read_interval(limits.min_interval, f"{path}.min_interval"),
        bytes_per_s=limits.max_bytes_per_s,
    )


def _read_shape(limits: watch_pb2.ArrayLimits, path: str) -> ArrayShape | None:
    try:
        decimation = Decimation(limits.decimation or Decimation.STRIDE)
    except ValueError as error:
        raise errors.InvalidArgument(
            f"{path}.decimation: there is none with the number {limits.decimation}",
            field=f"{path}.decimation",
        ) from error
    most = limits.max_elements
    if most == 0:
        if limits.decimation:
            raise errors.InvalidArgument(
                f"{path}.max_elements: say to how many elements arrays are decimated",
                field=f"{path}.max_elements",
            )
        return None
    least = 2 if decimation == Decimation.MIN_MAX else 1
    if not least <= most <= _MAX_ELEMENTS:
        raise errors.InvalidArgument(
            f"{path}.max_elements: {most} is not between {least} and {_MAX_ELEMENTS}; 0 sends"
            " arrays whole",
            field=f"{path}.max_elements",
        )
    return ArrayShape(most, decimation)


def read_change(request: pb.ModifyWatchRequest) -> SubscriptionChange:
    """What a client asks for. Raises `InvalidArgument`, `Unimplemented`."""
    if request.change == 0:
        raise errors.InvalidArgument(
            "change: number the changes of a session from 1", field="change"
        )
    change = SubscriptionChange(request.change, request.subscription)
    match request.WhichOneof("action"):
        case "add":
            added = read_selector(request.add, "add")
            return replace(change, amend=partial(with_added, added))
        case "remove":
            removed = read_selector(request.remove, "remove")
            return replace(change, amend=partial(with_removed, removed))
        case "replace":
            return replace(change, replacement=read_wanted(request.replace, path="replace"))
        case "end":
            return change
        case _:
            raise errors.InvalidArgument(
                "action: say one of add, remove, replace, end", field="action"
            )
