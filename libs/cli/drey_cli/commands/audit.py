"""`drey audit`: who did what."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import audit_pb2, audit_service_pb2
from drey_cli.errors import ExitCode
from drey_cli.options import COUNT, MOMENT, limit_option, option
from drey_cli.render.table import (
    Cell,
    Table,
    id_field,
    spare_field,
    table_of,
    text_field,
    time_field,
)
from drey_cli.render.words import format_stamp
from drey_cli.session import CliSession, command, end_with, group

audit_command = group(SUMMARIES["audit"])
_VERIFY_S = 600.0


by_option = option("--by", default="", metavar="NAME", help="Only acts of this person or key.")
action_option = option("--action", default="", help="Only actions that begin so: access.key.")
object_option = option("--object", "target", default="", help="Only acts on this: keys/ID.")
_since_option = option("--since", type=MOMENT, metavar="TIME", help="Only from this time on.")
_until_option = option("--until", type=MOMENT, metavar="TIME", help="Only before this time.")


def filter_options(function: Any) -> Any:
    """The options that say which acts; the function gets them as the `request` for these."""

    @wraps(function)
    def run(*arguments: Any, by: str, action: str, target: str, **values: Any) -> Any:
        times = {"from_time": values.pop("since"), "to_time": values.pop("until")}
        request = audit_service_pb2.ListEventsRequest(
            principal=by, action_prefix=action, target=target, **times
        )
        return function(*arguments, request=request, **values)

    decorated: Any = run
    options = (by_option, action_option, object_option, _since_option, _until_option)
    for each in reversed(options):
        decorated = each(decorated)
    return decorated


@command(
    "list",
    audit_command,
    gives="{events}",
    examples=("drey audit list --by ann --action restore.",),
)
@filter_options
@limit_option(50, "Most acts")
def list_events(
    session: CliSession, request: audit_service_pb2.ListEventsRequest, limit: int
) -> None:
    """List acts, newest first."""
    client = session.client
    events = list(client.list_items(client.audit.ListEvents, request, "events", limit=limit))
    session.show_document({"events": events}, lambda: acts_table(events, utc=session.out.utc))


@command(
    "watch",
    audit_command,
    gives="AuditEvent a line",
    examples=("drey audit watch --action restore.",),
)
@by_option
@action_option
@object_option
@option("--after", type=COUNT, metavar="NUMBER", help="Begin after this number; 0: all.")
def watch_acts(session: CliSession, by: str, action: str, target: str, after: int | None) -> None:
    """Show acts as they are done, until Ctrl-C. With --json: an act a line."""
    from drey_cli.following import SIGN_OF_LIFE_S, follow_stream

    request = audit_service_pb2.WatchEventsRequest(
        principal=by, action_prefix=action, target=target, after_sequence=after
    )
    for message in follow_stream(
        session, lambda client: client.audit.WatchEvents, request, silence_s=SIGN_OF_LIFE_S
    ):
        if message.WhichOneof("part") == "checkpoint":
            request.after_sequence = message.checkpoint.sequence
            continue
        request.after_sequence = message.events.events[-1].sequence
        for event in message.events.events:
            session.out.write_entry(event, act_line(event, utc=session.out.utc))


@command("verify", audit_command, gives="VerifyChainResponse", examples=("drey audit verify",))
def verify_chain(session: CliSession) -> None:
    """Compute the hash of every act again, and compare with the anchors outside the database."""
    client = session.client
    request = audit_service_pb2.VerifyChainRequest()
    answer = client.call_method(client.audit.VerifyChain, request, timeout_s=_VERIFY_S)

    def draw_findings() -> Table | str:
        if answer.findings:
            return findings_table(answer.findings)
        anchored = "compared with no anchor: what was cut off at its end would not show"
        if answer.anchor_count:
            anchored_at = format_stamp(answer.last_anchor_time, utc=session.out.utc)
            anchored = f"compared with {answer.anchor_count} anchors, the last of {anchored_at}"
        return f"{answer.last_sequence} acts, the chain is whole; {anchored}"

    session.show_document(answer, draw_findings)
    if answer.findings:
        end_with(ExitCode.REFUSED)


def acts_table(events: Iterable[audit_pb2.AuditEvent], *, utc: bool) -> Table:
    return table_of(
        events,
        text_field("number", lambda event: str(event.sequence)),
        time_field("time", lambda event: event.time, utc=utc),
        text_field("by", lambda event: event.actor.principal),
        spare_field(text_field("roles", lambda event: ", ".join(event.actor.roles))),
        spare_field(text_field("from", lambda event: event.address)),
        text_field("action", lambda event: event.action),
        id_field("object", lambda event: event.target),
        spare_field(text_field("what there is since", lambda event: event.after_json, fold=True)),
    )


def act_line(event: audit_pb2.AuditEvent, *, utc: bool) -> str:
    """One act as it is followed."""
    time = format_stamp(event.time, utc=utc)
    words = f"{event.sequence}  {time}  {event.actor.principal}  {event.action}  {event.target}"
    return f"{words}  {event.after_json}".rstrip()


def findings_table(findings: Iterable[audit_pb2.ChainFinding]) -> Table:
    return table_of(
        findings,
        text_field("number", lambda finding: str(finding.sequence or "—")),
        text_field("what is wrong", lambda finding: Cell(finding.problem, "red"), fold=True),
    )
