"""`drey.catalog.v1.CatalogService`."""

from __future__ import annotations

from typing import NoReturn

from google.protobuf.message import Message

from drey_core.errors import Unimplemented
from drey_snapshot.catalog.rpc import Context, Parts
from drey_snapshot.catalog.servicer_files import FileRpcs
from drey_snapshot.catalog.servicer_pvs import PvRpcs
from drey_snapshot.catalog.servicer_tags import TagRpcs


def _refuse_scopes() -> NoReturn:
    raise Unimplemented("saved scopes are not built in this version: give the selector itself")


class ScopeRpcs:
    """RPCs of scopes; each answers UNIMPLEMENTED."""

    async def CreateScope(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()

    async def GetScope(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()

    async def ListScopes(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()

    async def UpdateScope(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()

    async def DeleteScope(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()

    async def UndeleteScope(self, request: Message, context: Context) -> bytes:
        _refuse_scopes()


class CatalogServicer(PvRpcs, TagRpcs, FileRpcs, ScopeRpcs):
    """All RPCs of the service; changes run one after the other, reads beside them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
