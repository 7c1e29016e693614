"""`drey pv add|set|rm`: changing the catalog. None of these writes to the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from drey_cli.contracts import catalog_pb2, catalog_service_pb2
from drey_cli.durations import parse_duration
from drey_cli.errors import usage_error
from drey_cli.naming import get_pv
from drey_cli.registry import command
from drey_cli.render.enums import number_of
from drey_cli.render.times import plural
from drey_cli.selection import Choice, parse_tag
from drey_cli.session import Session, new_request_id

app = typer.Typer()


ProtocolName = Literal["ca", "pva"]
CompletionName = Literal["sent", "put-callback", "readback", "done-channel"]


def _policy(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel="How a restore treats it", **more)


@dataclass(frozen=True, slots=True)
class PvOptions:
    """Options that say what an entry holds. None: not said."""

    name: Annotated[str | None, typer.Option("--name", help="Name in the catalog.")] = None
    protocol: Annotated[
        ProtocolName | None, typer.Option("--protocol", help="Channel Access or PVAccess.")
    ] = None
    device: Annotated[str | None, typer.Option("--device", help="Device; empty for none.")] = None
    description: Annotated[str | None, typer.Option("--description", help="Text for people.")] = (
        None
    )
    read_only: Annotated[
        bool | None,
        typer.Option("--read-only/--writable", help="Whether Drey must never write it."),
    ] = None
    setpoint_abs: Annotated[
        float | None,
        typer.Option("--abs", help="Absolute tolerance of the setpoint, in its units."),
    ] = None
    setpoint_rel: Annotated[
        float | None,
        typer.Option("--rel", help="Relative tolerance of the setpoint; 0.01 is 1 %."),
    ] = None
    readback_abs: Annotated[
        float | None, typer.Option("--readback-abs", help="Absolute tolerance of the readback.")
    ] = None
    readback_rel: Annotated[
        float | None, typer.Option("--readback-rel", help="Relative tolerance of the readback.")
    ] = None

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


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Options that say how a restore treats a PV. None: not said."""

    completion: Annotated[
        CompletionName | None, _policy("--completion", help="How completion is judged.")
    ] = None
    timeout: Annotated[str | None, _policy("--write-timeout", help="How long it may take.")] = None
    settle: Annotated[
        str | None, _policy("--settle", help="How long it must stay in tolerance.")
    ] = None
    stage: Annotated[int | None, _policy("--stage", help="Lowest is written first.")] = None
    done_channel: Annotated[str | None, _policy("--done-channel", help="Says when it is done.")] = (
        None
    )
    done_value: Annotated[float | None, _policy("--done-value", help="Value that means done.")] = (
        None
    )
    no_policy: Annotated[bool, _policy("--no-policy", help="Back to the defaults first.")] = False

    def fill(self, pv: catalog_pb2.Pv) -> list[str]:
        """Set what was said in the policy of an entry, and keep the rest; the path, if any."""
        policy = catalog_pb2.RestorePolicy()
        if self.completion:
            policy.completion = number_of(catalog_pb2.Completion, self.completion)
        if self.timeout is not None:
            policy.timeout.CopyFrom(parse_duration(self.timeout, option="--write-timeout"))
        if self.settle is not None:
            policy.settle.CopyFrom(parse_duration(self.settle, option="--settle"))
        for field in ("stage", "done_channel", "done_value"):
            if getattr(self, field) is not None:
                setattr(policy, field, getattr(self, field))
        if self.no_policy:
            pv.ClearField("restore_policy")
        if policy.ByteSize():
            pv.restore_policy.MergeFrom(policy)
        return ["restore_policy"] if policy.ByteSize() or self.no_policy else []


@command(
    app,
    "add",
    examples=(
        "drey pv add QUAD:LI21:201:BDES --readback QUAD:LI21:201:BACT --abs 0.01",
        "drey pv add --readback BPMS:LI21:201:X --device BPM --tag Region=LI21",
    ),
)
def add(
    session: Session,
    options: PvOptions,
    setpoint: Annotated[
        str, typer.Argument(metavar="[SETPOINT]", help="Address of the setpoint channel.")
    ] = "",
    readback: Annotated[str, typer.Option("--readback", help="Address of the readback.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="GROUP=TAG[,TAG]", help="Tags to carry.")
    ] = None,
) -> None:
    """Add a PV to the catalog; monitors connect it within two seconds."""
    if not (setpoint or readback):
        raise usage_error(
            "the PV has no channel",
            field="SETPOINT",
            remedy="give the address of the setpoint, or --readback ADDRESS, or both",
        )
    pv = catalog_pb2.Pv()
    options.fill(pv, setpoint or None, readback or None)
    for text in tag or ():
        group, tags = parse_tag(text, option="--tag")
        pv.tags.extend(catalog_pb2.TagRef(group=group, tag=each) for each in tags)
    client = session.client
    answer = client.call(
        client.catalog.CreatePv,
        catalog_service_pb2.CreatePvRequest(pv=pv, request_id=new_request_id()),
    )
    session.show(answer, lambda: f"added {answer.pv.name} ({answer.pv.id})")


@command(
    app,
    "set",
    examples=(
        "drey pv set QUAD:LI21:201:BDES --abs 0.01 --description 'Quad 201'",
        "drey pv set MOTR:LI21:1 --completion done-channel --done-channel MOTR:LI21:1.DMOV",
    ),
)
def set_pv(
    session: Session,
    pv: Annotated[str, typer.Argument(metavar="PV", help="Name or id.")],
    options: PvOptions,
    policy: PolicyOptions,
    setpoint: Annotated[
        str | None, typer.Option("--setpoint", help="Address of the setpoint; empty for none.")
    ] = None,
    readback: Annotated[
        str | None, typer.Option("--readback", help="Address of the readback; empty for none.")
    ] = None,
) -> None:
    """Change fields of a PV in the catalog. The machine is not written.

    Only what is said is changed, and only if nobody changed the PV in between.
    """
    client = session.client
    entry = get_pv(client, pv).pv
    mask = [*options.fill(entry, setpoint, readback), *policy.fill(entry)]
    if not mask:
        raise usage_error("no option says what to change", remedy="see drey pv set --help")
    request = catalog_service_pb2.UpdatePvRequest(pv=entry, request_id=new_request_id())
    request.update_mask.paths.extend(mask)
    answer = client.call(client.catalog.UpdatePv, request)
    session.show(answer, lambda: f"changed {answer.pv.name}: {', '.join(mask)}")


@command(app, "rm", examples=("drey pv rm OLD:PV", "drey pv rm --device SPARE --dry-run"))
def remove(
    session: Session,
    choice: Choice,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say how many it would be.")
    ] = False,
) -> None:
    """Delete PVs from the catalog. Each leaves a tombstone; snapshots keep their values."""
    client, selector = session.client, choice.required()

    def purge_pvs(dry: bool) -> catalog_service_pb2.PurgePvsResponse:
        return client.call(
            client.catalog.PurgePvs,
            catalog_service_pb2.PurgePvsRequest(
                selector=selector, dry_run=dry, request_id="" if dry else new_request_id()
            ),
        )

    if dry_run or not yes:
        would = purge_pvs(True)
        if dry_run:
            _say_deleted(session, would.pvs, f"would delete {plural(would.pvs, 'PV')}")
            return
        session.confirm(f"Delete {plural(would.pvs, 'PV')}?", yes=yes)
    done = purge_pvs(False)
    _say_deleted(session, done.pvs, f"deleted {plural(done.pvs, 'PV')}")


@command(app, "undelete", examples=("drey pv undelete OLD:PV",))
def undelete(
    session: Session,
    choice: Choice,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say how many it would be.")
    ] = False,
) -> None:
    """Bring deleted PVs back, under their numbers. See them with: drey pv list --deleted."""
    client = session.client
    count = client.call(
        client.catalog.BatchUndeletePvs,
        catalog_service_pb2.BatchUndeletePvsRequest(
            selector=choice.required(),
            dry_run=dry_run,
            request_id="" if dry_run else new_request_id(),
        ),
    ).undeleted
    text = f"would bring back {plural(count, 'PV')}" if dry_run else f"{plural(count, 'PV')} back"
    _say_deleted(session, count, text, "undeleted")


def _say_deleted(session: Session, count: int, text: str, what: str = "deleted") -> None:
    session.show({what: count}, lambda: text)
