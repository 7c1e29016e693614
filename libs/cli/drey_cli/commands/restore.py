"""`drey restore plan|undo|show|list`: making and looking at plans and restores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drey_cli.commands import SUMMARIES
from drey_cli.conditions import PlanRules, rules_options
from drey_cli.contracts import restore_pb2, restore_service_pb2
from drey_cli.edits import given_values, plan_edits
from drey_cli.errors import CliError, usage_error
from drey_cli.naming import plan_id, restore_id, snapshot_id
from drey_cli.options import SPAN, argument, choice_of, comment_option, limit_option, option
from drey_cli.render.plan_page import plan_csv, plan_html
from drey_cli.render.restore_page import restore_csv, restore_html
from drey_cli.render.restores import (
    plan_facts,
    plan_table,
    plans_table,
    restore_facts,
    restore_items_table,
    restore_verdict,
    restores_table,
)
from drey_cli.render.words import format_count
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command, group
from drey_client.parts import whole_rows

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

restore_command = group(SUMMARIES["restore"])
_SHOWN = 50
items_option = limit_option(_SHOWN, "Most items shown")
output_option = option(
    "--output",
    type=choice_of("csv", "json", "html"),
    help="All of it as CSV, as JSON, or as one HTML page for the logbook.",
)
own_restore_argument = argument("restore", help="Id, part of one, or latest: your own newest.")


@command(
    "plan",
    restore_command,
    gives="{plan, items}",
    examples=(
        "drey restore plan latest",
        "drey restore plan golden-2026 --tag Area=LI21 --except 'COLL:*'",
        "drey restore plan latest --scale 'QUAD:*=1.02' --set MODE=Standby",
        "drey restore plan --set QUAD:LI21:101:BDES=1.5 --set MODE=Standby",
        "drey restore plan --values tuned.csv",
        "drey restore plan latest --guard 'SR:CURRENT < 0.1 and MODE == \"MD\"' --gate 0=0",
        "drey restore plan latest --gate '1=SR:VACUUM < 1e-7' --rollback-after 5",
    ),
)
@argument("snapshot", required=False)
@choosing
@option("--exact", is_flag=True, help="Also write what is within tolerance, not equal.")
@option(
    "--set",
    "given",
    multiple=True,
    metavar="PV=VALUE",
    help="Write this, instead of what the snapshot has (a pattern will do) or without one: a label,"
    " a number, JSON. Repeatable.",
)
@option(
    "--values",
    metavar="FILE",
    help="Values without a snapshot: CSV with the columns PV and value, or a JSON object; - is"
    " stdin.",
)
@option("--scale", multiple=True, metavar="PV=FACTOR", help="Scale the stored value. Repeatable.")
@option("--offset", multiple=True, metavar="PV=NUMBER", help="Add to it, scaled. Repeatable.")
@option("--lifetime", type=SPAN, metavar="TIME", help="It may be run so long. Default 15m.")
@rules_options
@comment_option
@items_option
@output_option
def create_plan(
    session: CliSession,
    choice: Choice,
    snapshot: str | None,
    exact: bool,
    given: tuple[str, ...],
    values: str | None,
    scale: tuple[str, ...],
    offset: tuple[str, ...],
    lifetime: Duration | None,
    rules: PlanRules,
    comment: str,
    limit: int,
    output: str | None,
) -> None:
    """Make a plan from a snapshot: what would be written, and what is left out and why.

    SNAPSHOT is an id, part of it, latest, latest~N, or an exact title; without one the values are
    those of --set and --values. Nothing is written to the machine. Without a choice of PVs: all of
    the snapshot, or of the values.

    What must hold (--guard, --gate) and when it goes back (--rollback-...) belongs to the plan: its
    digest covers it, and nobody changes it at 3 a.m. In a condition a PV is its readback, or its
    setpoint where it has none; setpoint(NAME) is its setpoint. An enumeration is its label, in
    quotes. What cannot be known does not hold.
    """
    spec = restore_pb2.PlanSpec(
        selector=choice.optional_selector(), exact=exact, lifetime=lifetime, comment=comment
    )
    if snapshot is None:
        spec.values.CopyFrom(given_values(given, values))
        if not spec.values.values:
            raise usage_error(
                "neither a snapshot nor values to plan from",
                remedy="name a snapshot (drey snapshot list), or give --set PV=VALUE or --values",
            )
        given = ()
    elif values is not None:
        raise usage_error(
            "--values is a source of its own, and so is a snapshot",
            remedy="leave the snapshot out, or edit its values with --set",
        )
    else:
        spec.state.snapshot_id = snapshot_id(session.client, snapshot)
    spec.edits.extend(plan_edits(given, scale, offset))
    rules.add_to(spec)
    _make_plan(session, spec, limit, output)


@command(
    "undo",
    restore_command,
    gives="{plan, items}",
    examples=("drey restore undo latest", "drey restore undo 0192f3a4 --also-changed"),
)
@own_restore_argument
@choosing
@option("--also-changed", is_flag=True, help="Also what somebody has changed since the restore.")
@rules_options
@comment_option
@items_option
@output_option
def plan_undo(
    session: CliSession,
    choice: Choice,
    restore: str,
    also_changed: bool,
    rules: PlanRules,
    comment: str,
    limit: int,
    output: str | None,
) -> None:
    """Plan the way back of a restore: what was there before, of what it sent, stages in reverse.

    Nothing is written to the machine. What somebody has changed since is left out, and named.
    """
    undone = restore_pb2.UndoOf(
        restore_id=restore_id(session.client, restore, own=True), also_changed=also_changed
    )
    spec = restore_pb2.PlanSpec(undo=undone, selector=choice.optional_selector(), comment=comment)
    rules.add_to(spec)
    _make_plan(session, spec, limit, output)


def _make_plan(
    session: CliSession, spec: restore_pb2.PlanSpec, limit: int, output: str | None
) -> None:
    request = restore_service_pb2.CreatePlanRequest(spec=spec)
    made = session.client.call_method(session.client.restores.CreatePlan, request).plan
    _show_plan(session, made, limit=limit, skips=False, output=output)
    if made.HasField("approval"):
        session.out.print_note(f"a second person has to approve it: drey restore approve {made.id}")
    if made.writes:
        session.out.print_note(f"to write it: drey restore run {made.id}")


def _show_plan(
    session: CliSession, made: restore_pb2.Plan, *, limit: int, skips: bool, output: str | None
) -> None:
    utc = session.out.utc
    if output == "csv":
        session.out.write_raw(plan_csv(read_plan(session, made.id), utc=utc).encode())
        return
    if output == "html":
        session.out.write_raw(plan_html(made, read_plan(session, made.id), utc=utc).encode())
        return
    if session.out.json or output == "json":
        session.out.write_document({"plan": made, "items": read_plan(session, made.id)})
        return
    items = read_plan(session, made.id, writes_only=not skips, limit=limit)
    if items:
        table = plan_table(items)
        total = made.pvs if skips else made.writes
        if len(items) < total:
            table.note = f"the first {len(items)} of {format_count(total)}; --limit 0 shows all"
        session.out.print_table(table)
    session.out.print_table(plan_facts(made, utc=session.out.utc))
    if not skips:
        _show_policies(session, made)


def _show_policies(session: CliSession, made: restore_pb2.Plan) -> None:
    """Name what is left out because its policy cannot be followed: nobody expects that."""
    left_out = sum(s.pvs for s in made.skips if s.reason == restore_pb2.SKIP_REASON_POLICY)
    if not left_out:
        return
    reasons = [restore_pb2.SKIP_REASON_POLICY]
    table = plan_table(read_plan(session, made.id, limit=_SHOWN, skips=reasons))
    table.title = "left out, for their restore policy cannot be followed"
    if left_out > _SHOWN:
        table.note = f"the first {_SHOWN} of {left_out}; drey restore show --plan {made.id} --all"
    session.out.print_table(table)


def read_plan(
    session: CliSession,
    plan_id: str,
    *,
    writes_only: bool = False,
    limit: int = 0,
    skips: Sequence[restore_pb2.SkipReason.ValueType] = (),
) -> list[restore_pb2.PlanItem]:
    """Items of a plan, writes first. `limit` 0: all; else the stream is left early.

    With `skips` those that are left out for one of these reasons.
    """
    client = session.client
    request = restore_service_pb2.ReadPlanRequest(id=plan_id, writes_only=writes_only, skips=skips)
    items: list[restore_pb2.PlanItem] = []
    with client.stream_method(client.restores.ReadPlan, request) as stream:
        for item in whole_rows(item for message in stream for item in message.items):
            items.append(item)
            if len(items) == limit:
                break
    return items


@command(
    "show",
    restore_command,
    gives="{restore, items} or {plan, items}",
    examples=(
        "drey restore show latest",
        "drey restore show latest --output html > restore.html",
        "drey restore show --plan latest --all",
        "drey restore show --plan latest --output html > plan.html",
    ),
)
@argument(
    "what",
    default="latest",
    metavar="[RESTORE|PLAN]",
    help="Id, part of one, or latest, which it is where nothing is said.",
)
@option("--plan", "is_plan", is_flag=True, help="It is a plan; else restores are looked at first.")
@option("--all", "everything", is_flag=True, help="Also what was verified, or left out.")
@items_option
@output_option
def show_plan_or_restore(
    session: CliSession,
    what: str,
    is_plan: bool,
    everything: bool,
    limit: int,
    output: str | None,
) -> None:
    """Show a restore with its verdicts, or a plan with its items."""
    client = session.client
    if not is_plan:
        try:
            request = restore_service_pb2.GetRestoreRequest(id=restore_id(client, what))
            answer = client.call_method(client.restores.GetRestore, request)
        except CliError as error:
            if error.reason != "NOT_FOUND":
                raise
        else:
            if output is None:
                show_restore(session, answer.restore, limit=limit, everything=everything)
            else:
                _report_restore(session, answer.restore, output)
            return
    known_plan = get_plan(session, plan_id(client, what))
    _show_plan(session, known_plan, limit=limit, skips=everything, output=output)


def _report_restore(session: CliSession, restore: restore_pb2.Restore, output: str) -> None:
    items, utc = read_restore(session, restore.id, everything=True), session.out.utc
    if output == "csv":
        session.out.write_raw(restore_csv(items, utc=utc).encode())
    elif output == "html":
        session.out.write_raw(restore_html(restore, items, utc=utc).encode())
    else:
        session.out.write_document({"restore": restore, "items": items})


def get_plan(session: CliSession, plan_id: str) -> restore_pb2.Plan:
    client = session.client
    request = restore_service_pb2.GetPlanRequest(id=plan_id)
    return client.call_method(client.restores.GetPlan, request).plan


def get_restore(session: CliSession, identity: str) -> restore_pb2.Restore:
    client = session.client
    request = restore_service_pb2.GetRestoreRequest(id=identity)
    return client.call_method(client.restores.GetRestore, request).restore


def show_restore(
    session: CliSession, restore: restore_pb2.Restore, *, limit: int, everything: bool
) -> None:
    """Draw a restore: the PVs that are not verified, the counts, the verdict in a line."""
    if session.out.json:
        items = read_restore(session, restore.id, everything=True)
        session.out.write_document({"restore": restore, "items": items})
        return
    items = read_restore(
        *(session, restore.id),
        everything=everything,
        interfered=bool(restore.interfered),
        limit=limit,
    )
    if items:
        table = restore_items_table(items)
        if limit and len(items) >= limit:
            table.note = f"the first {limit}; `drey restore show {restore.id} --limit 0` shows all"
        session.out.print_table(table)
    session.out.draw_parts([restore_facts(restore, utc=session.out.utc), restore_verdict(restore)])


def read_restore(
    session: CliSession,
    restore_id: str,
    *,
    everything: bool,
    interfered: bool = False,
    limit: int = 0,
) -> list[restore_pb2.RestoreItem]:
    """Items of a restore by name; without `everything` those that are not as they should be.

    And, where `interfered`, those that somebody else changed meanwhile.
    """
    fine = {restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_EQUAL_ALREADY, 0}
    verdicts = [each for each in restore_pb2.Verdict.values() if each not in fine]
    client = session.client
    request = restore_service_pb2.ReadRestoreRequest(
        id=restore_id, verdicts=[] if everything or interfered else verdicts
    )
    items: list[restore_pb2.RestoreItem] = []
    with client.stream_method(client.restores.ReadRestore, request) as stream:
        for item in whole_rows(item for message in stream for item in message.items):
            # An item that the plan skipped because it is equal is no trouble to show.
            shown = item.verdict not in fine and item.skip != restore_pb2.SKIP_REASON_EQUAL
            if everything or shown or item.interferences:
                items.append(item)
            if limit and len(items) == limit:
                break
    return items


@command(
    "list",
    restore_command,
    gives="{restores}; with --plans {plans}",
    examples=("drey restore list", "drey restore list --plans --limit 10"),
)
@option("--plans", is_flag=True, help="Plans instead of restores.")
@limit_option(50, "Most")
def list_restores(session: CliSession, plans: bool, limit: int) -> None:
    """List restores, or plans, newest first, with their states and counts."""
    client, utc = session.client, session.out.utc
    if plans:
        list_plans = restore_service_pb2.ListPlansRequest()
        known_plans = list(
            client.list_items(client.restores.ListPlans, list_plans, "plans", limit=limit)
        )
        session.show_document({"plans": known_plans}, lambda: plans_table(known_plans, utc=utc))
        return
    request = restore_service_pb2.ListRestoresRequest()
    restores = list(
        client.list_items(client.restores.ListRestores, request, "restores", limit=limit)
    )
    session.show_document({"restores": restores}, lambda: restores_table(restores, utc=utc))
