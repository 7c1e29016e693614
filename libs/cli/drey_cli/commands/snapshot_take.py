"""`drey snapshot take|edit|rm`: making snapshots, and what people write on them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from drey_cli.contracts import job_pb2, snapshot_pb2, snapshot_service_pb2
from drey_cli.durations import parse_duration, parse_seconds, to_duration
from drey_cli.errors import CliError, usage_error
from drey_cli.naming import deleted_snapshot_id, snapshot_id
from drey_cli.registry import command
from drey_cli.render.documents import as_documents
from drey_cli.render.enums import number_of
from drey_cli.render.jobs import ENDED, job_facts, job_state
from drey_cli.render.snapshots import missing, snapshot_facts
from drey_cli.render.times import plural
from drey_cli.selection import Choice
from drey_cli.session import Session, new_request_id

app = typer.Typer()


SourceName = Literal["image", "read", "image-then-read"]
SnapshotArgument = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="Id, part of it, latest, or exact title.")
]
_GATES_PANEL = "What must hold"
_FIRST_WAIT_S = 2.0


@command(
    app,
    "take",
    examples=(
        "drey snapshot take --all --title 'before shift 2'",
        "drey snapshot take --tag Region=LI21 --max-missing 10",
        "drey snapshot take --device QUAD --source read --allow-missing",
    ),
)
def take(
    session: Session,
    choice: Choice,
    title: Annotated[
        str, typer.Option("--title", "-t", help="Title; {time} and the like are filled in.")
    ] = "",
    comment: Annotated[str, typer.Option("--comment", help="Comment.")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="Label; repeat.")] = None,
    source: Annotated[
        SourceName, typer.Option("--source", help="The monitors' image, or reading each channel.")
    ] = "image",
    max_age: Annotated[
        str,
        typer.Option(
            "--max-age",
            metavar="TIME",
            help="Oldest sign of life of a monitor. Default 2s.",
            rich_help_panel=_GATES_PANEL,
        ),
    ] = "",
    max_missing: Annotated[
        int | None,
        typer.Option(
            "--max-missing",
            min=0,
            help="Most PVs without a value. Default 0.",
            rich_help_panel=_GATES_PANEL,
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Any number may be missing; they are recorded.",
            rich_help_panel=_GATES_PANEL,
        ),
    ] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="PV", help="Must be there.", rich_help_panel=_GATES_PANEL
        ),
    ] = None,
    read_timeout: Annotated[
        str, typer.Option("--read-timeout", metavar="TIME", help="For all reads. Default 5s.")
    ] = "",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait for reads: answer with the job.")
    ] = False,
) -> None:
    """Take a snapshot. Refused, rather than taken with gaps, unless you allow gaps."""
    if allow_missing and max_missing is not None:
        raise usage_error(
            "--max-missing and --allow-missing exclude each other",
            field="--max-missing",
            remedy="leave one of the two out",
        )

    gates = snapshot_pb2.Gates()
    if require:
        gates.required.names.extend(require)
    if allow_missing:
        gates.any_missing.SetInParent()
    if max_age:
        gates.max_age.CopyFrom(parse_duration(max_age, option="--max-age"))
    if max_missing is not None:
        gates.max_missing = max_missing
    spec = snapshot_pb2.SnapshotSpec(
        selector=choice.required(),
        source=number_of(snapshot_pb2.SnapshotSource, source),
        gates=gates,
        title_template=title,
        comment=comment,
        labels=label or [],
    )
    if read_timeout:
        spec.read_timeout.CopyFrom(
            to_duration(parse_seconds(read_timeout, option="--read-timeout"))
        )
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=spec,
        wait=to_duration(0.0 if no_wait else _FIRST_WAIT_S),
        request_id=new_request_id(),
    )
    _take_snapshot(session, request, no_wait=no_wait)


def _take_snapshot(
    session: Session, request: snapshot_service_pb2.TakeSnapshotRequest, *, no_wait: bool
) -> None:
    from drey_cli.following import check_job, follow_job

    client = session.client
    answer = client.call(
        client.snapshots.TakeSnapshot,
        request,
        timeout_s=client.connection.timeout_s + _FIRST_WAIT_S,
    )
    if answer.HasField("snapshot"):
        _show_taken(session, answer.snapshot)
        return
    if no_wait:
        if session.out.json:
            session.out.document(answer)
        else:
            session.out.table(job_facts(answer.job, utc=session.out.utc))
        return
    ended = job_state(answer.job) in ENDED
    job = answer.job if ended else follow_job(session, answer.job.id)
    check_job(job)
    _show_taken(session, _made_by(session, job))


def _made_by(session: Session, job: job_pb2.Job) -> snapshot_pb2.Snapshot:

    if not job.snapshot_id:
        raise CliError(f"job {job.id} made no snapshot", reason="INTERNAL")
    client = session.client
    request = snapshot_service_pb2.GetSnapshotRequest(id=job.snapshot_id)
    return client.call(client.snapshots.GetSnapshot, request).snapshot


def _show_taken(session: Session, snapshot: snapshot_pb2.Snapshot) -> None:

    if session.out.json:
        session.out.document({"snapshot": snapshot})
        return
    session.out.table(snapshot_facts(snapshot, utc=session.out.utc))
    if lost := missing(snapshot):
        session.out.note(
            f"{plural(lost, 'channel')} missing, by name:"
            f" drey snapshot read {snapshot.id} --only-missing",
            "yellow",
        )


@command(app, "edit", examples=("drey snapshot edit latest --label 2026-run3",))
def edit(
    session: Session,
    snapshot: SnapshotArgument,
    title: Annotated[str | None, typer.Option("--title", "-t", help="New title.")] = None,
    comment: Annotated[str | None, typer.Option("--comment", help="New comment.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="Add; repeat.")] = None,
    no_label: Annotated[
        list[str] | None, typer.Option("--no-label", help="Take away; repeat.")
    ] = None,
) -> None:
    """Change title, comment or labels. Values can never be changed."""
    client = session.client
    snapshot_now = client.call(
        client.snapshots.GetSnapshot,
        snapshot_service_pb2.GetSnapshotRequest(id=snapshot_id(client, snapshot)),
    ).snapshot
    request = snapshot_service_pb2.UpdateSnapshotRequest(request_id=new_request_id())
    request.snapshot.id, request.snapshot.etag = snapshot_now.id, snapshot_now.etag
    mask = request.update_mask.paths
    if title is not None:
        request.snapshot.title = title
        mask.append("title")
    if comment is not None:
        request.snapshot.comment = comment
        mask.append("comment")
    if label or no_label:
        kept = [each for each in snapshot_now.labels if each not in (no_label or ())]
        request.snapshot.labels.extend(dict.fromkeys([*kept, *(label or ())]))
        mask.append("labels")
    if not mask:
        raise usage_error("no option says what to change", remedy="see drey snapshot edit --help")
    changed = client.call(client.snapshots.UpdateSnapshot, request).snapshot
    session.show({"snapshot": changed}, lambda: snapshot_facts(changed, utc=session.out.utc))


@command(app, "rm", examples=("drey snapshot rm 'test 1' 0192f3a4",))
def remove(
    session: Session,
    snapshots: Annotated[
        list[str], typer.Argument(metavar="SNAPSHOT", help="Id, part of it, or exact title.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete snapshots. Golden ones are protected."""
    client = session.client
    # All names are resolved before the first is deleted: `latest` must not move meanwhile.
    ids = list(dict.fromkeys(snapshot_id(client, text) for text in snapshots))
    session.confirm(f"Delete {plural(len(ids), 'snapshot')}?", yes=yes)
    deleted = []
    for identity in ids:
        request = snapshot_service_pb2.DeleteSnapshotRequest(
            id=identity, request_id=new_request_id()
        )
        deleted.append(client.call(client.snapshots.DeleteSnapshot, request).snapshot)
        if not session.out.json:
            session.out.text(f"deleted {identity}")
    if session.out.json:
        session.out.document({"snapshots": as_documents(deleted)})


@command(app, "undelete", examples=("drey snapshot undelete 'test 1'",))
def undelete(
    session: Session,
    snapshots: Annotated[
        list[str], typer.Argument(metavar="SNAPSHOT", help="Id, part of it, or exact title.")
    ],
) -> None:
    """Bring deleted snapshots back. See them with: drey snapshot list --deleted."""
    client = session.client
    back = []
    for identity in dict.fromkeys(deleted_snapshot_id(client, text) for text in snapshots):
        request = snapshot_service_pb2.UndeleteSnapshotRequest(
            id=identity, request_id=new_request_id()
        )
        back.append(client.call(client.snapshots.UndeleteSnapshot, request).snapshot)
        if not session.out.json:
            session.out.text(f"{identity} is back")
    if session.out.json:
        session.out.document({"snapshots": as_documents(back)})
