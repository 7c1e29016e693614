"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from drey_runtime.settings import CommonSettings


class GatewaySettings(CommonSettings):
    """Shared settings, and those of this service: `DREY_GATEWAY_<NAME>`."""

    service: ClassVar[str] = "gateway"

    listen: str = Field("127.0.0.1:7100", description="Address on which the gateway listens.")
    max_watchers: int = Field(
        2000, ge=1, le=100_000, description="Most watches at a time; further ones are refused."
    )
    stall_cut: float = Field(
        30.0, ge=1, le=3600, description="Seconds after which a watcher that reads nothing is cut."
    )
    poll: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Seconds between looks for keys and directories that no event told of.",
    )
    audit_anchors: Path | None = Field(
        None,
        description="File to which the head of the audit trail is appended, signed, so that the"
        " owner of the database cannot cut its end off unseen. Unset: it goes to the log alone.",
    )
    audit_anchor_period: float = Field(
        60.0, ge=0.1, le=86_400, description="Seconds between two anchors of the audit trail."
    )
