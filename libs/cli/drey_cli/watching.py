"""A watch as it is shown, whatever it is of: a table that stays, lines into a pipe, or JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from drey_cli.errors import CliError, ExitCode
from drey_cli.following import SILENCE_S, WATCH_TIMEOUT_S, StreamLost, follow_ticks
from drey_cli.output import rich_table
from drey_cli.render.table import Cell, Table, escape_text

if TYPE_CHECKING:
    import grpc
    from google.protobuf.duration_pb2 import Duration
    from rich.console import RenderableType

    from drey_cli.client import CliClient, Stream
    from drey_cli.session import CliSession

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)
_REDRAW_S = 0.25


class WatchView(Protocol[R_contra]):
    """What a watch holds and how it looks. `notice` is what people are told beside it, or empty."""

    notice: str

    def apply_message(self, message: R_contra) -> Iterable[str]:
        """Fold a message in; a line for each change, made when it is read."""

    def note_loss(self) -> None:
        """The stream broke: what is held is old until it goes on."""

    def is_over(self) -> bool:
        """Whether all that was asked for is shown. Raises where nothing can be."""

    def draw_state(self, room: int) -> tuple[Table, Cell]:
        """What is held now, in so many rows, and one line on the whole."""


def show_watch(
    session: CliSession,
    method_of: Callable[[CliClient], grpc.UnaryStreamMultiCallable[Any, R]],
    make_request: Callable[[], Any],
    view: WatchView[R],
    duration: Duration | None,
) -> None:
    """Show a watch until it is over, for so long (None: for ever), or until Ctrl-C.

    Connects again by itself, with the request of that moment, to where the server then is.
    """

    def open_stream() -> Stream[R]:
        client = session.find_server_again()
        return client.stream_method(method_of(client), make_request(), timeout_s=WATCH_TIMEOUT_S)

    until = time.monotonic() + duration.ToNanoseconds() / 1e9 if duration else float("inf")
    with _choose_display(session)(session, view) as display:
        for item in follow_ticks(open_stream, silence_s=SILENCE_S):
            if isinstance(item, StreamLost):
                view.note_loss()
                display.note_loss(item.error)
            elif item is not None:
                display.changed(item, view.apply_message(item))
            if view.is_over() or time.monotonic() >= until:
                return
            display.redraw_display()
    raise CliError(
        "the server ended the watch",
        reason="WATCH_ENDED",
        remedy="start it again",
        code=ExitCode.UNAVAILABLE,
    )


def _choose_display(session: CliSession) -> type[WatchDisplay[Any]]:
    if session.out.json:
        return JsonDisplay
    return LiveDisplay if session.out.is_terminal else WatchDisplay


class WatchDisplay(Generic[R]):
    """Where a watch is shown. The base shows each change as a line: for pipes."""

    def __init__(self, session: CliSession, view: WatchView[R]) -> None:
        self.out, self.view = session.out, view

    def __enter__(self) -> WatchDisplay[R]:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def changed(self, message: R, lines: Iterable[str]) -> None:
        """Show what a message changed, and tell its notice once."""
        for line in lines:
            self.out.print_text(line)
        if self.view.notice:
            self.out.print_note(self.view.notice)
            self.view.notice = ""

    def note_loss(self, error: CliError) -> None:
        self.out.print_note(f"stale: {error.message}; connecting again", "yellow")

    def redraw_display(self) -> None:
        """Time to draw, a few times a second."""


class JsonDisplay(WatchDisplay[Any]):
    """Each message of the stream as a line of JSON."""

    def changed(self, message: Any, lines: Iterable[str]) -> None:
        self.out.write_line(message)

    def note_loss(self, error: CliError) -> None:
        """Say so in the stream too: what comes next may be a new baseline."""
        self.out.write_line({"connection_lost": error.as_dict()["error"]})


class LiveDisplay(WatchDisplay[R]):
    """A table that stays on the terminal; drawing waits for the tick."""

    def __init__(self, session: CliSession, view: WatchView[R]) -> None:
        super().__init__(session, view)
        self._live = session.out.live_display("")
        self._drawn_at = 0.0

    def __enter__(self) -> LiveDisplay[R]:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        # What stays on the terminal is the last state, not the last tick.
        self._live.update(self._draw_table(), refresh=True)
        self._live.__exit__(None, None, None)

    def changed(self, message: R, lines: Iterable[str]) -> None:
        """The view holds it already."""

    def note_loss(self, error: CliError) -> None:
        self.view.notice = f"{error.message}; connecting again"

    def redraw_display(self) -> None:
        now = time.monotonic()
        if now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._live.update(self._draw_table(), refresh=True)

    def _draw_table(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        size = self.out.rich_console.size
        table, status = self.view.draw_state(max(3, size.height - 6))
        parts: list[RenderableType] = [
            rich_table(table, size.width),
            Text(status.text, status.style),
        ]
        if self.view.notice:
            parts.append(Text(escape_text(self.view.notice), "dim"))
        return Group(*parts)
