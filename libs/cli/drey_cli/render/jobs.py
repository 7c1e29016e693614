"""Jobs as tables."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import job_pb2
from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table, facts
from drey_cli.render.times import format_span, format_time

_STYLE = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "bold red",
    "running": "cyan",
}
ENDED = frozenset({"succeeded", "failed", "cancelled", "interrupted"})


def job_state(job: job_pb2.Job) -> str:
    """State of a job as its short name."""
    return short_name(job_pb2.JobState, job.state)


def state_cell(job: job_pb2.Job) -> Cell:
    """State of a job in its colour."""
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
    table = Table(
        (
            Column("job"),
            Column("time"),
            Column("kind"),
            Column("state"),
            Column("progress"),
            Column("by"),
            Column("result or error", fold=True),
        )
    )
    for job in jobs:
        table.add(
            job.id,
            format_time(job.create_time.ToNanoseconds(), utc=utc),
            short_name(job_pb2.JobKind, job.kind),
            state_cell(job),
            progress_text(job),
            job.actor.principal,
            Cell(job.error.message, "red") if job.HasField("error") else result_text(job),
        )
    return table


def job_facts(job: job_pb2.Job, *, utc: bool) -> Table:
    """All that is known of a job."""
    pairs: list[tuple[str, Cell | str]] = [
        ("job", job.id),
        ("kind", short_name(job_pb2.JobKind, job.kind)),
        ("state", state_cell(job)),
        ("progress", progress_text(job) or "—"),
        ("result", result_text(job) or "—"),
        ("by", job.actor.principal),
        ("attempts", str(job.attempts)),
        ("created", format_time(job.create_time.ToNanoseconds(), utc=utc)),
        ("begun", format_time(job.start_time.ToNanoseconds(), utc=utc)),
        ("ended", format_time(job.end_time.ToNanoseconds(), utc=utc)),
    ]
    if job.HasField("start_time") and job.HasField("end_time"):
        span_ns = job.end_time.ToNanoseconds() - job.start_time.ToNanoseconds()
        pairs.append(("took", format_span(span_ns)))
    if job.HasField("error"):
        pairs.append(("error", Cell(job.error.message, "bold red")))
    if job.trace_id:
        pairs.append(("trace", job.trace_id))
    return facts(pairs)
