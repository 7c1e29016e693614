"""Protobuf messages to the domain and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from drey.access.v1 import access_pb2
from drey.common.v1 import selector_pb2, value_pb2
from drey.events.v1.values_pb2 import Heartbeat, ValueBatch
from drey.monitor.v1 import monitor_service_pb2 as monitor_pb2
from drey.monitor.v1 import watch_pb2
from drey_core.directory import Directory, Metadata
from drey_core.permissions import Role
from drey_core.principal import LimitedRole
from drey_core.selector import Link
from drey_core.values import ARRAY, Columns
from drey_gateway.domain.keys import Key
from drey_gateway.domain.live import Report, Shard
from drey_gateway.domain.shard import BusBatch
from drey_gateway.domain.watch import Fields
from drey_runtime.batches import large_pages


def fields_of_mask(number: int) -> Fields:
    """Which channels; unspecified means both."""
    return Fields(number) if number else Fields.BOTH


def batch_message(message: ValueBatch, columns: Columns) -> BusBatch:
    """A message of the bus."""
    return BusBatch(
        message.epoch, message.sequence, message.part, message.more, columns, large_pages(message)
    )


def report_of_beat(beat: Heartbeat) -> Report:
    """A sign of life."""
    return Report(
        shard=beat.shard,
        epoch=beat.epoch,
        sequence=beat.sequence,
        owner=beat.owner,
        channels=beat.channels,
        connected=beat.connected,
        disconnected=beat.disconnected,
        never_connected=beat.never_connected,
        unsupported=beat.unsupported,
        in_alarm=beat.in_alarm,
        updates_per_s=beat.updates_per_s,
        merged=beat.merged,
        channel_access=beat.channel_access,
        tick_ms=beat.tick_ms,
        directory_version=beat.directory_version,
        catalog_version=beat.catalog_version,
        image_failing=beat.image_failing,
    )


def shard_state(number: int, shard: Shard, fresh: bool, now: int) -> watch_pb2.ShardState:
    """A shard as watchers are told; `now` is of the monotonic clock."""
    epoch, sequence = shard.stream.known_position
    return watch_pb2.ShardState(
        shard=number,
        epoch=epoch,
        sequence=sequence,
        age=_to_duration(shard.health.age_ms(now)),
        fresh=fresh,
    )


def _to_duration(milliseconds: int | None) -> Duration | None:
    if milliseconds is None:
        return None
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration


def shard_status(
    number: int, shard: Shard, fresh: bool, now: int, standbys: Sequence[tuple[str, bool]] = ()
) -> monitor_pb2.ShardStatus:
    """A shard as GetMonitorStatus tells; `standbys` as `InstanceBook.standbys` has them."""
    owner_report = shard.report
    return monitor_pb2.ShardStatus(
        state=shard_state(number, shard, fresh, now),
        owner=owner_report.owner,
        channels=owner_report.channels,
        connected=owner_report.connected,
        disconnected=owner_report.disconnected,
        never_connected=owner_report.never_connected,
        unsupported=owner_report.unsupported,
        in_alarm=owner_report.in_alarm,
        updates_per_s=owner_report.updates_per_s,
        merged=owner_report.merged,
        channel_access=owner_report.channel_access,
        tick=_to_duration(owner_report.tick_ms or None),
        directory_version=owner_report.directory_version,
        standbys=[
            monitor_pb2.ShardStandby(instance=name, warm=is_warm) for name, is_warm in standbys
        ],
    )


def _to_range(low: float, high: float) -> value_pb2.Range | None:
    if np.isnan(low) and np.isnan(high):
        return None
    return value_pb2.Range(low=low, high=high)


def channel_metadata(known: Metadata) -> value_pb2.ChannelMetadata:
    """What is known of one channel, without its address."""
    return value_pb2.ChannelMetadata(
        native_type=known.kind & ~ARRAY,  # type: ignore[arg-type]
        element_count=known.count,
        units=known.units.decode(errors="replace"),
        precision=known.precision if known.precision >= 0 else None,
        display=_to_range(known.limits[0], known.limits[1]),
        warning=_to_range(known.limits[2], known.limits[3]),
        alarm=_to_range(known.limits[4], known.limits[5]),
        control=_to_range(known.limits[6], known.limits[7]),
        enum_labels=[label.decode(errors="replace") for label in known.labels],
        readable=known.readable,
        writable=known.writable,
        host=known.host,
    )


def name_links(
    links: Mapping[str, Sequence[Link]], directory: Directory
) -> list[watch_pb2.NameLink]:
    """Names that are not the PVs' own, by row of the directory."""
    return [
        watch_pb2.NameLink(
            asked=asked,
            number=int(directory.pv_number[row]),
            name=directory.names[row],
            role=role,  # type: ignore[arg-type]
        )
        for asked, link in links.items()
        for row, role in link
    ]


def time_or_none(time_ns: int) -> Timestamp | None:
    """A time in nanoseconds as a message; None for 0, which says that there is none."""
    if not time_ns:
        return None
    out = Timestamp()
    out.FromNanoseconds(time_ns)
    return out


def role(role: Role) -> access_pb2.Role:
    """A role with what it permits."""
    return access_pb2.Role(
        name=role.name, description=role.sentence, permissions=sorted(role.permissions)
    )


def grant_messages(roles: Sequence[str], limited: Sequence[LimitedRole]) -> list[access_pb2.Grant]:
    """Roles for all PVs, then those for some."""
    every = [access_pb2.Grant(role=role) for role in roles]
    for grant in limited:
        selector = selector_pb2.Selector.FromString(grant.selector)
        every.append(access_pb2.Grant(role=grant.role, selector=selector))
    return every


def limits_text(key: Key) -> list[str]:
    """Of each role that a key holds for some PVs only: which, for the audit."""
    return [
        f"{grant.role}: {MessageToJson(grant.selector, indent=None)}"
        for grant in grant_messages((), key.limited)
    ]


def key(key: Key) -> access_pb2.Key:
    """A key, without its secret."""
    return access_pb2.Key(
        id=key.id,
        name=key.name,
        grants=grant_messages(key.roles, key.limited),
        create_time=time_or_none(key.create_time_ns),
        expire_time=time_or_none(key.expire_time_ns),
        revoke_time=time_or_none(key.revoke_time_ns),
        created_by=key.created_by,
        prefix=key.prefix,
    )
