"""`drey snapshot compare`: snapshots with each other, or with the live machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drey_cli.commands.snapshot_take import snapshot_command
from drey_cli.contracts import compare_pb2, compare_service_pb2, state_pb2
from drey_cli.errors import ExitCode, usage_error
from drey_cli.naming import snapshot_id
from drey_cli.options import argument, choice_of, limit_option, option
from drey_cli.output import Drawn
from drey_cli.render.comparisons import (
    comparison_notes,
    comparison_table,
    comparison_verdict,
    differences_table,
    matrix_table,
)
from drey_cli.render.table import Cell, Table
from drey_cli.render.words import format_stamp, number_of, plural
from drey_cli.selection import Choice, choosing_by_option
from drey_cli.session import CliSession, command, end_with

if TYPE_CHECKING:
    from drey_cli.client import CliClient

_CLASSES = (
    "equal",
    "within-tolerance",
    "different",
    "only-in-reference",
    "only-in-other",
    "disconnected-in-reference",
    "disconnected-in-other",
    "disconnected-in-both",
    "type-changed",
    "not-comparable",
)
_SHOWN = 50


@command(
    "compare",
    snapshot_command,
    gives="{header, rows}",
    examples=(
        "drey snapshot compare latest live",
        "drey snapshot compare golden:injector latest --only different --limit 20",
        "drey snapshot compare latest~5 latest~4 latest~3 latest --sort name",
        "drey snapshot compare latest live --device QUAD --abs 0.01 --summary",
    ),
)
@argument("reference", help="A snapshot, live, or golden:LABEL.")
@argument("others", nargs=-1, metavar="[OTHER]...", help="As REFERENCE; up to 16. Default: live.")
@choosing_by_option
@option(
    "--only",
    type=choice_of(*_CLASSES),
    multiple=True,
    metavar="CLASS",
    help=f"Only PVs in these classes; repeat. One of {', '.join(_CLASSES)}.",
)
@option(
    "--sort",
    type=choice_of("name", "deviation", "device"),
    default="deviation",
    help="Order of the rows; the greatest deviation comes first.",
)
@limit_option(None, f"Most PVs; default {_SHOWN}, all with --json")
@option("--summary", is_flag=True, help="Only the counts.")
@option(
    "--tolerances",
    type=choice_of("reference", "catalog", "given", "exact"),
    help="Whose. Default: the reference's.",
)
@option("--abs", "absolute", type=float, metavar="NUMBER", help="This absolute tolerance for all.")
@option("--rel", "relative", type=float, metavar="NUMBER", help="This relative tolerance for all.")
@option(
    "--within",
    type=choice_of("reference", "common", "any"),
    default="reference",
    help="PVs of the reference, common to all, or of any.",
)
@option("--exit-zero", is_flag=True, help="Exit 0 although differences were found.")
def compare(
    session: CliSession,
    choice: Choice,
    reference: str,
    others: list[str],
    only: list[str],
    sort: str,
    limit: int | None,
    summary: bool,
    tolerances: str | None,
    absolute: float | None,
    relative: float | None,
    within: str,
    exit_zero: bool,
) -> None:
    """Compare a snapshot with others, or with the live machine. Exit 4 unless all is the same.

    With several others: a table with one column for each, and the first in which a PV is different.
    Tags are those of the catalog as of now: a snapshot does not keep them.
    """
    client = session.client
    names = list(others) or ["live"]
    limit = limit if limit is not None else (0 if session.out.json else _SHOWN)
    spec = compare_pb2.ComparisonSpec(
        reference=read_state_ref(client, reference),
        others=[read_state_ref(client, each) for each in names],
        selector=choice.optional_selector(),
        scope=number_of(compare_pb2.ComparisonScope, within),
        classes=[number_of(compare_pb2.DifferenceClass, each) for each in only],
        order=number_of(compare_pb2.ComparisonOrder, sort),
        with_values=session.out.json or len(names) == 1,
    )
    _set_tolerances(spec, tolerances, absolute, relative)
    request = compare_service_pb2.CompareRequest(spec=spec, summary_only=summary, page_size=limit)
    header, rows = _stream_comparison(session, request)
    session.show_document(
        {"header": header, "rows": rows}, lambda: _draw_rows(session, names, header, rows)
    )
    unlike = any(each.pvs_different or each.pvs_unknown for each in header.summaries)
    if unlike and not exit_zero:
        end_with(ExitCode.DIFFERENT)


def read_state_ref(client: CliClient, text: str) -> state_pb2.StateRef:
    """What `live`, `golden:LABEL`, or the name of a snapshot says."""
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
    session: CliSession, request: compare_service_pb2.CompareRequest
) -> tuple[compare_pb2.ComparisonHeader, list[compare_pb2.ComparisonRow]]:
    client = session.client
    header = compare_pb2.ComparisonHeader()
    rows: list[compare_pb2.ComparisonRow] = []
    with client.stream_method(client.comparisons.Compare, request) as stream:
        for message in stream:
            if message.HasField("header"):
                header = message.header
            rows.extend(message.rows.rows)
    return header, rows


def _draw_rows(
    session: CliSession,
    names: list[str],
    header: compare_pb2.ComparisonHeader,
    rows: list[compare_pb2.ComparisonRow],
) -> Drawn:
    drawn: list[Table | Cell | str] = []
    if rows:
        table = differences_table(rows) if len(names) == 1 else matrix_table(rows, names)
        if len(rows) < header.total_rows:
            table.note = f"the first {len(rows)} PVs of {header.total_rows}; --limit 0 shows all"
        drawn.append(table)
    utc = session.out.utc
    reference = format_stamp(header.reference.state_time, utc=utc)
    for name, other, summary in zip(names, header.others, header.summaries, strict=True):
        if len(names) > 1:
            drawn.append(Cell(name, "bold"))
        times = f"reference {reference}, other {format_stamp(other.state_time, utc=utc)}"
        drawn += [comparison_table(summary), Cell(times, "dim")]
        for side in (header.reference, other):
            if side.stale_shards:
                stale = plural(side.stale_shards, "shard")
                session.out.print_note(f"stale: {stale}, whose live values may be old", "yellow")
        for note in comparison_notes(summary, header.reference, other):
            session.out.print_note(note)
        drawn.append(comparison_verdict(summary))
    return drawn
