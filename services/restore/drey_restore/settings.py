"""Settings of the restore service; each is the environment variable `DREY_RESTORE_<NAME>`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from drey_core.errors import InvalidArgument
from drey_core.selector import parse_selectors
from drey_runtime.settings import ChannelAccessSettings


class RestoreSettings(ChannelAccessSettings):
    """See `ChannelAccessSettings` for the shared ones."""

    service: ClassVar[str] = "restore"

    listen: str = Field("127.0.0.1:7103", description="Address to listen on.")
    connect_timeout: float = Field(
        3.0, gt=0, le=60, description="Seconds to wait for channels to connect, one wait for all."
    )
    read_timeout: float = Field(
        5.0, gt=0, le=60, description="Seconds for one read of all channels of a restore."
    )
    guard_silence: float = Field(
        3.0,
        gt=0,
        le=60,
        description="Seconds for the answer of a PV of a guard, which is read each second while a"
        " restore writes. Without one the guard cannot be known: nothing more is written.",
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
    refuse: str = Field(
        "disabled",
        pattern=r"^ *((disabled|invalid|undefined|truncated) *(, *|$))*$",
        description="Problems for which a PV is left out of plans, by comma; the others are"
        " warnings. `disabled`: its record is (.DISP, .DISA); of the stored value: `invalid`: it"
        " was INVALID, `undefined`: never set (UDF), `truncated`: a text of all the bytes that"
        " Channel Access carries.",
    )
    approval_required: str = Field(
        "",
        description="PVs that nobody restores alone, by comma: patterns of names, `tag:GROUP=TAG`,"
        " `tag:GROUP`, `device:NAME`, `scope:NAME`; `*`: all. Empty: none.",
    )
    job_lease: float = Field(
        10.0,
        ge=1,
        le=60,
        description="Seconds after which a restore whose process died is given up as interrupted.",
    )

    @field_validator("approval_required")
    @classmethod
    def _check_approval_required(cls, text: str) -> str:
        try:
            parse_selectors(text)
        except InvalidArgument as error:
            raise ValueError(error.message) from error
        return text
