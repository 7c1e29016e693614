"""`drey restore plan|undo|show|list|plans`: making and looking at plans and restores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from drey_cli.commands.snapshot_take import SnapshotArgument
from drey_cli.contracts import restore_pb2, restore_service_pb2, state_pb2
from drey_cli.durations import parse_duration
from drey_cli.errors import CliError
from drey_cli.naming import own_restore_id, plan_id, restore_id, snapshot_id
from drey_cli.parts import whole_rows
from drey_cli.registry import command
from drey_cli.render.documents import as_document, as_documents
from drey_cli.render.restores import (
    plan_facts,
    plan_table,
    plans_table,
    restore_facts,
    restore_items_table,
    restore_verdict,
    restores_table,
)
from drey_cli.render.times import format_count
from drey_cli.selection import Choice
from drey_cli.session import Session, new_request_id

_SHOWN = 50


def plan(
    session: Session,
    choice: Choice,
    snapshot: SnapshotArgument,
    exact: Annotated[
        bool, typer.Option("--exact", help="Also write what is within tolerance, not equal.")
    ] = False,
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="It may be run so long. Default 15m.")
    ] = "",
    comment: Annotated[str, typer.Option("--comment", help="Comment.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Most items shown; 0 is all.")
    ] = _SHOWN,
) -> None:
    """Make a plan from a snapshot: what would be written, and what is left out and why.

    Nothing is written to the machine. Without a choice of PVs: all of the snapshot.
    """

    client = session.client
    request = restore_service_pb2.CreatePlanRequest(
        spec=restore_pb2.PlanSpec(
            state=state_pb2.StateRef(snapshot_id=snapshot_id(client, snapshot)),
            selector=choice.optional(),
            exact=exact,
            comment=comment,
        ),
        request_id=new_request_id(),
    )
    if lifetime:
        request.spec.lifetime.CopyFrom(parse_duration(lifetime, option="--lifetime"))
    _make_plan(session, request, limit)


def undo(
    session: Session,
    choice: Choice,
    restore: Annotated[
        str, typer.Argument(metavar="RESTORE", help="Id, part of one, or latest: your own newest.")
    ],
    also_changed: Annotated[
        bool,
        typer.Option("--also-changed", help="Also what somebody has changed since the restore."),
    ] = False,
    comment: Annotated[str, typer.Option("--comment", help="Comment.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Most items shown; 0 is all.")
    ] = _SHOWN,
) -> None:
    """Plan the way back of a restore: what was there before, of what it sent, stages in reverse.

    Nothing is written to the machine. What somebody has changed since is left out, and named.
    """
    client = session.client
    undone = restore_pb2.UndoOf(
        restore_id=own_restore_id(client, restore), also_changed=also_changed
    )
    spec = restore_pb2.PlanSpec(undo=undone, selector=choice.optional(), comment=comment)
    request = restore_service_pb2.CreatePlanRequest(spec=spec, request_id=new_request_id())
    _make_plan(session, request, limit)


def _make_plan(
    session: Session, request: restore_service_pb2.CreatePlanRequest, limit: int
) -> None:
    made = session.client.call(session.client.restores.CreatePlan, request).plan
    _show_plan(session, made, limit=limit, skips=False)
    if made.HasField("approval"):
        session.out.note(f"a second person has to approve it: drey restore approve {made.id}")
    if made.writes:
        session.out.note(f"to write it: drey restore run {made.id}")


def _show_plan(session: Session, made: restore_pb2.Plan, *, limit: int, skips: bool) -> None:

    if session.out.json:
        items = read_plan(session, made.id, writes_only=False)
        session.out.document({"plan": as_document(made), "items": as_documents(items)})
        return
    items = read_plan(session, made.id, writes_only=not skips, limit=limit)
    if items:
        table = plan_table(items)
        total = made.pvs if skips else made.writes
        if len(items) < total:
            table.note = f"the first {len(items)} of {format_count(total)}; --limit 0 shows all"
        session.out.table(table)
    session.out.table(plan_facts(made, utc=session.out.utc))
    if not skips:
        _show_policies(session, made)


def _show_policies(session: Session, made: restore_pb2.Plan) -> None:
    """Name what is left out because its policy cannot be followed: nobody expects that."""

    left_out = sum(s.pvs for s in made.skips if s.reason == restore_pb2.SKIP_REASON_POLICY)
    if not left_out:
        return
    reasons = [restore_pb2.SKIP_REASON_POLICY]
    table = plan_table(read_plan(session, made.id, writes_only=False, limit=_SHOWN, skips=reasons))
    table.title = "left out, for their restore policy cannot be followed"
    if left_out > _SHOWN:
        table.note = f"the first {_SHOWN} of {left_out}; drey restore show --plan {made.id} --all"
    session.out.table(table)


def read_plan(
    session: Session,
    plan_id: str,
    *,
    writes_only: bool,
    limit: int = 0,
    skips: Sequence[restore_pb2.SkipReason.ValueType] = (),
) -> list[restore_pb2.PlanItem]:
    """Items of a plan, writes first. `limit` 0: all; else the stream is left early.

    With `skips` those that are left out for one of these reasons.
    """

    client = session.client
    request = restore_service_pb2.ReadPlanRequest(id=plan_id, writes_only=writes_only, skips=skips)
    items: list[restore_pb2.PlanItem] = []
    with client.stream(client.restores.ReadPlan, request) as stream:
        for item in whole_rows(item for message in stream for item in message.items):
            items.append(item)
            if len(items) == limit:
                break
    return items


def show(
    session: Session,
    what: Annotated[
        str, typer.Argument(metavar="RESTORE|PLAN", help="Id, part of one, or latest.")
    ] = "latest",
    is_plan: Annotated[
        bool, typer.Option("--plan", help="It is a plan; else restores are looked at first.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Most items shown; 0 is all.")
    ] = _SHOWN,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was verified, or left out of the plan.")
    ] = False,
) -> None:
    """Show a restore with its verdicts, or a plan with its items."""

    client = session.client
    if not is_plan:
        try:
            identity = restore_id(client, what)
            answer = client.call(
                client.restores.GetRestore, restore_service_pb2.GetRestoreRequest(id=identity)
            ).restore
        except CliError as error:
            if error.reason != "NOT_FOUND":
                raise
        else:
            show_restore(session, answer, limit=limit, everything=everything)
            return
    identity = plan_id(client, what)
    request = restore_service_pb2.GetPlanRequest(id=identity)
    found_plan = client.call(client.restores.GetPlan, request).plan
    _show_plan(session, found_plan, limit=limit, skips=everything)


def show_restore(
    session: Session, restore: restore_pb2.Restore, *, limit: int, everything: bool
) -> None:
    """Draw a restore: the PVs that are not verified, the counts, the verdict in a line."""

    if session.out.json:
        items = read_restore(session, restore.id, everything=True)
        session.out.document({"restore": as_document(restore), "items": as_documents(items)})
        return
    items = read_restore(session, restore.id, everything=everything, limit=limit)
    if items:
        table = restore_items_table(items)
        if limit and len(items) >= limit:
            table.note = f"the first {limit}; --limit 0 shows all"
        session.out.table(table)
    session.out.table(restore_facts(restore, utc=session.out.utc))
    session.out.cell(restore_verdict(restore))


def read_restore(
    session: Session, restore_id: str, *, everything: bool, limit: int = 0
) -> list[restore_pb2.RestoreItem]:
    """Items of a restore by name; without `everything` those that are not as they should be."""

    fine = {restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_EQUAL_ALREADY, 0}
    verdicts = [each for each in restore_pb2.Verdict.values() if each not in fine]
    client = session.client
    request = restore_service_pb2.ReadRestoreRequest(
        id=restore_id, verdicts=[] if everything else verdicts
    )
    items: list[restore_pb2.RestoreItem] = []
    with client.stream(client.restores.ReadRestore, request) as stream:
        for item in whole_rows(item for message in stream for item in message.items):
            # An item that the plan skipped because it is equal is no trouble to show.
            if everything or item.skip != restore_pb2.SKIP_REASON_EQUAL:
                items.append(item)
            if limit and len(items) == limit:
                break
    return items


def list_restores(
    session: Session,
    plans: Annotated[bool, typer.Option("--plans", help="Plans instead of restores.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most; 0 is all.")] = 50,
) -> None:
    """List restores, or plans, newest first."""

    client, size = session.client, min(limit or 1000, 1000)

    def fetch_plans(token: str) -> tuple[Iterable[restore_pb2.Plan], str]:
        answer = client.call(
            client.restores.ListPlans,
            restore_service_pb2.ListPlansRequest(page_size=size, page_token=token),
        )
        return answer.plans, answer.next_page_token

    def fetch_restores(token: str) -> tuple[Iterable[restore_pb2.Restore], str]:
        answer = client.call(
            client.restores.ListRestores,
            restore_service_pb2.ListRestoresRequest(page_size=size, page_token=token),
        )
        return answer.restores, answer.next_page_token

    if plans:
        found = list(client.pages(fetch_plans, limit=limit))
        if session.out.json:
            session.out.document({"plans": as_documents(found)})
        else:
            session.out.table(plans_table(found, utc=session.out.utc))
        return
    restores = list(client.pages(fetch_restores, limit=limit))
    if session.out.json:
        session.out.document({"restores": as_documents(restores)})
    else:
        session.out.table(restores_table(restores, utc=session.out.utc))


def register(restore: typer.Typer) -> None:
    """Add the commands to `drey restore`."""
    command(
        restore,
        "plan",
        examples=(
            "drey restore plan latest",
            "drey restore plan golden-2026 --tag Region=LI21 --except 'MOTR:*'",
        ),
    )(plan)
    command(
        restore,
        "undo",
        examples=("drey restore undo latest", "drey restore undo 0192f3a4 --also-changed"),
    )(undo)
    command(
        restore,
        "show",
        examples=("drey restore show latest", "drey restore show --plan latest --all"),
    )(show)
    command(restore, "list", examples=("drey restore list --plans",))(list_restores)
