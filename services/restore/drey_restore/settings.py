"""Settings of the restore service; each is the environment variable `DREY_RESTORE_<NAME>`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from drey_runtime.settings import ChannelAccessSettings


class Settings(ChannelAccessSettings):
    """See `ChannelAccessSettings` for the shared ones."""

    service: ClassVar[str] = "restore"

    listen: str = Field("127.0.0.1:7103", description="Address to listen on.")
    connect_timeout: float = Field(
        3.0, gt=0, le=60, description="Seconds to wait for channels to connect, one wait for all."
    )
    read_timeout: float = Field(
        5.0, gt=0, le=60, description="Seconds for one read of all channels of a restore."
    )
    stale_after: float = Field(
        2.0, gt=0, le=60, description="Seconds of silence after which a monitor is not believed."
    )
    chunk_size: int = Field(
        2048, ge=1, le=100_000, description="Writes announced in the journal and sent at a time."
    )
    writes_per_ioc: int = Field(
        2048, ge=1, le=100_000, description="Of these, most that go to one IOC."
    )
    keep_channels: float = Field(
        600.0, ge=1, description="Seconds after which a channel that nothing has used is closed."
    )
    refuse_invalid: bool = Field(
        False, description="Leave out of plans what was INVALID when it was stored; else warn."
    )
    job_lease: float = Field(
        10.0,
        ge=1,
        le=60,
        description="Seconds after which a restore whose process died is given up as interrupted.",
    )
