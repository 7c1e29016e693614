"""The one place where services read the clock."""

from __future__ import annotations

import os
import time

from drey_core.ids import RANDOM_BYTES, new_uuid7, new_uuid7s


def now_ns() -> int:
    """Nanoseconds since 1970 UTC."""
    return time.time_ns()


def boottime_s() -> float:
    """Seconds of a clock that never jumps and goes on while the process, or the machine, sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def new_id() -> str:
    """A UUIDv7 of now."""
    return new_uuid7(time.time_ns(), os.urandom(10))


def new_ids(n: int) -> list[str]:
    """n UUIDv7 of now, ascending: the way for many."""
    return new_uuid7s(time.time_ns(), os.urandom(n * RANDOM_BYTES), n)
