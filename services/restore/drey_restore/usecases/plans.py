"""Making plans and looking at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drey_core.directory import Directory, MetadataIndex
from drey_core.errors import Internal
from drey_core.values import I8, Kind
from drey_restore.adapters.live import LiveValues
from drey_restore.adapters.snapshots import StoredName, StoredValues, align
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain import blob
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.planning import PlanInput, make_plan
from drey_restore.domain.records import PlanRecord
from drey_restore.ports import Catalog, Clock, Live, Selector, Snapshots
from drey_runtime import audit, idempotency
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id

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
                items = await self.compute(request)
                raw = items.encode()
                plan = self._record(request, principal, items, blob.digest(raw))
                await self._store.insert_plan(conn, plan, blob.compress(raw), items)
                slot.response = plan.id.encode()
                await audit.append(
                    conn,
                    actor=principal.name,
                    role=principal.role.name.lower(),
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

    def _record(
        self, request: PlanRequest, principal: Principal, items: PlanItems, digest: str
    ) -> PlanRecord:
        now = self._clock()
        skips = np.bincount(items.skip, minlength=16)
        return PlanRecord(
            id=new_id(),
            digest=digest,
            snapshot_id=request.snapshot_id,
            pvs=len(items),
            writes=int(skips[0]),
            skips=(0, *skips[1:].tolist()),
            exact=request.exact,
            principal=principal.name,
            role=principal.role.name.lower(),
            comment=request.comment,
            create_time_ns=now,
            expire_time_ns=now + request.lifetime_ns,
        )

    async def compute(self, request: PlanRequest) -> PlanItems:
        """The items of the plan, from the snapshot, today's catalogue and the live machine."""
        directory, stored, chosen = await asyncio.gather(
            self._catalog.current(),
            self._snapshots.values(request.snapshot_id, request.selector),
            self._resolve(request.selector),
        )
        numbers = np.union1d(stored.number, chosen)
        rows = directory.rows_of(numbers)
        channels = _at(directory.setpoint_channel, rows)
        live = await self._live.read(channels, self._clock())
        stored = StoredValues(
            numbers, align(stored.setpoint, numbers), align(stored.readback, numbers)
        )
        asked = numbers[(rows < 0) | (stored.setpoint.kind == Kind.ENUM)]
        names = await self._snapshots.names(request.snapshot_id, asked) if len(asked) else {}
        return make_plan(_assemble(directory, rows, stored, live, names), exact=request.exact)

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


def _at(column: I8, rows: I8) -> I8:
    """`column[rows]`, 0 where the row is -1."""
    return np.where(rows >= 0, column[rows], 0) if len(column) else np.zeros(len(rows), np.int64)


def _float_at(column: F8, rows: I8) -> F8:
    return np.where(rows >= 0, column[rows], 0.0) if len(column) else np.zeros(len(rows))


def _assemble(
    directory: Directory,
    rows: I8,
    stored: StoredValues,
    live: LiveValues,
    names: dict[int, StoredName],
) -> PlanInput:
    listed, numbers = rows.tolist(), stored.number.tolist()
    channel = _at(directory.setpoint_channel, rows)
    low, high = live.metadata.control_limits(channel)
    unknown = StoredName("", ())
    row_of = {number: row for row, number in enumerate(numbers)} if names else {}
    return PlanInput(
        number=stored.number,
        names=[
            directory.names[r] if r >= 0 else names.get(n, unknown).name
            for r, n in zip(listed, numbers, strict=True)
        ],
        addresses=[directory.setpoint_address[r] if r >= 0 else "" for r in listed],
        readback_addresses=[directory.readback_address[r] if r >= 0 else "" for r in listed],
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
        live_count=live.metadata.column("count", channel),
        live_labels=_live_labels(live.metadata, channel.tolist()),
        stale=live.stale,
        writable=live.metadata.column("writable", channel).astype(bool),
        control_low=low,
        control_high=high,
    )


def _live_labels(metadata: MetadataIndex, channels: list[int]) -> Callable[[int], Labels]:
    """Labels of a row as the edge shows them: UTF-8 with replacement, as those of snapshots."""

    def labels(row: int) -> Labels:
        return tuple(x.decode(errors="replace").encode() for x in metadata.labels(channels[row]))

    return labels
