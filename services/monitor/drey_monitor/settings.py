"""Settings of the monitor service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from drey_runtime.settings import ChannelAccessSettings


class Settings(ChannelAccessSettings):
    """Shared settings, and those of this service: `DREY_MONITOR_<NAME>`."""

    service: ClassVar[str] = "monitor"

    listen: str = Field("127.0.0.1:7102", description="Address on which the service listens.")
    tick: float = Field(
        0.1, ge=0.01, le=10, description="Seconds between two batches of one shard."
    )
    max_shards: int = Field(
        0, ge=0, le=1024, description="Most shards that this process owns. 0: all that are free."
    )
    heartbeat: float = Field(
        0.5, ge=0.1, le=10, description="Seconds between two signs of life of a shard."
    )
    metadata_period: float = Field(
        0.5, ge=0.05, le=60, description="Seconds for which changes of metadata are collected."
    )
    catalog_poll: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds between looks for changes of the catalog that no event told of.",
    )
    settle: float = Field(
        1.0,
        ge=0.1,
        le=600,
        description="Seconds without a newly found channel after which a shard counts as settled.",
    )
