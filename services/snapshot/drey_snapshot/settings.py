"""Settings of the snapshot service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from drey_runtime.settings import ChannelAccessSettings


class SnapshotSettings(ChannelAccessSettings):
    """Shared settings, and those of this service: `DREY_SNAPSHOT_<NAME>`."""

    service: ClassVar[str] = "snapshot"

    listen: str = Field("127.0.0.1:7101", description="Address on which the service listens.")
    catalog_poll: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds between looks for changes of the catalog that no event told of.",
    )
    import_limit: int = Field(
        256 << 20, ge=1 << 20, description="Most bytes of a file of PVs that is imported."
    )
