"""Times as whole nanoseconds since 1970 UTC. 0 means there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from drey_core.values import I8

NS_PER_SECOND = 1_000_000_000
SUSPECT_BEFORE_NS = 662_688_000 * NS_PER_SECOND
"""1991-01-01: a record that was never processed says 1990-01-01, the epoch of EPICS."""
SUSPECT_AHEAD_NS = 60 * NS_PER_SECOND
"""How far a source clock may run before ours until it is not believed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_suspect(source_ns: I8, receive_ns: I8) -> NDArray[np.bool_]:
    """Which source times are not to be believed; shapes (n,) in, (n,) out.

    Before 1991, or more than a minute after the receive time. A source time of 0 is none at all,
    and not suspect; without a receive time (0) only the first rule counts.
    """
    # `source > receive` first: only then can the minute be taken off without wrapping int64.
    late = (source_ns > receive_ns) & (source_ns - SUSPECT_AHEAD_NS > receive_ns)
    ahead = (receive_ns != 0) & late
    suspect: NDArray[np.bool_] = (source_ns != 0) & ((source_ns < SUSPECT_BEFORE_NS) | ahead)
    return suspect


def format_time(ns: int) -> str:
    """RFC 3339 with nine digits, UTC: `2026-08-01T12:00:00.000000000Z`; empty for 0.

    Times outside the years 1 to 9999 cannot occur in int64 nanoseconds.
    """
    if ns == 0:
        return ""
    seconds, fraction = divmod(ns, NS_PER_SECOND)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
