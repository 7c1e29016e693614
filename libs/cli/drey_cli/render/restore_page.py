"""What became of a restore, as a page for the logbook and as rows for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drey_cli.contracts import restore_pb2
from drey_cli.render.page import PAGE_END, html_table, page_head
from drey_cli.render.restores import restore_facts, restore_verdict
from drey_cli.render.spreadsheet import csv_lines
from drey_cli.render.table import Field, name_field, number_field, table_of, text_field, text_of
from drey_cli.render.values import value_text
from drey_cli.render.words import format_time, plural, short_name, stamp_text


def restore_csv(items: Iterable[restore_pb2.RestoreItem], *, utc: bool) -> str:
    """One line a PV; whole values, times as they are shown."""
    return "".join(
        csv_lines(
            {
                "stage": lambda item: item.stage,
                "PV": lambda item: item.name,
                "verdict": _verdict_text,
                "left out": _skip_text,
                "before": lambda item: value_text(item, "before", full=True),
                "target": lambda item: value_text(item, "target", full=True),
                "seen": lambda item: value_text(item, "seen", full=True),
                "readback": lambda item: value_text(item, "readback", full=True),
                "status": lambda item: item.epics_status,
                "sent": lambda item: stamp_text(item, "send_time", utc=utc),
                "completed": lambda item: stamp_text(item, "complete_time", utc=utc),
                "interference": lambda item: value_text(item, "interference", full=True),
                "interference time": lambda item: _interference_time(item, utc),
                "interferences": lambda item: item.interferences or "",
                "may still be written": lambda item: "yes" if item.may_still_fire else "",
                "explanation": lambda item: item.explanation,
            },
            items,
        )
    )


def restore_html(
    restore: restore_pb2.Restore, items: Sequence[restore_pb2.RestoreItem], *, utc: bool
) -> str:
    """The whole restore: who interfered first, then the PVs by verdict, the worst first."""
    parts = [page_head(f"Restore {restore.id}", f"Restore: {text_of(restore_verdict(restore))}")]
    interfered = [item for item in items if item.interferences]
    if interfered:
        title = f"Somebody else changed {plural(len(interfered), 'PV')} meanwhile"
        parts.append(f"<section class=warnings><h2>{title}</h2>")
        parts += [html_table(table_of(interfered, *_interference_fields(utc))), "</section>"]
    parts += ["<h2>The restore</h2>", html_table(restore_facts(restore, utc=utc))]
    fine = (restore_pb2.VERDICT_VERIFIED, restore_pb2.VERDICT_EQUAL_ALREADY)
    verdicts = sorted({item.verdict for item in items}, key=lambda each: (each in fine, each))
    for verdict in verdicts:
        rows = [item for item in items if item.verdict == verdict]
        name = short_name(restore_pb2.Verdict, verdict)
        parts.append(f"<h2>{name}: {plural(len(rows), 'PV')}</h2>")
        parts.append(html_table(table_of(rows, *_item_fields(utc))))
    return "\n".join([*parts, PAGE_END])


def _value_field(title: str, name: str) -> Field[restore_pb2.RestoreItem]:
    return number_field(title, lambda item: value_text(item, name))


def _verdict_text(item: restore_pb2.RestoreItem) -> str:
    return short_name(restore_pb2.Verdict, item.verdict)


def _skip_text(item: restore_pb2.RestoreItem) -> str:
    return short_name(restore_pb2.SkipReason, item.skip)


_PV: Field[restore_pb2.RestoreItem] = name_field("PV", lambda item: item.name)
_VERDICT = text_field("verdict", _verdict_text)


def _interference_fields(utc: bool) -> Sequence[Field[restore_pb2.RestoreItem]]:
    return (
        _PV,
        _VERDICT,
        _value_field("target", "target"),
        _value_field("changed to", "interference"),
        text_field("at", lambda item: _interference_time(item, utc)),
        number_field("times", lambda item: str(item.interferences)),
        _value_field("seen at the end", "seen"),
    )


def _item_fields(utc: bool) -> Sequence[Field[restore_pb2.RestoreItem]]:
    def meaning(item: restore_pb2.RestoreItem) -> str:
        return "; ".join(filter(None, (_skip_text(item), item.epics_status, item.explanation)))

    return (
        _PV,
        _VERDICT,
        *(_value_field(name, name) for name in ("before", "target", "seen", "readback")),
        text_field("sent", lambda item: stamp_text(item, "send_time", utc=utc)),
        text_field("what it means", meaning),
    )


def _interference_time(item: restore_pb2.RestoreItem, utc: bool) -> str:
    if not item.HasField("interference"):
        return ""
    return format_time(item.interference.receive_time_ns, utc=utc)
