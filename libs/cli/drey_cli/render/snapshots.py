"""Snapshots as tables."""

from __future__ import annotations

from collections.abc import Iterable

from drey_cli.contracts import selector_pb2, snapshot_pb2
from drey_cli.render.table import (
    Cell,
    Table,
    facts_table,
    id_field,
    number_field,
    spare_field,
    table_of,
    text_field,
    time_field,
)
from drey_cli.render.words import format_count, format_span, format_stamp, format_time, short_name

_NAMES = 10


def snapshots_table(snapshots: Iterable[snapshot_pb2.Snapshot], *, utc: bool) -> Table:
    return table_of(
        snapshots,
        id_field("id", lambda snapshot: snapshot.id),
        time_field("time", lambda snapshot: snapshot.take_time, utc=utc),
        text_field("title", _title_cell, fold=True),
        number_field("PVs", lambda snapshot: format_count(snapshot.pv_count)),
        number_field("missing", _missing_cell),
        text_field("by", lambda snapshot: snapshot.actor.principal),
        spare_field(text_field("labels", lambda snapshot: " ".join(snapshot.labels), fold=True)),
    )


def _missing_cell(snapshot: snapshot_pb2.Snapshot) -> Cell:
    lost = missing_pvs(snapshot)
    return Cell(format_count(lost), "red" if lost else "dim")


def _title_cell(snapshot: snapshot_pb2.Snapshot) -> Cell | str:
    if snapshot.HasField("delete_time"):
        return Cell(f"{snapshot.title} (deleted)", "dim")
    return Cell(f"★ {snapshot.title}", "yellow") if snapshot.golden_marks else snapshot.title


def _golden_cell(snapshot: snapshot_pb2.Snapshot) -> Cell | str:
    labels = [mark.label or "yes" for mark in snapshot.golden_marks]
    return Cell(", ".join(labels), "yellow") if labels else "no"


def golden_table(snapshots: Iterable[snapshot_pb2.Snapshot], *, utc: bool) -> Table:
    return table_of(
        [(snapshot, mark) for snapshot in snapshots for mark in snapshot.golden_marks],
        text_field("label", lambda pair: pair[1].label or "—"),
        id_field("id", lambda pair: pair[0].id),
        spare_field(time_field("time", lambda pair: pair[0].take_time, utc=utc)),
        text_field("title", lambda pair: pair[0].title, fold=True),
        time_field("marked", lambda pair: pair[1].mark_time, utc=utc),
        text_field("by", lambda pair: pair[1].actor.principal or "—"),
        text_field("reason", lambda pair: pair[1].reason, fold=True),
    )


def missing_pvs(snapshot: snapshot_pb2.Snapshot) -> int:
    """Channels without a value that was connected."""
    counts = snapshot.counts
    return counts.disconnected + counts.never_connected + counts.unsupported


def snapshot_facts(snapshot: snapshot_pb2.Snapshot, *, utc: bool) -> Table:
    """All that is known of a snapshot beside its values."""
    counts, skew, lost = snapshot.counts, snapshot.skew, missing_pvs(snapshot)
    pairs: list[tuple[str, Cell | str]] = [
        ("id", snapshot.id),
        ("time", format_stamp(snapshot.take_time, utc=utc)),
        ("comment", snapshot.comment or "—"),
        ("labels", " ".join(snapshot.labels) or "—"),
        ("golden", _golden_cell(snapshot)),
        ("taken by", f"{snapshot.actor.principal} ({', '.join(snapshot.actor.roles)})"),
        (
            "source",
            f"{short_name(snapshot_pb2.SnapshotSource, snapshot.source)},"
            f" in {format_span(snapshot.take_duration.ToNanoseconds())}",
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
    if snapshot.HasField("delete_time"):
        pairs.append(("deleted", Cell(format_stamp(snapshot.delete_time, utc=utc), "red")))
    return facts_table(pairs, title=snapshot.title or "(no title)")


def selector_words(selector: selector_pb2.Selector) -> str:
    """A selector in one line, as it is said on the command line."""
    words = ["--all"] if selector.all else []
    names = [*selector.names, *selector.ids, *(f"#{number}" for number in selector.numbers)]
    words += names[:_NAMES]
    if len(names) > _NAMES:
        words.append(f"and {format_count(len(names) - _NAMES)} more")
    words += [f"--glob {glob}" for glob in selector.globs]
    words += [f"--device {device}" for device in selector.devices]
    words += [
        f"--tag {tag.group}" + "=" * bool(tag.tags) + ",".join(tag.tags) for tag in selector.tags
    ]
    if selector.scope:
        words.append(f"scope {selector.scope}")
    if selector.HasField("excluding"):
        words.append(f"except ({selector_words(selector.excluding)})")
    return " ".join(words)
