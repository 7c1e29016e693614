"""Following a job to its end, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from drey_cli.contracts import job_pb2, job_service_pb2
from drey_cli.errors import CliError
from drey_cli.failures import from_item_error
from drey_cli.following import follow_to_end
from drey_cli.render.jobs import ENDED, job_state, progress_text
from drey_cli.render.table import escape

if TYPE_CHECKING:
    from drey_cli.client import Stream
    from drey_cli.session import Session


def job_states(session: Session, job_id: str) -> Iterator[job_pb2.Job]:
    """Each state of a job until it has ended, across broken connections."""
    from drey_cli.client import WATCH_TIMEOUT_S

    client = session.client

    def open_stream() -> Stream[job_service_pb2.WatchJobResponse]:
        request = job_service_pb2.WatchJobRequest(id=job_id)
        return client.stream(client.jobs.WatchJob, request, timeout_s=WATCH_TIMEOUT_S)

    def lost(error: CliError) -> None:
        session.out.note(f"{error.message}; the job goes on, connecting again", "yellow")

    for message in follow_to_end(open_stream, on_lost=lost):
        yield message.job
        if job_state(message.job) in ENDED:
            return


def follow_job(session: Session, job_id: str) -> job_pb2.Job:
    """Show a bar until the job has ended; give its last state.

    Ctrl-C leaves the job running and raises KeyboardInterrupt, after saying so.
    """
    last: job_pb2.Job | None = None
    try:
        with session.out.progress() as progress:
            task = progress.add_task("waiting", total=None)
            for job in job_states(session, job_id):
                last = job
                progress.update(
                    task,
                    description=escape(job.phase) or job_state(job),
                    completed=job.done,
                    total=job.total or None,
                )
    except KeyboardInterrupt:
        session.out.note(f"the job goes on: drey job watch {job_id}")
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
