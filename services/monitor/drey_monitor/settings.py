"""Settings of the monitor service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from drey_runtime.settings import ChannelAccessSettings


class MonitorSettings(ChannelAccessSettings):
    """Shared settings, and those of this service: `DREY_MONITOR_<NAME>`."""

    service: ClassVar[str] = "monitor"

    listen: str = Field("127.0.0.1:7102", description="Address on which the service listens.")
    tick: float = Field(
        0.1, ge=0.01, le=10, description="Seconds between two batches of one shard."
    )
    max_shards: int = Field(
        0, ge=0, le=1024, description="Most shards that this process owns. 0: all that are free."
    )
    balance: bool = Field(
        True,
        description="Hand shards over to other monitors until all have their share, by channels"
        " and by rate. A monitor that is stopped hands over in any case.",
    )
    warm_standbys: int = Field(
        0,
        ge=0,
        le=4,
        description="Other monitors that keep each shard's channels connected, so that one that"
        " dies is followed without a search. It costs as many connections and subscriptions more"
        " at the IOCs, and memory in the monitors. The same for all monitors of a site.",
    )
    heartbeat: float = Field(
        0.5, ge=0.1, le=10, description="Seconds between two signs of life of a shard."
    )
    metadata_period: float = Field(
        0.5,
        ge=0.05,
        le=60,
        description="Seconds for which changes of metadata are collected, where they are many."
        " Labels that values wait for are written at once.",
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
    lease: str = Field(
        "postgres",
        pattern="^(postgres|kubernetes)$",
        description="How one monitor comes to own a shard: by a lock of Postgres, or by a `Lease`"
        " of Kubernetes for each shard. The same for all monitors of a site.",
    )
    lease_namespace: str = Field(
        "", description="Kubernetes namespace of the Leases; in a pod that of the pod."
    )
    lease_identity: str = Field(
        "", description="Name under which this process holds Leases; in a pod its name."
    )
    lease_duration: int = Field(
        4,
        ge=2,
        le=120,
        description="Seconds without a renewal after which another monitor takes a Lease. The"
        " owner falls silent after three quarters of it.",
    )
    lease_kubeconfig: Path | None = Field(
        None, description="Access to Kubernetes from outside a pod. Not set: the pod's account."
    )

    @model_validator(mode="after")
    def _lease_whole(self) -> Self:
        if self.lease == "kubernetes" and not (self.lease_namespace and self.lease_identity):
            raise ValueError(
                "DREY_MONITOR_LEASE=kubernetes needs DREY_MONITOR_LEASE_NAMESPACE and"
                " DREY_MONITOR_LEASE_IDENTITY: the pod's namespace and name, by the downward API"
            )
        return self

    @property
    def lease_prefix(self) -> str:
        """What the names of the site's Leases begin with."""
        return self.namespace.replace("_", "-") + "-"
