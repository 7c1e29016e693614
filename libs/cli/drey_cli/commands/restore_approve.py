"""`drey restore approve|reject|approvals`: the second person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drey_cli.commands.restore import get_plan, restore_command
from drey_cli.commands.restore_run import check_digest
from drey_cli.contracts import restore_pb2, restore_service_pb2
from drey_cli.naming import plan_id
from drey_cli.options import SPAN, argument, limit_option, option, reason_option, yes_option
from drey_cli.render.restores import approvals_table, plan_facts
from drey_cli.render.words import plural
from drey_cli.session import CliSession, command

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

plan_argument = argument("plan", help="Id, a unique part of one, or latest.")


@command(
    "approve",
    restore_command,
    gives="ApprovePlanResponse",
    examples=("drey restore approve 0192f3a4 --reason 'shutdown work'",),
)
@plan_argument
@reason_option
@option("--lifetime", type=SPAN, metavar="TIME", help="So long. Default: as the plan.")
@yes_option
def approve_plan(
    session: CliSession, plan: str, reason: str, lifetime: Duration | None, yes: bool
) -> None:
    """Approve the plan of another, as its digest is computed here from what the plan says.

    Look at it first: drey restore show --plan PLAN.
    """
    client = session.client
    known_plan = get_plan(session, plan_id(client, plan))
    request = restore_service_pb2.ApprovePlanRequest(
        id=known_plan.id, digest=known_plan.digest, reason=reason, lifetime=lifetime
    )
    check_digest(session, known_plan)
    if not session.out.json:
        session.out.print_table(plan_facts(known_plan, utc=session.out.utc))
    question = f"Approve that {plural(known_plan.writes, 'value')} are written to the machine?"
    session.confirm_action(question, yes=yes)
    answer = client.call_method(client.restores.ApprovePlan, request)
    session.show_document(answer, lambda: approvals_table([answer.approval], utc=session.out.utc))


@command(
    "reject",
    restore_command,
    gives="RejectPlanResponse",
    examples=("drey restore reject 0192f3a4 --reason 'beam is on'",),
)
@plan_argument
@option("--reason", "-r", required=True, help="Why; it is audited.")
def reject_plan(session: CliSession, plan: str, reason: str) -> None:
    """Reject the plan of another: it is never executed, even if it was approved."""
    client = session.client
    request = restore_service_pb2.RejectPlanRequest(id=plan_id(client, plan), reason=reason)
    answer = client.call_method(client.restores.RejectPlan, request)
    session.show_document(answer, lambda: approvals_table([answer.approval], utc=session.out.utc))


@command(
    "approvals",
    restore_command,
    gives="{approvals}",
    examples=("drey restore approvals", "drey restore approvals --all"),
)
@option("--all", "everything", is_flag=True, help="Also those that were decided, or are over.")
@limit_option(50, "Most")
def list_approvals(session: CliSession, everything: bool, limit: int) -> None:
    """List the plans that wait for a second person, newest first."""
    client = session.client
    states = [] if everything else [restore_pb2.APPROVAL_STATE_PENDING]
    request = restore_service_pb2.ListApprovalsRequest(states=states)
    approvals = list(
        client.list_items(client.restores.ListApprovals, request, "approvals", limit=limit)
    )
    session.show_document(
        {"approvals": approvals}, lambda: approvals_table(approvals, utc=session.out.utc)
    )
