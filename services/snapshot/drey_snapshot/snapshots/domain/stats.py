"""What a snapshot says about itself: counts by state, and skew."""

from __future__ import annotations

import numpy as np

from drey_core.pages import Pages
from drey_core.times import is_suspect
from drey_core.values import I8, KIND_NONE, Origin, State
from drey_snapshot.snapshots.domain.records import Skew, StateCounts


def measure_pages(pages: Pages, now_ns: int) -> tuple[StateCounts, Skew]:
    """Counts and skew of the channels that are not absent. Pure; a few passes over the columns.

    A channel that is connected and gives no value counts as disconnected: it is there, or was, and
    has nothing to show. Ages are of the connected at `now_ns`; suspect source times are left out
    of the skew.
    """
    state = pages.values["state"].reshape(-1)
    kind = pages.values["kind"].reshape(-1)
    connected = (state == State.CONNECTED) & (kind != KIND_NONE)
    channels = int(np.count_nonzero(state))
    source = pages.values["source_time"].reshape(-1)[connected]
    receive = pages.times["receive_time"].reshape(-1)[connected]
    origin = pages.times["origin"].reshape(-1)[connected]
    suspect = is_suspect(source, receive)
    severity = pages.values["severity"].reshape(-1)[connected]
    n_connected = int(connected.sum())
    never = int(np.count_nonzero(state == State.NEVER_CONNECTED))
    unsupported = int(np.count_nonzero(state == State.UNSUPPORTED))
    counts = StateCounts(
        channels=channels,
        connected=n_connected,
        disconnected=channels - n_connected - never - unsupported,
        never_connected=never,
        in_alarm=int(np.count_nonzero(severity)),
        source_time_suspect=int(suspect.sum()),
        by_monitor=int(np.count_nonzero(origin == Origin.MONITOR)),
        unsupported=unsupported,
    )
    return counts, _measure_skew(source[~suspect & (source != 0)], now_ns)


def _measure_skew(source: I8, now_ns: int) -> Skew:
    if len(source) == 0:
        return Skew()
    middle, high = (len(source) - 1) // 2, (len(source) - 1) * 99 // 100
    ages = now_ns - source
    ages.partition(sorted({middle, high}))
    return Skew(int(source.min()), int(source.max()), int(ages[middle]), int(ages[high]))
