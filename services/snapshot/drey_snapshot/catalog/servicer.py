"""`drey.catalog.v1.CatalogService`."""

from __future__ import annotations

from drey_runtime.database import Database
from drey_runtime.image import Image
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.rpc import Parts
from drey_snapshot.catalog.servicer_files import FileRpcs
from drey_snapshot.catalog.servicer_pvs import PvRpcs
from drey_snapshot.catalog.servicer_scopes import ScopeRpcs
from drey_snapshot.catalog.servicer_tags import TagRpcs
from drey_snapshot.catalog.usecases.writer import CatalogWriter


class CatalogServicer(PvRpcs, TagRpcs, FileRpcs, ScopeRpcs):
    """All RPCs of the service; changes run one after the other, reads beside them."""

    def __init__(self, db: Database, image: Image, catalog: LiveCatalog, import_limit: int) -> None:
        self._parts = Parts(db, image, catalog, CatalogWriter(db, catalog), import_limit)
