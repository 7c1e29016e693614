"""Files of PVs on their way into the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from uuid import uuid4

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey_client.errors import ClientError

_CHUNK_BYTES = 512 << 10


@dataclass(frozen=True, slots=True)
class PvImport:
    """What an import did, or with `dry_run` would do.

    `rows`: those that change something or are refused, in the order of the file, each with its
    `action`. Where `summary.refused` is not 0, nothing was changed, and `summary.applied` is false.
    """

    rows: list[catalog_pb2.ImportRow]
    summary: catalog_pb2.ImportSummary


def import_requests(
    file: BinaryIO,
    file_name: str,
    *,
    dry_run: bool = False,
    keep_existing: bool = False,
    on_sent: Callable[[int], None] | None = None,
) -> Iterator[catalog_service_pb2.ImportPvsRequest]:
    """Requests that carry a file of CSV; `on_sent` hears the bytes of each. Reads block."""
    options = catalog_service_pb2.ImportOptions(
        format=catalog_pb2.FILE_FORMAT_CSV,
        dry_run=dry_run,
        keep_existing=keep_existing,
        file_name=file_name,
        request_id=str(uuid4()),
    )
    yield catalog_service_pb2.ImportPvsRequest(options=options)
    while chunk := file.read(_CHUNK_BYTES):
        yield catalog_service_pb2.ImportPvsRequest(data=chunk)
        if on_sent is not None:
            on_sent(len(chunk))


def read_import(answers: Iterable[catalog_service_pb2.ImportPvsResponse]) -> PvImport:
    """What the answers say. `ClientError` (INTERNAL) where they end without a summary."""
    rows: list[catalog_pb2.ImportRow] = []
    summary = None
    for answer in answers:
        rows.extend(answer.rows.rows)
        if answer.HasField("summary"):
            summary = answer.summary
    if summary is None:
        message = "the server ended the import without a summary; nothing is known of it"
        raise ClientError(message, reason="INTERNAL")
    return PvImport(rows, summary)
