"""What a rehearsal is made of: a machine out of a plan's own channels, and its catalog there.

Pure: from the items of a plan, from what is known of their channels now, and from how long their
writes took in earlier restores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import state_pb2, value_pb2
from drey.restore.v1 import restore_pb2
from drey_client import ClientError
from drey_client.parts import whole_rows
from drey_machine.rehearsed import (
    NUMBERS,
    SimChannel,
    SimMachine,
    SimWrite,
    known_aliases,
    obstacle_text,
    place_channels,
)

if TYPE_CHECKING:
    from drey.common.v1.value_pb2 import ChannelMetadata, PvRow, Value
    from drey.monitor.v1 import monitor_service_pb2
    from drey.monitor.v1.watch_pb2 import MetadataRow

_NAMED = re.compile(
    r"""\b(?:pv|setpoint)\s*+\[\s*+(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)')\s*+\]"""
)


@dataclass
class KnownPv:
    """What the monitors say of a PV now."""

    row: PvRow
    metadata: MetadataRow


@dataclass
class Rehearsal:
    """A simulated machine before and after the state that is restored, and the PVs of its catalog.

    `stored` is the machine as the source of the plan has it, `now` as it is now. `recorded` and
    `assumed`: seconds that a write takes, by the name of its PV, from an earlier restore or from
    the policy alone. `missing`: what is not simulated, and why, by name.
    """

    now: SimMachine = field(default_factory=lambda: SimMachine([]))
    stored: SimMachine = field(default_factory=lambda: SimMachine([]))
    pvs: list[catalog_pb2.Pv] = field(default_factory=list)
    items: dict[str, restore_pb2.PlanItem] = field(default_factory=dict)
    recorded: dict[str, float] = field(default_factory=dict)
    assumed: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def rehearsed_items(items: Iterable[restore_pb2.PlanItem]) -> Iterator[restore_pb2.PlanItem]:
    """Items that take part: the writes, and what is equal already and read again at the end."""
    for item in items:
        if item.HasField("target") or item.skip == restore_pb2.SKIP_REASON_EQUAL:
            yield item


def condition_names(spec: restore_pb2.PlanSpec) -> list[str]:
    """Names of the PVs of which guards and gates of a plan speak."""
    guards = [*spec.guards, *(gate.must_hold for gate in spec.gates)]
    matches = (match for guard in guards for match in _NAMED.finditer(guard.expression))
    names = (re.sub(r"\\(.)", r"\1", match[1] or match[2] or "") for match in matches)
    return list(dict.fromkeys(names))


def known_pvs(messages: Iterable[monitor_service_pb2.GetValuesResponse]) -> dict[str, KnownPv]:
    """What the answers of `GetValues` say, with metadata, by name; PVs without any are left out."""
    metadata: dict[int, MetadataRow] = {}

    def each_row() -> Iterator[PvRow]:
        for message in messages:
            metadata.update((each.number, each) for each in message.metadata)
            yield from message.rows

    rows = list(whole_rows(each_row()))
    return {row.name: KnownPv(row, metadata[row.number]) for row in rows if row.number in metadata}


def recorded_seconds(
    items: Iterable[restore_pb2.RestoreItem], plan_items: Mapping[str, restore_pb2.PlanItem]
) -> dict[str, float]:
    """How long writes took in an earlier restore, by name: from sent to complete.

    Of a ramp that is its last step. The time for which a readback or a done channel had to hold is
    not the device's.
    """
    # their completion holds the settle time
    settled = (catalog_pb2.COMPLETION_READBACK, catalog_pb2.COMPLETION_DONE_CHANNEL)
    seconds_by_name = {}
    for item in items:
        planned = plan_items.get(item.name)
        if planned is None or planned.number != item.number:
            continue
        if item.HasField("send_time") and item.HasField("complete_time"):
            took = item.complete_time.ToNanoseconds() - item.send_time.ToNanoseconds()
            if planned.policy.completion in settled:
                took -= planned.policy.settle.ToNanoseconds()
            seconds_by_name[item.name] = max(0, took) / 1e9
    return seconds_by_name


MOST_CHANNELS = 100_000
"""About what one host makes in ten minutes, with 1 GB of memory."""


def refuse_too_much(plan: restore_pb2.Plan, rehearsal: Rehearsal, most_s: float) -> None:
    """Refuse what is known not to end in time, or to be more than a host bears: ClientError."""
    channels, least_s = len(rehearsal.now.channels), _least_seconds(plan, rehearsal)
    if channels > MOST_CHANNELS:
        raise ClientError(
            f"the machine of plan {plan.id} would have {channels:,} channels, and at most"
            f" {MOST_CHANNELS:,} are simulated; nothing was started",
            reason="REHEARSAL_TOO_LARGE",
        )
    if least_s > most_s:
        raise ClientError(
            f"the writes of plan {plan.id} take at least {least_s:,.0f} s, and a rehearsal has"
            f" {most_s:,.0f} s for all; nothing was started",
            reason="REHEARSAL_TOO_LONG",
        )


def _least_seconds(plan: restore_pb2.Plan, rehearsal: Rehearsal) -> float:
    """How long the writes take at least, by the plan and by what was recorded, stage by stage."""
    least_s = {each.stage: each.least_duration.ToNanoseconds() / 1e9 for each in plan.stages}
    for name, seconds in rehearsal.recorded.items():
        stage = rehearsal.items[name].stage
        least_s[stage] = max(least_s.get(stage, 0.0), seconds)
    return sum(least_s.values())


def make_rehearsal(
    spec: restore_pb2.PlanSpec,
    items: Iterable[restore_pb2.PlanItem],
    known: Mapping[str, KnownPv],
    recorded: Mapping[str, float],
) -> Rehearsal:
    """The rehearsal of a plan. `known`: by name, of the PVs of the plan and of its conditions."""
    return _Maker(spec, known, recorded).make_rehearsal(list(items))


class _Maker:
    def __init__(
        self,
        spec: restore_pb2.PlanSpec,
        known: Mapping[str, KnownPv],
        recorded: Mapping[str, float],
    ) -> None:
        self._spec, self._known, self._recorded = spec, known, recorded
        # Of an edited value the source has another one: what the plan writes is the state then.
        self._stores_target = bool(spec.edits) or spec.HasField("values")
        self._now: dict[str, SimChannel] = {}
        self._stored: dict[str, SimChannel] = {}
        self._records: dict[str, str] = {}
        self._done: dict[str, str] = {}
        self._writes: list[SimWrite] = []
        self._made = Rehearsal()

    def make_rehearsal(self, items: Sequence[restore_pb2.PlanItem]) -> Rehearsal:
        for item in items:
            self._add_item(item)
        for name in condition_names(self._spec):
            if name not in self._made.items:
                self._add_condition(name)
        followed = {write.readback: write for write in self._writes}
        writes = [
            write
            if not write.readback or followed[write.readback] is write
            # one readback of two setpoints follows the last of them
            else replace(write, readback="")
            for write in self._writes
        ]
        placed = place_channels(self._now.values(), self._records)
        aliases = known_aliases(placed.values())
        stored = [
            replace(self._stored[address], record=at.record, field=at.field, long=at.long)
            for address, at in placed.items()
            if address in self._stored
        ]
        self._made.now = SimMachine(list(placed.values()), writes, aliases)
        records = {channel.record for channel in stored}
        kept = {name: record for name, record in aliases.items() if record in records}
        self._made.stored = SimMachine(stored, (), kept)
        for pv in self._made.pvs:
            done = self._done.get(pv.name)
            if done:
                pv.restore_policy.done_channel = placed[done].served_at
            for channel in (pv.setpoint, pv.readback):
                if channel.address:
                    channel.address = placed[channel.address].served_at
        return self._made

    def _add_item(self, item: restore_pb2.PlanItem) -> None:
        metadata = self._known[item.name].metadata.setpoint if item.name in self._known else None
        labels = item.enum_labels
        now = sim_channel(item.address, item.current, metadata, labels)
        source = item.target if self._stores_target and item.HasField("target") else item.stored
        if not source.WhichOneof("data"):
            source = item.current
        stored = sim_channel(item.address, source, metadata, _stored_labels(source, labels))
        count = max(now.count, stored.count, sim_channel("", item.target, None, ()).count)
        now, stored = replace(now, count=count), replace(stored, count=count)
        why = obstacle_text(now) or obstacle_text(stored)
        if why or item.address in self._now:
            self._made.missing[item.name] = why or "another PV of the plan has its address"
            return
        self._now[item.address], self._stored[item.address] = now, stored
        if item.record:
            self._records[item.address] = item.record
        policy = catalog_pb2.RestorePolicy()
        policy.CopyFrom(item.policy)
        policy.stage = item.stage
        pv = catalog_pb2.Pv(name=item.name, restore_policy=policy)
        pv.setpoint.address = item.address
        pv.setpoint.tolerance.CopyFrom(item.tolerance)
        readback = self._add_readback(item)
        if readback:
            pv.readback.address = readback
            pv.readback.tolerance.CopyFrom(item.readback_tolerance)
        done = self._add_done(item)
        if item.HasField("target"):
            self._add_write(item, readback, done)
        self._made.pvs.append(pv)
        self._made.items[item.name] = item

    def _add_readback(self, item: restore_pb2.PlanItem) -> str:
        """The address of its readback, where there is one that can be simulated."""
        address = item.readback_address
        if not address:
            return ""
        if address in self._now:  # of another PV too
            return address
        row = self._known.get(item.name)
        if row is None or not row.row.readback.WhichOneof("data"):
            self._made.missing[f"{item.name} (readback {address})"] = "it has no value now"
            return ""
        channel = sim_channel(address, row.row.readback, row.metadata.readback, ())
        stored = None
        if item.stored_readback.WhichOneof("data"):
            labels = _stored_labels(item.stored_readback, row.metadata.readback.enum_labels)
            stored = sim_channel(address, item.stored_readback, row.metadata.readback, labels)
        why = obstacle_text(channel) or (obstacle_text(stored) if stored is not None else "")
        if why:
            self._made.missing[f"{item.name} (readback {address})"] = why
            return ""
        self._now[address] = channel
        if stored is not None:
            self._stored[address] = stored
        return address

    def _add_done(self, item: restore_pb2.PlanItem) -> str:
        policy = item.policy
        address = policy.done_channel
        if policy.completion != catalog_pb2.COMPLETION_DONE_CHANNEL or not address:
            return ""
        if address.startswith("."):
            address = re.sub(r"\.[A-Z0-9_]*\$?$", "", item.address) + address
        if address not in self._now:
            done = _done_value(policy)
            whole = done.is_integer()
            value = int(done) if whole else done
            channel = SimChannel(address, "int32" if whole else "float64", value=value)
            why = obstacle_text(channel)
            if why:
                self._made.missing[f"{item.name} (done channel {address})"] = why
                return ""
            self._now[address] = channel
        self._done[item.name] = address
        return address

    def _add_write(self, item: restore_pb2.PlanItem, readback: str, done: str) -> None:
        seconds = self._recorded.get(item.name)
        if seconds is None:
            seconds = self._made.assumed[item.name] = item.policy.settle.ToNanoseconds() / 1e9
        else:
            self._made.recorded[item.name] = seconds
        kind, target = sim_value(item.target)
        reached = None
        if item.stored_readback.WhichOneof("data"):
            reached = sim_value(item.stored_readback)[1]
        number = target if kind in NUMBERS and not isinstance(target, list) else None
        done_value = _done_value(item.policy)
        self._writes.append(
            SimWrite(item.address, seconds, readback, number, reached, done, done_value)
        )

    def _add_condition(self, name: str) -> None:
        """A PV of which a guard or a gate speaks: it stands still at its value now."""
        known = self._known.get(name)
        if known is None:
            self._made.missing[name] = "the catalog does not have it"
            return
        pv = catalog_pb2.Pv(name=name, read_only=True)
        roles = (
            (known.row.setpoint, known.metadata.setpoint, pv.setpoint),
            (known.row.readback, known.metadata.readback, pv.readback),
        )
        for value, metadata, channel in roles:
            if not metadata.address:
                continue
            if metadata.address not in self._now:
                simulated = sim_channel(metadata.address, value, metadata, ())
                why = obstacle_text(simulated)
                if why:
                    self._made.missing[f"{name} (of a condition)"] = why
                    continue
                self._now[metadata.address] = simulated
            channel.address = metadata.address
        if pv.setpoint.address or pv.readback.address:
            self._made.pvs.append(pv)


def _done_value(policy: catalog_pb2.RestorePolicy) -> float:
    return policy.done_value if policy.HasField("done_value") else 1.0


def sim_channel(
    address: str, value: Value, metadata: ChannelMetadata | None, labels: Sequence[str]
) -> SimChannel:
    """A channel with a value, of which more may be known."""
    kind, data = sim_value(value)
    count = len(data) if isinstance(data, list) else 1
    channel = SimChannel(address, kind, max(1, count), data, tuple(labels))
    if metadata is None or metadata.address != address:
        return channel
    control = metadata.control if metadata.HasField("control") else None
    limited = control is not None and control.low < control.high
    return replace(
        channel,
        count=max(channel.count, metadata.element_count),
        labels=tuple(labels) or tuple(metadata.enum_labels),
        low=control.low if control is not None and limited else None,
        high=control.high if control is not None and limited else None,
        units=metadata.units,
        precision=metadata.precision if metadata.HasField("precision") else None,
    )


def sim_value(value: Value) -> tuple[str, Any]:
    """Kind and data of a value; of none (`""`, None). An enumeration is its index."""
    which = value.WhichOneof("data") or ""
    kind, _, shape = which.rpartition("_")
    if not kind or which == "unsent":
        return "", None
    data = getattr(value, which)
    if which == "enum_value":
        return kind, data.index
    if which == "raw_string_value":
        return "string", data.decode(errors="surrogateescape")
    if shape == "value":
        return kind, data
    if which == "uint8_array":
        return kind, list(data)
    if which == "string_array" and data.raw_elements:
        return kind, [each.decode(errors="surrogateescape") for each in data.raw_elements]
    return kind, list(data.elements)


def _stored_labels(value: Value, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of an enumeration when its value was stored, as far as the value tells them."""
    if value.WhichOneof("data") != "enum_value":
        return tuple(labels)
    index, label = value.enum_value.index, value.enum_value.label
    stored_labels = [*labels, *("" for _ in range(len(labels), index + 1))] if label else [*labels]
    if label:
        stored_labels[index] = label
    return tuple(stored_labels)


def rehearsal_spec(plan: restore_pb2.Plan, snapshot_id: str) -> restore_pb2.PlanSpec:
    """The same plan, of the state as the rehearsal stored it.

    Without gates that stand between no two of its stages: the PVs that they are for are left out.
    """
    spec = plan.spec
    stages = [count.stage for count in plan.stages]
    return restore_pb2.PlanSpec(
        state=state_pb2.StateRef(snapshot_id=snapshot_id),
        exact=spec.exact,
        guards=spec.guards,
        gates=[
            gate
            for gate in spec.gates
            if gate.after_stage
            in (range(stages[0], stages[-1]) if gate.HasField("must_hold") else stages)
        ],
        rollback=spec.rollback if spec.HasField("rollback") else None,
    )


def planned_otherwise(
    rehearsed: Mapping[str, restore_pb2.PlanItem], items: Iterable[restore_pb2.PlanItem]
) -> dict[str, str]:
    """In what the plan of the rehearsal is another one, by name of the PV; empty: in nothing."""
    reasons = {}
    seen = set()
    for item in items:
        meant = rehearsed.get(item.name)
        if meant is None:
            continue
        seen.add(item.name)
        if item.skip != meant.skip:
            skip = restore_pb2.SkipReason.Name(item.skip).removeprefix("SKIP_REASON_").lower()
            left_out = f"left out: {'; '.join([skip, *item.warnings])}"
            reasons[item.name] = "written, not left out" if meant.skip else left_out
        elif not same_data(item.target, meant.target):
            reasons[item.name] = "another value is written"
        elif item.ramp_steps != meant.ramp_steps:
            reasons[item.name] = "its ramp has other steps"
    return reasons | {name: "it is not in that plan" for name in rehearsed.keys() - seen}


def same_data(one: Value, other: Value) -> bool:
    """Whether two values have the same data, whatever their times and alarms."""
    left, right = value_pb2.Value(), value_pb2.Value()
    for full, bare in ((one, left), (other, right)):
        which = full.WhichOneof("data")
        if which is None:
            continue
        if which == "enum_value":
            bare.enum_value.index = full.enum_value.index
        else:
            bare.MergeFrom(value_pb2.Value(**{which: getattr(full, which)}))
    return left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True)
