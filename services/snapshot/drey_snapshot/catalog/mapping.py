"""Between the contracts and the domain of the catalog."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import errors_pb2, value_pb2
from drey.policy.v1 import policy_pb2
from drey_core.directory import Metadata
from drey_core.errors import DreyError, InvalidArgument, Unimplemented
from drey_core.pages import hash_bytes
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy, PvProtocol, split_scheme
from drey_core.values import ARRAY
from drey_runtime.mapping.common import actor
from drey_snapshot.catalog.domain.default_policies import DefaultPolicy
from drey_snapshot.catalog.domain.draft import Draft, copy_of
from drey_snapshot.catalog.domain.policy import Effective, SpeakerKind
from drey_snapshot.catalog.domain.tags import Tag, TagBook, TagGroup

_NS = 1_000_000_000


def invalid_field(field: str, why: str) -> InvalidArgument:
    """A refusal of one field of the request."""
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


def time_of(ns: int) -> Timestamp | None:
    """A time of the control plane; None for 0, which means "not"."""
    return Timestamp(seconds=ns // _NS, nanos=ns % _NS) if ns else None


# --- PVs ---

_ROLES = ("setpoint", "readback")


def pv_to_proto(draft: Draft, tags: TagBook) -> catalog_pb2.Pv:
    """The PV as clients see it. Channels without an address and empty policies are absent."""
    pv = catalog_pb2.Pv(
        id=draft.id,
        number=draft.number,
        name=draft.name,
        etag=draft.etag,
        device=draft.device,
        description=draft.description,
        tags=[catalog_pb2.TagRef(group=g, tag=t) for g, t in tags.names(draft.tags)],
        read_only=draft.read_only,
        create_time=time_of(draft.create_time_ns),
        update_time=time_of(draft.update_time_ns),
        delete_time=time_of(draft.delete_time_ns),
    )
    if draft.setpoint_address:
        channel = pv.setpoint
        channel.number, channel.address = draft.setpoint_channel, draft.setpoint_address
        channel.channel_protocol = draft.protocol  # type: ignore[assignment]
        if draft.setpoint_absolute or draft.setpoint_relative:
            channel.tolerance.absolute = draft.setpoint_absolute
            channel.tolerance.relative = draft.setpoint_relative
    if draft.readback_address:
        channel = pv.readback
        channel.number, channel.address = draft.readback_channel, draft.readback_address
        channel.channel_protocol = draft.protocol  # type: ignore[assignment]
        if draft.readback_absolute or draft.readback_relative:
            channel.tolerance.absolute = draft.readback_absolute
            channel.tolerance.relative = draft.readback_relative
    if draft.policy != NO_POLICY:
        pv.restore_policy.CopyFrom(policy_to_proto(draft.policy))
    return pv


def pv_from_proto(pv: catalog_pb2.Pv, path: str = "pv") -> Draft:
    """The content of a PV without its tags; what the server makes is ignored."""
    draft = Draft(name=pv.name)
    _set_fields(draft, pv, _AT_CREATION, path)
    return draft


def tag_names(refs: Iterable[catalog_pb2.TagRef]) -> list[tuple[str, str]]:
    """(group, tag) of tags as they are named in a request."""
    return [(ref.group, ref.tag) for ref in refs]


def _set_fields(draft: Draft, pv: catalog_pb2.Pv, names: Iterable[str], path: str) -> None:
    """Put fields of `pv` into the draft, whole channels and parts of them too."""
    protocols = dict.fromkeys(_ROLES, draft.protocol)
    for name in names:
        role, _, part = name.partition(".")
        if role in _ROLES:
            channel = _ChannelDraft(role, getattr(pv, role), f"{path}.{role}")
            for each in (part,) if part else _CHANNEL_PARTS:
                channel.set_part(each, draft, protocols)
        else:
            _SETTERS[name](draft, pv, path)
    for role in _ROLES:
        changed = any(name.partition(".")[0] == role for name in names)
        if changed and not getattr(draft, f"{role}_address"):
            _refuse_orphans(draft, role, f"{path}.{role}")
    given_protocols = {protocols[role] for role in _ROLES if getattr(draft, f"{role}_address")}
    if len(given_protocols) > 1:
        setpoint, readback = (PvProtocol(protocols[role]).name for role in _ROLES)
        raise _not_built(
            f"{path}.readback.channel_protocol",
            f"a setpoint by {setpoint} with a readback by {readback}: say the same protocol of"
            " both, or make two PVs",
        )
    draft.protocol = given_protocols.pop() if given_protocols else draft.protocol


def _refuse_orphans(draft: Draft, role: str, path: str) -> None:
    for part in ("absolute", "relative"):
        if getattr(draft, f"{role}_{part}"):
            raise invalid_field(f"{path}.address", "is required where there is a tolerance")


def _not_built(field: str, what: str) -> Unimplemented:
    return Unimplemented(
        f"{field}: not built in this version: {what}", field=field, metadata={"field": field}
    )


class _ChannelDraft:
    """A channel of a request, put into a draft part by part."""

    def __init__(self, role: str, message: catalog_pb2.Channel, path: str) -> None:
        self._role, self._said, self._path = role, message, path

    def set_part(self, part: str, draft: Draft, protocols: dict[str, int]) -> None:
        """One of `_CHANNEL_PARTS`."""
        if part == "address":
            scheme, address = split_scheme(self._said.address)
            setattr(draft, f"{self._role}_address", address)
            if scheme != PvProtocol.UNSPECIFIED:
                protocols[self._role] = self._resolve_protocol()
            if not address:
                self._set_tolerance(draft, 0.0, 0.0)
        elif part == "channel_protocol":
            protocols[self._role] = self._resolve_protocol()
        elif part == "tolerance":
            self._set_tolerance(draft, self._said.tolerance.absolute, self._said.tolerance.relative)
        elif part == "field" and self._said.field:
            raise _not_built(f"{self._path}.field", "the value itself is taken, no part of it")
        elif part == "monitor" and self._said.HasField("monitor"):
            raise _not_built(f"{self._path}.monitor", "channels are subscribed to by the defaults")

    def _set_tolerance(self, draft: Draft, absolute: float, relative: float) -> None:
        setattr(draft, f"{self._role}_absolute", absolute)
        setattr(draft, f"{self._role}_relative", relative)

    def _resolve_protocol(self) -> int:
        """What `channel_protocol` and the address (`pva://NAME`) say; Channel Access if nothing."""
        scheme, rest = split_scheme(self._said.address)
        protocol_number = int(self._said.channel_protocol)
        if protocol_number == catalog_pb2.PROTOCOL_LIVE:
            raise _not_built(
                f"{self._path}.channel_protocol", "there are no PVs computed out of others"
            )
        if scheme != PvProtocol.UNSPECIFIED:
            if not rest:
                raise invalid_field(
                    f"{self._path}.address", f"{self._said.address} names no channel"
                )
            if protocol_number not in (PvProtocol.UNSPECIFIED, scheme):
                raise invalid_field(
                    f"{self._path}.address",
                    f"{self._said.address} is of another protocol than channel_protocol says",
                )
        return int(scheme) or protocol_number or PvProtocol.CA


def _set_name(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    if not pv.name:
        raise invalid_field(f"{path}.name", "a PV keeps a name; it cannot become empty")
    draft.name = pv.name


def _set_policy(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    draft.policy = NO_POLICY
    if pv.HasField("restore_policy"):
        draft.policy = policy_from_proto(pv.restore_policy, f"{path}.restore_policy")


def _set_plain(name: str) -> Callable[[Draft, catalog_pb2.Pv, str], None]:
    def set_field(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
        setattr(draft, name, getattr(pv, name))

    return set_field


def _refuse_given(name: Literal["done", "config"]) -> Callable[[Draft, catalog_pb2.Pv, str], None]:
    def refuse_field(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
        if pv.HasField(name):
            raise _not_built(f"{path}.{name}", "a PV has a setpoint and a readback")

    return refuse_field


_SETTERS: dict[str, Callable[[Draft, catalog_pb2.Pv, str], None]] = {
    "name": _set_name,
    "restore_policy": _set_policy,
    "done": _refuse_given("done"),
    "config": _refuse_given("config"),
    **{name: _set_plain(name) for name in ("device", "description", "read_only")},
}
_CHANNEL_PARTS = ("address", "channel_protocol", "field", "tolerance", "monitor")
_AT_CREATION = (*_ROLES, *(name for name in _SETTERS if name != "name"))


def check_mask(
    paths: Sequence[str], known_paths: Iterable[str], field: str = "update_mask"
) -> None:
    """Refuse an empty mask and paths that cannot be changed."""
    if not paths:
        raise invalid_field(field, "names no field; say which ones change")
    for path in paths:
        if path not in known_paths:
            names = ", ".join(sorted(known_paths))
            raise invalid_field(field, f"{path[:100]!r} cannot be changed; there are {names}")


PV_PATHS = frozenset(
    [*_SETTERS, *_ROLES, *(f"{role}.{part}" for role in _ROLES for part in _CHANNEL_PARTS), "tags"]
)
"""Paths of an update mask of PVs."""


def apply_mask(
    before: Draft, pv: catalog_pb2.Pv, paths: Sequence[str], path: str = "pv"
) -> tuple[Draft, list[tuple[str, str]] | None]:
    """(a copy of `before` with the fields of a checked mask, its new tags or None as they are)."""
    after = copy_of(before)
    _set_fields(after, pv, [name for name in paths if name != "tags"], path)
    return after, tag_names(pv.tags) if "tags" in paths else None


def item_error(error: DreyError, item_path: str) -> errors_pb2.ItemError:
    """The refusal of one item; its field's path begins within the item."""
    return errors_pb2.ItemError(
        reason=int(error.reason),  # type: ignore[arg-type]
        field=error.field.removeprefix(item_path).removeprefix("."),
        message=error.message,
    )


# --- policies ---


def policy_to_proto(policy: Policy) -> catalog_pb2.RestorePolicy:
    """A policy with what it says."""
    message = catalog_pb2.RestorePolicy(
        completion=int(policy.completion),  # type: ignore[arg-type]
        stage=policy.stage,
        done_channel=policy.done_channel,
        done_value=policy.done_value,
        ramp_rate=policy.ramp_rate,
        ramp_step=policy.ramp_step,
    )
    if policy.timeout_s is not None:
        message.timeout.CopyFrom(_to_duration(policy.timeout_s))
    if policy.settle_s is not None:
        message.settle.CopyFrom(_to_duration(policy.settle_s))
    low, high = policy.allowed_low, policy.allowed_high
    if low is not None or high is not None:
        message.allowed.low = float("-inf") if low is None else low
        message.allowed.high = float("inf") if high is None else high
    return message


def policy_from_proto(message: catalog_pb2.RestorePolicy, path: str) -> Policy:
    """Inverse of `policy_to_proto`; an infinite end of the range is none."""

    def optional_number(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]

    def optional_seconds(name: str) -> float | None:
        if not message.HasField(name):  # type: ignore[arg-type]
            return None
        duration: Duration = getattr(message, name)
        if abs(duration.seconds) > 10**9 or abs(duration.nanos) >= _NS:
            raise invalid_field(f"{path}.{name}", "is not a duration")
        return (duration.seconds * _NS + duration.nanos) / _NS

    low, high = None, None
    if message.HasField("allowed"):
        low, high = message.allowed.low, message.allowed.high
    return Policy(
        completion=CompletionMode(message.completion),
        timeout_s=optional_seconds("timeout"),
        settle_s=optional_seconds("settle"),
        stage=message.stage if message.HasField("stage") else None,
        done_channel=message.done_channel,
        done_value=optional_number("done_value"),
        ramp_rate=optional_number("ramp_rate"),
        ramp_step=optional_number("ramp_step"),
        allowed_low=None if low == float("-inf") else low,
        allowed_high=None if high == float("inf") else high,
    )


def _to_duration(seconds: float) -> Duration:
    ns = round(seconds * _NS)
    return Duration(seconds=ns // _NS, nanos=ns % _NS)


def sources_to_proto(effective: Effective) -> list[catalog_pb2.PolicySource]:
    """Where each part of an effective policy came from."""
    messages = []
    for part, source in effective.sources:
        message = catalog_pb2.PolicySource(policy_field=part)
        match source.kind:
            case SpeakerKind.PV:
                message.pv.SetInParent()
            case SpeakerKind.DEVICE:
                message.device = source.name
            case SpeakerKind.TAG:
                message.tag.group, message.tag.tag = source.group, source.name
            case SpeakerKind.BUILT_IN:
                message.built_in.SetInParent()
        messages.append(message)
    return messages


def default_policy_to_proto(
    policy: DefaultPolicy, tags: TagBook, pv_count: int
) -> policy_pb2.DefaultPolicy:
    """A policy of a device or a tag, with the number of living PVs that it is for."""
    message = policy_pb2.DefaultPolicy(
        id=policy.id,
        policy=policy_to_proto(policy.policy),
        comment=policy.comment,
        etag=policy.etag,
        pv_count=pv_count,
        actor=actor(policy.principal, policy.role),
        create_time=time_of(policy.create_time_ns),
        update_time=time_of(policy.update_time_ns),
    )
    if policy.tag:
        group, tag = tags.by_number[policy.tag]
        message.tag.group, message.tag.tag = group.name, tag.name
    else:
        message.device = policy.device
    return message


_POLICY_PARTS = frozenset(catalog_pb2.RestorePolicy.DESCRIPTOR.fields_by_name)
DEFAULT_POLICY_PATHS = frozenset(
    {"policy", "comment", *(f"policy.{name}" for name in _POLICY_PARTS)}
)
"""Paths of an update mask of policies."""


def apply_policy_mask(
    before: Policy, message: catalog_pb2.RestorePolicy, paths: Sequence[str], path: str
) -> Policy:
    """The policy with the parts of a checked mask put in their place."""
    if "policy" in paths:
        return policy_from_proto(message, path)
    merged = policy_to_proto(before)
    for name in sorted(_POLICY_PARTS):
        if f"policy.{name}" in paths:
            merged.ClearField(name)  # type: ignore[arg-type]
            one = catalog_pb2.RestorePolicy()
            one.CopyFrom(message)
            for other in _POLICY_PARTS - {name}:
                one.ClearField(other)  # type: ignore[arg-type]
            merged.MergeFrom(one)
    return policy_from_proto(merged, path)


# --- tags ---


def tag_to_proto(group_id: str, tag: Tag, count: int) -> catalog_pb2.Tag:
    """A tag of a group with the number of living PVs that carry it."""
    return catalog_pb2.Tag(
        id=tag.id,
        name=tag.name,
        tag_group_id=group_id,
        pv_count=count,
        etag=tag_etag(group_id, tag),
        delete_time=time_of(tag.delete_time_ns),
    )


def tag_etag(group_id: str, tag: Tag) -> str:
    """Of what can be changed of a tag: its name and its group."""
    return hash_bytes(f"{group_id} {tag.name}".encode())[:8].hex()


def group_to_proto(group: TagGroup, counts: dict[int, int]) -> catalog_pb2.TagGroup:
    """A group with its tags."""
    return catalog_pb2.TagGroup(
        id=group.id,
        name=group.name,
        description=group.description,
        tags=[tag_to_proto(group.id, tag, counts.get(tag.number, 0)) for tag in group.tags],
        etag=group_etag(group),
        delete_time=time_of(group.delete_time_ns),
    )


def group_etag(group: TagGroup) -> str:
    """Changes with every change of the group or of its tags."""
    return f"{group.version:x}"


# --- metadata ---


def metadata_to_proto(address: str, metadata: Metadata) -> value_pb2.ChannelMetadata:
    """What a monitor knows of a channel, texts of the IOC as UTF-8 with replacement."""
    message = value_pb2.ChannelMetadata(
        address=address,
        native_type=metadata.kind & ~ARRAY,  # type: ignore[arg-type]
        element_count=max(metadata.count, 0),
        units=metadata.units.decode(errors="replace"),
        precision=metadata.precision if metadata.precision >= 0 else None,
        enum_labels=[label.decode(errors="replace") for label in metadata.labels],
        readable=metadata.readable,
        writable=metadata.writable,
        host=metadata.host,
    )
    for index, name in enumerate(("display", "warning", "alarm", "control")):
        low, high = metadata.limits[2 * index : 2 * index + 2]
        if not (math.isnan(low) and math.isnan(high)):
            getattr(message, name).low = low
            getattr(message, name).high = high
    return message
