"""`drey job`: background work."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import job_pb2, job_service_pb2
from drey_cli.exits import ExitCode
from drey_cli.naming import job_id
from drey_cli.registry import command, command_app
from drey_cli.render.enums import number_of
from drey_cli.render.jobs import job_facts, job_state, jobs_table
from drey_cli.session import Session

app = command_app(SUMMARIES["job"])


KindName = Literal["snapshot", "restore", "import"]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Id, a unique part of one, or latest.")
]


class StateName(StrEnum):
    """Names of `JobState`; an enum, for Typer takes no list of literals."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@command(app, "list", examples=("drey job list --status running --status queued",))
def list_jobs(
    session: Session,
    kind: Annotated[KindName | None, typer.Option("--kind", help="Only this kind.")] = None,
    status: Annotated[
        list[StateName] | None, typer.Option("--status", help="Only these states; repeat.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Only those that this key or person made.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most jobs; 0 is all.")] = 50,
) -> None:
    """List jobs, newest first."""
    client = session.client
    request = job_service_pb2.ListJobsRequest(principal=by)
    if kind:
        request.kind = number_of(job_pb2.JobKind, kind)
    request.states.extend(number_of(job_pb2.JobState, each) for each in status or ())

    jobs = list(client.list_items(client.jobs.ListJobs, request, "jobs", limit=limit))
    session.show({"jobs": jobs}, lambda: jobs_table(jobs, utc=session.out.utc))


@command(app, "show", examples=("drey job show latest",))
def show(session: Session, job: JobArgument) -> None:
    """Show one job."""
    client = session.client
    request = job_service_pb2.GetJobRequest(id=job_id(client, job))
    _show_job(session, client.call(client.jobs.GetJob, request).job)


def _show_job(session: Session, job: job_pb2.Job) -> None:

    session.show({"job": job}, lambda: job_facts(job, utc=session.out.utc))


@command(app, "watch", examples=("drey job watch latest",))
def watch(session: Session, job: JobArgument) -> None:
    """Follow a job to its end. Leaving by Ctrl-C stops nothing."""
    from drey_cli.following import follow_job, job_states

    identity = job_id(session.client, job)
    if session.out.json:
        last = None
        for last in job_states(session, identity):
            session.out.line({"job": last})
    else:
        last = follow_job(session, identity)
        session.out.table(job_facts(last, utc=session.out.utc))
    if last is None or job_state(last) != "succeeded":
        raise typer.Exit(ExitCode.REFUSED)


@command(app, "cancel", examples=("drey job cancel latest --reason 'wrong scope'",))
def cancel(
    session: Session,
    job: JobArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit.")] = "",
) -> None:
    """Ask a job to stop at its next safe point."""
    client = session.client
    answer = client.call(
        client.jobs.CancelJob,
        job_service_pb2.CancelJobRequest(id=job_id(client, job), reason=reason),
    )
    _show_job(session, answer.job)
