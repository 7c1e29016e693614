"""Durations as people write them: `500ms`, `2s`, `5m`, `1h`, `30d`, or plain seconds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from drey_cli.errors import usage_error

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d|)")


def parse_seconds(text: str, *, option: str) -> float:
    """Seconds of a duration; refuses what is negative, not finite, or not a duration."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise usage_error(
            f"{option}: {text!r} is not a duration",
            field=option,
            remedy="write it as 500ms, 2s, 5m, 1h or 30d",
        )
    seconds = float(match[1]) * _UNITS[match[2]]
    if not math.isfinite(seconds):
        raise usage_error(f"{option}: {text!r} is too long", field=option, remedy="write it as 30d")
    return seconds


def to_duration(seconds: float) -> Duration:
    """The protobuf message of a number of seconds, to the nanosecond."""
    from google.protobuf.duration_pb2 import Duration

    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def parse_duration(text: str, *, option: str) -> Duration:
    """`parse_seconds` as the protobuf message."""
    return to_duration(parse_seconds(text, option=option))
