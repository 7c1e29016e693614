"""`drey pv add|set|rm|undelete`: changing the catalog. None of these writes to the machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from drey_cli.commands.pv import pv_argument, pv_command
from drey_cli.contracts import catalog_pb2, catalog_service_pb2
from drey_cli.errors import usage_error
from drey_cli.naming import get_pv
from drey_cli.options import (
    POLICY,
    argument,
    choice_of,
    dry_run_option,
    member_option,
    option,
    packed_options,
    yes_option,
)
from drey_cli.policy_options import PolicyOptions, policy_options
from drey_cli.render.words import number_of, plural
from drey_cli.selection import Choice, choosing, parse_tag
from drey_cli.session import CliSession, command


@dataclass(frozen=True, slots=True)
class PvOptions:
    """What was said of an entry. None: not said."""

    name: str | None
    protocol: str | None
    device: str | None
    description: str | None
    read_only: bool | None
    setpoint_abs: float | None
    setpoint_rel: float | None
    readback_abs: float | None
    readback_rel: float | None

    def fill(self, pv: catalog_pb2.Pv, setpoint: str | None, readback: str | None) -> list[str]:
        """Set what was said in an entry, and keep the rest; the paths of what was said."""
        paths = []
        for field in ("name", "device", "description", "read_only"):
            value = getattr(self, field)
            if value is not None:
                setattr(pv, field, value)
                paths.append(field)
        for role, address in (("setpoint", setpoint), ("readback", readback)):
            channel: catalog_pb2.Channel = getattr(pv, role)
            if address is not None:
                channel.address = address
                paths.append(f"{role}.address")
            if self.protocol and channel.address:
                channel.channel_protocol = number_of(catalog_pb2.Protocol, self.protocol)
                paths.append(f"{role}.channel_protocol")
        for role in ("setpoint", "readback"):
            absolute, relative = getattr(self, f"{role}_abs"), getattr(self, f"{role}_rel")
            if absolute is None and relative is None:
                continue
            tolerance = getattr(pv, role).tolerance
            # Present even if zero: exact, said on purpose.
            tolerance.SetInParent()
            if absolute is not None:
                tolerance.absolute = absolute
            if relative is not None:
                tolerance.relative = relative
            paths.append(f"{role}.tolerance")
        return paths


_entry = member_option("entry")
_number = partial(_entry, type=float, metavar="NUMBER")
_PROTOCOLS = choice_of("ca", "pva")
entry_options = packed_options(
    "entry",
    PvOptions,
    _entry("--name", "name", "Name in the catalog."),
    _entry("--protocol", "protocol", "Channel Access or PVAccess.", type=_PROTOCOLS),
    _entry("--device", "device", "Device; empty for none."),
    _entry("--description", "description", "Text for people."),
    _entry("--read-only/--writable", "read_only", "Whether Drey must never write.", default=None),
    _number("--abs", "setpoint_abs", "Absolute tolerance of the setpoint, in its units."),
    _number("--rel", "setpoint_rel", "Relative tolerance of the setpoint; 0.01 is 1 %."),
    _number("--readback-abs", "readback_abs", "Absolute tolerance of the readback."),
    _number("--readback-rel", "readback_rel", "Relative tolerance of the readback."),
)


@command(
    "add",
    pv_command,
    gives="CreatePvResponse",
    examples=(
        "drey pv add QUAD:LI21:201:BDES --readback QUAD:LI21:201:BACT --abs 0.01",
        "drey pv add --readback BPMS:LI21:201:X --device BPMS --tag Area=LI21",
    ),
)
@argument("setpoint", default="", metavar="[SETPOINT]", help="Address of the setpoint channel.")
@option("--readback", default="", help="Address of the readback.")
@option("--tag", "tags", multiple=True, metavar="GROUP=TAG[,TAG]", help="Tags to carry.")
@entry_options
def add_pv(
    session: CliSession, entry: PvOptions, setpoint: str, readback: str, tags: list[str]
) -> None:
    """Add a PV to the catalog; monitors connect it within two seconds."""
    if not (setpoint or readback):
        raise usage_error(
            "the PV has no channel",
            field="SETPOINT",
            remedy="give the address of the setpoint, or --readback ADDRESS, or both",
        )
    pv = catalog_pb2.Pv()
    entry.fill(pv, setpoint or None, readback or None)
    for text in tags:
        group, names = parse_tag(text, option="--tag")
        pv.tags.extend(catalog_pb2.TagRef(group=group, tag=name) for name in names)
    client = session.client
    answer = client.call_method(client.catalog.CreatePv, catalog_service_pb2.CreatePvRequest(pv=pv))
    session.show_document(answer, lambda: f"added {answer.pv.name} ({answer.pv.id})")


@command(
    "set",
    pv_command,
    gives="UpdatePvResponse",
    examples=(
        "drey pv set QUAD:LI21:101:BDES --abs 0.01 --description 'Quad 101'",
        "drey pv set COLL:LI21:901:MOTR.VAL --completion done-channel --done-channel .DMOV",
    ),
)
@pv_argument
@option("--setpoint", help="Address of the setpoint; empty for none.")
@option("--readback", help="Address of the readback; empty for none.")
@entry_options
@policy_options
@option("--no-policy", is_flag=True, panel=POLICY, help="Back to the defaults first.")
def set_pv(
    session: CliSession,
    pv: str,
    entry: PvOptions,
    policy: PolicyOptions,
    no_policy: bool,
    setpoint: str | None,
    readback: str | None,
) -> None:
    """Change fields of a PV in the catalog. The machine is not written.

    Only what is said is changed, and only if nobody changed the PV in between.
    """
    client = session.client
    held = get_pv(client, pv).pv
    mask = entry.fill(held, setpoint, readback)
    if no_policy:
        held.ClearField("restore_policy")
    if policy.fill(held.restore_policy) or no_policy:
        mask.append("restore_policy")
    if not mask:
        raise usage_error("no option says what to change", remedy="see drey pv set --help")
    request = catalog_service_pb2.UpdatePvRequest(pv=held)
    request.update_mask.paths.extend(mask)
    answer = client.call_method(client.catalog.UpdatePv, request)
    session.show_document(answer, lambda: f"changed {answer.pv.name}: {', '.join(mask)}")


@command(
    "rm",
    pv_command,
    gives="{deleted}",
    examples=("drey pv rm OLD:PV", "drey pv rm --device SPARE --dry-run"),
)
@choosing
@yes_option
@dry_run_option
def remove_pvs(session: CliSession, choice: Choice, yes: bool, dry_run: bool) -> None:
    """Delete PVs from the catalog. Each leaves a tombstone; snapshots keep their values."""
    client, selector = session.client, choice.required_selector()

    def purge_pvs(*, dry_run: bool) -> int:
        request = catalog_service_pb2.PurgePvsRequest(selector=selector, dry_run=dry_run)
        return client.call_method(client.catalog.PurgePvs, request).pvs

    if dry_run or not yes:
        count = purge_pvs(dry_run=True)
        if dry_run:
            session.show_document({"deleted": count}, lambda: f"would delete {plural(count, 'PV')}")
            return
        session.confirm_action(f"Delete {plural(count, 'PV')}?", yes=yes)
    deleted = purge_pvs(dry_run=False)
    session.show_document({"deleted": deleted}, lambda: f"deleted {plural(deleted, 'PV')}")


@command("undelete", pv_command, gives="{undeleted}", examples=("drey pv undelete OLD:PV",))
@choosing
@dry_run_option
def undelete_pvs(session: CliSession, choice: Choice, dry_run: bool) -> None:
    """Bring deleted PVs back, under their numbers. See them with: drey pv list --deleted."""
    client = session.client
    request = catalog_service_pb2.BatchUndeletePvsRequest(
        selector=choice.required_selector(), dry_run=dry_run
    )
    count = client.call_method(client.catalog.BatchUndeletePvs, request).undeleted
    text = f"would bring back {plural(count, 'PV')}" if dry_run else f"{plural(count, 'PV')} back"
    session.show_document({"undeleted": count}, lambda: text)
