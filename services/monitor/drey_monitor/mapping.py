"""Domain to `drey.events.v1`, and what the domain takes of it."""

from __future__ import annotations

import numpy as np

from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.control.v1.control_service_pb2 import GetOwnedShardsResponse, OwnedShard
from drey.storage.v1.pages_pb2 import CatalogPage
from drey_core.errors import Internal
from drey_core.pages import PAGE_SLOTS
from drey_monitor.domain.catalog import Channels
from drey_monitor.domain.directory import DirectoryCut
from drey_monitor.owned import Owned, OwnerPulse


def heartbeat_message(owned: Owned, pulse: OwnerPulse) -> Heartbeat:
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
        unsupported=counts.unsupported,
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


def catalog_channels(raw: bytes) -> Channels:
    """The channels of an encoded page of the catalog. Raises `Internal` on a torn page.

    Names, devices and tolerances are left where they are: a monitor only passes them on.
    """
    page = CatalogPage.FromString(raw)
    channels = Channels(
        page.number,
        np.frombuffer(page.pv_numbers, "<i8"),
        np.frombuffer(page.protocols, "u1"),
        list(page.addresses),
    )
    if {len(channels.pv_number), len(channels.protocol), len(channels.addresses)} != {PAGE_SLOTS}:
        raise Internal(f"catalog page {page.number} has a column that is not of 256 entries")
    return channels


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
