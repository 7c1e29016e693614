"""`drey.catalog.v1.CatalogService`."""

from __future__ import annotations

from drey_snapshot.catalog.rpc import Parts
from drey_snapshot.catalog.servicer_files import FileRpcs
from drey_snapshot.catalog.servicer_pvs import PvRpcs
from drey_snapshot.catalog.servicer_scopes import ScopeRpcs
from drey_snapshot.catalog.servicer_tags import TagRpcs
from drey_snapshot.catalog.usecases.writer import Writer
from drey_snapshot.context import Context


class CatalogServicer(PvRpcs, TagRpcs, FileRpcs, ScopeRpcs):
    """All RPCs of the service; changes run one after the other, reads beside them."""

    def __init__(self, context: Context) -> None:
        self._parts = Parts(
            context.db,
            context.image,
            context.catalog,
            Writer(context.db, context.catalog),
            context.settings.import_limit,
        )
