"""Times and spans for people. Times are whole nanoseconds since 1970 UTC; 0 is none."""

from __future__ import annotations

from datetime import UTC, datetime

NONE = "—"
_NS = 1_000_000_000


def format_time(ns: int, *, utc: bool) -> str:
    """ISO 8601: local time to the millisecond, or UTC to the nanosecond. 0 gives a dash."""
    if not ns:
        return NONE
    seconds, rest = divmod(ns, _NS)
    try:
        if utc:
            moment = datetime.fromtimestamp(seconds, UTC)
            return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
        moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    except (OverflowError, OSError, ValueError):
        # Beyond the calendar, as a broken clock of an IOC can be: still shown, never dropped.
        return f"{ns} ns"
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}{offset[:3]}:{offset[3:]}"


def format_span(ns: int) -> str:
    """A duration with the unit that suits it: `3.2 ms`, `12.0 s`, `5 min 3 s`."""
    if ns < 0:
        return "-" + format_span(-ns)
    if ns < 1_000:
        return f"{ns} ns"
    if ns < 1_000_000:
        return f"{ns / 1e3:.1f} µs"
    if ns < _NS:
        return f"{ns / 1e6:.1f} ms"
    seconds = ns // _NS
    if seconds < 60:
        return f"{ns / 1e9:.1f} s"
    for size, name, small, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {name}" + (f" {rest} {small_name}" if rest else "")
    raise AssertionError("unreachable: less than a minute was handled above")


def format_count(number: int) -> str:
    """A count with narrow groups: `40 000`."""
    return f"{number:,}".replace(",", "\u202f")


def plural(number: int, word: str) -> str:
    """`1 PV`, `2 PVs`."""
    return f"{format_count(number)} {word}" + ("" if number == 1 else "s")
