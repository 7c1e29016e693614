"""`drey restore approve|reject|approvals`: the second person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from drey_cli.commands.restore_run import check_digest
from drey_cli.contracts import restore_pb2, restore_service_pb2
from drey_cli.durations import parse_duration
from drey_cli.exits import ExitCode
from drey_cli.naming import plan_id
from drey_cli.registry import command
from drey_cli.render.documents import as_documents
from drey_cli.render.restores import approvals_table, plan_facts
from drey_cli.render.times import plural
from drey_cli.session import Session, new_request_id

PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", help="Id, a unique part of one, or latest.")
]


def approve(
    session: Session,
    plan: PlanArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")] = "",
    lifetime: Annotated[
        str,
        typer.Option("--lifetime", metavar="TIME", help="So long. Default: as the plan."),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Approve the plan of another, as its digest is computed here from what the plan says.

    Look at it first: drey restore show --plan PLAN.
    """
    client = session.client
    found = _get_plan(session, plan)
    request = restore_service_pb2.ApprovePlanRequest(
        id=found.id, digest=found.digest, reason=reason, request_id=new_request_id()
    )
    if lifetime:
        request.lifetime.CopyFrom(parse_duration(lifetime, option="--lifetime"))
    check_digest(session, found)
    if not session.out.json:
        session.out.table(plan_facts(found, utc=session.out.utc))
    question = f"Approve that {plural(found.writes, 'value')} are written to the machine?"
    if not session.out.confirm(question, yes=yes):
        session.out.note("it was not approved")
        raise typer.Exit(ExitCode.REFUSED)
    _show(session, client.call(client.restores.ApprovePlan, request).approval)


def reject(
    session: Session,
    plan: PlanArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")],
) -> None:
    """Reject the plan of another: it is never executed, even if it was approved."""
    client = session.client
    request = restore_service_pb2.RejectPlanRequest(
        id=_get_plan(session, plan).id, reason=reason, request_id=new_request_id()
    )
    _show(session, client.call(client.restores.RejectPlan, request).approval)


def approvals(
    session: Session,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were decided, or are over.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most; 0 is all.")] = 50,
) -> None:
    """List the plans that wait for a second person, newest first."""
    client, size = session.client, min(limit or 1000, 1000)
    states = [] if everything else [restore_pb2.APPROVAL_STATE_PENDING]

    def fetch_approvals(token: str) -> tuple[Iterable[restore_pb2.Approval], str]:
        request = restore_service_pb2.ListApprovalsRequest(
            page_size=size, page_token=token, states=states
        )
        answer = client.call(client.restores.ListApprovals, request)
        return answer.approvals, answer.next_page_token

    found = list(client.pages(fetch_approvals, limit=limit))
    if session.out.json:
        session.out.document({"approvals": as_documents(found)})
    else:
        session.out.table(approvals_table(found, utc=session.out.utc))


def _get_plan(session: Session, text: str) -> restore_pb2.Plan:
    client = session.client
    request = restore_service_pb2.GetPlanRequest(id=plan_id(client, text))
    return client.call(client.restores.GetPlan, request).plan


def _show(session: Session, approval: restore_pb2.Approval) -> None:
    if session.out.json:
        session.out.document(approval)
    else:
        session.out.table(approvals_table([approval], utc=session.out.utc))


def register(restore: typer.Typer) -> None:
    """Add the commands to `drey restore`."""
    command(
        restore, "approve", examples=("drey restore approve 0192f3a4 --reason 'shutdown work'",)
    )(approve)
    command(restore, "reject", examples=("drey restore reject 0192f3a4 --reason 'beam is on'",))(
        reject
    )
    command(restore, "approvals", examples=("drey restore approvals",))(approvals)
