"""A restore as its record tells it: rows for a spreadsheet, and its course."""

from __future__ import annotations

import csv
import io
from typing import Any

from drey.audit.v1 import audit_pb2
from drey_cli.commands.audit_record import (
    act_rows,
    brief_entries,
    course_of,
    pv_rows,
)
from drey_cli.contracts import restore_pb2
from drey_client import AuditedRestore

START_S = 1_700_000_000
ID = "01950000-0000-7000-8000-000000000002"


def number(value: float, **more: Any) -> Any:
    return {"float64_value": value, **more}


def sent(name: str, after_s: int, **more: Any) -> restore_pb2.RestoreItem:
    """A write that was sent and complete so many seconds after the begin, and a second later."""
    fields = {"before": number(1.0), "target": number(-2.0)} | more
    item = restore_pb2.RestoreItem(name=name, verdict=restore_pb2.VERDICT_VERIFIED, **fields)
    item.send_time.seconds = START_S + after_s
    item.complete_time.seconds = START_S + after_s + 1
    return item


def record(*items: restore_pb2.RestoreItem) -> AuditedRestore:
    restore = restore_pb2.Restore(id=ID, plan_id="p", create_time={"seconds": START_S})
    restore.actor.principal = "=ann"
    acts = [
        audit_pb2.AuditEvent(action="plan.create", target="plans/p", time={"seconds": 5}),
        audit_pb2.AuditEvent(
            action="restore.execute",
            target=f"restores/{ID}",
            time={"seconds": START_S},
            address="192.0.2.1",
        ),
    ]
    return AuditedRestore(restore, restore_pb2.Plan(id="p"), acts, list(items))


def test_a_spreadsheet_calculates_nothing_of_what_others_wrote() -> None:
    label = {"before": {"enum_value": {"label": "@SUM(1)"}}}
    lines = "".join(pv_rows(record(sent("+A:B", 1, epics_status="-x", **label))))
    [row] = csv.DictReader(io.StringIO(lines))
    assert (row["PV"], row["status"]) == ("'+A:B", "'-x")
    assert row["before"].startswith("'@SUM(1)")
    assert (row["executed by"], row["sent"], row["from"]) == ("'=ann", "-2", "192.0.2.1")
    act = audit_pb2.AuditEvent(action="key", target="=HYPERLINK(1)", request_id="@x")
    [row] = csv.DictReader(io.StringIO("".join(act_rows([act]))))
    assert (row["object"], row["request"]) == ("'=HYPERLINK(1)", "'@x")


def test_what_was_not_sent_is_not_said_to_be() -> None:
    stopped = sent("A", 1, ramp_steps_sent=3)
    stopped.verdict = restore_pb2.VERDICT_RAMP_STOPPED
    pending = restore_pb2.RestoreItem(name="B", target=number(2.0))
    rows = list(csv.DictReader(io.StringIO("".join(pv_rows(record(stopped, pending))))))
    assert [row["sent"] for row in rows] == ["3 steps to -2", ""]
    assert [
        entry.text.split()[3] for entry in course_of(record(stopped, pending), utc=True)[2:]
    ] == [
        "A:",
        "A:",
    ]


def test_a_course_is_in_the_order_of_time() -> None:
    disturbed = sent("B", 1)
    disturbed.interference.CopyFrom(sent("x", 0).before)
    disturbed.interference.receive_time_ns = int((START_S + 1.5) * 1e9)
    entries = course_of(record(sent("A", 3), disturbed), utc=True)
    assert [(entry.at_ns / 1e9 - START_S, *entry.text.split()[2:4]) for entry in entries[2:]] == [
        (1.0, "sent", "B:"),
        (1.5, "somebody", "else"),
        (2.0, "complete", "B:"),
        (3.0, "sent", "A:"),
        (4.0, "complete", "A:"),
    ]
    # an act on the plan is no time before the restore
    assert [entry.at_ns for entry in entries[:2]] == [START_S * 10**9] * 2


def test_a_batch_is_one_line_in_brief() -> None:
    items = (sent("A", 1), sent("B", 1), sent("C", 1, stage=2), sent("D", 2))
    brief = brief_entries(course_of(record(*items), utc=True))
    counts = [(entry.text, entry.document.get("items", 0)) for entry in brief][2:]
    assert [count for _, count in counts] == [2, 1, 2, 1, 1, 1]
    assert "sent A: " in counts[0][0] and counts[0][0].endswith("and 1 more")
