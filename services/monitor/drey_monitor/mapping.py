"""Domain to `drey.events.v1`."""

from __future__ import annotations

from drey.control.v1.control_service_pb2 import GetOwnedShardsResponse, OwnedShard
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey_monitor.domain.directory import DirectoryCut
from drey_monitor.owned import Owned, Pulse


def heartbeat(owned: Owned, pulse: Pulse) -> Heartbeat:
    """The sign of life of a shard."""
    state, counts = owned.state, pulse.counts
    return Heartbeat(
        shard=state.shard,
        shard_count=pulse.shard_count,
        epoch=state.epoch,
        sequence=state.sequence,
        time_ns=pulse.time_ns,
        owner=pulse.owner,
        channels=counts.channels,
        connected=counts.connected,
        disconnected=counts.disconnected,
        never_connected=counts.never_connected,
        in_alarm=counts.in_alarm,
        updates_per_s=pulse.updates_per_s,
        merged=state.merged,
        channel_access=pulse.channel_access,
        tick_ms=pulse.tick_ms,
        directory_version=owned.directory.version,
        settled=owned.settling.settled,
        catalog_version=owned.directory.catalog_version,
        image_failing=owned.image_failing,
    )


def directory_version(
    shard: int, epoch: int, cut: DirectoryCut, pages: list[int]
) -> DirectoryVersion:
    """The versions of `pages`, which are all of the shard or those that changed."""
    return DirectoryVersion(
        shard=shard,
        epoch=epoch,
        version=cut.version,
        pages=pages,
        page_versions=[cut.page_versions[p] for p in pages],
        catalog_version=cut.catalog_version,
    )


def owned_shards(owned: list[Owned]) -> GetOwnedShardsResponse:
    """Answer of `ControlService.GetOwnedShards`."""
    return GetOwnedShardsResponse(
        shards=[
            OwnedShard(
                shard=o.state.shard,
                epoch=o.state.epoch,
                sequence=o.state.sequence,
                channels=o.state.counts().channels,
            )
            for o in owned
        ]
    )
