"""What became of a restore, as a page for the logbook and as rows for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drey_cli.contracts import restore_pb2, value_pb2
from drey_cli.render.page import PAGE_END, Cells, facts_html, html_table, page_head
from drey_cli.render.restores import restore_facts, restore_verdict
from drey_cli.render.spreadsheet import csv_document
from drey_cli.render.table import text_of
from drey_cli.render.values import format_value
from drey_cli.render.words import format_stamp, format_time, plural, short_name

_COLUMNS = (
    *("stage", "PV", "verdict", "left out", "before", "target", "seen", "readback", "status"),
    *("sent", "completed", "interference", "interference time", "interferences"),
    *("may still be written", "explanation"),
)
_TITLES = ("PV", "verdict", "before", "target", "seen", "readback", "sent", "what it means")
_INTERFERENCE = ("PV", "verdict", "target", "changed to", "at", "times", "seen at the end")


def restore_csv(items: Iterable[restore_pb2.RestoreItem], *, utc: bool) -> str:
    """One line a PV; whole values, times as they are shown."""
    return csv_document(_COLUMNS, (_csv_row(item, utc) for item in items))


def _csv_row(item: restore_pb2.RestoreItem, utc: bool) -> tuple[object, ...]:
    values = (_text(item, name, full=True) for name in ("before", "target", "seen", "readback"))
    return (
        *(item.stage, item.name, _verdict(item)),
        *(short_name(restore_pb2.SkipReason, item.skip), *values, item.epics_status),
        *(_stamp(item, "send_time", utc), _stamp(item, "complete_time", utc)),
        *(_text(item, "interference", full=True), _when(item, utc)),
        *(item.interferences or "", "yes" if item.may_still_fire else ""),
        item.explanation,
    )


def restore_html(
    restore: restore_pb2.Restore, items: Sequence[restore_pb2.RestoreItem], *, utc: bool
) -> str:
    """The whole restore: who interfered first, then the PVs by verdict, the worst first."""
    parts = [page_head(f"Restore {restore.id}", f"Restore: {text_of(restore_verdict(restore))}")]
    told = [item for item in items if item.interferences]
    if told:
        title = f"Somebody else changed {plural(len(told), 'PV')} meanwhile"
        parts.append(f"<section class=warnings><h2>{title}</h2>")
        rows = (_interference_cells(item, utc) for item in told)
        parts += [html_table(_INTERFERENCE, rows), "</section>"]
    parts += ["<h2>The restore</h2>", facts_html(restore_facts(restore, utc=utc))]
    fine = (restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_EQUAL_ALREADY)
    verdicts = sorted({item.verdict for item in items}, key=lambda each: (each in fine, each))
    for verdict in verdicts:
        rows_of = [item for item in items if item.verdict == verdict]
        name = short_name(restore_pb2.Verdict, verdict)
        parts.append(f"<h2>{name}: {plural(len(rows_of), 'PV')}</h2>")
        parts.append(html_table(_TITLES, (_item_cells(item, utc) for item in rows_of)))
    return "\n".join([*parts, PAGE_END])


def _interference_cells(item: restore_pb2.RestoreItem, utc: bool) -> Cells:
    return (
        *(("pv", item.name), ("", _verdict(item)), ("number", _text(item, "target"))),
        *(("number", _text(item, "interference")), ("", _when(item, utc))),
        *(("number", str(item.interferences)), ("number", _text(item, "seen"))),
    )


def _item_cells(item: restore_pb2.RestoreItem, utc: bool) -> Cells:
    notes = (
        short_name(restore_pb2.SkipReason, item.skip),
        item.epics_status,
        item.explanation,
    )
    return (
        *(("pv", item.name), ("", _verdict(item))),
        *(("number", _text(item, name)) for name in ("before", "target", "seen", "readback")),
        *(("", _stamp(item, "send_time", utc)), ("", "; ".join(filter(None, notes)))),
    )


def _verdict(item: restore_pb2.RestoreItem) -> str:
    return short_name(restore_pb2.Verdict, item.verdict)


def _text(item: restore_pb2.RestoreItem, name: str, *, full: bool = False) -> str:
    if not item.HasField(name):  # type: ignore[arg-type]
        return ""
    value: value_pb2.Value = getattr(item, name)
    return format_value(value, full=full)


def _when(item: restore_pb2.RestoreItem, utc: bool) -> str:
    if not item.HasField("interference"):
        return ""
    return format_time(item.interference.receive_time_ns, utc=utc)


def _stamp(item: restore_pb2.RestoreItem, name: str, utc: bool) -> str:
    return format_stamp(getattr(item, name), utc=utc) if item.HasField(name) else ""  # type: ignore[arg-type]
