"""`drey snapshot compare`: two snapshots, or one and the live machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drey_cli.commands.snapshot_take import SnapshotArgument
from drey_cli.errors import usage_error
from drey_cli.exits import ExitCode
from drey_cli.registry import command
from drey_cli.selection import Choice
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2

SortName = Literal["name", "deviation", "device"]
ScopeName = Literal["reference", "both", "either"]
ToleranceName = Literal["snapshot", "catalogue", "given", "exact"]
_SHOWN = 50


class ClassName(StrEnum):
    """Names of `DifferenceClass`; an enum, for Typer takes no list of literals."""

    EQUAL = "equal"
    WITHIN_TOLERANCE = "within-tolerance"
    DIFFERENT = "different"
    ONLY_IN_REFERENCE = "only-in-reference"
    ONLY_IN_OTHER = "only-in-other"
    DISCONNECTED_IN_REFERENCE = "disconnected-in-reference"
    DISCONNECTED_IN_OTHER = "disconnected-in-other"
    DISCONNECTED_IN_BOTH = "disconnected-in-both"
    TYPE_CHANGED = "type-changed"
    NOT_COMPARABLE = "not-comparable"


def compare(
    session: Session,
    choice: Choice,
    reference: SnapshotArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="A snapshot, or live.")] = "live",
    only: Annotated[
        list[ClassName] | None,
        typer.Option("--only", metavar="CLASS", help="Only PVs in these classes; repeat."),
    ] = None,
    sort: Annotated[SortName, typer.Option("--sort", help="Order of the rows.")] = "deviation",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help="Most PVs; 0 is all. Default: 50, all with --json."),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only the counts.")] = False,
    tolerances: Annotated[
        ToleranceName | None, typer.Option("--tolerances", help="Whose. Default: the snapshot's.")
    ] = None,
    absolute: Annotated[
        float | None, typer.Option("--abs", help="This absolute tolerance for all.")
    ] = None,
    relative: Annotated[
        float | None, typer.Option("--rel", help="This relative tolerance for all.")
    ] = None,
    within: Annotated[
        ScopeName, typer.Option("--within", help="PVs of the reference, of both, or of either.")
    ] = "reference",
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit 0 although differences were found.")
    ] = False,
) -> None:
    """Compare a snapshot with another, or with the live machine. Exit 4 unless all is the same.

    Tags are those of the catalogue as of now: a snapshot does not keep them.
    """
    from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
    from drey_cli.naming import snapshot_id
    from drey_cli.render.enums import number_of

    client = session.client
    limit = limit if limit is not None else (0 if session.out.json else _SHOWN)
    request = snapshot_service_pb2.CompareSnapshotsRequest(
        reference_id=snapshot_id(client, reference),
        selector=choice.optional(),
        summary_only=summary,
        classes=[number_of(snapshot_pb2.DifferenceClass, each) for each in only or ()],
        order=number_of(snapshot_service_pb2.DifferenceOrder, sort),
        limit=limit,
        scope=number_of(snapshot_pb2.ComparisonScope, within),
    )
    if other == "live":
        request.live = True
    else:
        request.other_id = snapshot_id(client, other)
    _set_tolerances(request, tolerances, absolute, relative)
    result, differences = _compare(session, request)
    if session.out.json:
        from drey_cli.render.documents import as_document, as_documents

        session.out.document(
            {"summary": as_document(result), "differences": as_documents(differences)}
        )
    else:
        _draw(session, result, differences, limit)
    if (result.pvs_different or result.pvs_unknown) and not exit_zero:
        raise typer.Exit(ExitCode.DIFFERENT)


def _set_tolerances(
    request: snapshot_service_pb2.CompareSnapshotsRequest,
    source: str | None,
    absolute: float | None,
    relative: float | None,
) -> None:
    from drey.snapshot.v1 import snapshot_pb2
    from drey_cli.render.enums import number_of

    given = absolute is not None or relative is not None
    if given and source not in {None, "given"}:
        raise usage_error("--abs and --rel go with --tolerances given", field="--tolerances")
    if source == "given" and not given:
        raise usage_error("--tolerances given needs --abs or --rel", field="--tolerances")
    if source or given:
        request.tolerance_source = number_of(snapshot_pb2.ToleranceSource, source or "given")
    if given:
        for tolerance in (request.setpoint_tolerance, request.readback_tolerance):
            tolerance.SetInParent()
            tolerance.absolute = absolute or 0.0
            tolerance.relative = relative or 0.0


def _compare(
    session: Session, request: snapshot_service_pb2.CompareSnapshotsRequest
) -> tuple[snapshot_pb2.ComparisonSummary, list[snapshot_pb2.PvDifference]]:
    from drey.snapshot.v1 import snapshot_pb2

    client = session.client
    result = snapshot_pb2.ComparisonSummary()
    differences: list[snapshot_pb2.PvDifference] = []
    with client.stream(client.snapshots.CompareSnapshots, request) as stream:
        for message in stream:
            if message.HasField("summary"):
                result = message.summary
            differences.extend(message.differences.differences)
    return result, differences


def _draw(
    session: Session,
    result: snapshot_pb2.ComparisonSummary,
    differences: list[snapshot_pb2.PvDifference],
    limit: int,
) -> None:
    from drey_cli.render.snapshots import (
        comparison_notes,
        comparison_table,
        comparison_verdict,
        differences_table,
    )

    out = session.out
    if differences:
        table = differences_table(differences)
        if limit and len(differences) >= limit:
            table.note = f"the first {limit} PVs; --limit 0 shows all"
        out.table(table)
    out.table(comparison_table(result))
    times = (session.time(result.reference_time_ns), session.time(result.other_time_ns))
    out.text(f"reference {times[0]}, other {times[1]}", "dim")
    if result.stale_shards:
        out.note(f"{result.stale_shards} shards are stale: their live values may be old", "yellow")
    for note in comparison_notes(result):
        out.note(note)
    out.cell(comparison_verdict(result))


def register(snapshot: typer.Typer) -> None:
    """Add the command to `drey snapshot`."""
    command(
        snapshot,
        "compare",
        chooses=True,
        examples=(
            "drey snapshot compare latest live",
            "drey snapshot compare golden-2026 latest --only different --limit 20",
            "drey snapshot compare latest live --device QUAD --abs 0.01 --summary",
        ),
    )(compare)
