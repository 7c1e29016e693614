"""`drey restore rehearse`: a plan run against a simulated machine made from its own channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drey_cli.commands.restore import get_plan, read_plan, read_restore, restore_command
from drey_cli.commands.restore_run import check_digest, exit_code
from drey_cli.contracts import (
    monitor_service_pb2,
    restore_pb2,
    restore_service_pb2,
    selector_pb2,
)
from drey_cli.errors import CliError, ExitCode, from_client_error, from_item_error, usage_error
from drey_cli.naming import plan_id
from drey_cli.options import SPAN, argument, limit_option, option
from drey_cli.render.restores import (
    counts_text,
    restore_items_table,
    restore_verdict,
    stage_text,
    state_of,
    verdict_counts,
    verdict_names,
)
from drey_cli.render.table import Cell, Table, name_field, number_field, table_of, text_field
from drey_cli.render.words import format_span, plural
from drey_cli.session import CliSession, command, end_with

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from drey_machine.rehearsal import KnownPv, Rehearsal
    from drey_machine.rehearsal_run import RehearsedCourse, StageCourse

_SHOWN = 50
_NAMES_AT_ONCE = 20_000
_EARLIER_RESTORES = 20
"""How many of the newest restores are looked at for how long writes took."""
_MOST_S = 1800.0


@command(
    "rehearse",
    restore_command,
    gives="{plan, restore, items, stages, recorded, assumed, missing, planned_otherwise}",
    examples=(
        "drey restore rehearse latest",
        "drey restore rehearse 0192f3a4 --write-timeout 60s --for 3h --keep rehearsal",
    ),
)
@argument("plan", help="Id, part of one, or latest.")
@option("--write-timeout", type=SPAN, metavar="TIME", help="For all writes. Default 10s.")
@option("--verify-timeout", type=SPAN, metavar="TIME", help="For readbacks. Default 10s.")
@option(
    "--for",
    "most",
    type=SPAN,
    metavar="TIME",
    help="Most time for all of it; then it is aborted there, and shown. Default 30m.",
)
@option(
    "--keep",
    type=Path,
    metavar="FOLDER",
    help="Keep its state and logs in this new folder, to look at.",
)
@limit_option(_SHOWN, "Most items shown")
def rehearse_plan(
    session: CliSession,
    plan: str,
    write_timeout: Duration | None,
    verify_timeout: Duration | None,
    most: Duration | None,
    keep: Path | None,
    limit: int,
) -> None:
    """Run a plan against a simulated machine made from its own channels. Writes to no real one.

    The machine is a softIOC on loopback of this host, with a Drey of its own beside it: records
    with the values, limits and labels of now, readbacks and done channels that follow after the
    time that earlier restores took. Where there was none, the settle time of the policy is assumed,
    or none. The same plan is made there, and executed. Nothing is left running. What cannot be
    simulated, or is planned otherwise there, is named. It has a bound: a plan that takes longer
    than --for is refused where that is known before, and aborted there where not. Exit code as that
    of a restore: 0 only if all of the plan was rehearsed and every PV verified, 4 if not.
    """
    if keep is not None and keep.exists() and not (keep.is_dir() and not any(keep.iterdir())):
        raise usage_error(
            f"{keep} is there already, and is no empty folder: a rehearsal begins from nothing",
            field="--keep",
            remedy="name a new folder",
        )
    known_plan = get_plan(session, plan_id(session.client, plan))
    check_digest(session, known_plan)
    most_s = _MOST_S if most is None else most.ToNanoseconds() / 1e9
    rehearsal = _make_rehearsal(session, known_plan, most_s)
    requested = restore_service_pb2.ExecutePlanRequest(
        write_timeout=write_timeout, verify_timeout=verify_timeout
    )
    course = _run_rehearsal(session, (known_plan, rehearsal, requested), most_s, keep)
    _show_course(session, known_plan, rehearsal, course, limit)


def _make_rehearsal(session: CliSession, plan: restore_pb2.Plan, most_s: float) -> Rehearsal:
    """What is to be simulated; refused where nothing can be, or where it would take too long."""
    from drey_client import ClientError
    from drey_machine.rehearsal import (
        condition_names,
        make_rehearsal,
        refuse_too_much,
        rehearsed_items,
    )

    session.out.print_note("reading the plan, and what is known of its channels")
    items = list(rehearsed_items(read_plan(session, plan.id)))
    if not any(item.HasField("target") for item in items):
        raise CliError(
            f"plan {plan.id} writes nothing: there is nothing to rehearse",
            reason="PLAN_EMPTY",
            remedy=f"see the reasons: drey restore show --plan {plan.id} --all",
        )
    names = [item.name for item in items]
    known = _known_pvs(session, [*names, *condition_names(plan.spec)])
    rehearsal = make_rehearsal(plan.spec, items, known, _recorded_latencies(session, items))
    if not rehearsal.now.writes:
        raise CliError(
            "no PV of the plan can be simulated: "
            + "; ".join(f"{name}: {why}" for name, why in list(rehearsal.missing.items())[:10])
        )
    try:
        refuse_too_much(plan, rehearsal, most_s)
    except ClientError as error:
        raise from_client_error(error) from error
    return rehearsal


def _run_rehearsal(
    session: CliSession,
    rehearsed: tuple[restore_pb2.Plan, Rehearsal, restore_service_pb2.ExecutePlanRequest],
    most_s: float,
    keep: Path | None,
) -> RehearsedCourse:
    """Bring the simulated machine up, run the plan there, and leave nothing running."""
    from drey_cli.commands.up import running_in_foreground
    from drey_client import ClientError
    from drey_stack.private import scratch_folder

    with (
        running_in_foreground(session.out, "stopped", ExitCode.INTERRUPTED) as front,
        nullcontext(keep) if keep else scratch_folder("drey-rehearsal-") as folder,
    ):
        from drey_machine.rehearsal_run import run_rehearsal

        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return front.run_until_stopped(
                run_rehearsal(folder, *rehearsed, session.out.print_note, most_s)
            )
        except ClientError as error:
            raise from_client_error(error) from error
        except TimeoutError as error:
            raise CliError(
                f"the simulated machine did not come up as it was made within {most_s:,.0f} s; see"
                " the logs with --keep",
                reason="REHEARSAL_TOO_LONG",
                remedy="give it more time (--for)",
            ) from error


def _known_pvs(session: CliSession, names: Sequence[str]) -> dict[str, KnownPv]:
    """What is known now of PVs, by name; those that the catalog does not have are left out."""
    from drey_machine.rehearsal import known_pvs

    client = session.client
    known: dict[str, KnownPv] = {}
    for start in range(0, len(names), _NAMES_AT_ONCE):
        selector = selector_pb2.Selector(names=names[start : start + _NAMES_AT_ONCE])
        request = monitor_service_pb2.GetValuesRequest(selector=selector, with_metadata=True)
        with client.stream_method(client.monitor.GetValues, request) as stream:
            known |= known_pvs(stream)
    return known


def _recorded_latencies(
    session: CliSession, items: Sequence[restore_pb2.PlanItem]
) -> dict[str, float]:
    """Seconds that the writes took in the newest restore that has them, by name of the PV."""
    from drey_machine.rehearsal import recorded_seconds

    client = session.client
    by_name = {item.name: item for item in items if item.HasField("target")}
    seconds_by_name: dict[str, float] = {}
    request = restore_service_pb2.ListRestoresRequest()
    restores = client.list_items(
        client.restores.ListRestores, request, "restores", limit=_EARLIER_RESTORES
    )
    for restore in restores:
        if len(seconds_by_name) == len(by_name):
            break
        if restore.HasField("end_time"):
            items_then = read_restore(session, restore.id, everything=True)
            seconds_by_name = recorded_seconds(items_then, by_name) | seconds_by_name
    return seconds_by_name


# ---- what is shown


def _show_course(
    session: CliSession,
    plan: restore_pb2.Plan,
    rehearsal: Rehearsal,
    course: RehearsedCourse,
    limit: int,
) -> None:
    stages = course.stage_courses()
    if session.out.json:
        session.out.write_document(_course_document(plan, rehearsal, course, stages))
    else:
        _draw_course(session, rehearsal, course, stages, limit)
    if state_of(course.restore) == "failed":
        raise from_item_error(course.restore.error, subject="the rehearsed restore failed")
    if rehearsal.missing or course.otherwise:
        end_with(ExitCode.DIFFERENT)
    end_with(exit_code(course.restore))


def _course_document(
    plan: restore_pb2.Plan,
    rehearsal: Rehearsal,
    course: RehearsedCourse,
    stages: Sequence[StageCourse],
) -> dict[str, Any]:
    return {
        "plan": plan,
        "restore": course.restore,
        "items": course.items,
        "stages": [
            {
                "stage": each.stage,
                "took_s": None if each.took_ns is None else each.took_ns / 1e9,
                "verdicts": verdict_names(each.verdicts),
            }
            for each in stages
        ],
        "recorded": rehearsal.recorded,
        "assumed": rehearsal.assumed,
        "missing": rehearsal.missing,
        "planned_otherwise": course.otherwise,
    }


def _draw_course(
    session: CliSession,
    rehearsal: Rehearsal,
    course: RehearsedCourse,
    stages: Sequence[StageCourse],
    limit: int,
) -> None:
    out = session.out
    for title, reasons in (
        ("not simulated", rehearsal.missing),
        ("planned otherwise there", course.otherwise),
    ):
        if reasons:
            out.print_table(_reasons_table(title, reasons, limit))
    fine = {restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_EQUAL_ALREADY}
    troubled = [
        item
        for item in course.items
        if item.verdict not in fine and item.skip != restore_pb2.SKIP_REASON_EQUAL
    ]
    if troubled:
        table = restore_items_table(troubled, limit=limit)
        table.title = "not verified in the rehearsal"
        out.print_table(table)
    out.print_table(_stages_table(stages))
    out.print_text(_latencies_text(rehearsal))
    counts = counts_text(verdict_counts(course.restore))
    took = course.restore.end_time.ToNanoseconds() - course.restore.start_time.ToNanoseconds()
    if course.restore.HasField("start_time"):
        out.print_text(f"rehearsed, with the look at the end, in {format_span(took)}: {counts}")
    if course.restore.HasField("error"):
        out.print_text(
            f"it ended as {state_of(course.restore)}: {course.restore.error.message}", "red"
        )
    out.draw_parts([restore_verdict(course.restore)])


def _reasons_table(title: str, reasons: Mapping[str, str], limit: int) -> Table:
    return table_of(
        reasons.items(),
        name_field("PV", lambda pair: pair[0]),
        text_field("why", lambda pair: Cell(pair[1], "yellow"), fold=True),
        title=title,
        limit=limit,
    )


def _stages_table(stages: Sequence[StageCourse]) -> Table:
    def took_cell(course: StageCourse) -> Cell:
        if course.took_ns is None:
            return Cell("nothing was complete", "red")
        late = course.stage.HasField("most_duration")
        too_long = late and course.took_ns > course.stage.most_duration.ToNanoseconds()
        return Cell(format_span(course.took_ns), "red" if too_long else "")

    return table_of(
        stages,
        number_field("stage", lambda course: str(course.stage.stage)),
        text_field("planned", lambda course: stage_text(course.stage), fold=True),
        number_field("took", took_cell),
        text_field(
            "verdicts",
            lambda course: counts_text(verdict_names(course.verdicts)),
            fold=True,
        ),
    )


def _latencies_text(rehearsal: Rehearsal) -> str:
    parts = []
    if rehearsal.recorded:
        longest = max(rehearsal.recorded, key=rehearsal.recorded.__getitem__)
        span = format_span(int(rehearsal.recorded[longest] * 1e9))
        writes = plural(len(rehearsal.recorded), "write")
        parts.append(f"{writes} as long as in earlier restores, the longest {span} ({longest})")
    if rehearsal.assumed:
        waiting = [seconds for seconds in rehearsal.assumed.values() if seconds]
        settle = f", {len(waiting)} of them by their settle times" if waiting else ""
        parts.append(
            f"of {plural(len(rehearsal.assumed), 'write')} how long they take is assumed{settle},"
            " the others at once: no earlier restore has them"
        )
    return "times: " + "; ".join(parts)
