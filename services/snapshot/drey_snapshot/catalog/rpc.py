"""What the parts of the catalog's servicer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from drey_core.errors import InvalidArgument
from drey_runtime.database import Database
from drey_runtime.image import Image
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.usecases.writer import SERVICE, CatalogWriter, RequestIdentity

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What RPCs work with."""

    db: Database
    image: Image
    catalog: LiveCatalog
    writer: CatalogWriter
    import_limit: int


def call_of(method: str, request: Message, service: str = SERVICE) -> RequestIdentity:
    """The identity of a request: equal for repeats of it."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    request_id: str = getattr(request, "request_id")  # noqa: B009  not all messages have it
    content = bare.SerializeToString(deterministic=True)
    return RequestIdentity(method, request_id, content, service)


def require_field(value: str, field: str) -> str:
    """A text that must not be empty, where the contract cannot say so for every use of it."""
    if not value:
        raise InvalidArgument(f"{field}: is required", field=field, metadata={"field": field})
    return value
