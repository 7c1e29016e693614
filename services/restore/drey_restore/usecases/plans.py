"""Making plans and looking at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from drey.common.v1 import selector_pb2
from drey_core.directory import Directory
from drey_core.errors import Internal, InvalidArgument
from drey_core.values import ARRAY, I8, Kind, State
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.channels import ChannelPool
from drey_restore.adapters.live import ChannelReading, LiveMachine, LivePages
from drey_restore.adapters.snapshots import SnapshotClient, StoredName, StoredValues, merge_numbers
from drey_restore.adapters.specs import undo_spec
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain import blob
from drey_restore.domain.digest import plan_digest
from drey_restore.domain.edits import Given, Linear
from drey_restore.domain.effect import require_effect
from drey_restore.domain.execution import ECA_NORDACCESS, ECA_NORMAL
from drey_restore.domain.items import F8, Labels, PlanItems
from drey_restore.domain.kinds import SKIPS
from drey_restore.domain.planning import (
    PROTOCOL_PVA,
    Mask,
    PlanInput,
    make_plan,
)
from drey_restore.domain.policy import PolicyRows, done_address
from drey_restore.domain.problems import PlanProblem
from drey_restore.domain.record_facts import refuse_records
from drey_restore.domain.records import RECIPE, Chosen, PlanRecord, RestoreRecord, Rules
from drey_restore.domain.waiting import stage_waits
from drey_restore.limits import Clock, Limits
from drey_restore.usecases.approvals import Protected, approval_of
from drey_restore.usecases.grants import GrantCheck
from drey_restore.usecases.guards import Guards
from drey_restore.usecases.record_check import RecordCheck
from drey_restore.usecases.sources import PlanSource, given_source, undo_source
from drey_runtime import audit, idempotency
from drey_runtime.admission import Room
from drey_runtime.auth import Principal
from drey_runtime.clock import new_id
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.waiting import Turns, run_together

_AT_A_TIME = 2
_MOST_WAITING = 100
"""Plans that are being made, or wait for their turn; of both one key has a share at most."""

METHOD = "drey.restore.v1.RestoreService/CreatePlan"
_WAY_BACK_NS = 900 * 10**9
"""How long the plan of a way back may be executed; it is at once."""


@dataclass(frozen=True)
class Undo:
    """The way back of a restore; `also_changed`: also where somebody has changed the PV since."""

    restore_id: str
    also_changed: bool = False


@dataclass(frozen=True)
class PlanRequest:
    """What is asked for.

    `golden` is the scope and the label of the snapshot that it is to be, until that is looked up.
    `spec` is all of it as it came; `raw` are the request's bytes, by which a repeat is known.
    `source`: where the values come from is known already.
    """

    snapshot_id: str
    golden: tuple[str, str] | None
    undo: Undo | None
    given: tuple[tuple[str, Given], ...] | None
    selector: selector_pb2.Selector | None
    edits: tuple[tuple[selector_pb2.Selector, Given | Linear], ...]
    exact: bool
    lifetime_ns: int
    comment: str
    rules: Rules
    spec: bytes
    request_id: str
    raw: bytes
    source: PlanSource | None = None


@dataclass(frozen=True)
class MadePlan:
    """A plan that is not stored yet: with its digest, its items, and these as they are stored."""

    plan: PlanRecord
    items: PlanItems
    packed: bytes


class Plans:
    """Use cases of plans."""

    def __init__(
        self,
        store: RestoreStore,
        snapshots: SnapshotClient,
        catalog: CatalogClient,
        live: LiveMachine,
        channels: ChannelPool,
        guards: Guards,
        limits: Limits,
        clock: Clock,
        grants: GrantCheck,
        *,
        records: RecordCheck,
        protected: Protected,
        refused: frozenset[PlanProblem],
        share: float,
    ) -> None:
        self._protected, self._records = protected, records
        self._store, self._refused = store, refused
        self._snapshots, self._catalog, self._live = snapshots, catalog, live
        self._channels, self._guards, self._limits = channels, guards, limits
        self._clock, self._grants = clock, grants
        self._turns = Turns(_AT_A_TIME, share)
        self._room = Room("plans that are being made or wait for it", _MOST_WAITING, share)

    async def create_plan(self, request: PlanRequest, principal: Principal) -> PlanRecord:
        """Make and store a plan; a repeat of the request gives the plan of the first one."""
        made = await self._seen_plan(request, principal)
        if made is None:
            async with self._take_turn(principal.holder):
                await self._guards.check_rules(request.rules)
                if request.golden is not None:
                    golden_id = await self._snapshots.golden_id(*request.golden)
                    request = replace(request, snapshot_id=golden_id)
                items, protected = await run_together(
                    self.compute_items(request), self._protected.protected_numbers()
                )
                require_effect(request.rules, items)
                await self._grants.require_grant(
                    principal, "restore.plans.create", items, "making this plan"
                )
                plan = self._plan_record(request, principal.name, principal.roles_text, items)
                made = await self._insert_plan(request, principal, plan, items, protected)
        return await self._store.read_plan(made)

    @asynccontextmanager
    async def _take_turn(self, holder: str) -> AsyncIterator[None]:
        """One of a few that make plans at a time; RESOURCE_EXHAUSTED where too many wait."""
        with self._room.take_place(holder, "this key"):
            async with self._turns.take_turn(holder):
                yield

    async def _seen_plan(self, request: PlanRequest, principal: Principal) -> str | None:
        """Id of the plan that this very request made before."""
        if not request.request_id:
            return None
        async with self._store.database.acquire_connection() as conn:
            seen = await idempotency.find_answer(
                conn, METHOD, principal.name, request.request_id, request.raw
            )
        return None if seen is None else seen.decode()

    async def _insert_plan(
        self,
        request: PlanRequest,
        principal: Principal,
        plan: PlanRecord,
        items: PlanItems,
        protected: I8 | None,
    ) -> str:
        """Store a plan, unless a repeat of the request was faster; the id of the one stored."""
        async with (
            self._store.database.begin_transaction() as conn,
            idempotency.run_once(
                conn, METHOD, principal.name, request.request_id, request.raw
            ) as slot,
        ):
            if slot.seen is None:
                # the digest is made while the database takes the rows
                _, made = await run_together(
                    self._store.insert_writes(conn, plan.id, items),
                    asyncio.to_thread(_pack_plan, plan, items),
                )
                approval = approval_of(made.plan, items, protected)
                made = replace(made, plan=replace(made.plan, approval=approval))
                await self._store_packed(
                    conn, made, given=len(request.given or ()), request_id=request.request_id
                )
                slot.response = plan.id.encode()
        if slot.response is None:
            raise Internal("a plan was not stored")
        return slot.response.decode()

    async def store_made(self, conn: Connection, made: MadePlan) -> None:
        """Store a plan in the caller's transaction."""
        await self._store.insert_writes(conn, made.plan.id, made.items)
        await self._store_packed(conn, made)

    async def _store_packed(
        self, conn: Connection, made: MadePlan, *, given: int = 0, request_id: str = ""
    ) -> None:
        """Store all of a plan but its rows; `given`: values of it that the caller gave."""
        plan = made.plan
        await self._store.insert_plan(conn, plan, made.packed)
        if plan.approval is not None:
            await self._store.insert_approval(conn, plan.approval)
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=plan.principal,
                role=plan.role,
                action="plan.create",
                object=f"plans/{plan.id}",
                after={
                    "snapshot_id": plan.snapshot_id,
                    "undoes_restore_id": plan.undoes_restore_id or "",
                    "given_values": given,
                    "digest": plan.digest,
                    "pvs": plan.pvs,
                    "writes": plan.writes,
                    "under_approval": 0 if plan.approval is None else plan.approval.pvs,
                },
                at_ns=plan.create_time_ns,
                request_id=request_id,
            ),
            events=[
                ResourceChange(
                    Resource.PLAN,
                    EventKind.CREATED,
                    plan.id,
                    state=plan.state(plan.create_time_ns).name.lower(),
                )
            ],
        )

    async def make_way_back(self, restore: RestoreRecord, source: PlanSource) -> MadePlan:
        """The plan of the way back of a restore that is about to end, in the name of its actor.

        It waits for no second person: that it goes back was decided with the restore.
        """
        comment = f"rolls back restore {restore.id}"
        request = PlanRequest(
            snapshot_id="",
            golden=None,
            undo=Undo(restore.id),
            given=None,
            selector=None,
            edits=(),
            exact=False,
            lifetime_ns=_WAY_BACK_NS,
            comment=comment,
            rules=Rules(),
            spec=undo_spec(restore.id, comment),
            request_id="",
            raw=b"",
            source=source,
        )
        items = await self.compute_items(request)
        plan = self._plan_record(request, restore.principal, restore.role, items)
        return await asyncio.to_thread(_pack_plan, plan, items)

    def _plan_record(
        self, request: PlanRequest, principal: str, role: str, items: PlanItems
    ) -> PlanRecord:
        """The plan, but for its digest."""
        now = self._clock()
        skips = np.bincount(items.skip, minlength=SKIPS)
        return PlanRecord(
            id=new_id(),
            digest="",
            snapshot_id=request.snapshot_id,
            pvs=len(items),
            writes=int(skips[0]),
            skips=(0, *skips[1:].tolist()),
            exact=request.exact,
            principal=principal,
            role=role,
            comment=request.comment,
            create_time_ns=now,
            expire_time_ns=now + request.lifetime_ns,
            recipe=RECIPE,
            spec=request.spec,
            rules=request.rules,
            undoes_restore_id=None if request.undo is None else request.undo.restore_id,
            stages=tuple(int(items.stage[rows[0]]) for rows in items.rows_by_stage),
            stage_writes=tuple(len(rows) for rows in items.rows_by_stage),
            stage_waits=stage_waits(items),
        )

    async def compute_items(self, request: PlanRequest) -> PlanItems:
        """The items of the plan, from its source, today's catalog and the live machine."""
        load = self._from_snapshot if request.undo is None else self._from_restore
        if request.given is not None:
            load = self._from_values
        if request.source is not None:
            load = self._from_source
        directory, policies, source, live, edits = await run_together(
            self._catalog.current_directory(),
            self._catalog.policies(),
            load(request),
            self._read_early(request),
            self._resolve_edits(request),
        )
        stored = source.stored
        numbers = stored.number
        edits = [(np.flatnonzero(np.isin(numbers, chosen)), edit) for chosen, edit in edits]
        for index, (edited, _) in enumerate(edits):
            if len(edited) == 0:
                path = f"spec.edits[{index}].selector"
                raise InvalidArgument(
                    f"{path}: selects no PV of the plan: the edit would change nothing; correct it,"
                    " or leave it out",
                    field=path,
                    metadata={"field": path},
                )
        wanted = stored.setpoint.kind != Kind.NONE
        for edited, edit in edits:
            wanted[edited] |= isinstance(edit, Given)
        given = {
            row: source.given[number]
            for row, number in enumerate(numbers.tolist() if source.given else ())
            if number in source.given
        }
        wanted[list(given)] = True
        rows = directory.rows_of(numbers)
        channels = _take_at(directory.setpoint_channel, rows)
        if live is None or not live.covers_channels(channels):
            live = await self._live.read_channels(channels)
        readdressed = _readdressed_rows(directory, rows, stored)
        asked = numbers[(rows < 0) | (stored.setpoint.kind == Kind.ENUM) | readdressed]
        names = await source.names(asked) if len(asked) else {}
        policy_rows = policies.rows(numbers)
        seen, done = await run_together(
            self._read_live(directory, rows, wanted, live.reading_of(channels)),
            self._look_at_done(policy_rows, _texts_at(directory.setpoint_address, rows)),
        )

        def make() -> PlanItems:
            inputs = _assemble_input(
                directory, rows, channels, stored, seen, names, policy_rows, done
            )
            inputs = replace(inputs, back=source.back, given=given, edits=edits)
            inputs = replace(inputs, refused=self._refused)
            return make_plan(inputs, exact=request.exact)

        # in a thread, so that a restore that runs meanwhile gets its turns
        items = await asyncio.to_thread(make)
        if not len(items.writes):
            return items
        facts = await self._records.look_at_records(items)
        return await asyncio.to_thread(refuse_records, items, facts, self._refused)

    async def _from_source(self, request: PlanRequest) -> PlanSource:
        if request.source is None:
            raise Internal("a plan without a source")
        return request.source

    async def _from_snapshot(self, request: PlanRequest) -> PlanSource:
        stored, chosen = await run_together(
            self._snapshots.values(request.snapshot_id, request.selector),
            self._resolve_selector(request.selector),
        )
        if len(chosen):
            stored = stored.values_of_numbers(merge_numbers(stored.number, chosen))
        return PlanSource(
            stored, lambda numbers: self._snapshots.names(request.snapshot_id, numbers)
        )

    async def _from_values(self, request: PlanRequest) -> PlanSource:
        directory, chosen = await run_together(
            self._catalog.current_directory(), self._resolve_selector(request.selector)
        )
        return given_source(
            directory, request.given or (), None if request.selector is None else chosen
        )

    async def _from_restore(self, request: PlanRequest) -> PlanSource:
        if request.undo is None:
            raise Internal("a plan of the way back without a restore")
        chosen = (
            None if request.selector is None else await self._resolve_selector(request.selector)
        )
        return await undo_source(
            self._store, request.undo.restore_id, chosen, also_changed=request.undo.also_changed
        )

    async def _read_live(
        self, directory: Directory, rows: I8, wanted: Mask, live: ChannelReading
    ) -> ChannelReading:
        """The present values of those `wanted`, by a read of our own; else they are not known.

        A monitor only hears of changes beyond the dead bands of a record, so what it says does not
        decide. That it says a channel is not there saves waiting for it.
        """
        absent = (live.values.state != State.CONNECTED) & ~live.stale
        there = ~absent & (rows >= 0) & wanted
        there &= _take_at(directory.setpoint_channel, rows) != 0
        there &= _take_at(directory.protocol.astype(np.int64), rows) != PROTOCOL_PVA
        there &= _take_at(directory.read_only.astype(np.int64), rows) == 0
        asked = np.flatnonzero(there)
        addresses = [directory.setpoint_address[row] for row in rows[asked].tolist()]
        table = self._channels.table
        async with self._channels.use_channels(addresses) as used:
            up = await table.wait_connected(used.used_slots(), self._limits.connect_s)
            refusals = table.refused_codes(used.used_slots())
            reading = await table.read_values(used.used_slots()[up], self._limits.read_s)
            info = table.read_info(used.used_slots()[up])
            enums = np.flatnonzero(info.kind & ~np.uint8(ARRAY) == Kind.ENUM)
            # so that the labels are those of now when the next plan, or its restore, looks
            await table.subscribe_slots(info.slot[enums])
        asked_up = asked[up]
        live = live.with_labels(asked_up[enums], [info.labels[index] for index in enums.tolist()])
        read = reading.code == ECA_NORMAL
        silent = np.concatenate([asked[~up], asked_up[~read & (reading.code != ECA_NORDACCESS)]])
        live = live.with_read(asked_up[read], reading.values.take_rows(read), silent)
        not_asked = {int(asked[place]): why for place, why in refusals.items()}
        return replace(live.with_access(asked_up, info.writable), not_asked=not_asked)

    async def _look_at_done(self, policies: PolicyRows, setpoints: list[str]) -> frozenset[int]:
        """Rows whose done channel is connected, and is a number or an enumeration."""
        asked = {
            row: address
            for stated_policy, rows in policies.rows_by_policy(np.ones(len(setpoints), bool))
            for row in (rows.tolist() if stated_policy.policy.done_channel else ())
            if (address := done_address(stated_policy.policy, setpoints[row]))
        }
        if not asked:
            return frozenset()
        addresses = sorted(set(asked.values()))
        table = self._channels.table
        async with self._channels.use_channels(addresses) as used:
            up = await table.wait_connected(used.used_slots(), self._limits.connect_s)
            kinds = table.read_info(used.used_slots()).kind
        numbers = up & ~np.isin(kinds & ~np.uint8(ARRAY), (Kind.NONE, Kind.STRING))
        good = {addresses[index] for index in np.flatnonzero(numbers).tolist()}
        return frozenset(row for row, address in asked.items() if address in good)

    async def _read_early(self, request: PlanRequest) -> LivePages | None:
        """Of a whole snapshot: all setpoints, read while the snapshot is on its way."""
        channels = self._catalog.known_directory.setpoint_channel
        whole = request.selector is None and request.undo is None and request.given is None
        if not whole or len(channels) == 0:
            return None
        return await self._live.read_channels(channels)

    async def _resolve_edits(self, request: PlanRequest) -> list[tuple[I8, Given | Linear]]:
        """Numbers of the PVs of each edit; a name that is not in the catalog is an error."""
        if not request.edits:
            return []
        numbers = await run_together(
            *(
                self._catalog.resolve_selector(selector, unknown=False)
                for selector, _ in request.edits
            )
        )
        return [(chosen, edit) for chosen, (_, edit) in zip(numbers, request.edits, strict=True)]

    async def _resolve_selector(self, selector: selector_pb2.Selector | None) -> I8:
        return (
            np.zeros(0, np.int64)
            if selector is None
            else await self._catalog.resolve_selector(selector)
        )

    async def get(self, plan_id: str) -> PlanRecord:
        """One plan. NotFound."""
        return await self._store.read_plan(plan_id)

    async def items(self, plan_id: str) -> PlanItems:
        """Its items. NotFound."""
        return await self._store.plan_items(plan_id)

    async def list_page(
        self, limit: int, before_id: str | None, chosen: Chosen
    ) -> list[PlanRecord]:
        """Up to `limit` plans of those chosen, newest first."""
        return await self._store.plans(limit, before_id, chosen, self._clock())


def _pack_plan(plan: PlanRecord, items: PlanItems) -> MadePlan:
    plan = replace(plan, digest=plan_digest(plan, items))
    return MadePlan(plan, items, blob.compress_blob(items.encode_items()))


def _take_at(column: I8, rows: I8) -> I8:
    """`column[rows]`, 0 where the row is -1."""
    return np.where(rows >= 0, column[rows], 0) if len(column) else np.zeros(len(rows), np.int64)


def _float_at(column: F8, rows: I8) -> F8:
    return np.where(rows >= 0, column[rows], 0.0) if len(column) else np.zeros(len(rows))


def _texts_at(texts: list[str], rows: I8) -> list[str]:
    """`texts[row]` of each row, empty where the row is -1."""
    if len(rows) == len(texts) and bool((rows == np.arange(len(rows))).all()):
        return texts
    return [texts[row] if row >= 0 else "" for row in rows.tolist()]


def _readdressed_rows(directory: Directory, rows: I8, stored: StoredValues) -> Mask:
    """PVs of which a channel has another number, and so another address, than when it was taken."""
    changed = np.zeros(len(rows), bool)
    for then, now in (
        (stored.setpoint_channel, _take_at(directory.setpoint_channel, rows)),
        (stored.readback_channel, _take_at(directory.readback_channel, rows)),
    ):
        changed |= (then != 0) & (then != now) & (rows >= 0)
    return changed


def _address_warnings(
    stored: StoredName, setpoint_address: str, readback_address: str
) -> tuple[str, ...]:
    pairs = (
        ("setpoint", stored.setpoint_address, setpoint_address),
        ("readback", stored.readback_address, readback_address),
    )
    return tuple(
        f"{role} re-addressed since the snapshot: was {then}, is {now or 'none'}"
        for role, then, now in pairs
        if then and then != now
    )


def _assemble_input(
    directory: Directory,
    rows: I8,
    channel: I8,
    stored: StoredValues,
    live: ChannelReading,
    names: dict[int, StoredName],
    policies: PolicyRows,
    done: frozenset[int],
) -> PlanInput:
    numbers = stored.number.tolist()
    metadata_rows = live.metadata.rows(channel)
    low, high = live.metadata.control_limits(metadata_rows)
    unknown = StoredName("", ())
    shown = _texts_at(directory.names, rows)
    gone = np.flatnonzero(rows < 0).tolist()
    if gone:
        shown = list(shown)
        for row in gone:
            shown[row] = names.get(numbers[row], unknown).name
    row_of = {number: row for row, number in enumerate(numbers)} if names else {}
    addresses = _texts_at(directory.setpoint_address, rows)
    readback_addresses = _texts_at(directory.readback_address, rows)
    warnings = {
        row: _address_warnings(
            names.get(numbers[row], unknown), addresses[row], readback_addresses[row]
        )
        for row in np.flatnonzero(_readdressed_rows(directory, rows, stored)).tolist()
    }
    for row, why in live.not_asked.items():
        warnings[row] = (*warnings.get(row, ()), why)
    return PlanInput(
        number=stored.number,
        names=shown,
        addresses=addresses,
        readback_addresses=readback_addresses,
        setpoint_channel=channel,
        readback_channel=_take_at(directory.readback_channel, rows),
        protocol=_take_at(directory.protocol.astype(np.int64), rows).astype(np.uint8),
        read_only=_take_at(directory.read_only.astype(np.int64), rows).astype(bool),
        deleted=rows < 0,
        absolute=_float_at(directory.setpoint_tolerance[0], rows),
        relative=_float_at(directory.setpoint_tolerance[1], rows),
        readback_absolute=_float_at(directory.readback_tolerance[0], rows),
        readback_relative=_float_at(directory.readback_tolerance[1], rows),
        stored=stored.setpoint,
        stored_readback=stored.readback,
        stored_labels={row_of[n]: stored_name.setpoint_labels for n, stored_name in names.items()},
        live=live.values,
        live_count=live.metadata.count(metadata_rows),
        live_labels=_labels_by_row(live, channel.tolist()),
        stale=live.stale,
        writable=live.writable,
        control_low=low,
        control_high=high,
        policies=policies,
        done=done,
        warnings=warnings,
    )


def _labels_by_row(live: ChannelReading, channels: list[int]) -> Callable[[int], Labels]:
    def labels(row: int) -> Labels:
        return live.labels.get(row) or live.metadata.labels(channels[row])

    return labels
