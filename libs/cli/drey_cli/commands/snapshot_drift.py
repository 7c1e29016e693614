"""`drey snapshot drift`: how the live machine differs from a snapshot, until Ctrl-C."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from drey_cli.commands.snapshot_compare import read_state_ref
from drey_cli.commands.snapshot_take import snapshot_command
from drey_cli.contracts import compare_pb2, monitor_service_pb2
from drey_cli.drifting import DriftModel
from drey_cli.errors import CliError, ExitCode
from drey_cli.options import SPAN, argument, choice_of, option
from drey_cli.render.comparisons import drift_table, drift_verdict
from drey_cli.render.table import escape, text_of
from drey_cli.render.words import number_of
from drey_cli.selection import Choice, choosing_by_option
from drey_cli.session import CliSession, command

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.console import RenderableType

    from drey_cli.client import Stream

_REDRAW_S = 0.25


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
@option("--interval", type=SPAN, metavar="TIME", help="Least time between two updates.")
@option(
    "--for", "duration", type=SPAN, metavar="TIME", help="Stop after this long. Default: never."
)
def drift(
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
    from drey_cli.following import SILENCE_S, WATCH_TIMEOUT_S, follow_ticks

    client, model = session.client, DriftModel()
    spec = monitor_service_pb2.DriftSpec(
        reference=read_state_ref(client, reference),
        selector=choice.optional(),
        hysteresis=hysteresis,
        tolerance_source=number_of(compare_pb2.ToleranceSource, tolerances),
        min_interval=interval,
    )

    def open_stream() -> Stream[monitor_service_pb2.WatchDriftResponse]:
        request = monitor_service_pb2.WatchDriftRequest(spec=spec, token=model.token)
        return client.stream(client.monitor.WatchDrift, request, timeout_s=WATCH_TIMEOUT_S)

    until = time.monotonic() + duration.ToNanoseconds() / 1e9 if duration else float("inf")
    with _make_display(session, model) as display:
        for item in follow_ticks(open_stream, silence_s=SILENCE_S):
            if isinstance(item, monitor_service_pb2.WatchDriftResponse):
                display.changed(item, *model.apply(item))
            elif item is not None:
                model.lost()
                display.lost(item.error)
            if time.monotonic() >= until:
                return
            display.tick()
    raise CliError(
        "the server ended the watch",
        reason="WATCH_ENDED",
        remedy="start it again",
        code=ExitCode.UNAVAILABLE,
    )


def _make_display(session: CliSession, model: DriftModel) -> DriftDisplay:
    if session.out.json:
        return JsonDriftDisplay(session, model)
    kind = LiveDriftDisplay if session.out.is_terminal else DriftDisplay
    return kind(session, model)


class DriftDisplay:
    """Where drift is shown. The base shows each change as a line: for pipes."""

    def __init__(self, session: CliSession, model: DriftModel) -> None:
        self.session, self.model = session, model

    def __enter__(self) -> DriftDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def changed(
        self,
        message: monitor_service_pb2.WatchDriftResponse,
        rows: list[monitor_service_pb2.DriftRow],
        left: list[str],
    ) -> None:
        out = self.session.out
        for cells in drift_table(rows).rows:
            name, role, then, now, deviation, kind = map(text_of, cells)
            bar_and_number = deviation.split()
            words = [name, role, f"reference={then}", f"now={now}", *bar_and_number[1:], kind]
            out.text(" ".join(words))
        for name in left:
            out.text(f"{name} same again")
        if message.HasField("summary"):
            out.text(text_of(drift_verdict(message.summary)))
        self._tell_notice()

    def _tell_notice(self) -> None:
        if self.model.notice:
            self.session.out.note(self.model.notice)
            self.model.notice = ""

    def lost(self, error: CliError) -> None:
        self.session.out.note(f"stale: {error.message}; connecting again", "yellow")

    def tick(self) -> None:
        """Time to draw, a few times a second."""


class JsonDriftDisplay(DriftDisplay):
    """Each message of the stream as a line of JSON."""

    def changed(
        self,
        message: monitor_service_pb2.WatchDriftResponse,
        rows: list[monitor_service_pb2.DriftRow],
        left: list[str],
    ) -> None:
        self.session.out.line(message)

    def lost(self, error: CliError) -> None:
        """Say so in the stream too: what comes next may be a new baseline."""
        self.session.out.line({"connection_lost": error.as_dict()["error"]})


class LiveDriftDisplay(DriftDisplay):
    """A table that stays on the terminal."""

    def __init__(self, session: CliSession, model: DriftModel) -> None:
        super().__init__(session, model)
        self._live = session.out.live("")
        self._drawn = 0.0
        self._notice = ""

    def __enter__(self) -> LiveDriftDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        # What stays on the terminal is the last state, not the last tick.
        self._live.update(self._draw_table(), refresh=True)
        self._live.__exit__(None, None, None)

    def changed(
        self,
        message: monitor_service_pb2.WatchDriftResponse,
        rows: list[monitor_service_pb2.DriftRow],
        left: list[str],
    ) -> None:
        """Drawing waits for the tick."""
        if self.model.complete and self.model.connected and not self.model.stalled:
            self._notice = ""
        self._notice, self.model.notice = self.model.notice or self._notice, ""

    def lost(self, error: CliError) -> None:
        """Say so under the table."""
        self._notice = f"{error.message}; connecting again"

    def tick(self) -> None:
        """Draw at most four times a second."""
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._live.update(self._draw_table(), refresh=True)

    def _draw_table(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        from drey_cli.output import rich_table

        model, size = self.model, self.session.out.console.size
        table = drift_table(model.ordered_rows)
        room = max(3, size.height - 6)
        hidden = len(table.rows) - room
        table.rows = table.rows[:room]
        verdict = drift_verdict(model.summary)
        status = "stalled · " if model.stalled else "" if model.connected else "connecting · "
        line = status + text_of(verdict)
        line += f" · {hidden} more lines not shown" if hidden > 0 else ""
        parts: list[RenderableType] = [rich_table(table, size.width), Text(line, verdict.style)]
        return Group(*parts, Text(escape(self._notice), "dim")) if self._notice else Group(*parts)
