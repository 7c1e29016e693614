"""Between the contracts and the domain of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from google.protobuf.duration_pb2 import Duration

from drey.catalog.v1 import catalog_pb2
from drey.common.v1 import errors_pb2, value_pb2
from drey_core.directory import Metadata
from drey_core.errors import DreyError, InvalidArgument
from drey_core.pv_table import NO_POLICY, CompletionMode, Policy, PvProtocol, split_scheme
from drey_core.values import ARRAY
from drey_snapshot.catalog.domain.draft import Draft, copy_of
from drey_snapshot.catalog.domain.policy import Effective
from drey_snapshot.catalog.domain.tags import Tag, TagBook, TagGroup

_NS = 1_000_000_000


def invalid(field: str, why: str) -> InvalidArgument:
    """A refusal of one field of the request."""
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})


# --- PVs ---


def pv_to_proto(draft: Draft, tags: TagBook) -> catalog_pb2.Pv:
    """The PV as clients see it. Exact tolerances and empty policies are absent."""
    pv = catalog_pb2.Pv(
        id=draft.id,
        number=draft.number,
        name=draft.name,
        setpoint_address=draft.setpoint_address,
        readback_address=draft.readback_address,
        protocol=draft.protocol,  # type: ignore[arg-type]
        device=draft.device,
        description=draft.description,
        tags=[catalog_pb2.TagRef(group=g, tag=t) for g, t in tags.names(draft.tags)],
        read_only=draft.read_only,
        etag=draft.etag,
        create_time_ns=draft.create_time_ns,
        update_time_ns=draft.update_time_ns,
        delete_time_ns=draft.delete_time_ns,
    )
    if draft.setpoint_absolute or draft.setpoint_relative:
        pv.setpoint_tolerance.absolute = draft.setpoint_absolute
        pv.setpoint_tolerance.relative = draft.setpoint_relative
    if draft.readback_absolute or draft.readback_relative:
        pv.readback_tolerance.absolute = draft.readback_absolute
        pv.readback_tolerance.relative = draft.readback_relative
    if draft.policy != NO_POLICY:
        pv.restore_policy.CopyFrom(policy_to_proto(draft.policy))
    return pv


def pv_from_proto(pv: catalog_pb2.Pv, path: str = "pv") -> Draft:
    """The content of a PV without its tags; what the server makes is ignored."""
    draft = Draft(name=pv.name)
    for setter in (
        *("protocol", "setpoint_address", "readback_address"),
        *("device", "description", "read_only"),
    ):
        _SETTERS[setter](draft, pv, path)
    _SETTERS["setpoint_tolerance"](draft, pv, path)
    _SETTERS["readback_tolerance"](draft, pv, path)
    _SETTERS["restore_policy"](draft, pv, path)
    return draft


def tag_names(refs: Iterable[catalog_pb2.TagRef]) -> list[tuple[str, str]]:
    """(group, tag) of tags as they are named in a request."""
    return [(ref.group, ref.tag) for ref in refs]


def _set_name(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    if not pv.name:
        raise invalid(f"{path}.name", "a PV keeps a name; it cannot become empty")
    draft.name = pv.name


def _set_protocol(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    draft.protocol = _said_protocol(pv, path) or catalog_pb2.PROTOCOL_CA


def _said_protocol(pv: catalog_pb2.Pv, path: str) -> int:
    """What `protocol` and the addresses say of it (`pva://NAME`); 0 if nothing."""
    said = pv.protocol or 0
    for name in ("setpoint_address", "readback_address"):
        protocol, rest = split_scheme(getattr(pv, name))
        if protocol == PvProtocol.UNSPECIFIED:
            continue
        if not rest:
            raise invalid(f"{path}.{name}", f"{getattr(pv, name)} names no channel")
        if said not in (PvProtocol.UNSPECIFIED, protocol):
            raise invalid(
                f"{path}.{name}",
                f"{getattr(pv, name)} is of another protocol than the rest of the PV says;"
                " both channels of a PV have one protocol",
            )
        said = int(protocol)
    return said


def _set_address(name: str) -> Callable[[Draft, catalog_pb2.Pv, str], None]:
    def set_(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
        protocol, address = split_scheme(getattr(pv, name))
        setattr(draft, name, address)
        if protocol != PvProtocol.UNSPECIFIED:
            draft.protocol = _said_protocol(pv, path)

    return set_


def _set_setpoint_tolerance(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    draft.setpoint_absolute = pv.setpoint_tolerance.absolute
    draft.setpoint_relative = pv.setpoint_tolerance.relative


def _set_readback_tolerance(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    draft.readback_absolute = pv.readback_tolerance.absolute
    draft.readback_relative = pv.readback_tolerance.relative


def _set_policy(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
    draft.policy = NO_POLICY
    if pv.HasField("restore_policy"):
        draft.policy = policy_from_proto(pv.restore_policy, f"{path}.restore_policy")


def _set_plain(name: str) -> Callable[[Draft, catalog_pb2.Pv, str], None]:
    def set_(draft: Draft, pv: catalog_pb2.Pv, path: str) -> None:
        setattr(draft, name, getattr(pv, name))

    return set_


_SETTERS: dict[str, Callable[[Draft, catalog_pb2.Pv, str], None]] = {
    "name": _set_name,
    "protocol": _set_protocol,
    "setpoint_tolerance": _set_setpoint_tolerance,
    "readback_tolerance": _set_readback_tolerance,
    "restore_policy": _set_policy,
    **{name: _set_address(name) for name in ("setpoint_address", "readback_address")},
    **{name: _set_plain(name) for name in ("device", "description", "read_only")},
}


def check_mask(paths: Sequence[str], known: Iterable[str], field: str = "update_mask") -> None:
    """Refuse an empty mask and paths that cannot be changed."""
    if not paths:
        raise invalid(field, "names no field; say which ones change")
    for path in paths:
        if path not in known:
            names = ", ".join(sorted(known))
            raise invalid(field, f"{path[:100]!r} cannot be changed; there are {names}")


PV_PATHS = frozenset([*_SETTERS, "tags"])
"""Paths of an update mask of PVs."""


def apply_mask(
    before: Draft, pv: catalog_pb2.Pv, paths: Sequence[str], path: str = "pv"
) -> tuple[Draft, list[tuple[str, str]] | None]:
    """(a copy of `before` with the fields of a checked mask, its new tags or None as they are)."""
    after = copy_of(before)
    for name in paths:
        if name != "tags":
            _SETTERS[name](after, pv, path)
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
        message.timeout.CopyFrom(_duration(policy.timeout_s))
    if policy.settle_s is not None:
        message.settle.CopyFrom(_duration(policy.settle_s))
    low, high = policy.allowed_low, policy.allowed_high
    if low is not None or high is not None:
        message.allowed.low = float("-inf") if low is None else low
        message.allowed.high = float("inf") if high is None else high
    return message


def policy_from_proto(message: catalog_pb2.RestorePolicy, path: str) -> Policy:
    """Inverse of `policy_to_proto`; an infinite end of the range is none."""

    def optional(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]

    def seconds(name: str) -> float | None:
        if not message.HasField(name):  # type: ignore[arg-type]
            return None
        duration: Duration = getattr(message, name)
        if abs(duration.seconds) > 10**9 or abs(duration.nanos) >= _NS:
            raise invalid(f"{path}.{name}", "is not a duration")
        return (duration.seconds * _NS + duration.nanos) / _NS

    low, high = None, None
    if message.HasField("allowed"):
        low, high = message.allowed.low, message.allowed.high
    return Policy(
        completion=CompletionMode(message.completion),
        timeout_s=seconds("timeout"),
        settle_s=seconds("settle"),
        stage=message.stage if message.HasField("stage") else None,
        done_channel=message.done_channel,
        done_value=optional("done_value"),
        ramp_rate=optional("ramp_rate"),
        ramp_step=optional("ramp_step"),
        allowed_low=None if low == float("-inf") else low,
        allowed_high=None if high == float("inf") else high,
    )


def _duration(seconds: float) -> Duration:
    ns = round(seconds * _NS)
    return Duration(seconds=ns // _NS, nanos=ns % _NS)


def sources_to_proto(found: Effective) -> list[catalog_pb2.PolicySource]:
    """Where each field of an effective policy came from."""
    return [catalog_pb2.PolicySource(field=f, source=s) for f, s in found.sources]


# --- tags ---


def tag_to_proto(tag: Tag, count: int) -> catalog_pb2.Tag:
    """A tag with the number of living PVs that carry it."""
    return catalog_pb2.Tag(
        id=tag.id, name=tag.name, pv_count=count, delete_time_ns=tag.delete_time_ns
    )


def group_to_proto(group: TagGroup, counts: dict[int, int]) -> catalog_pb2.TagGroup:
    """A group with its tags."""
    return catalog_pb2.TagGroup(
        id=group.id,
        name=group.name,
        description=group.description,
        tags=[tag_to_proto(tag, counts.get(tag.number, 0)) for tag in group.tags],
        etag=group_etag(group),
        delete_time_ns=group.delete_time_ns,
    )


def group_etag(group: TagGroup) -> str:
    """Changes with every change of the group or of its tags."""
    return f"{group.version:x}"


# --- metadata ---


def metadata_to_proto(address: str, found: Metadata) -> value_pb2.ChannelMetadata:
    """What a monitor knows of a channel, texts of the IOC as UTF-8 with replacement."""
    message = value_pb2.ChannelMetadata(
        address=address,
        native_type=found.kind & ~ARRAY,  # type: ignore[arg-type]
        element_count=max(found.count, 0),
        units=found.units.decode(errors="replace"),
        precision=found.precision if found.precision >= 0 else None,
        enum_labels=[label.decode(errors="replace") for label in found.labels],
        readable=found.readable,
        writable=found.writable,
        host=found.host,
    )
    for at, name in enumerate(("display", "warning", "alarm", "control")):
        low, high = found.limits[2 * at : 2 * at + 2]
        if not (math.isnan(low) and math.isnan(high)):
            getattr(message, name).low = low
            getattr(message, name).high = high
    return message
