"""`drey pv watch`: live values, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from drey_cli.commands.pv import pv_command, refuse_nothing
from drey_cli.contracts import monitor_service_pb2, value_pb2, watch_pb2
from drey_cli.options import COUNT, choice_of, duration_option, interval_option, option
from drey_cli.render.table import Cell, Table, text_of
from drey_cli.render.values import NO_METADATA, SHOWN_ELEMENTS, row_cells, rows_table
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command
from drey_client.watch_state import WatchModel

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

_FIELDS = {"both": 1, "setpoint": 2, "readback": 3}


@command(
    "watch",
    pv_command,
    gives="WatchPvsResponse a line; {connection_lost} where the stream broke",
    examples=(
        "drey pv watch QUAD:LI21:101:BDES BPMS:LI21:901:X",
        "drey pv watch --tag Area=LI21 --interval 1s",
        "drey pv watch --device BPMS --json --for 10s > bpm.jsonl",
    ),
)
@choosing
@option("--fields", type=choice_of(*_FIELDS), default="both", help="Which channels.")
@interval_option
@option("--allow-unknown", is_flag=True, help="Wait for names that are not there yet.")
@duration_option
@option(
    "--count",
    type=COUNT,
    default=0,
    metavar="NUMBER",
    help="Stop after this many changed rows. 0: never.",
)
def watch_pvs(
    session: CliSession,
    choice: Choice,
    fields: str,
    interval: Duration | None,
    allow_unknown: bool,
    duration: Duration | None,
    count: int,
) -> None:
    """Watch PVs: their values now, then each change. Connects again by itself.

    On a terminal a table that stays; into a pipe a line for each change; with --json each message
    of the stream as it came.
    """
    from drey_cli.watching import show_watch

    spec = watch_pb2.WatchSpec(
        selector=choice.required_selector(),
        with_metadata=not session.out.json,
        allow_unknown=allow_unknown,
        min_interval=interval,
    )
    if not session.out.json:
        # what is shown of an array: more is not sent
        spec.array_limits.max_elements = SHOWN_ELEMENTS + 1
        spec.array_limits.decimation = value_pb2.ARRAY_DECIMATION_FIRST
    spec.fields = _FIELDS[fields]  # type: ignore[assignment]
    model = WatchModel()
    view = PvView(model, None if allow_unknown else choice, count, utc=session.out.utc)

    def make_request() -> monitor_service_pb2.WatchPvsRequest:
        return monitor_service_pb2.WatchPvsRequest(spec=spec, token=model.token)

    show_watch(session, lambda client: client.monitor.WatchPvs, make_request, view, duration)


class PvView:
    """A watch of PVs as it looks.

    `refused`: end where this chooses nothing at all, instead of waiting for it. `count`: end after
    so many changed rows (0: never).
    """

    def __init__(self, model: WatchModel, refused: Choice | None, count: int, *, utc: bool) -> None:
        self.model, self.utc, self.notice = model, utc, ""
        self._refused, self._count, self._seen = refused, count, 0
        self._recent: dict[int, float] = {}

    def apply_message(self, message: monitor_service_pb2.WatchPvsResponse) -> Iterator[str]:
        change = self.model.apply_message(message)
        if message.HasField("diff"):
            self._seen += len(change.rows)
            now = time.monotonic()
            self._recent |= dict.fromkeys((row.number for row in change.rows), now)
        self.notice = change.notice or self.notice
        return map(self._row_line, change.rows)

    def _row_line(self, row: value_pb2.PvRow) -> str:
        metadata = self.model.metadata.get(row.number, NO_METADATA)
        cells = row_cells(row, metadata, utc=self.utc)
        name, setpoint, readback, alarm, when = map(text_of, cells)
        return f"{when} {name} setpoint={setpoint} readback={readback} {alarm}".rstrip()

    def note_loss(self) -> None:
        self.model.mark_lost()

    def is_over(self) -> bool:
        if self._refused is not None and self.model.complete:
            refuse_nothing(list(self.model.rows), self._refused)
            self._refused = None
        return 0 < self._count <= self._seen

    def draw_state(self, room: int) -> tuple[Table, Cell]:
        """By name; what changed within the last second stands out."""
        model, now = self.model, time.monotonic()
        self._recent = {
            number: changed_at
            for number, changed_at in self._recent.items()
            if now - changed_at < 1
        }
        rows = sorted(model.rows.values(), key=lambda row: row.name)[:room]
        table = rows_table(rows, model.metadata, utc=self.utc)
        for index, row in enumerate(rows):
            if row.number in self._recent:
                table.rows[index] = [Cell(row.name, "bold green"), *table.rows[index][1:]]
        hidden = len(model.rows) - len(rows)
        more = f" · {hidden} more not shown" if hidden else ""
        status, style = watch_status(model)
        line = f"{status} · {len(model.rows)} PVs · {model.updates} updates"
        return table, Cell(f"{line} · {model.merged} merged{more}", style)


def watch_status(model: WatchModel) -> tuple[str, str]:
    """One word for a watch, and its style: fresh, stale, stalled, connecting."""
    if not model.connected:
        return ("stale, connecting", "yellow") if model.rows else ("connecting", "yellow")
    if model.stalled:
        return "stalled", "bold yellow"
    stale = model.stale_count
    if stale:
        return ("stale" if stale == len(model.rows) else f"{stale} stale"), "yellow"
    return ("fresh", "green") if model.complete else ("loading", "cyan")
