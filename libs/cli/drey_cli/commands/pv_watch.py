"""`drey pv watch`: live values, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from drey_cli.commands.pv import pv_command, refuse_nothing
from drey_cli.contracts import monitor_service_pb2, watch_pb2
from drey_cli.errors import CliError, ExitCode
from drey_cli.options import COUNT, SPAN, choice_of, option
from drey_cli.render.table import Cell, escape, text_of
from drey_cli.render.values import NO_METADATA, row_cells, rows_table
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command
from drey_client.watch_state import WatchChange, WatchModel

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.console import RenderableType

    from drey_cli.client import Stream
    from drey_cli.following import StreamLost

_REDRAW_S = 0.25
_FIELDS = {"both": 1, "setpoint": 2, "readback": 3}


@command(
    "watch",
    pv_command,
    gives="WatchPvsResponse a line; {connection_lost} where the stream broke",
    examples=(
        "drey pv watch QUAD:LI21:201:BDES BPMS:LI21:201:X",
        "drey pv watch --tag Region=LI21 --interval 1s",
        "drey pv watch --device BPM --json --for 10s > bpm.jsonl",
    ),
)
@choosing
@option("--fields", type=choice_of(*_FIELDS), default="both", help="Which channels.")
@option("--interval", type=SPAN, metavar="TIME", help="Least time between two updates.")
@option("--allow-unknown", is_flag=True, help="Wait for names that are not there yet.")
@option(
    "--for", "duration", type=SPAN, metavar="TIME", help="Stop after this long. Default: never."
)
@option(
    "--count",
    type=COUNT,
    default=0,
    metavar="NUMBER",
    help="Stop after this many changed rows. 0: never.",
)
def watch(
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
    from drey_cli.following import SILENCE_S, WATCH_TIMEOUT_S, follow_ticks

    spec = watch_pb2.WatchSpec(
        selector=choice.required(),
        with_metadata=not session.out.json,
        allow_unknown=allow_unknown,
        min_interval=interval,
    )
    spec.fields = _FIELDS[fields]  # type: ignore[assignment]
    model, client = WatchModel(), session.client

    def open_stream() -> Stream[monitor_service_pb2.WatchPvsResponse]:
        request = monitor_service_pb2.WatchPvsRequest(spec=spec, token=model.token)
        return client.stream(client.monitor.WatchPvs, request, timeout_s=WATCH_TIMEOUT_S)

    until = time.monotonic() + duration.ToNanoseconds() / 1e9 if duration else float("inf")
    with _make_display(session, model) as display:
        ticks = follow_ticks(open_stream, silence_s=SILENCE_S)
        _follow_watch(ticks, model, display, until, count, None if allow_unknown else choice)


def _follow_watch(
    ticks: Iterator[monitor_service_pb2.WatchPvsResponse | StreamLost | None],
    model: WatchModel,
    display: Display,
    until: float,
    count: int,
    refused: Choice | None,
) -> None:
    """`refused`: end where this chooses nothing at all, instead of waiting for it."""
    seen = 0
    for item in ticks:
        if isinstance(item, monitor_service_pb2.WatchPvsResponse):
            change = model.apply(item)
            display.changed(item, change)
            if refused is not None and item.HasField("baseline_end"):
                refuse_nothing(list(model.rows), refused)
                refused = None
            if item.HasField("diff"):
                seen += len(change.rows)
        elif item is not None:
            model.lost()
            display.lost(item.error)
        if (count and seen >= count) or time.monotonic() >= until:
            return
        display.tick()
    raise CliError(
        "the server ended the watch",
        reason="WATCH_ENDED",
        remedy="start it again",
        code=ExitCode.UNAVAILABLE,
    )


class Display:
    """Where a watch is shown. The base shows each change as a line: for pipes."""

    def __init__(self, session: CliSession, model: WatchModel) -> None:
        self.session = session
        self.model = model

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def changed(self, message: monitor_service_pb2.WatchPvsResponse, change: WatchChange) -> None:
        out = self.session.out
        for row in change.rows:
            metadata = self.model.metadata.get(row.number, NO_METADATA)
            name, setpoint, readback, alarm, when = map(
                text_of, row_cells(row, metadata, utc=out.utc)
            )
            out.text(f"{when} {name} setpoint={setpoint} readback={readback} {alarm}".rstrip())
        if change.notice:
            out.note(change.notice)

    def lost(self, error: CliError) -> None:
        self.session.out.note(f"stale: {error.message}; connecting again", "yellow")

    def tick(self) -> None:
        """Time to draw, a few times a second."""


class JsonDisplay(Display):
    """Each message of the stream as a line of JSON."""

    def changed(self, message: monitor_service_pb2.WatchPvsResponse, change: WatchChange) -> None:
        self.session.out.line(message)

    def lost(self, error: CliError) -> None:
        """Say so in the stream too: what comes next may be a new baseline."""
        self.session.out.line({"connection_lost": error.as_dict()["error"]})


class LiveDisplay(Display):
    """A table that stays on the terminal."""

    def __init__(self, session: CliSession, model: WatchModel) -> None:
        super().__init__(session, model)
        self._live = session.out.live("")
        self._recent: dict[int, float] = {}
        self._drawn = 0.0
        self._notice = ""

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        # What stays on the terminal is the last state, not the last tick.
        self._live.update(self._draw_table(), refresh=True)
        self._live.__exit__(None, None, None)

    def changed(self, message: monitor_service_pb2.WatchPvsResponse, change: WatchChange) -> None:
        """Remember what is new; drawing waits for the tick."""
        now = time.monotonic()
        if message.HasField("diff"):
            for row in change.rows:
                self._recent[row.number] = now
        self._notice = change.notice or self._notice

    def lost(self, error: CliError) -> None:
        """Say so under the table."""
        self._notice = f"{error.message}; connecting again"

    def tick(self) -> None:
        """Draw at most four times a second."""
        now = time.monotonic()
        if now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        self._recent = {
            n: changed_at for n, changed_at in self._recent.items() if now - changed_at < 1.0
        }
        self._live.update(self._draw_table(), refresh=True)

    def _draw_table(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        from drey_cli.output import rich_table

        model = self.model
        size = self.session.out.console.size
        room = max(3, size.height - 6)
        rows = sorted(model.rows.values(), key=lambda row: row.name)[:room]
        table = rows_table(rows, model.metadata, utc=self.session.out.utc)
        for index, row in enumerate(rows):
            if row.number in self._recent:
                table.rows[index] = [Cell(row.name, "bold green"), *table.rows[index][1:]]
        hidden = len(model.rows) - len(rows)
        more = f" · {hidden} more not shown" if hidden else ""
        status, style = watch_status(model)
        line = f"{status} · {len(model.rows)} PVs · {model.updates} updates"
        line += f" · {model.merged} merged{more}"
        parts: list[RenderableType] = [rich_table(table, size.width), Text(line, style)]
        return Group(*parts, Text(escape(self._notice), "dim")) if self._notice else Group(*parts)


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


def _make_display(session: CliSession, model: WatchModel) -> Display:
    if session.out.json:
        return JsonDisplay(session, model)
    return LiveDisplay(session, model) if session.out.is_terminal else Display(session, model)
