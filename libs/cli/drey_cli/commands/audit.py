"""`drey audit`: who did what."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import audit_pb2, audit_service_pb2
from drey_cli.exits import ExitCode
from drey_cli.registry import command, command_app
from drey_cli.render.audit import act_line, events_table, findings_table
from drey_cli.render.documents import as_documents
from drey_cli.render.times import format_time
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Stream

app = command_app(SUMMARIES["audit"])


_VERIFY_S = 600.0
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]


@command(app, "list", examples=("drey audit list --by ann --action restore.",))
def list_events(
    session: Session,
    by: Annotated[str, typer.Option("--by", help="Only acts of this person or key.")] = "",
    action: Annotated[
        str, typer.Option("--action", help="Only actions that begin with this: access.key.")
    ] = "",
    target: Annotated[str, typer.Option("--object", help="Only acts on this: keys/ID.")] = "",
    since: Annotated[
        datetime | None, typer.Option("--since", formats=_TIMES, help="Only from this time on.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=_TIMES, help="Only before this time.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most acts; 0 is all.")] = 50,
) -> None:
    """List acts, newest first."""

    client = session.client
    request = audit_service_pb2.ListEventsRequest(
        page_size=min(limit or 1000, 1000), principal=by, action_prefix=action, target=target
    )
    if since is not None:
        request.from_time.FromDatetime(since.astimezone())
    if until is not None:
        request.to_time.FromDatetime(until.astimezone())

    def fetch_page(token: str) -> tuple[Iterable[audit_pb2.AuditEvent], str]:
        request.page_token = token
        answer = client.call(client.audit.ListEvents, request)
        return answer.events, answer.next_page_token

    events = list(client.pages(fetch_page, limit=limit))
    if session.out.json:
        session.out.document({"events": as_documents(events)})
    else:
        session.out.table(events_table(events, utc=session.out.utc))


@command(app, "watch", examples=("drey audit watch --action restore.",))
def watch(
    session: Session,
    by: Annotated[str, typer.Option("--by", help="Only acts of this person or key.")] = "",
    action: Annotated[
        str, typer.Option("--action", help="Only actions that begin with this: access.key.")
    ] = "",
    target: Annotated[str, typer.Option("--object", help="Only acts on this: keys/ID.")] = "",
    after: Annotated[
        int | None, typer.Option("--after", min=0, help="Begin after this number; 0: all.")
    ] = None,
) -> None:
    """Show acts as they are done, until Ctrl-C."""
    from drey_cli.client import WATCH_TIMEOUT_S
    from drey_cli.following import SIGN_OF_LIFE_S, follow_to_end, note_lost

    client = session.client
    request = audit_service_pb2.WatchEventsRequest(
        principal=by, action_prefix=action, target=target, after_sequence=after
    )

    def open_stream() -> Stream[audit_service_pb2.WatchEventsResponse]:
        return client.stream(client.audit.WatchEvents, request, timeout_s=WATCH_TIMEOUT_S)

    stream = follow_to_end(
        open_stream, silence_s=SIGN_OF_LIFE_S, on_lost=lambda error: note_lost(session.out, error)
    )
    for message in stream:
        if message.WhichOneof("part") == "checkpoint":
            request.after_sequence = message.checkpoint.sequence
            continue
        request.after_sequence = message.events.events[-1].sequence
        for event in message.events.events:
            if session.out.json:
                session.out.line(event)
            else:
                session.out.text(act_line(event, utc=session.out.utc))


@command(app, "verify", examples=("drey audit verify",))
def verify(session: Session) -> None:
    """Compute the hash of every act again, and compare with the anchors outside the database."""

    client = session.client
    answer = client.call(
        client.audit.VerifyChain, audit_service_pb2.VerifyChainRequest(), timeout_s=_VERIFY_S
    )
    if session.out.json:
        session.out.document(answer)
    elif answer.findings:
        session.out.table(findings_table(answer.findings))
    else:
        anchored = "compared with no anchor: what was cut off at its end would not show"
        if answer.anchor_count:
            anchored_at = format_time(answer.last_anchor_time.ToNanoseconds(), utc=session.out.utc)
            anchored = f"compared with {answer.anchor_count} anchors, the last of {anchored_at}"
        session.out.text(f"{answer.last_sequence} acts, the chain is whole; {anchored}")
    if answer.findings:
        raise typer.Exit(ExitCode.REFUSED)
