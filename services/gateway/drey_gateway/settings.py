"""Settings of the gateway."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

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
    trusted_proxies: str = Field(
        "",
        description="Networks and addresses, by comma, of proxies in front of the gateway that"
        " are believed (`x-forwarded-for`) from where a call comes: so the audit trail tells it."
        " Empty: it tells who connected.",
    )
    proxy_secret: Path | None = Field(
        None,
        description="File with the text that a proxy sends as `x-drey-proxy` to be believed so,"
        " wherever it is. The Envoy that `drey up` starts has one of its own.",
    )
    audit_anchors: Path | None = Field(
        None,
        description="File to which the head of the audit trail is appended, signed, so that the"
        " owner of the database cannot cut its end off unseen. Unset: it goes to the log alone.",
    )
    audit_anchor_period: float = Field(
        60.0, ge=0.1, le=86_400, description="Seconds between two anchors of the audit trail."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        read_networks(text)
        return text


def read_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks and addresses by comma. Raises `ValueError`."""
    return tuple(ip_network(each.strip()) for each in text.split(",") if each.strip())
