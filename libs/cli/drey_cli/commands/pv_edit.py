"""`drey pv add|set|rm`: changing the catalog. None of these writes to the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drey_cli.durations import parse_duration
from drey_cli.errors import usage_error
from drey_cli.registry import command
from drey_cli.selection import Choice, parse_tag
from drey_cli.session import Session, new_request_id

if TYPE_CHECKING:
    from drey.catalog.v1 import catalog_pb2

ProtocolName = Literal["ca", "pva"]
CompletionName = Literal["sent", "put-callback", "readback", "done-channel"]
_POLICY_PANEL = "How a restore treats it"

SetAbs = Annotated[
    float | None, typer.Option("--abs", help="Absolute tolerance of the setpoint, in its units.")
]
SetRel = Annotated[
    float | None, typer.Option("--rel", help="Relative tolerance of the setpoint; 0.01 is 1 %.")
]
ReadAbs = Annotated[
    float | None, typer.Option("--readback-abs", help="Absolute tolerance of the readback.")
]
ReadRel = Annotated[
    float | None, typer.Option("--readback-rel", help="Relative tolerance of the readback.")
]
Protocol = Annotated[
    ProtocolName | None, typer.Option("--protocol", help="Channel Access or PVAccess.")
]
Device = Annotated[str | None, typer.Option("--device", help="Device; empty for none.")]
Description = Annotated[str | None, typer.Option("--description", help="Text for people.")]
ReadOnly = Annotated[
    bool | None,
    typer.Option("--read-only/--writable", help="Whether Drey must never write it."),
]
Name = Annotated[str | None, typer.Option("--name", help="Name in the catalog.")]


def add(
    session: Session,
    setpoint: Annotated[
        str, typer.Argument(metavar="[SETPOINT]", help="Address of the setpoint channel.")
    ] = "",
    readback: Annotated[str, typer.Option("--readback", help="Address of the readback.")] = "",
    name: Name = None,
    protocol: Protocol = None,
    device: Device = None,
    description: Description = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="GROUP=TAG[,TAG]", help="Tags to carry.")
    ] = None,
    read_only: ReadOnly = None,
    abs_: SetAbs = None,
    rel: SetRel = None,
    readback_abs: ReadAbs = None,
    readback_rel: ReadRel = None,
) -> None:
    """Add a PV to the catalog; monitors connect it within two seconds."""
    from drey.catalog.v1 import catalog_pb2, catalog_service_pb2

    if not (setpoint or readback):
        raise usage_error("give the address of the setpoint, or --readback ADDRESS, or both")
    pv = catalog_pb2.Pv(
        name=name or "",
        device=device or "",
        description=description or "",
        read_only=bool(read_only),
    )
    for role, address in (("setpoint", setpoint), ("readback", readback)):
        if address:
            set_channel(pv, role, address, protocol)
    for text in tag or ():
        group, tags = parse_tag(text, option="--tag")
        pv.tags.extend(catalog_pb2.TagRef(group=group, tag=each) for each in tags)
    set_tolerance(pv, "setpoint", abs_, rel)
    set_tolerance(pv, "readback", readback_abs, readback_rel)
    client = session.client
    answer = client.call(
        client.catalog.CreatePv,
        catalog_service_pb2.CreatePvRequest(pv=pv, request_id=new_request_id()),
    )
    if session.out.json:
        session.out.document(answer)
    else:
        session.out.text(f"added {answer.pv.name} ({answer.pv.id})")


def set_channel(
    pv: catalog_pb2.Pv, role: str, address: str | None, protocol: ProtocolName | None
) -> list[str]:
    """Set what was said of a channel; the paths of that."""
    from drey.catalog.v1 import catalog_pb2
    from drey_cli.render.enums import number_of

    channel: catalog_pb2.Channel = getattr(pv, role)
    paths = []
    if address is not None:
        channel.address = address
        paths.append(f"{role}.address")
    if protocol and channel.address:
        number: Any = number_of(catalog_pb2.Protocol, protocol)
        channel.channel_protocol = number
        paths.append(f"{role}.channel_protocol")
    return paths


def set_tolerance(
    pv: catalog_pb2.Pv, role: str, absolute: float | None, relative: float | None
) -> bool:
    """Set what was said of a tolerance and keep the rest; whether anything was said."""
    if absolute is None and relative is None:
        return False
    tolerance = getattr(pv, role).tolerance
    # Present even if zero: exact, said on purpose.
    tolerance.SetInParent()
    if absolute is not None:
        tolerance.absolute = absolute
    if relative is not None:
        tolerance.relative = relative
    return True


def set_pv(
    session: Session,
    pv: Annotated[str, typer.Argument(metavar="PV", help="Name or id.")],
    name: Name = None,
    setpoint: Annotated[
        str | None, typer.Option("--setpoint", help="Address of the setpoint; empty for none.")
    ] = None,
    readback: Annotated[
        str | None, typer.Option("--readback", help="Address of the readback; empty for none.")
    ] = None,
    protocol: Protocol = None,
    device: Device = None,
    description: Description = None,
    read_only: ReadOnly = None,
    abs_: SetAbs = None,
    rel: SetRel = None,
    readback_abs: ReadAbs = None,
    readback_rel: ReadRel = None,
    completion: Annotated[
        CompletionName | None,
        typer.Option(
            "--completion", help="How completion is judged.", rich_help_panel=_POLICY_PANEL
        ),
    ] = None,
    write_timeout: Annotated[
        str | None,
        typer.Option(
            "--write-timeout", help="How long it may take.", rich_help_panel=_POLICY_PANEL
        ),
    ] = None,
    settle: Annotated[
        str | None,
        typer.Option(
            "--settle", help="How long it must stay in tolerance.", rich_help_panel=_POLICY_PANEL
        ),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option("--stage", help="Lowest is written first.", rich_help_panel=_POLICY_PANEL),
    ] = None,
    done_channel: Annotated[
        str | None,
        typer.Option("--done-channel", help="Says when it is done.", rich_help_panel=_POLICY_PANEL),
    ] = None,
    done_value: Annotated[
        float | None,
        typer.Option("--done-value", help="Value that means done.", rich_help_panel=_POLICY_PANEL),
    ] = None,
    no_policy: Annotated[
        bool,
        typer.Option(
            "--no-policy", help="Back to the defaults first.", rich_help_panel=_POLICY_PANEL
        ),
    ] = False,
) -> None:
    """Change fields of a PV in the catalog. The machine is not written.

    Only what is said is changed, and only if nobody changed the PV in between.
    """
    from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
    from drey_cli.naming import get_pv

    client = session.client
    entry = get_pv(client, pv).pv
    mask: list[str] = []
    for field, value in (
        ("name", name),
        ("device", device),
        ("description", description),
        ("read_only", read_only),
    ):
        if value is not None:
            setattr(entry, field, value)
            mask.append(field)
    for role, address in (("setpoint", setpoint), ("readback", readback)):
        mask += set_channel(entry, role, address, protocol)
    if set_tolerance(entry, "setpoint", abs_, rel):
        mask.append("setpoint.tolerance")
    if set_tolerance(entry, "readback", readback_abs, readback_rel):
        mask.append("readback.tolerance")
    if no_policy:
        entry.ClearField("restore_policy")
    policy = catalog_pb2.RestorePolicy()
    if completion:
        policy.completion = _completion(completion)
    if write_timeout is not None:
        policy.timeout.CopyFrom(parse_duration(write_timeout, option="--write-timeout"))
    if settle is not None:
        policy.settle.CopyFrom(parse_duration(settle, option="--settle"))
    if stage is not None:
        policy.stage = stage
    if done_channel is not None:
        policy.done_channel = done_channel
    if done_value is not None:
        policy.done_value = done_value
    if policy.ByteSize() or no_policy:
        if policy.ByteSize():
            entry.restore_policy.MergeFrom(policy)
        mask.append("restore_policy")
    if not mask:
        raise usage_error("nothing to change was said", remedy="see drey pv set --help")
    request = catalog_service_pb2.UpdatePvRequest(pv=entry, request_id=new_request_id())
    request.update_mask.paths.extend(mask)
    answer = client.call(client.catalog.UpdatePv, request)
    if session.out.json:
        session.out.document(answer)
    else:
        session.out.text(f"changed {answer.pv.name}: {', '.join(mask)}")


def _completion(name: str) -> Any:
    from drey.catalog.v1 import catalog_pb2
    from drey_cli.render.enums import number_of

    return number_of(catalog_pb2.Completion, name)


def remove(
    session: Session,
    choice: Choice,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say how many it would be.")
    ] = False,
) -> None:
    """Delete PVs from the catalog. Each leaves a tombstone; snapshots keep their values."""
    from drey.catalog.v1 import catalog_service_pb2
    from drey_cli.render.times import plural

    client, selector = session.client, choice.required()

    def call(dry: bool) -> catalog_service_pb2.PurgePvsResponse:
        return client.call(
            client.catalog.PurgePvs,
            catalog_service_pb2.PurgePvsRequest(
                selector=selector, dry_run=dry, request_id="" if dry else new_request_id()
            ),
        )

    if dry_run or not yes:
        would = call(True)
        if dry_run:
            _say_deleted(session, would.pvs, f"would delete {plural(would.pvs, 'PV')}")
            return
        if not session.out.confirm(f"Delete {plural(would.pvs, 'PV')}?", yes=yes):
            session.out.note("nothing was changed")
            raise typer.Exit(1)
    done = call(False)
    _say_deleted(session, done.pvs, f"deleted {plural(done.pvs, 'PV')}")


def undelete(
    session: Session,
    choice: Choice,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only say how many it would be.")
    ] = False,
) -> None:
    """Bring deleted PVs back, under their numbers. See them with: drey pv list --deleted."""
    from drey.catalog.v1 import catalog_service_pb2
    from drey_cli.render.times import plural

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
    if session.out.json:
        session.out.document({what: count})
    else:
        session.out.text(text)


def register(pv: typer.Typer) -> None:
    """Add the commands to `drey pv`."""
    command(
        pv,
        "add",
        examples=(
            "drey pv add QUAD:LI21:201:BDES --readback QUAD:LI21:201:BACT --abs 0.01",
            "drey pv add --readback BPMS:LI21:201:X --device BPM --tag Region=LI21",
        ),
    )(add)
    command(
        pv,
        "set",
        examples=(
            "drey pv set QUAD:LI21:201:BDES --abs 0.01 --description 'Quad 201'",
            "drey pv set MOTR:LI21:1 --completion done-channel --done-channel MOTR:LI21:1.DMOV",
        ),
    )(set_pv)
    command(
        pv,
        "rm",
        chooses=True,
        examples=("drey pv rm OLD:PV", "drey pv rm --device SPARE --dry-run"),
    )(remove)
    command(pv, "undelete", chooses=True, examples=("drey pv undelete OLD:PV",))(undelete)
