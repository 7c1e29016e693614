"""`drey pv list|devices|show|get|history`: looking at PVs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drey_cli.commands import SUMMARIES
from drey_cli.contracts import (
    catalog_pb2,
    catalog_service_pb2,
    monitor_service_pb2,
    selector_pb2,
    snapshot_service_pb2,
    value_pb2,
    watch_pb2,
)
from drey_cli.errors import CliError, not_found
from drey_cli.naming import get_pv
from drey_cli.options import MOMENT, argument, limit_option, option
from drey_cli.render.pvs import (
    channel_facts,
    devices_table,
    history_table,
    policy_pairs,
    pv_facts,
    pvs_table,
    source_text,
)
from drey_cli.render.table import facts_table
from drey_cli.render.values import (
    NO_METADATA,
    format_value,
    metadata_by_number,
    rows_table,
)
from drey_cli.render.words import as_document, plural
from drey_cli.selection import Choice, choosing
from drey_cli.session import CliSession, command, group
from drey_client.parts import whole_rows
from drey_client.watch_state import ChannelPair, link_text

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

pv_command = group(SUMMARIES["pv"])
pv_argument = argument("pv", help="Name or id.")
_PAGE = 5000
_SHOWN = 200


@command(
    "list",
    pv_command,
    gives="{total, pvs}",
    examples=(
        "drey pv list",
        "drey pv list --tag Area=LI21,LI22 --device QUAD",
        "drey pv list --search 'bpm x' --json",
    ),
)
@choosing
@option("--search", "-s", default="", help="Words in name, device or description; * and ?.")
@option("--deleted", is_flag=True, help="Tombstones as well.")
@limit_option(None, f"Most PVs; default {_SHOWN}, all with --json")
def list_pvs(
    session: CliSession, choice: Choice, search: str, deleted: bool, limit: int | None
) -> None:
    """List PVs of the catalog by name."""
    client, total = session.client, 0

    def note_total(answer: catalog_service_pb2.ListPvsResponse) -> None:
        nonlocal total
        total = answer.total_size

    request = catalog_service_pb2.ListPvsRequest(
        selector=choice.optional_selector(), search=search, include_deleted=deleted
    )
    pvs: list[catalog_pb2.Pv] = list(
        client.list_items(
            client.catalog.ListPvs,
            request,
            "pvs",
            limit=limit if limit is not None else 0 if session.out.json else _SHOWN,
            most=_PAGE,
            first_answer=note_total,
        )
    )
    total = max(total, len(pvs))
    refuse_nothing(pvs, choice, search)
    table = pvs_table(pvs)
    table.note = plural(total, "PV")
    if len(pvs) < total:
        table.note = f"{len(pvs)} of {table.note}; --limit 0 shows all"
    session.show_document({"total": total, "pvs": pvs}, lambda: table)


@command("devices", pv_command, gives="{devices}", examples=("drey pv devices --search quad",))
@choosing
@option("--search", "-s", default="", help="Words in the name of the device; * and ?.")
def list_devices(session: CliSession, choice: Choice, search: str) -> None:
    """List the devices that PVs give, with how many PVs give each."""
    client = session.client
    request = catalog_service_pb2.ListDevicesRequest(
        selector=choice.optional_selector(), search=search
    )
    devices = list(client.list_items(client.catalog.ListDevices, request, "devices"))
    refuse_nothing(devices, choice, search)
    session.show_document({"devices": devices}, lambda: devices_table(devices))


def refuse_nothing(chosen: Sequence[object], choice: Choice, search: str = "") -> None:
    """Fail where something was asked for and nothing is chosen by it."""
    if chosen or (choice.is_empty and not search):
        return
    asked = " ".join([*choice.names, *choice.globs, *choice.devices, *choice.tags, search]).strip()
    raise not_found(
        f"nothing in the catalog matches {asked}" if asked else "nothing in the catalog is chosen",
        remedy="see drey pv list --search WORD",
    )


@command(
    "show",
    pv_command,
    gives="GetPvResponse with {values, effective_policy}",
    examples=("drey pv show QUAD:LI21:101:BDES --policy",),
)
@pv_argument
@option("--policy", is_flag=True, help="Also how a restore would treat it, and why.")
def show_pv(session: CliSession, pv: str, policy: bool) -> None:
    """Show one PV: its entry, its channels, its values now."""
    client, out = session.client, session.out
    answer = get_pv(client, pv)
    values = LiveValues()
    if not answer.pv.HasField("delete_time"):
        values = get_values(session, selector_pb2.Selector(ids=[answer.pv.id]))
    effective = None
    if policy:
        request = catalog_service_pb2.GetEffectivePolicyRequest(id=answer.pv.id)
        effective = client.call_method(client.catalog.GetEffectivePolicy, request)
    if out.json:
        document = {**as_document(answer), "values": values.rows[0] if values.rows else None}
        out.write_document(
            document if effective is None else document | {"effective_policy": effective}
        )
        return
    out.print_table(pv_facts(answer.pv, utc=out.utc))
    if answer.HasField("setpoint_metadata"):
        out.print_table(channel_facts("setpoint", answer.setpoint_metadata))
    if answer.HasField("readback_metadata"):
        out.print_table(channel_facts("readback", answer.readback_metadata))
    if values.rows:
        metadata = {
            answer.pv.number: ChannelPair(answer.setpoint_metadata, answer.readback_metadata)
        }
        out.print_table(rows_table(values.rows, metadata, utc=out.utc, title="now"))
    if effective is not None:
        out.print_table(facts_table(policy_pairs(effective.policy), title="a restore treats it so"))
        sources = (f"{each.policy_field} from {source_text(each)}" for each in effective.sources)
        out.print_text("  ".join(sources), "dim")


class LiveValues:
    """Live values as they came."""

    def __init__(self) -> None:
        self.rows: list[value_pb2.PvRow] = []
        self.metadata: list[watch_pb2.MetadataRow] = []
        self.not_found: list[str] = []
        self.links: list[watch_pb2.NameLink] = []


def get_values(
    session: CliSession, selector: selector_pb2.Selector, *, with_metadata: bool = False
) -> LiveValues:
    """Live values of what a selector chooses, arrays whole."""
    client, values = session.client, LiveValues()
    request = monitor_service_pb2.GetValuesRequest(selector=selector, with_metadata=with_metadata)
    rows: list[value_pb2.PvRow] = []
    with client.stream_method(client.monitor.GetValues, request) as stream:
        for message in stream:
            rows.extend(message.rows)
            values.metadata.extend(message.metadata)
            values.not_found.extend(message.not_found)
            values.links.extend(message.links)
    values.rows.extend(whole_rows(rows))
    return values


@command(
    "get",
    pv_command,
    gives="{rows, not_found, links}",
    examples=(
        "drey pv get QUAD:LI21:101:BDES",
        "drey pv get 'QUAD:LI21:*' --except '*:BCON'",
        "drey pv get --value QUAD:LI21:101:BDES",
    ),
)
@choosing
@option("--value", "value_only", is_flag=True, help="Only the values, a line each, arrays whole.")
def get(session: CliSession, choice: Choice, value_only: bool) -> None:
    """Show the latest values, as the monitors have them. Nothing is read from an IOC."""
    values = get_values(session, choice.required_selector(), with_metadata=not session.out.json)
    document = {"rows": values.rows, "not_found": values.not_found, "links": values.links}
    if values.rows and not session.out.json:
        _draw_values(session, values, value_only)
        for link in values.links:
            session.out.print_note(link_text(link))
    if values.not_found:
        more = len(values.not_found) - 10
        raise CliError(
            f"nothing is named {', '.join(values.not_found[:10])}"
            + (f" and {more} more" if more > 0 else ""),
            reason="NOT_FOUND",
            remedy="see drey pv list --search WORD",
            partial=document,
        )
    refuse_nothing(values.rows, choice)
    if session.out.json:
        session.out.write_document(document)


def _draw_values(session: CliSession, values: LiveValues, value_only: bool) -> None:
    metadata = metadata_by_number(values.metadata)
    if not value_only:
        session.out.print_table(rows_table(values.rows, metadata, utc=session.out.utc))
        return
    for row in values.rows:
        row_metadata = metadata.get(row.number, NO_METADATA)
        role = "setpoint" if row.HasField("setpoint") else "readback"
        session.out.print_text(
            format_value(getattr(row, role), getattr(row_metadata, role), units=False, full=True)
        )


@command(
    "history",
    pv_command,
    gives="{pv, points}",
    examples=(
        "drey pv history QUAD:LI21:101:BDES",
        "drey pv history QUAD:LI21:101:BDES --since 2026-11-01 --limit 0 --json",
    ),
)
@pv_argument
@option("--since", type=MOMENT, metavar="TIME", help="Only snapshots from this time on.")
@option("--before", type=MOMENT, metavar="TIME", help="Only snapshots before this time.")
@limit_option(50, "Most snapshots")
def show_history(
    session: CliSession, pv: str, since: Timestamp | None, before: Timestamp | None, limit: int
) -> None:
    """Show the values of one PV through the snapshots that have it, newest first.

    A picture beside the values shows where each lies between the least and the greatest.
    """
    client = session.client
    entry = get_pv(client, pv)
    request = snapshot_service_pb2.GetPvHistoryRequest(
        number=entry.pv.number, from_time=since, to_time=before
    )
    points = read_history(session, request, limit)
    metadata = ChannelPair(entry.setpoint_metadata, entry.readback_metadata)
    table = history_table(points, metadata, utc=session.out.utc)
    table.title = f"{entry.pv.name}, {plural(len(points), 'snapshot')}"
    if len(points) == limit:
        table.note = f"the newest {limit}; --limit 0 shows all"
    session.show_document({"pv": entry.pv, "points": points}, lambda: table)


def read_history(
    session: CliSession, request: snapshot_service_pb2.GetPvHistoryRequest, limit: int
) -> list[snapshot_service_pb2.HistoryPoint]:
    """Points of a history, newest first. `limit` 0: all; else the stream is left early."""
    client = session.client
    points: list[snapshot_service_pb2.HistoryPoint] = []
    with client.stream_method(client.snapshots.GetPvHistory, request) as stream:
        for message in stream:
            points.extend(message.points)
            if limit and len(points) >= limit:
                break
    return points[: limit or None]
