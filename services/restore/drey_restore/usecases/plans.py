"""Making plans and looking at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drey_core.directory import Directory
from drey_core.errors import Internal
from drey_core.values import I8, Kind
from drey_restore.adapters.live import LiveMetadata, LivePages, LiveValues
from drey_restore.adapters.snapshots import StoredName, StoredValues, align, merged
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain import blob
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.kinds import Skip
from drey_restore.domain.planning import PlanInput, make_plan
from drey_restore.domain.records import PlanRecord
from drey_restore.ports import Catalog, Clock, Live, Selector, Snapshots
from drey_runtime import audit, idempotency
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id
from drey_runtime.database import Connection

METHOD = "drey.restore.v1.RestoreService/CreatePlan"


@dataclass(frozen=True)
class PlanRequest:
    """What is asked for. `raw` are the request's bytes, by which a repeat is known."""

    snapshot_id: str
    selector: Selector | None
    exact: bool
    lifetime_ns: int
    comment: str
    request_id: str
    raw: bytes


class Plans:
    """Use cases of plans."""

    def __init__(
        self, store: RestoreStore, snapshots: Snapshots, catalog: Catalog, live: Live, clock: Clock
    ) -> None:
        self._store = store
        self._snapshots, self._catalog, self._live = snapshots, catalog, live
        self._clock = clock

    async def create(self, request: PlanRequest, principal: Principal) -> PlanRecord:
        """Make and store a plan; a repeat of the request gives the plan of the first one."""
        database = self._store.database
        async with (
            database.transaction() as conn,
            idempotency.once(conn, METHOD, principal.name, request.request_id, request.raw) as slot,
        ):
            if slot.seen is None:
                plan = await self._store_plan(conn, request, principal)
                slot.response = plan.id.encode()
                await audit.append(
                    conn,
                    actor=principal.name,
                    role=principal.role.label,
                    action="plan.create",
                    object=f"plans/{plan.id}",
                    after={
                        "snapshot_id": plan.snapshot_id,
                        "digest": plan.digest,
                        "pvs": plan.pvs,
                        "writes": plan.writes,
                    },
                    at_ns=plan.create_time_ns,
                    request_id=request.request_id,
                )
        if slot.response is None:
            raise Internal("a plan was not stored")
        return await self._store.plan(slot.response.decode())

    async def _store_plan(
        self, conn: Connection, request: PlanRequest, principal: Principal
    ) -> PlanRecord:
        """Compute and store it. A thread packs and hashes while Postgres takes the writes."""
        items = await self.compute(request)
        plan_id = new_id()
        (digest, packed), _ = await asyncio.gather(
            asyncio.to_thread(_pack, items), self._store.insert_writes(conn, plan_id, items)
        )
        plan = self._record(request, principal, items, plan_id, digest)
        await self._store.insert_plan(conn, plan, packed)
        return plan

    def _record(
        self,
        request: PlanRequest,
        principal: Principal,
        items: PlanItems,
        plan_id: str,
        digest: str,
    ) -> PlanRecord:
        now = self._clock()
        skips = np.bincount(items.skip, minlength=max(Skip) + 1)
        return PlanRecord(
            id=plan_id,
            digest=digest,
            snapshot_id=request.snapshot_id,
            pvs=len(items),
            writes=int(skips[0]),
            skips=(0, *skips[1:].tolist()),
            exact=request.exact,
            principal=principal.name,
            role=principal.role.label,
            comment=request.comment,
            create_time_ns=now,
            expire_time_ns=now + request.lifetime_ns,
        )

    async def compute(self, request: PlanRequest) -> PlanItems:
        """The items of the plan, from the snapshot, today's catalogue and the live machine."""
        directory, stored, chosen, live = await asyncio.gather(
            self._catalog.current(),
            self._snapshots.values(request.snapshot_id, request.selector),
            self._resolve(request.selector),
            self._read_early(request.selector),
        )
        numbers = stored.number if len(chosen) == 0 else merged(stored.number, chosen)
        rows = directory.rows_of(numbers)
        channels = _at(directory.setpoint_channel, rows)
        if live is None or not live.covers(channels):
            live = await self._live.read(channels, self._clock())
        stored = StoredValues(
            numbers, align(stored.setpoint, numbers), align(stored.readback, numbers)
        )
        asked = numbers[(rows < 0) | (stored.setpoint.kind == Kind.ENUM)]
        names = await self._snapshots.names(request.snapshot_id, asked) if len(asked) else {}
        known = _assemble(directory, rows, channels, stored, live.at(channels), names)
        return make_plan(known, exact=request.exact)

    async def _read_early(self, selector: Selector | None) -> LivePages | None:
        """Of a whole snapshot: all setpoints, read while the snapshot is on its way."""
        channels = self._catalog.known.setpoint_channel
        if selector is not None or len(channels) == 0:
            return None
        return await self._live.read(channels, self._clock())

    async def _resolve(self, selector: Selector | None) -> I8:
        return np.zeros(0, np.int64) if selector is None else await self._catalog.resolve(selector)

    async def get(self, plan_id: str) -> PlanRecord:
        """One plan. NotFound."""
        return await self._store.plan(plan_id)

    async def items(self, plan_id: str) -> PlanItems:
        """Its items. NotFound."""
        return await self._store.plan_items(plan_id)

    async def page(
        self, limit: int, before_id: str | None, snapshot_id: str | None
    ) -> list[PlanRecord]:
        """Up to `limit` plans, newest first."""
        return await self._store.plans(limit, before_id, snapshot_id)


def _pack(items: PlanItems) -> tuple[str, bytes]:
    """(digest, what is stored)."""
    raw = items.encode()
    return blob.digest(raw), blob.compress(raw)


def _at(column: I8, rows: I8) -> I8:
    """`column[rows]`, 0 where the row is -1."""
    return np.where(rows >= 0, column[rows], 0) if len(column) else np.zeros(len(rows), np.int64)


def _float_at(column: F8, rows: I8) -> F8:
    return np.where(rows >= 0, column[rows], 0.0) if len(column) else np.zeros(len(rows))


def _texts_at(texts: list[str], rows: I8) -> list[str]:
    """`texts[row]` of each row, empty where the row is -1."""
    if len(rows) == len(texts) and bool((rows == np.arange(len(rows))).all()):
        return texts
    return [texts[row] if row >= 0 else "" for row in rows.tolist()]


def _assemble(
    directory: Directory,
    rows: I8,
    channel: I8,
    stored: StoredValues,
    live: LiveValues,
    names: dict[int, StoredName],
) -> PlanInput:
    numbers = stored.number.tolist()
    at = live.metadata.rows(channel)
    low, high = live.metadata.control_limits(at)
    unknown = StoredName("", ())
    shown = _texts_at(directory.names, rows)
    gone = np.flatnonzero(rows < 0).tolist()
    if gone:
        shown = list(shown)
        for row in gone:
            shown[row] = names.get(numbers[row], unknown).name
    row_of = {number: row for row, number in enumerate(numbers)} if names else {}
    return PlanInput(
        number=stored.number,
        names=shown,
        addresses=_texts_at(directory.setpoint_address, rows),
        readback_addresses=_texts_at(directory.readback_address, rows),
        setpoint_channel=channel,
        readback_channel=_at(directory.readback_channel, rows),
        protocol=_at(directory.protocol.astype(np.int64), rows).astype(np.uint8),
        read_only=_at(directory.read_only.astype(np.int64), rows).astype(bool),
        deleted=rows < 0,
        absolute=_float_at(directory.setpoint_tolerance[0], rows),
        relative=_float_at(directory.setpoint_tolerance[1], rows),
        readback_absolute=_float_at(directory.readback_tolerance[0], rows),
        readback_relative=_float_at(directory.readback_tolerance[1], rows),
        stored=stored.setpoint,
        stored_readback=stored.readback,
        stored_labels={row_of[n]: found.setpoint_labels for n, found in names.items()},
        live=live.values,
        live_count=live.metadata.count(at),
        live_labels=_labels_by_row(live.metadata, channel.tolist()),
        stale=live.stale,
        writable=live.metadata.writable(at),
        control_low=low,
        control_high=high,
    )


def _labels_by_row(metadata: LiveMetadata, channels: list[int]) -> Callable[[int], Labels]:
    def labels(row: int) -> Labels:
        return metadata.labels(channels[row])

    return labels
