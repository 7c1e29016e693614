"""`drey event`: what changes."""

from __future__ import annotations

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import event_pb2, event_service_pb2
from drey_cli.options import choice_of, option
from drey_cli.render.words import format_stamp, number_of, short_name
from drey_cli.session import CliSession, command, group

event_command = group(SUMMARIES["event"])

_RESOURCES = (
    *("pv", "tag-group", "tag", "policy", "snapshot", "golden", "plan", "restore", "job", "key"),
)


@command(
    "watch",
    event_command,
    gives="Event a line",
    examples=("drey event watch --of snapshot --of restore",),
)
@option("--of", "resources", type=choice_of(*_RESOURCES), multiple=True, help="Only of these.")
@option("--token", default="", help="Go on after an event: its token, see --json.")
def watch_events(session: CliSession, resources: list[str], token: str) -> None:
    """Show changes as they happen, until Ctrl-C. With --json: an event a line."""
    from drey_cli.following import SIGN_OF_LIFE_S, follow_stream

    request = event_service_pb2.WatchEventsRequest(
        token=token, resources=[number_of(event_pb2.EventResource, each) for each in resources]
    )
    stalled = False
    for message in follow_stream(
        session, lambda client: client.events.WatchEvents, request, silence_s=SIGN_OF_LIFE_S
    ):
        match message.WhichOneof("part"):
            case "begin":
                request.token = message.begin.token
            case "checkpoint":
                request.token = message.checkpoint.token
                if message.checkpoint.stalled != stalled:
                    stalled = message.checkpoint.stalled
                    session.out.print_note(
                        "the database is away" if stalled else "it is back", "yellow"
                    )
            case "resync_required":
                session.out.print_note(
                    f"events were missed: {message.resync_required.reason}", "yellow"
                )
            case "events":
                request.token = message.events.events[-1].token
                for event in message.events.events:
                    session.out.write_entry(event, event_line(event, utc=session.out.utc))


def event_line(event: event_pb2.Event, *, utc: bool) -> str:
    """One event as it is followed."""
    kind = short_name(event_pb2.EventKind, event.kind)
    parts = [
        format_stamp(event.time, utc=utc),
        event.actor.principal,
        short_name(event_pb2.EventResource, event.resource),
        f"is {event.state}" if event.state else kind,
    ]
    if event.HasField("bulk"):
        bulk = event.bulk
        counts = {
            "new": bulk.created,
            "changed": bulk.updated,
            "deleted": bulk.deleted,
            "back": bulk.undeleted,
        }
        parts.append(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    else:
        parts += [event.name, event.id]
    return "  ".join(part for part in parts if part)
