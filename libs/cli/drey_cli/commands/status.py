"""`drey status`: how the whole does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.contracts import system_service_pb2
from drey_cli.exits import ExitCode
from drey_cli.registry import command, command_app
from drey_cli.render.system import health_cell, summary_tables
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Stream

app = command_app()


@command(app, "status", examples=("drey status", "drey status --json | jq .summary.healthy"))
def status(
    session: Session,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until Ctrl-C.")] = False,
) -> None:
    """Show how the whole does: services, shards, findings. Exit 1 unless it is healthy."""
    if watch:
        _watch(session)
        return
    client = session.client
    answer = client.call(
        client.system.GetSystemSummary, system_service_pb2.GetSystemSummaryRequest()
    )
    if session.out.json:
        session.out.document(answer)
    else:
        _draw(session, answer.summary)
    if not answer.summary.healthy:
        raise typer.Exit(ExitCode.REFUSED)


def _draw(session: Session, summary: system_service_pb2.SystemSummary) -> None:

    for table in summary_tables(summary, utc=session.out.utc):
        session.out.table(table)
    session.out.cell(health_cell(summary))


def _watch(session: Session) -> None:
    from drey_cli.client import WATCH_TIMEOUT_S
    from drey_cli.following import Follower, Lost

    client = session.client

    def open_stream() -> Stream[system_service_pb2.WatchSystemSummaryResponse]:
        request = system_service_pb2.WatchSystemSummaryRequest()
        return client.stream(client.system.WatchSystemSummary, request, timeout_s=WATCH_TIMEOUT_S)

    with Follower(open_stream) as follower:
        while True:
            try:
                item = follower.get(0.25)
            except EOFError:
                return
            if isinstance(item, Lost):
                session.out.note(f"{item.error.message}; connecting again", "yellow")
            elif item is not None and session.out.json:
                session.out.line(item)
            elif item is not None:
                if session.out.is_terminal:
                    session.out.console.clear()
                _draw(session, item.summary)
