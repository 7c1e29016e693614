"""`drey snapshot compare`: snapshots with each other, or with the live machine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drey_cli.contracts import compare_pb2, compare_service_pb2, state_pb2
from drey_cli.errors import usage_error
from drey_cli.exits import ExitCode
from drey_cli.naming import snapshot_id
from drey_cli.registry import command
from drey_cli.render.comparisons import (
    comparison_notes,
    comparison_table,
    comparison_verdict,
    differences_table,
    matrix_table,
)
from drey_cli.render.documents import as_document, as_documents
from drey_cli.render.enums import number_of
from drey_cli.selection import NamedChoice
from drey_cli.session import Session

if TYPE_CHECKING:
    from drey_cli.client import Client

app = typer.Typer()

SortName = Literal["name", "deviation", "device"]
ScopeName = Literal["reference", "common", "any"]
ToleranceName = Literal["reference", "catalog", "given", "exact"]
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


@command(
    app,
    "compare",
    examples=(
        "drey snapshot compare latest live",
        "drey snapshot compare golden:injector latest --only different --limit 20",
        "drey snapshot compare latest~5 latest~4 latest~3 latest --sort name",
        "drey snapshot compare latest live --device QUAD --abs 0.01 --summary",
    ),
)
def compare(
    session: Session,
    choice: NamedChoice,
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="A snapshot, live, or golden:LABEL.")
    ],
    others: Annotated[
        list[str] | None,
        typer.Argument(metavar="OTHER", help="As REFERENCE; up to 16. Default: live."),
    ] = None,
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
        ToleranceName | None, typer.Option("--tolerances", help="Whose. Default: the reference's.")
    ] = None,
    absolute: Annotated[
        float | None, typer.Option("--abs", help="This absolute tolerance for all.")
    ] = None,
    relative: Annotated[
        float | None, typer.Option("--rel", help="This relative tolerance for all.")
    ] = None,
    within: Annotated[
        ScopeName, typer.Option("--within", help="PVs of the reference, common to all, or of any.")
    ] = "reference",
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit 0 although differences were found.")
    ] = False,
) -> None:
    """Compare a snapshot with others, or with the live machine. Exit 4 unless all is the same.

    With several others: a table with one column for each, and the first in which a PV is different.
    Tags are those of the catalog as of now: a snapshot does not keep them.
    """
    client = session.client
    names = others or ["live"]
    limit = limit if limit is not None else (0 if session.out.json else _SHOWN)
    spec = compare_pb2.ComparisonSpec(
        reference=_state_ref(client, reference),
        others=[_state_ref(client, each) for each in names],
        selector=choice.optional(),
        scope=number_of(compare_pb2.ComparisonScope, within),
        classes=[number_of(compare_pb2.DifferenceClass, each) for each in only or ()],
        order=number_of(compare_pb2.ComparisonOrder, sort),
        with_values=session.out.json or len(names) == 1,
    )
    _set_tolerances(spec, tolerances, absolute, relative)
    request = compare_service_pb2.CompareRequest(spec=spec, summary_only=summary, page_size=limit)
    header, rows = _stream_comparison(session, request)
    if session.out.json:
        session.out.document({"header": as_document(header), "rows": as_documents(rows)})
    else:
        _draw_differences(session, names, header, rows)
    unlike = any(each.pvs_different or each.pvs_unknown for each in header.summaries)
    if unlike and not exit_zero:
        raise typer.Exit(ExitCode.DIFFERENT)


def _state_ref(client: Client, text: str) -> state_pb2.StateRef:

    if text == "live":
        return state_pb2.StateRef(live=state_pb2.LiveState())
    kind, colon, label = text.partition(":")
    if (kind, colon) == ("golden", ":"):
        return state_pb2.StateRef(golden=state_pb2.GoldenRef(label=label))
    return state_pb2.StateRef(snapshot_id=snapshot_id(client, text))


def _set_tolerances(
    spec: compare_pb2.ComparisonSpec,
    source: str | None,
    absolute: float | None,
    relative: float | None,
) -> None:

    given = absolute is not None or relative is not None
    if given and source not in {None, "given"}:
        raise usage_error(
            "--abs and --rel go with --tolerances given",
            field="--tolerances",
            remedy="say --tolerances given, or leave it out",
        )
    if source == "given" and not given:
        raise usage_error(
            "--tolerances given needs --abs or --rel",
            field="--tolerances",
            remedy="say --abs NUMBER, --rel NUMBER, or both",
        )
    if source or given:
        spec.tolerance_source = number_of(compare_pb2.ToleranceSource, source or "given")
    if given:
        for tolerance in (spec.setpoint_tolerance, spec.readback_tolerance):
            tolerance.SetInParent()
            tolerance.absolute = absolute or 0.0
            tolerance.relative = relative or 0.0


def _stream_comparison(
    session: Session, request: compare_service_pb2.CompareRequest
) -> tuple[compare_pb2.ComparisonHeader, list[compare_pb2.ComparisonRow]]:

    client = session.client
    header = compare_pb2.ComparisonHeader()
    rows: list[compare_pb2.ComparisonRow] = []
    with client.stream(client.comparisons.Compare, request) as stream:
        for message in stream:
            if message.HasField("header"):
                header = message.header
            rows.extend(message.rows.rows)
    return header, rows


def _draw_differences(
    session: Session,
    names: list[str],
    header: compare_pb2.ComparisonHeader,
    rows: list[compare_pb2.ComparisonRow],
) -> None:

    out = session.out
    if rows:
        table = differences_table(rows) if len(names) == 1 else matrix_table(rows, names)
        if len(rows) < header.total_rows:
            table.note = f"the first {len(rows)} PVs of {header.total_rows}; --limit 0 shows all"
        out.table(table)
    reference = session.time(header.reference.state_time.ToNanoseconds())
    for name, other, summary in zip(names, header.others, header.summaries, strict=True):
        if len(names) > 1:
            out.text(name, "bold")
        out.table(comparison_table(summary))
        out.text(
            f"reference {reference}, other {session.time(other.state_time.ToNanoseconds())}", "dim"
        )
        for side in (header.reference, other):
            if side.stale_shards:
                out.note(
                    f"{side.stale_shards} shards are stale: their live values may be old", "yellow"
                )
        for note in comparison_notes(summary, header.reference, other):
            out.note(note)
        out.cell(comparison_verdict(summary))
