"""`drey restore run|watch|pause|resume|abort`: the only commands that move the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drey_cli.commands.restore import (
    get_plan,
    get_restore,
    own_restore_argument,
    read_plan,
    restore_command,
    show_restore,
)
from drey_cli.contracts import restore_pb2, restore_service_pb2
from drey_cli.errors import CliError, ExitCode, from_item_error
from drey_cli.naming import plan_id, restore_id
from drey_cli.options import (
    COUNT,
    SPAN,
    Decorator,
    argument,
    comment_option,
    member_option,
    option,
    packed_options,
    reason_option,
    yes_option,
)
from drey_cli.render.restores import plan_facts, restore_facts, state_of, verdict_counts
from drey_cli.render.words import plural
from drey_cli.session import CliSession, command, end_with
from drey_client.plan_digest import RECIPE, plan_digest

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

ENDED = frozenset({"completed", "aborted", "interrupted", "failed"})
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ExecutionTerms:
    """What holds while a plan is executed. None: as the server has it, or as it was."""

    accept_moved: bool
    max_unreachable: int | None
    start_deadline: Duration | None
    write_timeout: Duration | None
    verify_timeout: Duration | None

    def request_fields(self) -> dict[str, Any]:
        """Fields of the requests that execute a plan, or go on with one."""
        return {
            "all": restore_service_pb2.AllMoved() if self.accept_moved else None,
            "max_unreachable": self.max_unreachable,
            "start_deadline": self.start_deadline,
            "write_timeout": self.write_timeout,
            "verify_timeout": self.verify_timeout,
        }


def execution_terms(*, moved: str, unreachable: str, write: str, verify: str) -> Decorator[Any]:
    """The options of `ExecutionTerms`, as `terms`; with what is said of them."""
    term_option = member_option("terms")
    return packed_options(
        "terms",
        ExecutionTerms,
        term_option("--accept-moved", "accept_moved", moved, is_flag=True),
        term_option(
            "--max-unreachable",
            "max_unreachable",
            f"Write nothing where more of its PVs do not answer. Default: {unreachable}.",
            type=COUNT,
            metavar="NUMBER",
        ),
        term_option(
            "--start-deadline",
            "start_deadline",
            "Begin by then. Default 30s.",
            type=SPAN,
            metavar="TIME",
        ),
        term_option("--write-timeout", "write_timeout", write, type=SPAN, metavar="TIME"),
        term_option("--verify-timeout", "verify_timeout", verify, type=SPAN, metavar="TIME"),
    )


@command(
    "run",
    restore_command,
    gives="{restore}",
    examples=("drey restore run latest", "drey restore run 0192f3a4 --digest 5b1c... --yes --json"),
)
@argument("plan", help="Id, part of one, or latest: your own newest.")
@option("--digest", default="", help="Run it only if this is its digest.")
@yes_option
@execution_terms(
    moved="Although values moved since the plan.",
    unreachable="any number but all",
    write="For all writes. Default 10s.",
    verify="For readbacks. Default 10s.",
)
@comment_option
def run_plan(
    session: CliSession,
    plan: str,
    digest: str,
    yes: bool,
    terms: ExecutionTerms,
    comment: str,
) -> None:
    """Run a plan: WRITES TO THE MACHINE, reads back, and says what was verified.

    Exit 0 only if every PV was verified, 4 if not. Ctrl-C asks: go on watching, leave it running,
    pause it, abort it, or abort it and go back. The restore does not depend on this command.

    Guards, gates and when it goes back are in the plan: see drey restore plan --help.
    """
    client = session.client
    known_plan = get_plan(session, plan_id(client, plan, own=True))
    request = restore_service_pb2.ExecutePlanRequest(
        plan_id=known_plan.id,
        digest=digest or known_plan.digest,
        comment=comment,
        **terms.request_fields(),
    )
    check_digest(session, known_plan)
    if not session.out.json:
        session.out.print_table(plan_facts(known_plan, utc=session.out.utc))
    question = f"Write {plural(known_plan.writes, 'value')} to the machine?"
    session.confirm_action(question, yes=yes)
    with _say_if_interrupted(session, "whether it began is not known: drey restore list"):
        answer = client.call_method(client.restores.ExecutePlan, request)
    _show_end(session, _follow_restore(session, answer.restore))


def check_digest(session: CliSession, plan: restore_pb2.Plan) -> None:
    """Refuse a plan whose items are not those of its digest, as computed here."""
    if plan.digest_recipe != RECIPE:
        raise CliError(
            f"the digest of plan {plan.id} is of recipe {plan.digest_recipe}, this program knows"
            f" {RECIPE}",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="make a new plan, with a drey of the server's version",
        )
    try:
        digest = plan_digest(plan, read_plan(session, plan.id))
    except ValueError as error:
        raise CliError(
            f"the digest of plan {plan.id} cannot be computed: {error}; nothing was written",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="run it with a drey of the server's version",
        ) from error
    if digest != plan.digest:
        raise CliError(
            f"what was read of plan {plan.id} has the digest {digest}, not {plan.digest}:"
            " nothing was written",
            reason="PLAN_DIGEST_MISMATCH",
            remedy="make a new plan, and find out who changed this one",
        )


def restore_states(session: CliSession, restore_id: str) -> Iterator[restore_pb2.Restore]:
    """Each state of a restore until it has ended, across broken connections."""
    from drey_cli.following import follow_stream

    request = restore_service_pb2.WatchRestoreRequest(id=restore_id)
    for message in follow_stream(
        session,
        lambda client: client.restores.WatchRestore,
        request,
        meanwhile="the restore goes on",
    ):
        yield message.restore
        if state_of(message.restore) in ENDED:
            return
    raise CliError(
        f"the server ended the watch of restore {restore_id}",
        reason="WATCH_ENDED",
        remedy=f"see drey restore show {restore_id}",
        code=ExitCode.UNAVAILABLE,
    )


def _follow_restore(session: CliSession, restore: restore_pb2.Restore) -> restore_pb2.Restore:
    """Show bars until the restore has ended; at Ctrl-C ask what is to become of it."""
    last = restore
    while state_of(last) not in ENDED:
        try:
            with session.out.progress_bars() as progress:
                task = progress.add_task("waiting", total=None)
                for last in restore_states(session, restore.id):
                    done, total = restore_progress(last)
                    shown = state_of(last)
                    if last.interfered:
                        shown += f", {last.interfered} changed by others"
                    progress.update(task, description=shown, completed=done, total=total)
        except KeyboardInterrupt:
            _handle_interrupt(session, restore.id)
    return last


def restore_progress(restore: restore_pb2.Restore) -> tuple[int, int | None]:
    """PVs done and in all, for the bar: while verifying, those that have their last verdict."""
    counts = verdict_counts(restore)
    total = sum(counts.values())
    open_verdicts = {"pending"} if state_of(restore) == "writing" else {"pending", "written"}
    done = sum(pvs for name, pvs in counts.items() if name not in open_verdicts)
    return done, total or None


def _handle_interrupt(session: CliSession, restore_id: str) -> None:
    """After Ctrl-C: go on watching, leave, pause or abort. Without a terminal: leave."""
    answer = "l"
    if session.out.can_ask:
        question = "\n[c]ontinue watching, [l]eave it running, [p]ause, go [b]ack, [a]bort? "
        try:
            answer = session.out.ask_question(question).lower()
        except KeyboardInterrupt:
            answer = "l"
    if answer.startswith("c"):
        return
    see = f"whether that was heard is not known: drey restore show {restore_id}"
    with _say_if_interrupted(session, see):
        if not _act_on_answer(session, restore_id, answer):
            session.out.print_note(
                f"the restore goes on: drey restore watch {restore_id}", "yellow"
            )
            end_with(ExitCode.INTERRUPTED)


def _act_on_answer(session: CliSession, restore_id: str, answer: str) -> bool:
    """Abort or pause as was answered; whether there is something to watch then."""
    if answer.startswith("a"):
        _abort_restore(session, restore_id, "Ctrl-C at drey restore run")
        session.out.print_note("aborting: what is in flight is finished and read back", "yellow")
        return True
    if answer.startswith("b"):
        _abort_restore(session, restore_id, "Ctrl-C at drey restore run", roll_back=True)
        session.out.print_note("aborting: then it writes what was there before", "yellow")
        return True
    if answer.startswith("p"):
        _pause_restore(session, restore_id)
        session.out.print_note(
            f"nothing is sent before drey restore resume {restore_id}; watching", "yellow"
        )
        return True
    return False


@contextmanager
def _say_if_interrupted(session: CliSession, what: str) -> Iterator[None]:
    """Say `what` where Ctrl-C ends a call: the server may have heard it all the same."""
    try:
        yield
    except KeyboardInterrupt:
        session.out.print_note(what, "yellow")
        raise


def _show_end(session: CliSession, restore: restore_pb2.Restore) -> None:
    """Show how it ended and exit by it. One that could not begin is an error like any other.

    Where it goes back on its own, that is followed to its end too.
    """
    refuse_failed(restore)
    shown = {"restore": restore}
    if not session.out.json:
        show_restore(session, restore, limit=_SHOWN, everything=False)
    if restore.rollback_restore_id:
        session.out.print_note(f"it goes back: restore {restore.rollback_restore_id}", "yellow")
        shown["rollback"] = _follow_restore(
            session, get_restore(session, restore.rollback_restore_id)
        )
        if not session.out.json:
            show_restore(session, shown["rollback"], limit=_SHOWN, everything=False)
    if session.out.json:
        session.out.write_document(shown)
    end_with(exit_code(restore))


def refuse_failed(restore: restore_pb2.Restore) -> None:
    """Raise the error of a restore that has failed: nothing was written."""
    if state_of(restore) != "failed":
        return
    error = from_item_error(restore.error, subject=f"restore {restore.id} failed")
    error.metadata["restore_id"] = restore.id
    error.remedy = error.remedy or f"see drey restore show {restore.id}"
    raise error


def exit_code(restore: restore_pb2.Restore) -> ExitCode:
    """Exit status of a restore that has ended, and did not fail."""
    return ExitCode.OK if restore.all_verified else ExitCode.DIFFERENT


@command(
    "watch", restore_command, gives="{restore} a line", examples=("drey restore watch latest",)
)
@argument("restore", default="latest", help="Id, part of one, or latest, the default.")
def watch_restore(session: CliSession, restore: str) -> None:
    """Follow a restore to its end. Leaving by Ctrl-C stops nothing unless you say abort.

    With --json: a line for each change.
    """
    client = session.client
    identity = restore_id(client, restore)
    if session.out.json:
        for last in restore_states(session, identity):
            session.out.write_line({"restore": last})
        refuse_failed(last)
        end_with(exit_code(last))
        return
    _show_end(session, _follow_restore(session, get_restore(session, identity)))


@command(
    "abort",
    restore_command,
    gives="AbortRestoreResponse",
    examples=(
        "drey restore abort latest --reason 'beam loss'",
        "drey restore abort latest --roll-back --reason 'wrong snapshot'",
    ),
)
@own_restore_argument
@option("--roll-back", is_flag=True, help="Go back then: WRITES what was there before.")
@reason_option
def abort(session: CliSession, restore: str, roll_back: bool, reason: str) -> None:
    """Stop a restore: no further write is sent; what is in flight is finished and read back.

    It stays where it stopped. With --roll-back another restore begins then, which writes what was
    there before, of what was sent, where nobody has changed it since, in reverse order.
    """
    identity = restore_id(session.client, restore, own=True)
    answer = _abort_restore(session, identity, reason, roll_back=roll_back)
    session.show_document(answer, lambda: restore_facts(answer.restore, utc=session.out.utc))


def _abort_restore(
    session: CliSession, restore_id: str, reason: str, *, roll_back: bool = False
) -> restore_service_pb2.AbortRestoreResponse:
    client = session.client
    request = restore_service_pb2.AbortRestoreRequest(
        id=restore_id, reason=reason, roll_back=roll_back
    )
    return client.call_method(client.restores.AbortRestore, request)


@command(
    "pause", restore_command, gives="PauseRestoreResponse", examples=("drey restore pause latest",)
)
@own_restore_argument
def pause_restore(session: CliSession, restore: str) -> None:
    """Hold a restore: nothing is sent until it is resumed; what was sent goes on."""
    answer = _pause_restore(session, restore_id(session.client, restore, own=True))
    session.show_document(answer, lambda: restore_facts(answer.restore, utc=session.out.utc))


def _pause_restore(
    session: CliSession, restore_id: str
) -> restore_service_pb2.PauseRestoreResponse:
    client = session.client
    request = restore_service_pb2.PauseRestoreRequest(id=restore_id)
    return client.call_method(client.restores.PauseRestore, request)


@command(
    "resume",
    restore_command,
    gives="{restore}",
    examples=("drey restore resume latest", "drey restore resume 0192f3a4 --also-unknown --yes"),
)
@own_restore_argument
@yes_option
@option(
    "--also-unknown", is_flag=True, help="Send again what may or may not have been sent: UNKNOWN."
)
@execution_terms(
    moved="Although it is not as the restore left it.",
    unreachable="as it was",
    write="Of a stage. Default: as it was.",
    verify="For readbacks. Default: as it was.",
)
@comment_option
def resume_restore(
    session: CliSession,
    restore: str,
    yes: bool,
    also_unknown: bool,
    terms: ExecutionTerms,
    comment: str,
) -> None:
    """Let a restore go on: one that was paused, or one that was interrupted.

    An interrupted one has ended, and another one continues it: WRITES TO THE MACHINE what was not
    sent, after a look whether all is as it was left, and goes on with ramps that stopped. It is
    followed to its end, as by run. What was sent is never sent again, but for what may or may not
    have been sent, and that only with --also-unknown.
    """
    client = session.client
    request = restore_service_pb2.ResumeRestoreRequest(
        id=restore_id(client, restore, own=True),
        also_unknown=also_unknown,
        comment=comment,
        **terms.request_fields(),
    )
    known = get_restore(session, request.id)
    interrupted = state_of(known) == "interrupted"
    if interrupted:
        session.confirm_action(_resume_question(known, also_unknown=also_unknown), yes=yes)
    answer = client.call_method(client.restores.ResumeRestore, request)
    if interrupted:
        _show_end(session, _follow_restore(session, answer.restore))
        return
    session.show_document(
        {"restore": answer.restore}, lambda: restore_facts(answer.restore, utc=session.out.utc)
    )


def _resume_question(restore: restore_pb2.Restore, *, also_unknown: bool) -> str:
    counts = verdict_counts(restore)
    left = sum(counts.get(name, 0) for name in ("not-sent", "disconnected", "ramp-stopped"))
    unknown = counts.get("unknown", 0)
    also = ""
    if unknown:
        also = f", and again {unknown} of which nobody knows" if also_unknown else ""
        also += "" if also_unknown else f" ({unknown} of which nobody knows are left as they are)"
    return f"Write the {plural(left, 'value')} that are left to the machine{also}?"
