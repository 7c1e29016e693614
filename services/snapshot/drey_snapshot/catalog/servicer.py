"""`drey.catalog.v1.CatalogService`."""

from __future__ import annotations

from drey_snapshot.catalog.rpc import Parts
from drey_snapshot.catalog.servicer_files import FileRpcs
from drey_snapshot.catalog.servicer_pvs import PvRpcs
from drey_snapshot.catalog.servicer_scopes import ScopeRpcs
from drey_snapshot.catalog.servicer_tags import TagRpcs


class CatalogServicer(PvRpcs, TagRpcs, FileRpcs, ScopeRpcs):
    """All RPCs of the service; changes run one after the other, reads beside them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
