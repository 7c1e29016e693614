"""`drey event`: what changes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.contracts import event_pb2, event_service_pb2
from drey_cli.registry import command, command_app
from drey_cli.render.enums import number_of
from drey_cli.render.events import event_line
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Stream

app = command_app("Changes of the catalog, of snapshots, plans, restores, jobs and keys.")


@app.callback()
def group() -> None:  # keeps `watch` a word of its own while it is the only one
    ...


class ResourceName(StrEnum):
    """Names of `EventResource`; an enum, for Typer takes no list of literals."""

    PV = "pv"
    TAG_GROUP = "tag-group"
    TAG = "tag"
    SCOPE = "scope"
    SNAPSHOT = "snapshot"
    GOLDEN = "golden"
    PLAN = "plan"
    RESTORE = "restore"
    JOB = "job"
    KEY = "key"


@command(app, "watch", examples=("drey event watch --of snapshot --of restore",))
def watch(
    session: Session,
    resources: Annotated[
        list[ResourceName] | None, typer.Option("--of", help="Only of these; repeat.")
    ] = None,
    token: Annotated[
        str, typer.Option("--token", help="Go on after an event: its token, see --json.")
    ] = "",
) -> None:
    """Show changes as they happen, until Ctrl-C."""
    from drey_cli.client import WATCH_TIMEOUT_S
    from drey_cli.following import SIGN_OF_LIFE_S, follow_to_end, note_lost

    client = session.client
    request = event_service_pb2.WatchEventsRequest(
        token=token,
        resources=[number_of(event_pb2.EventResource, each) for each in resources or ()],
    )

    def open_stream() -> Stream[event_service_pb2.WatchEventsResponse]:
        return client.stream(client.events.WatchEvents, request, timeout_s=WATCH_TIMEOUT_S)

    stream = follow_to_end(
        open_stream, silence_s=SIGN_OF_LIFE_S, on_lost=lambda error: note_lost(session.out, error)
    )
    stalled = False
    for message in stream:
        match message.WhichOneof("part"):
            case "begin":
                request.token = message.begin.token
            case "checkpoint":
                request.token = message.checkpoint.token
                if message.checkpoint.stalled != stalled:
                    stalled = message.checkpoint.stalled
                    session.out.note("the database is away" if stalled else "it is back", "yellow")
            case "resync_required":
                session.out.note(f"events were missed: {message.resync_required.reason}", "yellow")
            case "events":
                request.token = message.events.events[-1].token
                for event in message.events.events:
                    if session.out.json:
                        session.out.line(event)
                    else:
                        session.out.text(event_line(event, utc=session.out.utc))
