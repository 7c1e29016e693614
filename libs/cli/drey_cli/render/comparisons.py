"""Comparisons as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from drey_cli.contracts import compare_pb2, monitor_service_pb2, value_pb2
from drey_cli.render.table import Cell, Column, Table, number_field, table_of, text_field
from drey_cli.render.values import value_cell
from drey_cli.render.words import format_count, plural, short_name

_BAR = 10
_CLASS_STYLE = {
    "equal": "green",
    "within-tolerance": "green",
    "different": "bold red",
    "type-changed": "red",
    "not-comparable": "yellow",
}


def comparison_table(summary: compare_pb2.ComparisonSummary) -> Table:
    """Counts of channels by class."""

    def class_cell(count: compare_pb2.ClassCount) -> Cell:
        name = short_name(compare_pb2.DifferenceClass, count.difference_class)
        return Cell(name, _CLASS_STYLE.get(name, "yellow"))

    return table_of(
        summary.counts,
        text_field("channels", class_cell),
        number_field("setpoints", lambda count: format_count(count.setpoints)),
        number_field("readbacks", lambda count: format_count(count.readbacks)),
    )


def comparison_notes(
    summary: compare_pb2.ComparisonSummary,
    reference: compare_pb2.ResolvedState,
    other: compare_pb2.ResolvedState,
) -> list[str]:
    """What the counts do not say: who was left out, and how the values are known."""
    notes = []
    if summary.pvs_outside_scope:
        notes.append(
            f"{plural(summary.pvs_outside_scope, 'PV')} that only one of the two has, left out;"
            " --within any compares them"
        )
    by_monitor = reference.by_monitor, other.by_monitor
    if any(by_monitor):
        notes.append(
            f"known by a monitor: {format_count(by_monitor[0])} values of the reference,"
            f" {format_count(by_monitor[1])} of the other; a record's dead band may hide a change"
            " of its size"
        )
    return notes


def comparison_verdict(summary: compare_pb2.ComparisonSummary) -> Cell:
    """One line that says how it stands. What is unknown is never called the same."""
    if not (summary.pvs_different or summary.pvs_unknown):
        return Cell(f"{plural(summary.pvs, 'PV')} compared: all the same", "bold green")
    text = (
        f"{plural(summary.pvs, 'PV')} compared: {format_count(summary.pvs_different)} different,"
        f" {format_count(summary.pvs_unknown)} unknown, {format_count(summary.pvs_same)} the same"
    )
    return Cell(text, "bold red" if summary.pvs_different else "bold yellow")


def differences_table(rows: Iterable[compare_pb2.ComparisonRow]) -> Table:
    """One line a channel that is not the same, with a bar of its deviation in tolerances."""
    table = Table(
        (
            Column("PV", css="pv", whole=True),
            Column(""),
            Column("reference", right=True),
            Column("other", right=True),
            Column("delta", right=True),
            Column("deviation"),
            Column("class"),
        )
    )
    for row in rows:
        (cell,) = row.cells
        if cell.HasField("setpoint"):
            here = row.reference_setpoint if row.HasField("reference_setpoint") else None
            _add_channel(table, row.name, "set", here, cell.setpoint)
        if cell.HasField("readback"):
            here = row.reference_readback if row.HasField("reference_readback") else None
            _add_channel(table, row.name, "read", here, cell.readback)
    return table


def drift_table(rows: Iterable[monitor_service_pb2.DriftRow]) -> Table:
    """One line a channel of PVs that are not the same; of those that are too large, the classes."""
    table = Table(
        (
            Column("PV", css="pv", whole=True),
            Column(""),
            Column("reference", right=True),
            Column("now", right=True),
            Column("deviation"),
            Column("class"),
        )
    )
    for row in rows:
        deviation = row.deviation if row.HasField("deviation") else None
        sides = row.stored, row.live
        setpoints = [side.setpoint if side.HasField("setpoint") else None for side in sides]
        readbacks = [side.readback if side.HasField("readback") else None for side in sides]
        for role, (then, now), number in (
            ("set", setpoints, row.setpoint_class),
            ("read", readbacks, row.readback_class),
        ):
            kind = short_name(compare_pb2.DifferenceClass, number)
            if kind in {"", "equal"}:
                continue
            table.add_row(
                row.live.name,
                Cell(role, "dim"),
                Cell("too large") if row.too_large else value_cell(then),
                Cell("too large") if row.too_large else value_cell(now),
                deviation_cell(deviation),
                Cell(kind, _CLASS_STYLE.get(kind, "yellow")),
            )
    return table


def drift_verdict(summary: monitor_service_pb2.DriftSummary) -> Cell:
    """One line that says how it stands. What is unknown is never called the same."""
    text = (
        f"{plural(summary.compared, 'PV')} compared: {format_count(summary.different)} different,"
        f" {format_count(summary.unknown)} unknown, {format_count(summary.same)} the same"
    )
    if summary.stale:
        text += f"; {format_count(summary.stale)} stale"
    if summary.different:
        return Cell(text, "bold red")
    return Cell(text, "bold yellow" if summary.unknown or summary.stale else "bold green")


def _add_channel(
    table: Table,
    name: str,
    role: str,
    reference: value_pb2.Value | None,
    channel: compare_pb2.ChannelDifference,
) -> None:

    kind = short_name(compare_pb2.DifferenceClass, channel.difference_class)
    if kind in {"", "equal", "within-tolerance"}:
        return
    deviation = channel.deviation if channel.HasField("deviation") else None
    note = kind + (" (labels moved)" if channel.labels_moved else "")
    if channel.elements_different:
        note += f" ({plural(channel.elements_different, 'element')}, [{channel.largest_at}])"
    table.add_row(
        name,
        Cell(role, "dim"),
        value_cell(reference),
        value_cell(channel.other if channel.HasField("other") else None),
        f"{channel.delta:+.6g}" if channel.HasField("delta") else "",
        deviation_cell(deviation),
        Cell(note, _CLASS_STYLE.get(kind, "yellow")),
    )


def deviation_cell(deviation: float | None) -> Cell:
    """A bar, a tolerance short and a thousand long, and the number: `█████ 31.6×`."""
    if deviation is None:
        return Cell("")
    if math.isnan(deviation):
        return Cell("NaN", "red")
    if math.isinf(deviation):
        return Cell("█" * _BAR + " no tolerance", "red")
    length = _BAR if deviation >= 1000 else round(_BAR * math.log10(max(deviation, 1.0)) / 3)
    style = "red" if deviation >= 10 else "yellow" if deviation > 1 else ""
    return Cell(f"{'█' * max(1, length):<{_BAR}} {deviation:.3g}×", style)


def matrix_table(rows: Iterable[compare_pb2.ComparisonRow], names: Sequence[str]) -> Table:
    """One line a channel that is not the same everywhere, a column for each other."""
    table = Table(
        (
            Column("PV", css="pv", whole=True),
            Column(""),
            *(Column(name) for name in names),
            Column("first different"),
        )
    )
    for row in rows:
        first = names[row.first_different] if row.HasField("first_different") else ""
        setpoints = [cell.setpoint if cell.HasField("setpoint") else None for cell in row.cells]
        readbacks = [cell.readback if cell.HasField("readback") else None for cell in row.cells]
        for role, channels in (("set", setpoints), ("read", readbacks)):
            cells = [_class_cell(channel) for channel in channels]
            if any(cell.text for cell in cells):
                table.add_row(row.name, Cell(role, "dim"), *cells, first)
    return table


def _class_cell(channel: compare_pb2.ChannelDifference | None) -> Cell:
    """What one cell of a matrix says: nothing where it is the same."""
    if channel is None:
        return Cell("")
    kind = short_name(compare_pb2.DifferenceClass, channel.difference_class)
    if kind == "equal":
        return Cell("")
    if kind in {"within-tolerance", "different"} and channel.HasField("delta"):
        return Cell(f"{channel.delta:+.6g}", _CLASS_STYLE[kind])
    return Cell(kind, _CLASS_STYLE.get(kind, "yellow"))
