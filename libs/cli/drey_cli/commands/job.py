"""`drey job`: background work, followed and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import job_pb2, job_service_pb2
from drey_cli.errors import CliError, ExitCode, from_item_error
from drey_cli.naming import job_id
from drey_cli.options import argument, choice_of, limit_option, option, reason_option
from drey_cli.render.table import (
    Cell,
    Pair,
    Table,
    escape_text,
    facts_table,
    id_cell,
    id_field,
    spare_field,
    table_of,
    text_field,
    time_field,
)
from drey_cli.render.words import format_span, format_stamp, number_of, short_name
from drey_cli.session import CliSession, command, end_with, group

job_command = group(SUMMARIES["job"])

_STYLE = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "bold red",
    "running": "cyan",
}
ENDED = frozenset({"succeeded", "failed", "cancelled", "interrupted"})
job_argument = argument("job", help="Id, a unique part of one, or latest.")


@command(
    "list",
    job_command,
    gives="{jobs}",
    examples=("drey job list --status running --status queued",),
)
@option("--kind", type=choice_of("snapshot", "restore", "import"), help="Only this kind.")
@option(
    "--status",
    type=choice_of("queued", "running", *sorted(ENDED)),
    multiple=True,
    help="Only these states; repeat.",
)
@option("--by", default="", metavar="NAME", help="Only those that this key or person made.")
@limit_option(50, "Most jobs")
def list_jobs(
    session: CliSession, kind: str | None, status: list[str], by: str, limit: int
) -> None:
    """List jobs, newest first."""
    client = session.client
    request = job_service_pb2.ListJobsRequest(
        principal=by,
        kind=number_of(job_pb2.JobKind, kind),
        states=[number_of(job_pb2.JobState, each) for each in status],
    )
    jobs = list(client.list_items(client.jobs.ListJobs, request, "jobs", limit=limit))
    session.show_document({"jobs": jobs}, lambda: jobs_table(jobs, utc=session.out.utc))


@command("show", job_command, gives="GetJobResponse", examples=("drey job show latest",))
@job_argument
def show_job(session: CliSession, job: str) -> None:
    """Show one job."""
    client = session.client
    request = job_service_pb2.GetJobRequest(id=job_id(client, job))
    answer = client.call_method(client.jobs.GetJob, request)
    session.show_document(answer, lambda: job_facts(answer.job, utc=session.out.utc))


@command("watch", job_command, gives="{job} a line", examples=("drey job watch latest",))
@job_argument
def watch_job(session: CliSession, job: str) -> None:
    """Follow a job to its end. Leaving by Ctrl-C stops nothing.

    With --json: a line for each change.
    """
    identity = job_id(session.client, job)
    if session.out.json:
        last = None
        for last in job_states(session, identity):
            session.out.write_line({"job": last})
    else:
        last = follow_job(session, identity)
        session.out.print_table(job_facts(last, utc=session.out.utc))
    if last is None or job_state(last) != "succeeded":
        end_with(ExitCode.REFUSED)


@command(
    "cancel",
    job_command,
    gives="CancelJobResponse",
    examples=("drey job cancel latest --reason 'wrong scope'",),
)
@job_argument
@reason_option
def cancel(session: CliSession, job: str, reason: str) -> None:
    """Ask a job to stop at its next safe point."""
    client = session.client
    request = job_service_pb2.CancelJobRequest(id=job_id(client, job), reason=reason)
    answer = client.call_method(client.jobs.CancelJob, request)
    session.show_document(answer, lambda: job_facts(answer.job, utc=session.out.utc))


def job_states(session: CliSession, job_id: str) -> Iterator[job_pb2.Job]:
    """Each state of a job until it has ended, across broken connections."""
    from drey_cli.following import follow_stream

    request = job_service_pb2.WatchJobRequest(id=job_id)
    for message in follow_stream(
        session, lambda client: client.jobs.WatchJob, request, meanwhile="the job goes on"
    ):
        yield message.job
        if job_state(message.job) in ENDED:
            return


def follow_job(session: CliSession, job_id: str) -> job_pb2.Job:
    """Show a bar until the job has ended; give its last state.

    Ctrl-C leaves the job running and raises KeyboardInterrupt, after saying so.
    """
    last: job_pb2.Job | None = None
    try:
        with session.out.progress_bars() as progress:
            task = progress.add_task("waiting", total=None)
            for job in job_states(session, job_id):
                last = job
                progress.update(
                    task,
                    description=escape_text(job.phase) or job_state(job),
                    completed=job.done,
                    total=job.total or None,
                )
    except KeyboardInterrupt:
        session.out.print_note(f"the job goes on: drey job watch {job_id}")
        raise
    if last is None:
        raise CliError(f"job {job_id} cannot be followed", remedy=f"see drey job show {job_id}")
    return last


def check_job(job: job_pb2.Job) -> None:
    """Raise the error of a job that did not succeed."""
    state = job_state(job)
    if state == "succeeded":
        return
    if job.HasField("error"):
        raise from_item_error(job.error)
    raise CliError(
        f"job {job.id} is {state}",
        reason="JOB_" + state.upper(),
        remedy=f"see drey job show {job.id} ({progress_text(job)})",
    )


def job_state(job: job_pb2.Job) -> str:
    return short_name(job_pb2.JobState, job.state)


def state_cell(job: job_pb2.Job) -> Cell:
    state = job_state(job)
    return Cell(state, _STYLE.get(state, ""))


def progress_text(job: job_pb2.Job) -> str:
    """How far it is: `reading 120/4000`."""
    amount = f"{job.done}/{job.total}" if job.total else ""
    return f"{job.phase} {amount}".strip()


def result_text(job: job_pb2.Job) -> str:
    """What a job made or works on, as the commands name it."""
    match job.WhichOneof("result"):
        case "snapshot_id":
            return f"snapshot {job.snapshot_id}"
        case "restore_id":
            return f"restore {job.restore_id}"
        case "import_summary":
            done = job.import_summary
            return f"{done.added} added, {done.changed} changed, {done.unchanged} unchanged"
        case _:
            return ""


def jobs_table(jobs: Iterable[job_pb2.Job], *, utc: bool) -> Table:
    """One line a job."""

    def result_cell(job: job_pb2.Job) -> Cell:
        is_failed = job.HasField("error")
        return Cell(job.error.message, "red") if is_failed else id_cell(result_text(job))

    return table_of(
        jobs,
        id_field("job", lambda job: job.id),
        time_field("time", lambda job: job.create_time, utc=utc),
        text_field("kind", lambda job: short_name(job_pb2.JobKind, job.kind)),
        text_field("state", state_cell),
        spare_field(text_field("progress", progress_text, fold=True)),
        spare_field(text_field("by", lambda job: job.actor.principal)),
        text_field("result or error", result_cell, fold=True),
    )


def job_facts(job: job_pb2.Job, *, utc: bool) -> Table:
    pairs: list[Pair] = [
        ("job", job.id),
        ("kind", short_name(job_pb2.JobKind, job.kind)),
        ("state", state_cell(job)),
        ("progress", progress_text(job) or "—"),
        ("result", result_text(job) or "—"),
        ("by", job.actor.principal),
        ("attempts", str(job.attempts)),
        ("created", format_stamp(job.create_time, utc=utc)),
        ("begun", format_stamp(job.start_time, utc=utc)),
        ("ended", format_stamp(job.end_time, utc=utc)),
    ]
    if job.HasField("start_time") and job.HasField("end_time"):
        span_ns = job.end_time.ToNanoseconds() - job.start_time.ToNanoseconds()
        pairs.append(("took", format_span(span_ns)))
    if job.HasField("error"):
        pairs.append(("error", Cell(job.error.message, "bold red")))
    if job.trace_id:
        pairs.append(("trace", job.trace_id))
    return facts_table(pairs)
