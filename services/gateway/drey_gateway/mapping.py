"""Protobuf messages to the domain and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from drey.access.v1 import access_pb2
from drey.common.v1 import value_pb2
from drey.events.v1.values_pb2 import Heartbeat, ValueBatch
from drey.monitor.v1 import monitor_service_pb2 as monitor_pb2
from drey.monitor.v1 import watch_pb2
from drey_core.directory import Directory, MetadataIndex
from drey_core.permissions import Role
from drey_core.selector import Link, Selector
from drey_core.values import ARRAY, I8, Columns
from drey_gateway.domain.keys import Key
from drey_gateway.domain.live import Report, Shard
from drey_gateway.domain.shard import Batch
from drey_gateway.domain.watch import Fields
from drey_runtime.batches import large_pages


def needs_catalog(found: Selector) -> bool:
    """Whether it speaks of ids, tags or scopes, which only the catalog's service knows."""
    inner = found.excluding is not None and needs_catalog(found.excluding)
    return bool(found.ids or found.tags or found.scope) or inner


def fields(number: int) -> Fields:
    """Which channels; unspecified means both."""
    return Fields(number) if number else Fields.BOTH


def batch(message: ValueBatch, columns: Columns) -> Batch:
    """A message of the bus."""
    return Batch(
        message.epoch, message.sequence, message.part, message.more, columns, large_pages(message)
    )


def report(beat: Heartbeat) -> Report:
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
    epoch, sequence = shard.stream.position
    return watch_pb2.ShardState(
        shard=number,
        epoch=epoch,
        sequence=sequence,
        age=_duration(shard.health.age_ms(now)),
        fresh=fresh,
    )


def _duration(milliseconds: int | None) -> Duration | None:
    if milliseconds is None:
        return None
    found = Duration()
    found.FromMilliseconds(milliseconds)
    return found


def shard_status(number: int, shard: Shard, fresh: bool, now: int) -> monitor_pb2.ShardStatus:
    """A shard as GetMonitorStatus tells."""
    found = shard.report
    return monitor_pb2.ShardStatus(
        state=shard_state(number, shard, fresh, now),
        owner=found.owner,
        channels=found.channels,
        connected=found.connected,
        disconnected=found.disconnected,
        never_connected=found.never_connected,
        unsupported=found.unsupported,
        in_alarm=found.in_alarm,
        updates_per_s=found.updates_per_s,
        merged=found.merged,
        channel_access=found.channel_access,
        tick=_duration(found.tick_ms or None),
        directory_version=found.directory_version,
    )


def _range(low: float, high: float) -> value_pb2.Range | None:
    if np.isnan(low) and np.isnan(high):
        return None
    return value_pb2.Range(low=low, high=high)


def channel_metadata(
    channel: int, address: str, metadata: MetadataIndex
) -> value_pb2.ChannelMetadata | None:
    """What is known of one channel; None for channel 0."""
    if channel == 0:
        return None
    found = metadata.get(channel)
    if found is None:
        return value_pb2.ChannelMetadata(address=address)
    limits = found.limits
    return value_pb2.ChannelMetadata(
        address=address,
        native_type=found.kind & ~ARRAY,  # type: ignore[arg-type]
        element_count=found.count,
        units=found.units.decode(errors="replace"),
        precision=found.precision if found.precision >= 0 else None,
        display=_range(limits[0], limits[1]),
        warning=_range(limits[2], limits[3]),
        alarm=_range(limits[4], limits[5]),
        control=_range(limits[6], limits[7]),
        enum_labels=[label.decode(errors="replace") for label in found.labels],
        readable=found.readable,
        writable=found.writable,
        host=found.host,
    )


def metadata_rows(
    rows: I8, directory: Directory, metadata: MetadataIndex, wanted: Fields
) -> list[watch_pb2.MetadataRow]:
    """Metadata of PVs by row of the directory."""
    out = []
    for row in rows.tolist():
        setpoint = int(directory.setpoint_channel[row]) if wanted.setpoint else 0
        readback = int(directory.readback_channel[row]) if wanted.readback else 0
        out.append(
            watch_pb2.MetadataRow(
                number=int(directory.pv_number[row]),
                name=directory.names[row],
                setpoint=channel_metadata(setpoint, directory.setpoint_address[row], metadata),
                readback=channel_metadata(readback, directory.readback_address[row], metadata),
            )
        )
    return out


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
        for asked, found in links.items()
        for row, role in found
    ]


def time_or_none(time_ns: int) -> Timestamp | None:
    """A time in nanoseconds as a message; None for 0, which says that there is none."""
    if not time_ns:
        return None
    out = Timestamp()
    out.FromNanoseconds(time_ns)
    return out


def role(found: Role) -> access_pb2.Role:
    """A role with what it permits."""
    return access_pb2.Role(
        name=found.name, description=found.sentence, permissions=sorted(found.permissions)
    )


def key(found: Key) -> access_pb2.Key:
    """A key, without its secret."""
    return access_pb2.Key(
        id=found.id,
        name=found.name,
        grants=[access_pb2.Grant(role=role) for role in found.roles],
        create_time=time_or_none(found.create_time_ns),
        expire_time=time_or_none(found.expire_time_ns),
        revoke_time=time_or_none(found.revoke_time_ns),
        created_by=found.created_by,
        prefix=found.prefix,
    )
