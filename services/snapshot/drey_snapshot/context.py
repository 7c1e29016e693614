"""What the two halves of the service are built from."""

from __future__ import annotations

from dataclasses import dataclass

from drey_runtime.app import App
from drey_runtime.bus import Bus
from drey_runtime.database import Database
from drey_runtime.image import Image
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.settings import SnapshotSettings


@dataclass(frozen=True, slots=True)
class Context:
    """Everything opened by the composition root; open for as long as the process lives."""

    settings: SnapshotSettings
    app: App
    db: Database
    bus: Bus
    image: Image
    catalog: LiveCatalog
