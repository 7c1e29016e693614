"""`drey restore run|watch|pause|resume|abort`: the only commands that move the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from drey_cli.contracts import restore_pb2, restore_service_pb2
from drey_cli.digests import RECIPE, plan_digest
from drey_cli.durations import parse_duration
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.failures import from_item_error
from drey_cli.naming import own_plan_id, own_restore_id, restore_id
from drey_cli.registry import command
from drey_cli.render.documents import as_document
from drey_cli.render.enums import short_name
from drey_cli.render.restores import plan_facts, restore_facts, verdict_counts
from drey_cli.render.times import plural
from drey_cli.session import Session, new_request_id

if TYPE_CHECKING:
    from drey_cli.client import Stream

RestoreArgument = Annotated[
    str, typer.Argument(metavar="RESTORE", help="Id, a unique part of one, or latest.")
]
_ENDED = frozenset({"completed", "aborted", "interrupted", "failed"})
_SHOWN = 20


def run(
    session: Session,
    plan: Annotated[
        str,
        typer.Argument(metavar="PLAN", help="Id, part of one, or latest: your own newest."),
    ],
    digest: Annotated[
        str, typer.Option("--digest", help="Run it only if this is its digest.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    accept_moved: Annotated[
        bool, typer.Option("--accept-moved", help="Although values moved since the plan.")
    ] = False,
    max_unreachable: Annotated[
        int,
        typer.Option("--max-unreachable", help="Only if at most so many are. Default: not all."),
    ] = -1,
    start_deadline: Annotated[
        str, typer.Option("--start-deadline", metavar="TIME", help="Begin by then. Default 30s.")
    ] = "",
    write_timeout: Annotated[
        str, typer.Option("--write-timeout", metavar="TIME", help="For all writes. Default 10s.")
    ] = "",
    verify_timeout: Annotated[
        str, typer.Option("--verify-timeout", metavar="TIME", help="For readbacks. Default 10s.")
    ] = "",
    comment: Annotated[str, typer.Option("--comment", help="Comment.")] = "",
) -> None:
    """Run a plan: WRITES TO THE MACHINE, reads back, and says what was verified.

    Exit 0 only if every PV was verified, 4 if not. Ctrl-C asks whether to abort; the restore does
    not depend on this command.
    """

    client = session.client
    found = client.call(
        client.restores.GetPlan,
        restore_service_pb2.GetPlanRequest(id=own_plan_id(client, plan)),
    ).plan
    request = restore_service_pb2.ExecutePlanRequest(
        plan_id=found.id,
        digest=digest or found.digest,
        all=restore_service_pb2.AllMoved() if accept_moved else None,
        comment=comment,
        request_id=new_request_id(),
    )
    for name, text in (
        ("start_deadline", start_deadline),
        ("write_timeout", write_timeout),
        ("verify_timeout", verify_timeout),
    ):
        if text:
            option = "--" + name.replace("_", "-")
            getattr(request, name).CopyFrom(parse_duration(text, option=option))
    if max_unreachable >= 0:
        request.max_unreachable = max_unreachable
    check_digest(session, found)
    _confirm_plan(session, found, yes=yes)
    answer = client.call(client.restores.ExecutePlan, request)
    restore = _follow_restore(session, answer.restore)
    _show_end(session, restore)


def check_digest(session: Session, plan: restore_pb2.Plan) -> None:
    """Refuse a plan whose items are not those of its digest, as computed here."""
    from drey_cli.commands.restore_plan import read_plan

    if plan.digest_recipe != RECIPE:
        raise CliError(
            f"the digest of plan {plan.id} is of recipe {plan.digest_recipe}, this program knows"
            f" {RECIPE}",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="make a new plan, with a drey of the server's version",
            code=ExitCode.REFUSED,
        )
    try:
        digest = plan_digest(plan, read_plan(session, plan.id, writes_only=False))
    except ValueError as error:
        raise CliError(
            f"the digest of plan {plan.id} cannot be computed: {error}; nothing was written",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="run it with a drey of the server's version",
            code=ExitCode.REFUSED,
        ) from error
    if digest != plan.digest:
        raise CliError(
            f"what was read of plan {plan.id} has the digest {digest}, not {plan.digest}:"
            " nothing was written",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="make a new plan, and find out who changed this one",
            code=ExitCode.REFUSED,
        )


def _confirm_plan(session: Session, plan: restore_pb2.Plan, *, yes: bool) -> None:

    if not session.out.json:
        session.out.table(plan_facts(plan, utc=session.out.utc))
    question = f"Write {plural(plan.writes, 'value')} to the machine?"
    if not session.out.confirm(question, yes=yes):
        session.out.note("nothing was written")
        raise typer.Exit(ExitCode.REFUSED)


def restore_states(session: Session, restore_id: str) -> Iterator[restore_pb2.Restore]:
    """Each state of a restore until it has ended, across broken connections."""
    from drey_cli.client import WATCH_TIMEOUT_S
    from drey_cli.following import follow_to_end

    client = session.client

    def open_stream() -> Stream[restore_service_pb2.WatchRestoreResponse]:
        request = restore_service_pb2.WatchRestoreRequest(id=restore_id)
        return client.stream(client.restores.WatchRestore, request, timeout_s=WATCH_TIMEOUT_S)

    def show_loss(error: CliError) -> None:
        session.out.note(f"{error.message}; the restore goes on, connecting again", "yellow")

    for message in follow_to_end(open_stream, on_lost=show_loss):
        yield message.restore
        if state_of(message.restore) in _ENDED:
            return


def state_of(restore: restore_pb2.Restore) -> str:
    """State of a restore as its short name."""

    return short_name(restore_pb2.RestoreState, restore.state)


def _follow_restore(session: Session, restore: restore_pb2.Restore) -> restore_pb2.Restore:
    """Show bars until the restore has ended; at Ctrl-C ask what is to become of it."""
    last = restore
    while state_of(last) not in _ENDED:
        try:
            with session.out.progress() as progress:
                task = progress.add_task("waiting", total=None)
                for last in restore_states(session, restore.id):
                    done, total = restore_progress(last)
                    progress.update(task, description=state_of(last), completed=done, total=total)
        except KeyboardInterrupt:
            _handle_interrupt(session, restore.id)
        else:
            if state_of(last) not in _ENDED:
                raise CliError(
                    f"the server ended the watch of restore {restore.id}",
                    reason="WATCH_ENDED",
                    remedy=f"see drey restore show {restore.id}",
                    code=ExitCode.UNAVAILABLE,
                )
    return last


def restore_progress(restore: restore_pb2.Restore) -> tuple[int, int | None]:
    """PVs done and in all, for the bar: while verifying, those that have their last verdict."""

    counts = verdict_counts(restore)
    total = sum(counts.values())
    open_verdicts = {"pending"} if state_of(restore) == "writing" else {"pending", "written"}
    done = sum(pvs for name, pvs in counts.items() if name not in open_verdicts)
    return done, total or None


def _handle_interrupt(session: Session, restore_id: str) -> None:
    """After Ctrl-C: go on watching, leave, pause or abort. Without a terminal: leave."""
    answer = "l"
    if session.out.can_ask:
        question = "\n[c]ontinue watching, [l]eave it running, [p]ause, [a]bort? "
        try:
            answer = session.out.ask(question).lower()
        except KeyboardInterrupt:
            answer = "l"
    if answer.startswith("c"):
        return
    if answer.startswith("a"):
        _abort_restore(session, restore_id, "Ctrl-C at drey restore run")
        session.out.note("aborting: what is in flight is finished and read back", "yellow")
        return
    if answer.startswith("p"):
        client = session.client
        request = restore_service_pb2.PauseRestoreRequest(id=restore_id)
        client.call(client.restores.PauseRestore, request)
        session.out.note(
            f"nothing is sent before drey restore resume {restore_id}; watching", "yellow"
        )
        return
    session.out.note(f"the restore goes on: drey restore watch {restore_id}", "yellow")
    raise typer.Exit(ExitCode.INTERRUPTED)


def _abort_restore(session: Session, restore_id: str, reason: str) -> restore_pb2.Restore:

    client = session.client
    return client.call(
        client.restores.AbortRestore,
        restore_service_pb2.AbortRestoreRequest(id=restore_id, reason=reason),
    ).restore


def _show_end(session: Session, restore: restore_pb2.Restore) -> None:
    """Show how it ended and exit by it. One that could not begin is an error like any other."""
    from drey_cli.commands.restore_plan import show_restore

    refuse_failed(restore)
    if session.out.json:
        session.out.document({"restore": as_document(restore)})
    else:
        show_restore(session, restore, limit=_SHOWN, everything=False)
    raise typer.Exit(exit_code(restore))


def refuse_failed(restore: restore_pb2.Restore) -> None:
    """Raise the error of a restore that has failed: nothing was written."""

    if state_of(restore) != "failed":
        return
    error = from_item_error(restore.error, subject=f"restore {restore.id} failed")
    error.metadata["restore_id"] = restore.id
    error.remedy = error.remedy or f"see drey restore show {restore.id}"
    raise error


def exit_code(restore: restore_pb2.Restore) -> ExitCode:
    """Exit status of an ended restore."""
    if state_of(restore) == "failed":
        return ExitCode.REFUSED
    return ExitCode.OK if restore.all_verified else ExitCode.DIFFERENT


def watch(session: Session, restore: RestoreArgument = "latest") -> None:
    """Follow a restore to its end. Leaving by Ctrl-C stops nothing unless you say abort."""

    client = session.client
    identity = restore_id(client, restore)
    if session.out.json:
        last = None
        for last in restore_states(session, identity):
            session.out.line(last)
        if last is not None:
            refuse_failed(last)
            raise typer.Exit(exit_code(last))
        return
    request = restore_service_pb2.GetRestoreRequest(id=identity)
    answer = client.call(client.restores.GetRestore, request).restore
    _show_end(session, _follow_restore(session, answer))


def abort(
    session: Session,
    restore: RestoreArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit.")] = "",
) -> None:
    """Stop a restore: no further write is sent; what is in flight is finished and read back.

    latest is your own newest; that of another needs its id.
    """

    _show_state(session, _abort_restore(session, own_restore_id(session.client, restore), reason))


def _show_state(session: Session, restore: restore_pb2.Restore) -> None:
    if session.out.json:
        session.out.document(restore)
    else:
        session.out.table(restore_facts(restore, utc=session.out.utc))


def pause(session: Session, restore: RestoreArgument) -> None:
    """Hold a restore: nothing is sent until it is resumed; what was sent goes on.

    latest is your own newest; that of another needs its id.
    """
    client = session.client
    request = restore_service_pb2.PauseRestoreRequest(id=own_restore_id(client, restore))
    _show_state(session, client.call(client.restores.PauseRestore, request).restore)


def resume(session: Session, restore: RestoreArgument) -> None:
    """Let a restore go on that was paused. What was sent is never sent again.

    latest is your own newest; that of another needs its id.
    """
    client = session.client
    request = restore_service_pb2.ResumeRestoreRequest(
        id=own_restore_id(client, restore), request_id=new_request_id()
    )
    _show_state(session, client.call(client.restores.ResumeRestore, request).restore)


def register(restore: typer.Typer) -> None:
    """Add the commands to `drey restore`."""
    command(
        restore,
        "run",
        examples=(
            "drey restore run latest",
            "drey restore run 0192f3a4 --digest 5b1c... --yes --json",
        ),
    )(run)
    command(restore, "pause", examples=("drey restore pause latest",))(pause)
    command(restore, "resume", examples=("drey restore resume latest",))(resume)
    command(restore, "watch", examples=("drey restore watch latest",))(watch)
    command(restore, "abort", examples=("drey restore abort latest --reason 'beam loss'",))(abort)
