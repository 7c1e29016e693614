"""`drey audit show|export|replay`: one act in full, the trail as a file, a restore as it went."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from drey_cli.commands.audit import act_line, acts_table, audit_command, filter_options
from drey_cli.commands.restore import get_plan, get_restore, read_restore
from drey_cli.contracts import audit_service_pb2, restore_pb2
from drey_cli.errors import usage_error
from drey_cli.naming import restore_id
from drey_cli.options import argument, choice_of, limit_option, option
from drey_cli.render.restores import restore_verdict, state_of
from drey_cli.render.spreadsheet import csv_lines
from drey_cli.render.table import (
    Pair,
    Table,
    facts_table,
    name_field,
    number_field,
    table_of,
    text_field,
    text_of,
)
from drey_cli.render.values import value_text
from drey_cli.render.words import format_span, format_stamp, plural, short_name, stamp_text
from drey_cli.session import CliSession, command
from drey_client.audit import AuditedRestore, make_record, record_targets

if TYPE_CHECKING:
    from drey.audit.v1.audit_pb2 import AuditEvent

_SHOWN = 50
_MOST_WAIT_S = 0.5
"""How long a replay sleeps at a time, so that Ctrl-C is heard at once everywhere."""
restore_argument = argument("restore", default="latest", help="Id, part of one, or latest.")


def read_record(session: CliSession, what: str) -> AuditedRestore:
    """The record of the restore that `what` names."""
    client = session.client
    restore = get_restore(session, restore_id(client, what))
    acts: list[AuditEvent] = []
    for target in record_targets(restore):
        request = audit_service_pb2.ListEventsRequest(target=target)
        acts += client.list_items(client.audit.ListEvents, request, "events")
    items = read_restore(session, restore.id, everything=True)
    return make_record(restore, get_plan(session, restore.plan_id), acts, items)


# ---- show


@command(
    "show",
    audit_command,
    gives="{act}, or {restore, plan, acts, items}",
    examples=("drey audit show 1042", "drey audit show latest", "drey audit show 0192f3a4"),
)
@argument("what", help="Number of an act, or a restore: its id, part of one, or latest.")
@limit_option(_SHOWN, "Most PVs shown")
def show_act(session: CliSession, what: str, limit: int) -> None:
    """Show an act in full, or a restore: who, from where, which plan, approved by whom, each value.

    Of a restore: its acts and those on its plan, the digest, the approval, and of each PV what was
    there before, what was sent, what was seen after, and the verdict.
    """
    if what.isdecimal() and not what.startswith("0"):  # as ids begin for a century to come
        request = audit_service_pb2.GetEventRequest(sequence=int(what))
        act = session.client.call_method(session.client.audit.GetEvent, request).act
        session.show_document({"act": act}, lambda: act_facts(act, utc=session.out.utc))
        return
    record = read_record(session, what)
    if session.out.json:
        session.out.write_document(
            {
                "restore": record.restore,
                "plan": record.plan,
                "acts": record.acts,
                "items": record.items,
            }
        )
        return
    utc = session.out.utc
    session.out.print_table(acts_table(record.acts, utc=utc))
    session.out.print_table(_values_table(record.items, limit))
    session.out.draw_parts([record_facts(record, utc=utc), restore_verdict(record.restore)])


def act_facts(act: AuditEvent, *, utc: bool) -> Table:
    """All of an act; what there was and is, one entry a line."""
    pairs: list[Pair] = [
        ("number", str(act.sequence)),
        ("time", format_stamp(act.time, utc=utc)),
        ("by", act.actor.principal),
        ("roles", ", ".join(act.actor.roles)),
        ("from", act.address or "—"),
        ("action", act.action),
        ("object", act.target),
        ("request", act.request_id),
        ("hash", act.hash.hex()),
    ]
    for title, text in (("before", act.before_json), ("after", act.after_json)):
        for name, value in (json.loads(text) if text else {}).items():
            pairs.append(
                (f"{title}: {name}", value if isinstance(value, str) else _json_text(value))
            )
    return facts_table(pairs)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def record_facts(record: AuditedRestore, *, utc: bool) -> Table:
    """Who, from where, which plan, approved by whom, and how it ended."""
    restore, plan = record.restore, record.plan
    pairs: list[Pair] = [
        ("restore", restore.id),
        ("state", state_of(restore)),
        ("plan", plan.id),
        ("plan digest", restore.plan_digest),
        ("planned by", f"{plan.actor.principal}, {format_stamp(plan.create_time, utc=utc)}"),
        ("approval", approval_text(plan, utc=utc)),
        ("executed by", f"{restore.actor.principal}, {format_stamp(restore.create_time, utc=utc)}"),
        ("from", record.executed_from or "—"),
    ]
    return facts_table(pairs)


def approval_text(plan: restore_pb2.Plan, *, utc: bool) -> str:
    if not plan.HasField("approval"):
        return "none needed"
    state = short_name(restore_pb2.ApprovalState, plan.approval.state)
    if not plan.approval.HasField("approver"):
        return state
    when = format_stamp(plan.approval.decide_time, utc=utc)
    return f"{state} by {plan.approval.approver.principal}, {when}: {plan.approval.reason}"


def _values_table(items: Sequence[restore_pb2.RestoreItem], limit: int) -> Table:
    return table_of(
        items,
        number_field("stage", lambda item: str(item.stage)),
        name_field("PV", lambda item: item.name),
        number_field("before", lambda item: value_text(item, "before")),
        number_field("sent", _sent_text),
        number_field("after", lambda item: value_text(item, "seen")),
        text_field("verdict", _verdict_text),
        text_field("status", lambda item: item.epics_status),
        limit=limit,
    )


def _sent_text(item: restore_pb2.RestoreItem, *, full: bool = False) -> str:
    """What was sent: the target, unless only steps of its ramp were, or nothing."""
    if not item.HasField("send_time"):
        return ""
    if item.verdict == restore_pb2.VERDICT_RAMP_STOPPED:
        return f"{plural(item.ramp_steps_sent, 'step')} to {value_text(item, 'target', full=full)}"
    return value_text(item, "target", full=full)


def _verdict_text(item: restore_pb2.RestoreItem) -> str:
    return short_name(restore_pb2.Verdict, item.verdict)


# ---- export

_ACT_COLUMNS: dict[str, Callable[[AuditEvent], object]] = {
    "number": lambda act: act.sequence,
    "time": lambda act: format_stamp(act.time, utc=True),
    "by": lambda act: act.actor.principal,
    "roles": lambda act: " ".join(act.actor.roles),
    "from": lambda act: act.address,
    "action": lambda act: act.action,
    "object": lambda act: act.target,
    "request": lambda act: act.request_id,
    "before": lambda act: act.before_json,
    "after": lambda act: act.after_json,
    "hash": lambda act: act.hash.hex(),
}


@command(
    "export",
    audit_command,
    gives="AuditEvent a line, or"
    " {restore, plan, plan_digest, planned_by, approval, executed_by, from, item} a line",
    examples=(
        "drey audit export > audit.jsonl",
        "drey audit export --action restore. --since 2026-11-01T00:00:00Z --output csv > acts.csv",
        "drey audit export --restore latest --output csv > restore.csv",
    ),
)
@filter_options
@option(
    "--restore",
    metavar="RESTORE",
    help="Instead of acts a line for each PV of this restore: who, plan, values, verdict.",
)
@option("--output", type=choice_of("jsonl", "csv"), help="JSON, a line each (default), or CSV.")
def export_acts(
    session: CliSession,
    request: audit_service_pb2.ListEventsRequest,
    restore: str | None,
    output: str | None,
) -> None:
    """Write the trail, newest act first, as it comes. In CSV, times are in UTC."""
    client, as_csv = session.client, output == "csv"
    if restore is None:
        acts = client.list_items(client.audit.ListEvents, request, "events")
        lines = act_rows(acts) if as_csv else ()
        documents: Iterable[Any] = () if as_csv else acts
    else:
        if request.ByteSize():
            raise usage_error(
                "--restore is of PVs, and the other options choose acts",
                field="--restore",
                remedy="leave one or the other out",
            )
        record = read_record(session, restore)
        lines = pv_rows(record) if as_csv else ()
        documents = (
            () if as_csv else ({**_record_columns(record), "item": item} for item in record.items)
        )
    for line in lines:
        session.out.write_raw(line.encode())
    for document in documents:
        session.out.write_line(document)


def act_rows(acts: Iterable[AuditEvent]) -> Iterator[str]:
    """Acts as lines of CSV."""
    return csv_lines(_ACT_COLUMNS, acts)


def pv_rows(record: AuditedRestore) -> Iterator[str]:
    """The PVs of a restore as lines of CSV, each with who restored and by which plan."""

    def same_text(text: str) -> Callable[[restore_pb2.RestoreItem], object]:
        return lambda _: text

    columns = {
        name.replace("_", " "): same_text(text) for name, text in _record_columns(record).items()
    }
    columns |= {
        "stage": lambda item: item.stage,
        "PV": lambda item: item.name,
        "before": lambda item: value_text(item, "before", full=True),
        "sent": lambda item: _sent_text(item, full=True),
        "after": lambda item: value_text(item, "seen", full=True),
        "readback": lambda item: value_text(item, "readback", full=True),
        "verdict": _verdict_text,
        "status": lambda item: item.epics_status,
        "send time": lambda item: stamp_text(item, "send_time", utc=True),
        "complete time": lambda item: stamp_text(item, "complete_time", utc=True),
    }
    return csv_lines(columns, record.items)


def _record_columns(record: AuditedRestore) -> dict[str, str]:
    restore, plan = record.restore, record.plan
    return {
        "restore": restore.id,
        "plan": plan.id,
        "plan_digest": restore.plan_digest,
        "planned_by": plan.actor.principal,
        "approval": approval_text(plan, utc=True),
        "executed_by": restore.actor.principal,
        "from": record.executed_from,
    }


# ---- replay


@dataclass(frozen=True)
class CourseEntry:
    """Something that happened, `at_ns` nanoseconds since 1970."""

    at_ns: int
    text: str
    document: Any


@command(
    "replay",
    audit_command,
    gives="{after_s, what, act}, or {after_s, what, item, items} a line",
    examples=(
        "drey audit replay latest",
        "drey audit replay 0192f3a4 --speed 10",
        "drey audit replay latest --speed 0 --brief | less",
    ),
)
@restore_argument
@option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    metavar="FACTOR",
    help="How much faster than it was; 0: all at once.",
)
@option("--brief", is_flag=True, help="What happened at one moment, such as a batch, is one line.")
def replay_restore(session: CliSession, restore: str, speed: float, brief: bool) -> None:
    """Show a restore as it went: each act, write, completion and interference, at its time.

    The course is that of the audit, of the journal and of the report: nothing is written, and no
    IOC is asked. Lines only, so it works in a pipe; Ctrl-C ends it.
    """
    if not math.isfinite(speed):
        raise click.BadParameter("a number", param_hint="--speed")
    record = read_record(session, restore)
    out, utc = session.out, session.out.utc
    entries = course_of(record, utc=utc)
    begin = entries[0].at_ns if entries else 0
    started = time.monotonic()
    for entry in brief_entries(entries) if brief else entries:
        after_s = (entry.at_ns - begin) / 1e9
        if speed:
            _wait_until(started + after_s / speed)
        line = {"after_s": after_s, "what": entry.text, **entry.document}
        out.write_entry(line, f"{after_s:+12.3f} s  {entry.text}")
    if not out.json:
        out.draw_parts([restore_verdict(record.restore)])


def _wait_until(end: float) -> None:
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _MOST_WAIT_S))


def course_of(record: AuditedRestore, *, utc: bool) -> list[CourseEntry]:
    """All that is known of a restore in the order in which it happened.

    Acts on the plan come before the restore, at no distance: a plan may be a day old.
    """
    own = f"restores/{record.restore.id}"
    entries = []
    begin = record.restore.create_time.ToNanoseconds()
    for act in record.acts:
        time_ns = act.time.ToNanoseconds() if act.target == own else begin
        entries.append(CourseEntry(time_ns, act_line(act, utc=utc), {"act": act}))
    for item in record.items:
        entries += _item_entries(item)
    return sorted(entries, key=lambda entry: entry.at_ns)


def _item_entries(item: restore_pb2.RestoreItem) -> Iterator[CourseEntry]:
    if not item.HasField("send_time"):
        return
    sent = item.send_time.ToNanoseconds()
    document = {"item": item, "items": 1}
    name = text_of(item.name)
    values = f"{text_of(value_text(item, 'before'))} → {text_of(_sent_text(item))}"
    yield CourseEntry(sent, f"stage {item.stage}: sent {name}: {values}", document)
    if item.HasField("complete_time"):
        complete = item.complete_time.ToNanoseconds()
        took = format_span(complete - sent)
        status = f"{item.epics_status}, " if item.epics_status else ""
        text = f"stage {item.stage}: complete {name}: {status}after {took}; {_verdict_text(item)}"
        yield CourseEntry(complete, text, document)
    if item.HasField("interference"):
        changed_to = text_of(value_text(item, "interference"))
        text = f"stage {item.stage}: somebody else changed {name} to {changed_to}"
        yield CourseEntry(item.interference.receive_time_ns, text, document)


def brief_entries(entries: Sequence[CourseEntry]) -> Iterator[CourseEntry]:
    """Entries with those of one moment and of one kind taken together."""

    def moment(entry: CourseEntry) -> tuple[int, object]:
        kind = entry.text.split()[:3] if "item" in entry.document else id(entry)
        return entry.at_ns, kind

    for _, group in groupby(entries, key=moment):
        first, *others = together = list(group)
        if others:
            text = f"{first.text}, and {len(others)} more"
            first = CourseEntry(first.at_ns, text, {**first.document, "items": len(together)})
        yield first
