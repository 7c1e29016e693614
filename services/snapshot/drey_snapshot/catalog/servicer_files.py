"""CatalogService: import and export of files of PVs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import numpy as np
import zstandard

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey_core.errors import ResourceExhausted, Unimplemented
from drey_core.pv_csv import ParsedPvs, parse_pvs
from drey_core.pv_csv_writer import write_pvs
from drey_core.pv_table import FileTable, PvProtocol
from drey_core.wire import chunk_rows
from drey_core.wire_values import encode_varint, wrap_payload
from drey_runtime.app_memory import give_back
from drey_runtime.auth import current_principal
from drey_runtime.clock import new_id, new_ids, now_ns
from drey_runtime.database import allow_idle
from drey_runtime.jobs import ImportResult, NewJob, record_job
from drey_runtime.mapping.selector import selector_from_proto
from drey_snapshot.catalog.domain.changes import CatalogState, Counters
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.mapping import invalid_field
from drey_snapshot.catalog.rpc import Context, Parts
from drey_snapshot.catalog.usecases import importing
from drey_snapshot.catalog.usecases.importing import Action, Plan
from drey_snapshot.catalog.usecases.writer import Act, RequestIdentity, Scene
from drey_snapshot.catalog.view import CatalogView, choose_numbers

_CHUNK = 1 << 20
_JOB_KIND = "import"
_ROWS_PER_S = 5_000
"""Rows that are decided in a second, by a machine with hundreds of other things to do."""
_LINE_TAG, _ACTION_ADDED = b"\x08", b"\x18\x01"
"""Of `ImportRow`, as they lie on the wire."""
_CSV = (catalog_pb2.FILE_FORMAT_UNSPECIFIED, catalog_pb2.FILE_FORMAT_CSV)


class FileRpcs:
    """RPCs of files; see the contract for the meaning of each."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ImportPvs(
        self, requests: AsyncIterator[rpc.ImportPvsRequest], context: Context
    ) -> AsyncIterator[bytes]:
        for answer in await self._import_file(requests):
            yield answer
        # what a file of PVs takes for a moment is several times the catalog
        await give_back()

    async def _import_file(self, requests: AsyncIterator[rpc.ImportPvsRequest]) -> Iterator[bytes]:
        options, content = await self._receive_file(requests)
        _check_format(options.format, "options.format")
        parsed = await asyncio.to_thread(parse_pvs, content)
        if parsed.problems:
            return _import_answers(importing.refuse_file(parsed))
        if options.dry_run:
            view = await self._parts.catalog.current_view()
            plan = await asyncio.to_thread(_rehearse_import, view, parsed, options.keep_existing)
            return _import_answers(plan)
        return _unpack_result(await self._apply_import(options, content, parsed))

    async def _receive_file(
        self, requests: AsyncIterator[rpc.ImportPvsRequest]
    ) -> tuple[rpc.ImportOptions, bytes]:
        """Options and the whole file, which has a limit."""
        options: rpc.ImportOptions | None = None
        parts: list[bytes] = []
        size = 0
        async for request in requests:
            which = request.WhichOneof("part")
            if options is None:
                if which != "options":
                    raise invalid_field("options", "the first message has to carry the options")
                options = request.options
            elif which != "data":
                raise invalid_field("data", "every message after the first has to carry bytes")
            else:
                parts.append(request.data)
                size += len(request.data)
                self._check_size(size)
        if options is None:
            raise invalid_field("options", "the stream ended before any message")
        return options, b"".join(parts)

    def _check_size(self, size: int) -> None:
        limit = self._parts.import_limit
        if size > limit:
            raise ResourceExhausted(
                f"the file has more than {limit} bytes; split it, or raise"
                " DREY_SNAPSHOT_IMPORT_LIMIT",
                metadata={"limit": str(limit)},
            )

    async def _apply_import(
        self, options: rpc.ImportOptions, content: bytes, parsed: ParsedPvs
    ) -> bytes:
        begin_ns = now_ns()

        async def decide_import(scene: Scene) -> Act:
            await allow_idle(scene.conn, len(parsed.table) / _ROWS_PER_S)
            plan = await asyncio.to_thread(
                importing.decide_import, scene.edit, parsed.table, options.keep_existing
            )
            if plan.refused:
                scene.edit.discard_changes()
            job_id = "" if plan.refused else await _import_job(scene, plan, begin_ns)
            packed = await asyncio.to_thread(_pack_result, plan, job_id)
            audit_fields = {
                "file": options.file_name,
                "rows": plan.rows,
                "added": plan.added,
                "changed": plan.changed,
                "unchanged": plan.unchanged,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            return Act(packed, "pv.import", "pvs", None, audit_fields)

        bare = rpc.ImportOptions()
        bare.CopyFrom(options)
        bare.ClearField("request_id")
        identity = bare.SerializeToString(deterministic=True) + hashlib.sha256(content).digest()
        return await self._parts.writer.write_once(
            RequestIdentity("ImportPvs", options.request_id, identity), decide_import
        )

    async def ExportPvs(
        self, request: rpc.ExportPvsRequest, context: Context
    ) -> AsyncIterator[rpc.ExportPvsResponse]:
        _check_format(request.format, "format")
        view = await self._parts.catalog.current_view()
        rows, _ = await choose_numbers(view, selector_from_proto(request.selector))
        order = sorted(rows.tolist(), key=view.table.name.__getitem__)
        content = await asyncio.to_thread(lambda: write_pvs(_file_table(view, order)))
        for index in range(0, len(content), _CHUNK):
            yield rpc.ExportPvsResponse(data=content[index : index + _CHUNK])


def _check_format(format: int, field: str) -> None:
    if format not in _CSV:
        name = catalog_pb2.FileFormat.Name(format)  # type: ignore[arg-type]
        raise Unimplemented(
            f"{name} is not built in this version; there is FILE_FORMAT_CSV", field=field
        )


async def _import_job(scene: Scene, plan: Plan, begin_ns: int) -> str:
    """The job by which an import is found again."""
    principal = current_principal.get()
    job = await record_job(
        scene.conn,
        NewJob(
            kind=_JOB_KIND,
            principal=principal.name,
            role=principal.roles_text,
            total=plan.rows,
            result=ImportResult(plan.rows, plan.added, plan.changed, plan.unchanged).to_text(),
        ),
        begin_ns=begin_ns,
    )
    return job.id


def _rehearse_import(view: CatalogView, parsed: ParsedPvs, keep_existing: bool) -> Plan:
    """What an import would do. The edit is thrown away, so its numbers do not matter."""
    state = CatalogState(view.version, view.table, view.tags, view.row_by_name, view.row_by_id)
    highest = int(view.table.number.max(initial=0))
    numbers = Counters(highest + 1, 1 << 40, 1 << 40, 1 << 30)
    edit = Edit(state, numbers, now_ns(), new_id, new_ids)
    return importing.decide_import(edit, parsed.table, keep_existing)


def _file_table(view: CatalogView, rows: list[int]) -> FileTable:
    table = view.table
    index = np.array(rows, np.int64)
    names = {tags: tuple(view.tags.names(tags)) for tags in set(table.tags)}
    return FileTable(
        line=[0] * len(rows),
        name=[table.name[i] for i in rows],
        setpoint=[table.setpoint_address[i] for i in rows],
        readback=[table.readback_address[i] for i in rows],
        device=[table.device[i] for i in rows],
        description=[table.description[i] for i in rows],
        protocol=[_protocol_enum(int(table.protocol[i])) for i in rows],
        read_only=[bool(table.read_only[i]) for i in rows],
        setpoint_absolute=table.setpoint_absolute[index],
        setpoint_relative=table.setpoint_relative[index],
        readback_absolute=table.readback_absolute[index],
        readback_relative=table.readback_relative[index],
        policy=[table.policy[i] for i in rows],
        tags=[names[table.tags[i]] for i in rows],
        groups=tuple(group.name for group in view.tags.groups),
    )


def _protocol_enum(number: int) -> PvProtocol:
    """Channel Access is the default, and need not be said."""
    return PvProtocol.UNSPECIFIED if number == PvProtocol.CA else PvProtocol(number)


# --- responses, kept as bytes so that a repeat of the request answers the same ---


def _import_answers(plan: Plan, job_id: str = "") -> Iterator[bytes]:
    """Encoded responses of an import; without a job it was not applied."""
    listed = sorted(plan.listed, key=lambda row: row.line)
    for rows in chunk_rows([wrap_payload(1, _encode_row(row)) for row in listed]):
        yield wrap_payload(1, rows)  # `ImportPvsResponse.rows`, of `ImportRows.rows`
    summary = catalog_pb2.ImportSummary(
        rows=plan.rows,
        added=plan.added,
        changed=plan.changed,
        unchanged=plan.unchanged,
        refused=plan.refused,
        applied=bool(job_id),
        format=catalog_pb2.FILE_FORMAT_CSV,
        job_id=job_id,
        tag_groups_added=plan.groups_added,
    )
    yield rpc.ImportPvsResponse(summary=summary).SerializeToString()


def _encode_row(row: importing.Row) -> bytes:
    """An encoded `ImportRow`; those that were added, which are many, without a message each."""
    if row.action != Action.ADDED or row.columns:
        return _row_to_proto(row).SerializeToString()
    name = wrap_payload(2, row.name.encode())
    return b"".join((_LINE_TAG, encode_varint(row.line), name, _ACTION_ADDED))


def _row_to_proto(row: importing.Row) -> catalog_pb2.ImportRow:
    message = catalog_pb2.ImportRow(
        line=row.line,
        name=row.name,
        action=int(row.action),  # type: ignore[arg-type]
        column=row.columns,
    )
    if row.action == Action.REFUSED:
        message.error.reason = int(row.reason)  # type: ignore[assignment]
        message.error.field = row.columns
        message.error.message = row.message
    return message


def _pack_result(plan: Plan, job_id: str) -> bytes:
    parts = [
        part for a in _import_answers(plan, job_id) for part in (len(a).to_bytes(4, "little"), a)
    ]
    return zstandard.ZstdCompressor(level=1).compress(b"".join(parts))


def _unpack_result(packed: bytes) -> Iterator[bytes]:
    raw = zstandard.ZstdDecompressor().decompress(packed)
    offset = 0
    while offset < len(raw):
        size = int.from_bytes(raw[offset : offset + 4], "little")
        yield raw[offset + 4 : offset + 4 + size]
        offset += 4 + size
