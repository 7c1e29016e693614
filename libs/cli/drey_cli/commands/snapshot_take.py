"""`drey snapshot take|edit|rm|undelete`: making snapshots, and what people write on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from drey_cli.commands import SUMMARIES
from drey_cli.commands.job import ENDED, check_job, follow_job, job_facts, job_state
from drey_cli.contracts import job_pb2, snapshot_pb2, snapshot_service_pb2
from drey_cli.errors import CliError, usage_error
from drey_cli.naming import deleted_snapshot_id, snapshot_id
from drey_cli.options import (
    COUNT,
    SPAN,
    argument,
    choice_of,
    comment_option,
    gate_option,
    option,
    to_duration,
    yes_option,
)
from drey_cli.render.snapshots import missing_pvs, snapshot_facts
from drey_cli.render.words import number_of, plural
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command, group

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

snapshot_command = group(SUMMARIES["snapshot"])
snapshot_argument = argument("snapshot", help="Id, part of it, latest, latest~N, or exact title.")
snapshots_argument = argument(
    "snapshots", nargs=-1, required=True, metavar="SNAPSHOT...", help="Ids, parts, or exact titles."
)
_FIRST_WAIT_S = 2.0


@command(
    "take",
    snapshot_command,
    gives="{snapshot}; with --no-wait TakeSnapshotResponse",
    examples=(
        "drey snapshot take --all --title 'before shift 2'",
        "drey snapshot take --tag Area=LI21 --max-missing 10",
        "drey snapshot take --device QUAD --source read --allow-missing",
    ),
)
@choosing
@option("--title", "-t", default="", help="Title; {time} and the like are filled in.")
@comment_option
@option("--label", "labels", multiple=True, help="Label; repeat.")
@option(
    "--source",
    type=choice_of("image", "read", "image-then-read"),
    default="image",
    help="The monitors' image, or reading each channel.",
)
@option("--read-timeout", type=SPAN, metavar="TIME", help="For all reads. Default 5s.")
@option("--no-wait", is_flag=True, help="Do not wait for reads: answer with the job.")
@gate_option(
    "--max-age", type=SPAN, metavar="TIME", help="Oldest sign of life of a monitor. Default 2s."
)
@gate_option(
    "--max-missing", type=COUNT, metavar="NUMBER", help="Most PVs without a value. Default 0."
)
@gate_option("--allow-missing", is_flag=True, help="Any number may be missing; they are recorded.")
@gate_option("--require", multiple=True, metavar="PV", help="Must be there; repeat.")
def take_snapshot(
    session: CliSession,
    choice: Choice,
    title: str,
    comment: str,
    labels: list[str],
    source: str,
    read_timeout: Duration | None,
    no_wait: bool,
    max_age: Duration | None,
    max_missing: int | None,
    allow_missing: bool,
    require: list[str],
) -> None:
    """Take a snapshot. Refused, rather than taken with gaps, unless you allow gaps."""
    if allow_missing and max_missing is not None:
        raise usage_error(
            "--max-missing and --allow-missing exclude each other",
            field="--max-missing",
            remedy="leave one of the two out",
        )
    gates = snapshot_pb2.Gates(max_age=max_age)
    if require:
        gates.required.names.extend(require)
    if allow_missing:
        gates.any_missing.SetInParent()
    if max_missing is not None:
        gates.max_missing = max_missing
    spec = snapshot_pb2.SnapshotSpec(
        selector=choice.required_selector(),
        source=number_of(snapshot_pb2.SnapshotSource, source),
        gates=gates,
        title_template=title,
        comment=comment,
        labels=labels,
        read_timeout=read_timeout,
    )
    wait_s = 0.0 if no_wait else _FIRST_WAIT_S
    request = snapshot_service_pb2.TakeSnapshotRequest(spec=spec, wait=to_duration(wait_s))
    client = session.client
    timeout_s = client.connection.timeout_s + wait_s
    answer = client.call_method(client.snapshots.TakeSnapshot, request, timeout_s=timeout_s)
    if answer.HasField("snapshot"):
        _show_taken(session, answer.snapshot)
    elif no_wait:
        session.show_document(answer, lambda: job_facts(answer.job, utc=session.out.utc))
    else:
        ended = job_state(answer.job) in ENDED
        job = answer.job if ended else follow_job(session, answer.job.id)
        check_job(job)
        _show_taken(session, _made_by(session, job))


def _made_by(session: CliSession, job: job_pb2.Job) -> snapshot_pb2.Snapshot:
    if not job.snapshot_id:
        raise CliError(f"job {job.id} made no snapshot", reason="INTERNAL")
    client = session.client
    request = snapshot_service_pb2.GetSnapshotRequest(id=job.snapshot_id)
    return client.call_method(client.snapshots.GetSnapshot, request).snapshot


def _show_taken(session: CliSession, snapshot: snapshot_pb2.Snapshot) -> None:
    session.show_document(
        {"snapshot": snapshot}, lambda: snapshot_facts(snapshot, utc=session.out.utc)
    )
    if lost := missing_pvs(snapshot):
        session.out.print_note(
            f"{plural(lost, 'channel')} missing, by name:"
            f" drey snapshot read {snapshot.id} --only-missing",
            "yellow",
        )


@command(
    "edit",
    snapshot_command,
    gives="UpdateSnapshotResponse",
    examples=("drey snapshot edit latest --label 2026-run3",),
)
@snapshot_argument
@option("--title", "-t", help="New title.")
@option("--comment", help="New comment.")
@option("--label", "labels", multiple=True, help="Add; repeat.")
@option("--no-label", "unlabels", multiple=True, help="Take away; repeat.")
def edit_snapshot(
    session: CliSession,
    snapshot: str,
    title: str | None,
    comment: str | None,
    labels: list[str],
    unlabels: list[str],
) -> None:
    """Change title, comment or labels. Values can never be changed."""
    client = session.client
    snapshot_now = client.call_method(
        client.snapshots.GetSnapshot,
        snapshot_service_pb2.GetSnapshotRequest(id=snapshot_id(client, snapshot)),
    ).snapshot
    request = snapshot_service_pb2.UpdateSnapshotRequest()
    request.snapshot.id, request.snapshot.etag = snapshot_now.id, snapshot_now.etag
    mask = request.update_mask.paths
    if title is not None:
        request.snapshot.title = title
        mask.append("title")
    if comment is not None:
        request.snapshot.comment = comment
        mask.append("comment")
    if labels or unlabels:
        kept = [each for each in snapshot_now.labels if each not in unlabels]
        request.snapshot.labels.extend(dict.fromkeys([*kept, *labels]))
        mask.append("labels")
    if not mask:
        raise usage_error("no option says what to change", remedy="see drey snapshot edit --help")
    answer = client.call_method(client.snapshots.UpdateSnapshot, request)
    session.show_document(answer, lambda: snapshot_facts(answer.snapshot, utc=session.out.utc))


@command(
    "rm", snapshot_command, gives="{snapshots}", examples=("drey snapshot rm 'test 1' 0192f3a4",)
)
@snapshots_argument
@yes_option
def remove_snapshots(session: CliSession, snapshots: list[str], yes: bool) -> None:
    """Delete snapshots. Golden ones are protected."""
    client = session.client

    def delete_snapshot(identity: str) -> snapshot_pb2.Snapshot:
        request = snapshot_service_pb2.DeleteSnapshotRequest(id=identity)
        return client.call_method(client.snapshots.DeleteSnapshot, request).snapshot

    # All names are resolved before the first is deleted: `latest` must not move meanwhile.
    ids = list(dict.fromkeys(snapshot_id(client, text) for text in snapshots))
    session.confirm_action(f"Delete {plural(len(ids), 'snapshot')}?", yes=yes)
    _change_each(session, ids, delete_snapshot, "deleted {}")


@command(
    "undelete", snapshot_command, gives="{snapshots}", examples=("drey snapshot undelete 'test 1'",)
)
@snapshots_argument
def undelete_snapshots(session: CliSession, snapshots: list[str]) -> None:
    """Bring deleted snapshots back. See them with: drey snapshot list --deleted."""
    client = session.client

    def undelete_snapshot(identity: str) -> snapshot_pb2.Snapshot:
        request = snapshot_service_pb2.UndeleteSnapshotRequest(id=identity)
        return client.call_method(client.snapshots.UndeleteSnapshot, request).snapshot

    ids = dict.fromkeys(deleted_snapshot_id(client, text) for text in snapshots)
    _change_each(session, ids, undelete_snapshot, "{} is back")


def _change_each(
    session: CliSession,
    ids: Iterable[str],
    change: Callable[[str], snapshot_pb2.Snapshot],
    text: str,
) -> None:
    """Change one after the other, and say so of each: what follows may be refused."""
    changed: list[snapshot_pb2.Snapshot] = []
    for identity in ids:
        try:
            changed.append(change(identity))
        except CliError as error:
            error.partial = {"snapshots": changed}
            raise
        if not session.out.json:
            session.out.print_text(text.format(identity))
    if session.out.json:
        session.out.write_document({"snapshots": changed})
