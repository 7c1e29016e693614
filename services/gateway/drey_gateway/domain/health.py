"""Whether the values of a shard can be believed to be the present ones."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SILENT_AFTER_NS = 1_500_000_000
"""An owner that gave no sign of life for so long is taken for gone; it gives two a second."""
SKEW_TOLD_NS = 1_000_000_000
"""Clocks of two hosts that differ by more are told; freshness is judged by our own alone."""
SIGNS_COMPARED = 8
"""Signs of life by which clocks are compared: of four seconds."""
RESYNC_GRACE_NS = 500_000_000
"""Reading the image takes milliseconds; a stream out of step for longer is stale."""


@dataclass(slots=True)
class ClockDifference:
    """By how much the clock of another host is ahead of ours, by the messages that it sends."""

    ahead_ns: int = 0
    _differences: deque[int] = field(default_factory=lambda: deque(maxlen=SIGNS_COMPARED))

    def compare_clocks(self, sent_ns: int, received_ns: int) -> None:
        """A message came: when it was sent by that clock, and came by ours.

        A message that was long on its way, or lay here unread, makes that clock seem to be behind.
        So the one that took least of the last few counts.
        """
        self._differences.append(sent_ns - received_ns)
        self.ahead_ns = max(self._differences)

    @property
    def is_told(self) -> bool:
        """Whether the clocks of the two hosts differ by more than anybody should bear."""
        return abs(self.ahead_ns) > SKEW_TOLD_NS


@dataclass(slots=True)
class ShardHealth:
    """Signs of life of one shard. Times are of one monotonic clock, nanoseconds."""

    shard: int
    heard_at: int | None = None
    clock: ClockDifference = field(default_factory=ClockDifference)
    """Of the owner's host."""
    out_of_sync_since: int | None = None
    _compared: str = ""

    def note_heard(self, now: int) -> None:
        """A sign of life came."""
        self.heard_at = now

    def compare_clocks(self, host: str, sent_ns: int, received_ns: int) -> None:
        """A message came from the owner's host; see `ClockDifference`."""
        if host != self._compared:
            self._compared, self.clock = host, ClockDifference()
        self.clock.compare_clocks(sent_ns, received_ns)

    def note_sync(self, in_sync: bool, now: int) -> None:
        """Say whether the stream is complete."""
        if in_sync:
            self.out_of_sync_since = None
        elif self.out_of_sync_since is None:
            self.out_of_sync_since = now

    def age_ms(self, now: int) -> int | None:
        """Age of the last sign of life; None: there was none."""
        return None if self.heard_at is None else max(now - self.heard_at, 0) // 1_000_000

    def why_stale(self, now: int, bus_connected: bool) -> str:
        """Why its values are stale; empty when they are fresh."""
        if not bus_connected:
            return "the bus (NATS) is away"
        if self.heard_at is None:
            return f"monitor of shard {self.shard} has not been heard of"
        if now - self.heard_at > SILENT_AFTER_NS:
            return f"monitor of shard {self.shard} is silent"
        since = self.out_of_sync_since
        if since is not None and now - since > RESYNC_GRACE_NS:
            return f"shard {self.shard} is being read again from the image"
        return ""
