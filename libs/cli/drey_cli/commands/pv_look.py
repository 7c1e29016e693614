"""`drey pv list|devices|show|get`: looking at PVs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from drey_cli.contracts import (
    catalog_pb2,
    catalog_service_pb2,
    monitor_service_pb2,
    selector_pb2,
    value_pb2,
    watch_pb2,
)
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.naming import get_pv
from drey_cli.parts import whole_rows
from drey_cli.registry import command
from drey_cli.render.documents import as_document, as_documents
from drey_cli.render.pvs import (
    channel_facts,
    devices_table,
    policy_pairs,
    pv_facts,
    pvs_table,
    source_text,
)
from drey_cli.render.rows import NO_METADATA, Metadata, metadata_by_number, rows_table
from drey_cli.render.table import facts
from drey_cli.render.times import plural
from drey_cli.render.values import format_value
from drey_cli.selection import Choice
from drey_cli.session import Session

app = typer.Typer()


_PAGE = 5000
_SHOWN = 200


@command(
    app,
    "list",
    examples=(
        "drey pv list",
        "drey pv list --tag Region=LI21,LI22 --device QUAD",
        "drey pv list --search 'bpm x' --json",
    ),
)
def list_pvs(
    session: Session,
    choice: Choice,
    search: Annotated[
        str, typer.Option("--search", "-s", help="Words in name, device or description; * and ?.")
    ] = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Tombstones as well.")] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help="Most PVs; 0 is all. Default: 200, all with --json."),
    ] = None,
) -> None:
    """List PVs of the catalog by name."""
    limit = limit if limit is not None else (0 if session.out.json else _SHOWN)
    listed = fetch_pvs(session, choice.optional(), search=search, deleted=deleted, limit=limit)
    refuse_nothing(listed.pvs, choice, search)
    if session.out.json:
        session.out.document({"total": listed.total, "pvs": as_documents(listed.pvs)})
        return

    table = pvs_table(listed.pvs)
    table.note = plural(listed.total, "PV")
    if len(listed.pvs) < listed.total:
        table.note = f"{len(listed.pvs)} of {table.note}; --limit 0 shows all"
    session.out.table(table)


@command(app, "devices", examples=("drey pv devices --search quad",))
def list_devices(
    session: Session,
    choice: Choice,
    search: Annotated[
        str, typer.Option("--search", "-s", help="Words in the name of the device; * and ?.")
    ] = "",
) -> None:
    """List the devices that PVs give, with how many PVs give each."""
    client, selector = session.client, choice.optional()

    request = catalog_service_pb2.ListDevicesRequest(selector=selector, search=search)
    devices = list(client.list_items(client.catalog.ListDevices, request, "devices"))
    refuse_nothing(devices, choice, search)
    session.show({"devices": devices}, lambda: devices_table(devices))


def refuse_nothing(chosen: Sequence[object], choice: Choice, search: str = "") -> None:
    """Fail where something was asked for and nothing is chosen by it."""
    if chosen or (choice.is_empty and not search):
        return
    asked = " ".join([*choice.names, *choice.globs, *choice.devices, *choice.tags, search])
    raise CliError(
        f"nothing in the catalog matches {asked}" if asked else "nothing in the catalog is chosen",
        reason="NOT_FOUND",
        remedy="see drey pv list --search WORD",
        code=ExitCode.REFUSED,
    )


class PvList:
    """PVs of a list and the number of all that match."""

    def __init__(self) -> None:
        self.pvs: list[catalog_pb2.Pv] = []
        self.total = 0


def fetch_pvs(
    session: Session,
    selector: selector_pb2.Selector | None,
    *,
    search: str = "",
    deleted: bool = False,
    limit: int = 0,
) -> PvList:
    """PVs page by page. `limit` 0: all."""
    client, listed = session.client, PvList()

    def fetch_page(token: str) -> tuple[Iterable[catalog_pb2.Pv], str]:
        answer = client.call(
            client.catalog.ListPvs,
            catalog_service_pb2.ListPvsRequest(
                page_size=min(limit or _PAGE, _PAGE),
                page_token=token,
                selector=selector,
                search=search,
                include_deleted=deleted,
            ),
        )
        if not token:
            listed.total = answer.total_size
        return answer.pvs, answer.next_page_token

    listed.pvs.extend(client.pages(fetch_page, limit=limit))
    listed.total = max(listed.total, len(listed.pvs))
    return listed


@command(app, "show", examples=("drey pv show QUAD:LI21:201:BDES --policy",))
def show(
    session: Session,
    pv: Annotated[str, typer.Argument(metavar="PV", help="Name or id.")],
    policy: Annotated[
        bool, typer.Option("--policy", help="Also how a restore would treat it, and why.")
    ] = False,
) -> None:
    """Show one PV: its entry, its channels, its values now."""
    client = session.client
    answer = get_pv(client, pv)
    values = None
    if not answer.pv.HasField("delete_time"):
        values = get_values(session, selector_pb2.Selector(ids=[answer.pv.id]))
    effective = None
    if policy:
        effective = client.call(
            client.catalog.GetEffectivePolicy,
            catalog_service_pb2.GetEffectivePolicyRequest(id=answer.pv.id),
        )
    if session.out.json:
        document = as_document(answer)
        document["values"] = as_document(values.rows[0]) if values and values.rows else None
        if effective is not None:
            document["effective_policy"] = as_document(effective)
        session.out.document(document)
        return
    _draw_pv(session, answer, values, effective)


def _draw_pv(
    session: Session,
    answer: catalog_service_pb2.GetPvResponse,
    values: Values | None,
    effective: catalog_service_pb2.GetEffectivePolicyResponse | None,
) -> None:

    out = session.out
    out.table(pv_facts(answer.pv, utc=out.utc))
    for role in ("setpoint", "readback"):
        if answer.HasField(f"{role}_metadata"):  # type: ignore[arg-type]
            out.table(channel_facts(role, getattr(answer, f"{role}_metadata")))
    if values is not None and values.rows:
        metadata = {answer.pv.number: Metadata(answer.setpoint_metadata, answer.readback_metadata)}
        out.table(rows_table(values.rows, metadata, utc=out.utc, title="now"))
    if effective is not None:
        sources = {s.policy_field: source_text(s) for s in effective.sources}
        pairs = policy_pairs(effective.policy)
        out.table(facts(pairs, title="a restore treats it so"))
        note = "  ".join(f"{field} from {source}" for field, source in sources.items())
        out.text(note, "dim")


class Values:
    """Live values as they came."""

    def __init__(self) -> None:
        self.rows: list[value_pb2.PvRow] = []
        self.metadata: list[watch_pb2.MetadataRow] = []
        self.not_found: list[str] = []
        self.links: list[watch_pb2.NameLink] = []


def get_values(
    session: Session, selector: selector_pb2.Selector, *, with_metadata: bool = False
) -> Values:
    """Live values of what a selector chooses, arrays whole."""
    client, values = session.client, Values()
    request = monitor_service_pb2.GetValuesRequest(selector=selector, with_metadata=with_metadata)
    rows: list[value_pb2.PvRow] = []
    with client.stream(client.monitor.GetValues, request) as stream:
        for message in stream:
            rows.extend(message.rows)
            values.metadata.extend(message.metadata)
            values.not_found.extend(message.not_found)
            values.links.extend(message.links)
    values.rows.extend(whole_rows(rows))
    return values


@command(
    app,
    "get",
    examples=(
        "drey pv get QUAD:LI21:201:BDES",
        "drey pv get 'QUAD:LI21:*' --except '*:BCON'",
        "drey pv get --value QUAD:LI21:201:BDES",
    ),
)
def get(
    session: Session,
    choice: Choice,
    value_only: Annotated[
        bool, typer.Option("--value", help="Only the values, a line each, arrays whole.")
    ] = False,
) -> None:
    """Show the latest values, as the monitors have them. Nothing is read from an IOC."""
    values = get_values(session, choice.required(), with_metadata=not session.out.json)
    found = {"rows": values.rows, "not_found": values.not_found, "links": values.links}
    if values.rows and not session.out.json:
        _draw_values(session, values, value_only)
        for link in values.links:
            session.out.note(link_text(link))
    if values.not_found:
        more = len(values.not_found) - 10
        raise CliError(
            f"nothing is named {', '.join(values.not_found[:10])}"
            + (f" and {more} more" if more > 0 else ""),
            reason="NOT_FOUND",
            remedy="see drey pv list --search WORD",
            code=ExitCode.REFUSED,
            partial=found,
        )
    refuse_nothing(values.rows, choice)
    if session.out.json:
        session.out.document(found)


def link_text(link: watch_pb2.NameLink) -> str:
    """What a name means that is not the PV's own."""
    if link.role == value_pb2.CHANNEL_ROLE_READBACK:
        return f"{link.asked} is the readback of {link.name}"
    if link.role == value_pb2.CHANNEL_ROLE_SETPOINT:
        return f"{link.asked} is the setpoint of {link.name}"
    return f"{link.asked} is {link.name}"


def _draw_values(session: Session, values: Values, value_only: bool) -> None:

    metadata = metadata_by_number(values.metadata)
    if not value_only:
        session.out.table(rows_table(values.rows, metadata, utc=session.out.utc))
        return
    for row in values.rows:
        row_metadata = metadata.get(row.number, NO_METADATA)
        role = "setpoint" if row.HasField("setpoint") else "readback"
        session.out.text(
            format_value(getattr(row, role), getattr(row_metadata, role), units=False, full=True)
        )
