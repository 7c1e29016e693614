"""Catalog entries, and a PV through snapshots, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from drey_cli.contracts import catalog_pb2, snapshot_service_pb2, value_pb2
from drey_cli.render.table import (
    Cell,
    Pair,
    Table,
    escape_text,
    facts_table,
    id_field,
    name_field,
    number_field,
    table_of,
    text_field,
    time_cell,
)
from drey_cli.render.values import row_cells
from drey_cli.render.words import format_count, format_stamp, short_name
from drey_client.watch_state import ChannelPair

_PLACES = 12


def tags_text(pv: catalog_pb2.Pv) -> str:
    """Tags by group: `Area=LI21 Region=Linac,Gun`."""
    groups: dict[str, list[str]] = {}
    for ref in pv.tags:
        groups.setdefault(ref.group, []).append(ref.tag)
    return " ".join(f"{group}={','.join(tags)}" for group, tags in groups.items())


def channel_text(channel: catalog_pb2.Channel) -> str:
    """Address, protocol and tolerance of a channel in words."""
    if not channel.address:
        return "—"
    protocol = short_name(catalog_pb2.Protocol, channel.channel_protocol) or "ca"
    return f"{channel.address}  ({protocol}, {tolerance_text(channel.tolerance)})"


def tolerance_text(tolerance: value_pb2.Tolerance) -> str:
    """A tolerance in words; exact where none is given."""
    parts = []
    if tolerance.absolute:
        parts.append(f"±{tolerance.absolute:g}")
    if tolerance.relative:
        parts.append(f"±{tolerance.relative * 100:g} %")
    return " + ".join(parts) or "exact"


def pvs_table(pvs: Iterable[catalog_pb2.Pv]) -> Table:
    return table_of(
        pvs,
        name_field(
            "PV", lambda pv: Cell(pv.name, "dim strike" if pv.HasField("delete_time") else "")
        ),
        text_field(
            "readback",
            lambda pv: pv.readback.address if pv.readback.address != pv.name else "(itself)",
        ),
        text_field("device", lambda pv: pv.device),
        text_field("tags", tags_text, fold=True),
        text_field("marks", _pv_marks),
        text_field("description", lambda pv: pv.description, fold=True),
    )


def devices_table(devices: Iterable[catalog_pb2.Device]) -> Table:
    return table_of(
        devices,
        text_field("device", lambda device: device.name),
        number_field("PVs", lambda device: format_count(device.pv_count)),
    )


def _pv_marks(pv: catalog_pb2.Pv) -> Cell:
    if pv.HasField("delete_time"):
        return Cell("deleted", "red")
    if not pv.setpoint.address:
        return Cell("no setpoint", "dim")
    return Cell("read-only", "cyan") if pv.read_only else Cell("")


def pv_facts(pv: catalog_pb2.Pv, *, utc: bool) -> Table:
    """Everything the catalog has of one PV."""
    pairs: list[Pair] = [
        ("setpoint", channel_text(pv.setpoint)),
        ("readback", channel_text(pv.readback)),
        ("device", pv.device or "—"),
        ("description", pv.description or "—"),
        ("tags", tags_text(pv) or "—"),
        ("read-only", "yes" if pv.read_only else "no"),
        ("id", pv.id),
        ("number", str(pv.number)),
        ("created", format_stamp(pv.create_time, utc=utc)),
        ("changed", format_stamp(pv.update_time, utc=utc)),
    ]
    if pv.HasField("delete_time"):
        pairs.append(("deleted", Cell(format_stamp(pv.delete_time, utc=utc), "red")))
    if pv.HasField("restore_policy"):
        pairs.extend(policy_pairs(pv.restore_policy))
    return facts_table(pairs, title=pv.name)


def policy_pairs(policy: catalog_pb2.RestorePolicy) -> list[Pair]:
    """What a restore policy says, field by field; absent fields are left out."""
    pairs: list[Pair] = []
    for name, text in (
        ("completion", short_name(catalog_pb2.Completion, policy.completion)),
        ("timeout", _policy_seconds(policy, "timeout")),
        ("settle", _policy_seconds(policy, "settle")),
        ("stage", str(policy.stage) if policy.HasField("stage") else ""),
        ("done channel", policy.done_channel),
        ("done value", f"{policy.done_value:g}" if policy.HasField("done_value") else ""),
        ("ramp rate", f"{policy.ramp_rate:g}/s" if policy.HasField("ramp_rate") else ""),
        ("ramp step", f"{policy.ramp_step:g}" if policy.HasField("ramp_step") else ""),
        (
            "allowed",
            f"{policy.allowed.low:g} … {policy.allowed.high:g}"
            if policy.HasField("allowed")
            else "",
        ),
    ):
        if text:
            pairs.append((f"restore: {name}", text))
    return pairs


def source_text(source: catalog_pb2.PolicySource) -> str:
    """Who says a field of a policy."""
    who = source.WhichOneof("source")
    if who == "device":
        return f"device {source.device}"
    if who == "tag":
        return f"tag {source.tag.group}={source.tag.tag}"
    return "the PV" if who == "pv" else "the defaults"


def _policy_seconds(policy: catalog_pb2.RestorePolicy, name: str) -> str:
    if not policy.HasField(name):  # type: ignore[arg-type]
        return ""
    duration = getattr(policy, name)
    return f"{duration.seconds + duration.nanos / 1e9:g} s"


def channel_facts(role: str, metadata: value_pb2.ChannelMetadata) -> Table:
    """What the monitor knows of a channel."""
    kind = short_name(value_pb2.ValueType, metadata.native_type)
    count = metadata.element_count
    pairs: list[Pair] = [
        ("address", metadata.address),
        ("type", f"{kind}[{count}]" if count > 1 else kind or "not known"),
        ("host", metadata.host or "—"),
        ("access", _access_text(metadata)),
    ]
    if metadata.units:
        pairs.append(("units", metadata.units))
    if metadata.HasField("precision"):
        pairs.append(("precision", str(metadata.precision)))
    for name in ("display", "control", "warning", "alarm"):
        if metadata.HasField(name):
            limits = getattr(metadata, name)
            pairs.append((f"{name} limits", f"{limits.low:g} … {limits.high:g}"))
    if metadata.enum_labels:
        labels = (
            f"{index}={escape_text(label)}" for index, label in enumerate(metadata.enum_labels)
        )
        pairs.append(("labels", "  ".join(labels)))
    return facts_table(pairs, title=role)


def _access_text(metadata: value_pb2.ChannelMetadata) -> str:
    words = [w for w, on in (("read", metadata.readable), ("write", metadata.writable)) if on]
    return " and ".join(words) or "none"


def history_table(
    points: Sequence[snapshot_service_pb2.HistoryPoint], metadata: ChannelPair, *, utc: bool
) -> Table:
    """One line a snapshot, and where its value lies between the least and the greatest of all."""
    numbers = [_plain_number(point.row) for point in points]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    span = (min(finite), max(finite)) if finite else (0.0, 0.0)
    lines = [
        (point, row_cells(point.row, metadata, utc=utc), _place_text(number, *span))
        for point, number in zip(points, numbers, strict=True)
    ]
    return table_of(
        lines,
        text_field("taken", lambda line: time_cell(line[0].time_ns, utc=utc)),
        number_field("setpoint", lambda line: line[1].setpoint),
        number_field("readback", lambda line: line[1].readback),
        text_field("alarm", lambda line: line[1].alarm),
        text_field(f"{span[0]:.4g} … {span[1]:.4g}" if finite else "", lambda line: line[2]),
        id_field("snapshot", lambda line: line[0].snapshot_id),
    )


def _plain_number(row: value_pb2.PvRow) -> float | None:
    """The setpoint, or where there is none the readback, where it is one number."""
    value = row.setpoint if row.HasField("setpoint") else row.readback
    kind = value.WhichOneof("data") or ""
    data = value.enum_value.index if kind == "enum_value" else getattr(value, kind, None)
    return float(data) if isinstance(data, int | float) else None


def _place_text(number: float | None, low: float, high: float) -> str:
    """`──●─────`: where a number lies between two others."""
    if number is None or not math.isfinite(number):
        return ""
    share = (number - low) / (high - low) if high > low else 0.5
    before = round(share * (_PLACES - 1))
    return "─" * before + "●" + "─" * (_PLACES - 1 - before)
