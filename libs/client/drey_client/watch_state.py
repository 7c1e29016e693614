"""What a watch of PVs holds, folded from its messages. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from drey_client.parts import RowJoiner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drey.common.v1 import value_pb2
    from drey.monitor.v1 import monitor_service_pb2, watch_pb2


FRESH, STALE = 1, 2
CHANNELS_CHANGED = 3
"""A PV that leaves, and joins again at once."""
_SETPOINT, _READBACK = 1, 2


class ChannelPair(NamedTuple):
    """Metadata of a PV's channels; None where there is none."""

    setpoint: value_pb2.ChannelMetadata | None = None
    readback: value_pb2.ChannelMetadata | None = None


@dataclass(slots=True)
class WatchChange:
    """What one message changed: rows with news, and a notice for people (or none)."""

    rows: list[value_pb2.PvRow] = field(default_factory=list)
    notice: str = ""


class WatchModel:
    """State of a watch: rows and metadata by permanent number, the token, how fresh it is."""

    def __init__(self) -> None:
        self.rows: dict[int, value_pb2.PvRow] = {}
        self.metadata: dict[int, ChannelPair] = {}
        self.token = ""
        self.expected = 0
        self.merged = 0
        self.updates = 0
        self.complete = False
        self.stalled = False
        self.connected = False
        self._joiner: RowJoiner[value_pb2.PvRow] = RowJoiner()

    @property
    def stale_count(self) -> int:
        """Number of PVs whose values cannot be believed to be the present ones."""
        return sum(
            any(
                value.freshness == STALE
                for value in (row.setpoint, row.readback)
                if value.WhichOneof("data")
            )
            for row in self.rows.values()
        )

    def mark_lost(self) -> None:
        """The stream ended: what is held is kept, and is stale until it goes on."""
        self.connected = False
        self.complete = False
        self._joiner = RowJoiner()
        self._mark_freshness(STALE, self.rows)

    def apply_message(self, message: monitor_service_pb2.WatchPvsResponse) -> WatchChange:
        """Fold one message in; say what is new."""
        self.connected = True
        kind = message.WhichOneof("part")
        if kind == "diff":
            self.merged += message.diff.merged
            self.updates += len(message.diff.rows)
            return WatchChange(self._apply_rows(message.diff.rows))
        if kind == "baseline":
            return WatchChange(self._apply_rows(message.baseline.rows))
        if kind == "baseline_begin":
            return self._apply_begin(message.baseline_begin)
        if kind == "baseline_end":
            rows = self._keep_rows(self._joiner.finish_rows())
            self.complete, self.token = True, message.baseline_end.token
            return WatchChange(rows)
        if kind == "checkpoint":
            return self._apply_checkpoint(message.checkpoint)
        if kind == "freshness":
            return self._apply_freshness(message.freshness)
        if kind == "left":
            return self._apply_left(message.left)
        if kind == "metadata":
            for row in message.metadata.rows:
                self.metadata[row.number] = ChannelPair(row.setpoint, row.readback)
                if row.number in self.rows:
                    self.rows[row.number].name = row.name
        if kind == "names":
            return WatchChange(notice="; ".join(_name_notices(message.names)))
        if kind == "resync_required":
            self.token = ""
            return WatchChange(notice=f"starting anew: {message.resync_required.reason}")
        return WatchChange()

    def _apply_begin(self, begin: watch_pb2.BaselineBegin) -> WatchChange:
        self.expected = begin.pv_count
        self.complete = False
        if begin.keeps_state:
            self._mark_freshness(FRESH, self.rows)
        else:
            self.rows.clear()
        return WatchChange()

    def _apply_rows(self, rows: Iterable[value_pb2.PvRow]) -> list[value_pb2.PvRow]:
        whole: list[value_pb2.PvRow] = []
        for row in rows:
            whole.extend(self._joiner.feed_row(row))
        return self._keep_rows(whole)

    def _keep_rows(self, rows: Iterable[value_pb2.PvRow]) -> list[value_pb2.PvRow]:
        """What a row does not hold is as it was; rows as they are now."""
        kept = []
        for row in rows:
            held = self.rows.setdefault(row.number, row)
            held.name = row.name
            for role in ("setpoint", "readback") if held is not row else ():
                if row.HasField(role):
                    getattr(held, role).CopyFrom(getattr(row, role))
            kept.append(held)
        return kept

    def _apply_checkpoint(self, checkpoint: watch_pb2.Checkpoint) -> WatchChange:
        self.token = checkpoint.token or self.token
        if checkpoint.stalled == self.stalled:
            return WatchChange()
        self.stalled = checkpoint.stalled
        return WatchChange(
            notice="stalled: what is shown may be old" if self.stalled else "goes on"
        )

    def _apply_freshness(self, change: watch_pb2.FreshnessChange) -> WatchChange:
        numbers = list(self.rows) if change.all else list(change.pv_numbers)
        self._mark_freshness(change.freshness, numbers)
        word = "stale" if change.freshness == STALE else "fresh"
        reason = f": {change.reason}" if change.reason else ""
        which = "all PVs" if change.all else f"{len(numbers)} PVs"
        return WatchChange(notice=f"{word}: {which}{reason}")

    def _mark_freshness(self, freshness: int, numbers: Iterable[int]) -> None:
        for number in numbers:
            row = self.rows.get(number)
            if row is None:
                continue
            for role in ("setpoint", "readback"):
                if row.HasField(role):
                    getattr(row, role).freshness = freshness

    def _apply_left(self, left: watch_pb2.PvsLeft) -> WatchChange:
        for pv in left.pvs:
            self.rows.pop(pv.number, None)
            self.metadata.pop(pv.number, None)
        gone = [pv.name for pv in left.pvs if pv.reason != CHANNELS_CHANGED]
        if not gone:
            return WatchChange()
        names = ", ".join(gone[:5])
        return WatchChange(notice=f"left the watch: {names}")


def _name_notices(names: watch_pb2.NamesUnderstood) -> Iterator[str]:
    yield from map(link_text, names.links)
    yield from (f"nothing is named {name} so far" for name in names.not_found)


def link_text(link: watch_pb2.NameLink) -> str:
    """What a name means that is not the PV's own."""
    if link.role == _READBACK:
        return f"{link.asked} is the readback of {link.name}"
    if link.role == _SETPOINT:
        return f"{link.asked} is the setpoint of {link.name}"
    return f"{link.asked} is {link.name}"
