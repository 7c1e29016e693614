"""Snapshots and comparisons as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from drey_cli.render.enums import short_name
from drey_cli.render.table import Cell, Column, Table, facts
from drey_cli.render.times import format_count, format_span, format_time, plural
from drey_cli.render.values import value_cell

if TYPE_CHECKING:
    from drey.common.v1 import selector_pb2
    from drey.snapshot.v1 import snapshot_pb2

_BAR = 10
_NAMES = 10
_CLASS_STYLE = {
    "equal": "green",
    "within-tolerance": "green",
    "different": "bold red",
    "type-changed": "red",
    "not-comparable": "yellow",
}


def snapshots_table(snapshots: Iterable[snapshot_pb2.Snapshot], *, utc: bool) -> Table:
    """One line a snapshot."""
    table = Table(
        (
            Column("id"),
            Column("time"),
            Column("title", fold=True),
            Column("PVs", right=True),
            Column("missing", right=True),
            Column("by"),
            Column("labels", fold=True),
        )
    )
    for snapshot in snapshots:
        lost = missing(snapshot)
        table.add(
            snapshot.id,
            format_time(snapshot.time_ns, utc=utc),
            _title(snapshot),
            format_count(snapshot.pv_count),
            Cell(format_count(lost), "red" if lost else "dim"),
            snapshot.actor.principal,
            " ".join(snapshot.labels),
        )
    return table


def _title(snapshot: snapshot_pb2.Snapshot) -> Cell | str:
    if snapshot.delete_time_ns:
        return Cell(f"{snapshot.title} (deleted)", "dim")
    return Cell(f"★ {snapshot.title}", "yellow") if snapshot.golden else snapshot.title


def missing(snapshot: snapshot_pb2.Snapshot) -> int:
    """Channels without a value that was connected."""
    counts = snapshot.counts
    return counts.disconnected + counts.never_connected + counts.unsupported


def snapshot_facts(snapshot: snapshot_pb2.Snapshot, *, utc: bool) -> Table:
    """All that is known of a snapshot beside its values."""
    from drey.snapshot.v1 import snapshot_pb2

    counts, skew, lost = snapshot.counts, snapshot.skew, missing(snapshot)
    pairs: list[tuple[str, Cell | str]] = [
        ("id", snapshot.id),
        ("time", format_time(snapshot.time_ns, utc=utc)),
        ("comment", snapshot.comment or "—"),
        ("labels", " ".join(snapshot.labels) or "—"),
        ("golden", Cell("yes", "yellow") if snapshot.golden else "no"),
        ("taken by", f"{snapshot.actor.principal} ({', '.join(snapshot.actor.roles)})"),
        (
            "source",
            f"{short_name(snapshot_pb2.SnapshotSource, snapshot.source)},"
            f" in {format_span(snapshot.duration_ns)}",
        ),
        (
            "chosen",
            selector_words(snapshot.selector) + " (shortened)" * snapshot.selector_shortened
            if snapshot.HasField("selector")
            else "not kept",
        ),
        ("PVs", format_count(snapshot.pv_count)),
        (
            "channels",
            f"{format_count(counts.channels)}: {format_count(counts.connected)} connected",
        ),
        (
            "missing",
            Cell(
                f"{format_count(counts.disconnected)} disconnected,"
                f" {format_count(counts.never_connected)} never connected"
                + (
                    f", {format_count(counts.unsupported)} of a protocol that is not supported"
                    if counts.unsupported
                    else ""
                ),
                "red" if lost else "",
            ),
        ),
        ("in alarm", format_count(counts.in_alarm)),
        ("suspect clocks", format_count(counts.source_time_suspect)),
        ("by monitor", format_count(counts.by_monitor) if counts.HasField("by_monitor") else "—"),
        ("oldest value", format_time(skew.oldest_source_time_ns, utc=utc)),
        ("newest value", format_time(skew.newest_source_time_ns, utc=utc)),
        (
            "ages",
            f"median {format_span(skew.median_age_ns)}, 99 % below {format_span(skew.p99_age_ns)}",
        ),
        ("digest", snapshot.digest),
    ]
    if snapshot.delete_time_ns:
        pairs.append(("deleted", Cell(format_time(snapshot.delete_time_ns, utc=utc), "red")))
    return facts(pairs, title=snapshot.title or "(no title)")


def comparison_table(summary: snapshot_pb2.ComparisonSummary) -> Table:
    """Counts of channels by class."""
    from drey.snapshot.v1 import snapshot_pb2

    table = Table(
        (Column("channels"), Column("setpoints", right=True), Column("readbacks", right=True))
    )
    for count in summary.counts:
        name = short_name(snapshot_pb2.DifferenceClass, getattr(count, "class"))
        table.add(
            Cell(name, _CLASS_STYLE.get(name, "yellow")),
            format_count(count.setpoints),
            format_count(count.readbacks),
        )
    return table


def comparison_notes(summary: snapshot_pb2.ComparisonSummary) -> list[str]:
    """What the counts do not say: who was left out, and how the values are known."""
    notes = []
    if summary.pvs_outside_scope:
        notes.append(
            f"{plural(summary.pvs_outside_scope, 'PV')} that only one of the two has, left out;"
            " --within either compares them"
        )
    by_monitor = summary.reference_by_monitor, summary.other_by_monitor
    if any(by_monitor):
        notes.append(
            f"known by a monitor: {format_count(by_monitor[0])} values of the reference,"
            f" {format_count(by_monitor[1])} of the other; a record's dead band may hide a change"
            " of its size"
        )
    return notes


def selector_words(selector: selector_pb2.Selector) -> str:
    """A selector in one line, as it is said on the command line."""
    said = ["--all"] if selector.all else []
    names = [*selector.names, *selector.ids, *(f"#{number}" for number in selector.numbers)]
    said += names[:_NAMES]
    if len(names) > _NAMES:
        said.append(f"and {format_count(len(names) - _NAMES)} more")
    said += [f"--glob {glob}" for glob in selector.globs]
    said += [f"--device {device}" for device in selector.devices]
    said += [
        f"--tag {tag.group}" + "=" * bool(tag.tags) + ",".join(tag.tags) for tag in selector.tags
    ]
    if selector.scope:
        said.append(f"scope {selector.scope}")
    if selector.HasField("excluding"):
        said.append(f"except ({selector_words(selector.excluding)})")
    return " ".join(said)


def comparison_verdict(summary: snapshot_pb2.ComparisonSummary) -> Cell:
    """One line that says how it stands. What is unknown is never called the same."""
    if not (summary.pvs_different or summary.pvs_unknown):
        return Cell(f"{plural(summary.pvs, 'PV')} compared: all the same", "bold green")
    text = (
        f"{plural(summary.pvs, 'PV')} compared: {format_count(summary.pvs_different)} different,"
        f" {format_count(summary.pvs_unknown)} unknown, {format_count(summary.pvs_same)} the same"
    )
    return Cell(text, "bold red" if summary.pvs_different else "bold yellow")


def differences_table(differences: Iterable[snapshot_pb2.PvDifference]) -> Table:
    """One line a channel that is not the same, with a bar of its deviation in tolerances."""
    table = Table(
        (
            Column("PV"),
            Column(""),
            Column("reference", right=True),
            Column("other", right=True),
            Column("delta", right=True),
            Column("deviation"),
            Column("class"),
        )
    )
    for difference in differences:
        for role, word in (("setpoint", "set"), ("readback", "read")):
            if difference.HasField(role):  # type: ignore[arg-type]
                _add_channel(table, difference.name, word, getattr(difference, role))
    return table


def _add_channel(
    table: Table, name: str, role: str, channel: snapshot_pb2.ChannelDifference
) -> None:
    from drey.snapshot.v1 import snapshot_pb2

    kind = short_name(snapshot_pb2.DifferenceClass, getattr(channel, "class"))
    if kind in {"", "equal", "within-tolerance"}:
        return
    deviation = channel.deviation if channel.HasField("deviation") else None
    note = kind + (" (labels moved)" if channel.labels_moved else "")
    if channel.elements_different:
        note += f" ({plural(channel.elements_different, 'element')}, [{channel.largest_at}])"
    table.add(
        name,
        Cell(role, "dim"),
        value_cell(channel.reference if channel.HasField("reference") else None),
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
