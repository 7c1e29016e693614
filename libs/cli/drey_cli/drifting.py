"""What a watch of drift holds, folded from its messages. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drey_cli.contracts import monitor_service_pb2
from drey_client.watch_state import STALE

if TYPE_CHECKING:
    from collections.abc import Iterable


class DriftModel:
    """PVs that are not the same, by permanent number; how many there are; the token."""

    def __init__(self) -> None:
        self.rows: dict[int, monitor_service_pb2.DriftRow] = {}
        self.summary = monitor_service_pb2.DriftSummary()
        self.begin = monitor_service_pb2.DriftBegin()
        self.token = ""
        self.merged = 0
        self.complete = self.connected = self.stalled = False
        self.notice = ""

    @property
    def ordered_rows(self) -> list[monitor_service_pb2.DriftRow]:
        """The greatest deviation first; those without one at the end, by name."""

        def key(row: monitor_service_pb2.DriftRow) -> tuple[bool, float, str]:
            return not row.HasField("deviation"), -row.deviation, row.live.name

        return sorted(self.rows.values(), key=key)

    def lost(self) -> None:
        """The stream ended: what is held is kept until it goes on."""
        self.connected = self.complete = False

    def apply(
        self, message: monitor_service_pb2.WatchDriftResponse
    ) -> tuple[list[monitor_service_pb2.DriftRow], list[str]]:
        """Fold one message in; (rows that entered or changed, names of PVs that left)."""
        self.connected = True
        kind = message.WhichOneof("part")
        if kind == "baseline_begin":
            self.begin, self.complete = message.baseline_begin, False
            if not message.baseline_begin.keeps_state:
                self.rows.clear()
        elif kind == "baseline":
            return self._put(message.baseline.rows), []
        elif kind == "changed":
            self.merged += message.changed.merged
            gone = [self.rows.pop(n, None) for n in message.changed.left]
            names = [row.live.name for row in gone if row is not None]
            return self._put(message.changed.rows), names
        elif kind == "summary":
            self.summary = message.summary
        elif kind == "baseline_end":
            self.token, self.complete = message.baseline_end.token, True
        elif kind == "checkpoint":
            self.token = message.checkpoint.token or self.token
            self.stalled = message.checkpoint.stalled
        elif kind == "freshness":
            change = message.freshness
            word = "stale" if change.freshness == STALE else "fresh"
            which = "all PVs" if change.all else f"{len(change.pv_numbers)} PVs"
            self.notice = f"{word}: {which}" + (f": {change.reason}" if change.reason else "")
        elif kind == "resync_required":
            self.token, self.notice = "", f"starting anew: {message.resync_required.reason}"
        return [], []

    def _put(
        self, rows: Iterable[monitor_service_pb2.DriftRow]
    ) -> list[monitor_service_pb2.DriftRow]:
        changed = list(rows)
        self.rows |= {row.live.number: row for row in changed}
        return changed
