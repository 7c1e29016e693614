"""`drey snapshot drift`: how the live machine differs from a snapshot, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from drey_cli.commands.snapshot_compare import read_state_ref
from drey_cli.commands.snapshot_take import snapshot_command
from drey_cli.contracts import compare_pb2, monitor_service_pb2
from drey_cli.options import argument, choice_of, duration_option, interval_option, option
from drey_cli.render.comparisons import drift_table, drift_verdict
from drey_cli.render.table import Cell, Table, text_of
from drey_cli.render.words import number_of
from drey_cli.selection import Choice, choosing_by_option
from drey_cli.session import CliSession, command
from drey_client.watch_state import STALE

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


@command(
    "drift",
    snapshot_command,
    gives="WatchDriftResponse a line; {connection_lost} where the stream broke",
    examples=(
        "drey snapshot drift golden:",
        "drey snapshot drift latest --device QUAD --hysteresis 0.8",
        "drey snapshot drift golden:injector --json --for 10s > drift.jsonl",
    ),
)
@argument("reference", help="A snapshot, or golden:LABEL.")
@choosing_by_option
@option(
    "--hysteresis",
    type=float,
    default=0.0,
    metavar="PART",
    help="What differed goes on to until it is below this part of its tolerance, 0 to 1.",
)
@option(
    "--tolerances",
    type=choice_of("reference", "catalog", "exact"),
    default="reference",
    help="Whose.",
)
@interval_option
@duration_option
def watch_drift(
    session: CliSession,
    choice: Choice,
    reference: str,
    hysteresis: float,
    tolerances: str,
    interval: Duration | None,
    duration: Duration | None,
) -> None:
    """Watch how the machine differs from a snapshot: what does now, then what enters, changes and
    leaves. Connects again by itself; follows a golden mark that moves.

    On a terminal a table that stays, the greatest deviation first; into a pipe a line for each
    change; with --json each message of the stream as it came.
    """
    from drey_cli.watching import show_watch

    client, view = session.client, DriftView()
    spec = monitor_service_pb2.DriftSpec(
        reference=read_state_ref(client, reference),
        selector=choice.optional_selector(),
        hysteresis=hysteresis,
        tolerance_source=number_of(compare_pb2.ToleranceSource, tolerances),
        min_interval=interval,
    )

    def make_request() -> monitor_service_pb2.WatchDriftRequest:
        return monitor_service_pb2.WatchDriftRequest(spec=spec, token=view.token)

    show_watch(session, lambda client: client.monitor.WatchDrift, make_request, view, duration)


class DriftView:
    """PVs that are not the same, by permanent number; how many there are; the token."""

    def __init__(self) -> None:
        self.rows: dict[int, monitor_service_pb2.DriftRow] = {}
        self.summary = monitor_service_pb2.DriftSummary()
        self.token = self.notice = ""
        self.complete = self.connected = self.stalled = False

    def note_loss(self) -> None:
        """What is held is kept until the stream goes on."""
        self.connected = self.complete = False

    def is_over(self) -> bool:
        return False

    def apply_message(self, message: monitor_service_pb2.WatchDriftResponse) -> Iterator[str]:
        self.connected = True
        notice_before, self.notice = self.notice, ""
        lines = self._fold_message(message)
        if not (self.complete and not self.stalled):
            # it stays until all is well again
            self.notice = self.notice or notice_before
        return lines

    def _fold_message(self, message: monitor_service_pb2.WatchDriftResponse) -> Iterator[str]:
        kind = message.WhichOneof("part")
        if kind == "baseline_begin":
            self.complete = False
            if not message.baseline_begin.keeps_state:
                self.rows.clear()
        elif kind == "baseline":
            return self._put_rows(message.baseline.rows)
        elif kind == "changed":
            gone = [self.rows.pop(n, None) for n in message.changed.left]
            names = [row.live.name for row in gone if row is not None]
            return chain(
                self._put_rows(message.changed.rows), (f"{name} same again" for name in names)
            )
        elif kind == "summary":
            self.summary = message.summary
            return iter([text_of(drift_verdict(message.summary))])
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
        return iter(())

    def _put_rows(self, rows: Iterable[monitor_service_pb2.DriftRow]) -> Iterator[str]:
        changed = list(rows)
        self.rows |= {row.live.number: row for row in changed}
        return _row_lines(changed)

    def draw_state(self, room: int) -> tuple[Table, Cell]:
        """The greatest deviation first; those without one at the end, by name."""

        def sort_key(row: monitor_service_pb2.DriftRow) -> tuple[bool, float, str]:
            return not row.HasField("deviation"), -row.deviation, row.live.name

        table = drift_table(sorted(self.rows.values(), key=sort_key))
        hidden = len(table.rows) - room
        table.rows = table.rows[:room]
        verdict = drift_verdict(self.summary)
        line = "stalled · " if self.stalled else "" if self.connected else "connecting · "
        line += text_of(verdict)
        line += f" · {hidden} more lines not shown" if hidden > 0 else ""
        return table, Cell(line, verdict.style)


def _row_lines(rows: list[monitor_service_pb2.DriftRow]) -> Iterator[str]:
    """A line for each channel that is not the same."""
    for cells in drift_table(rows).rows:
        name, role, then, now, deviation, kind = map(text_of, cells)
        bar_and_number = deviation.split()
        words = [name, role, f"reference={then}", f"now={now}", *bar_and_number[1:], kind]
        yield " ".join(words)
