"""Plans, restores and journals in Postgres. What takes a connection belongs to its transaction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from enum import Enum
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from drey.restore.v1 import restore_pb2
from drey_core.errors import FailedPrecondition, Internal, NotFound, Reason
from drey_core.values import I8, Columns, as_float64
from drey_restore.adapters.copy import copy_into, copy_rows
from drey_restore.adapters.specs import rules_of
from drey_restore.domain import blob
from drey_restore.domain.approval import Approval
from drey_restore.domain.digest import plan_digest
from drey_restore.domain.execution import JournalBatch
from drey_restore.domain.items import I4, Carried, Outcome, PlanItems
from drey_restore.domain.kinds import TRANSITIONS, ApprovalState, PlanState, RestoreState
from drey_restore.domain.records import Chosen, HeldWrite, PlanRecord, RestoreRecord, Unanswered
from drey_restore.domain.waiting import StageWait
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database, Record
from drey_runtime.event_log import EventKind, Resource, ResourceChange, record_events
from drey_runtime.jobs import LEASE_HELD, Job, JobLost

SCHEMA_PACKAGES = ("drey_runtime", "drey_restore")
_EXECUTE_LOCK = 0x64726579_72657374  # "dreyrest"

_APPROVAL = tuple(field.name for field in fields(Approval))
_ITS_APPROVAL = ", ".join(f"a.{name} AS approval_{name}" for name in _APPROVAL)
_PLAN = f"""
SELECT p.id, p.digest, p.snapshot_id, p.pvs, p.writes, p.skips, p.exact, p.principal, p.role,
    p.comment, p.create_time_ns, p.expire_time_ns, p.undoes_restore_id, p.restore_id, p.recipe,
    p.spec, p.stages, p.stage_writes, p.stage_waits, {_ITS_APPROVAL}
FROM restore.plan p LEFT JOIN restore.approval a ON a.plan_id = p.id
"""
_RESTORE = """
SELECT r.id, r.plan_id, r.plan_digest, p.snapshot_id, r.state, r.verdicts, r.principal,
    r.role, r.comment, r.job_id, r.start_by_ns, r.write_timeout_ns, r.verify_timeout_ns,
    r.accept_moved, r.max_unreachable, r.create_time_ns, r.abort_requested, r.abort_reason,
    r.pause_requested, r.error_reason, r.error_message, r.start_time_ns, r.end_time_ns, r.revision,
    r.continues_restore_id, r.also_unknown, r.interfered,
    r.roll_back_requested, r.rollback_restore_id, r.rollback_error_reason, r.rollback_error_message,
    (SELECT c.id FROM restore.restore c WHERE c.continues_restore_id = r.id
     ORDER BY c.id DESC LIMIT 1) AS continued_by_restore_id,
    (SELECT count(*) FROM restore.unanswered u
     WHERE u.restore_id = r.id AND u.release_time_ns = 0) AS may_still_fire
FROM restore.restore r JOIN restore.plan p ON p.id = r.plan_id
"""
_PLAN_STATE = f"""
CASE WHEN p.restore_id IS NOT NULL THEN {PlanState.EXECUTED:d}
    WHEN a.state = {ApprovalState.REJECTED:d} THEN {PlanState.REJECTED:d}
    WHEN p.recipe = 1 OR p.expire_time_ns <= $8::bigint THEN {PlanState.EXPIRED:d}
    WHEN a.state = {ApprovalState.PENDING:d} OR a.expire_time_ns <= $8::bigint
        THEN {PlanState.WAITS_FOR_APPROVAL:d}
    ELSE {PlanState.READY:d} END
"""
_APPROVAL_STATE = f"""
CASE WHEN state <> {ApprovalState.REJECTED:d} AND expire_time_ns <= $5::bigint
    THEN {ApprovalState.EXPIRED:d} ELSE state END
"""
_INSERT_PLAN = """
INSERT INTO restore.plan (id, digest, snapshot_id, pvs, writes, skips, exact, principal, role,
    comment, create_time_ns, expire_time_ns, undoes_restore_id, recipe, spec, stages, stage_writes,
    stage_waits)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18::jsonb)
"""
_INSERT_RESTORE = """
INSERT INTO restore.restore (id, plan_id, state, verdicts, principal, role, comment, job_id,
    start_by_ns, write_timeout_ns, verify_timeout_ns, accept_moved, create_time_ns, plan_digest,
    max_unreachable, continues_restore_id, also_unknown)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
_ADVANCE = """
UPDATE restore.restore r SET state = $2, verdicts = $3, revision = r.revision + 1, interfered = $6,
    start_time_ns = CASE WHEN r.start_time_ns = 0 THEN $4 ELSE r.start_time_ns END
FROM (SELECT id, state FROM restore.restore WHERE id = $1 FOR UPDATE) AS before
WHERE r.id = before.id AND r.state = ANY($5::smallint[])
RETURNING before.state, r.principal, r.role
"""
_FINISH = """
UPDATE restore.restore SET state = $2, verdicts = $3, all_verified = $4, error_reason = $5,
    error_message = $6, end_time_ns = $7, revision = revision + 1, interfered = $9,
    rollback_restore_id = $10, rollback_error_reason = $11, rollback_error_message = $12
WHERE id = $1 AND state = ANY($8::smallint[])
"""
_INTENT = f"""
INSERT INTO restore.journal (restore_id, batch, rows, numbers, intent_time_ns, steps)
SELECT r.id, $2, $3, $4, $5, $8 FROM restore.restore r JOIN jobs.job job ON job.id = r.job_id
WHERE r.id = $1 AND NOT r.abort_requested AND NOT r.pause_requested AND r.end_time_ns = 0
    AND {LEASE_HELD.format(owner="$6", term="$7")}
FOR SHARE OF r, job
"""
_RESULT = """
UPDATE restore.journal j SET codes = $3, result_time_ns = $4 FROM restore.restore r
WHERE j.restore_id = $1 AND j.batch = $2 AND j.codes IS NULL
    AND r.id = j.restore_id AND r.end_time_ns = 0
"""
_PLAN_ITEM = (
    *("plan_id", "number", "stage", "current", "target", "delta", "deviation"),
    *("name", "address"),
)
_RESTORE_ITEM = (
    *("restore_id", "number", "verdict", "code", "readback_reached", "sent_time_ns"),
    *("completion_time_ns", "seen", "name"),
)


class Permission(Enum):
    """What the database says to the announcement of writes."""

    SEND = "they are announced: send them"
    PAUSE = "hold: nothing of them is announced"
    STOP = "nothing more is to be sent"


class RestoreStore:
    """All statements of the service. Raises `Unavailable` while Postgres is away."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # ---- plans

    async def insert_plan(self, conn: Connection, plan: PlanRecord, packed: bytes) -> None:
        """Store a plan: its row, and all its items as packed columns."""
        await conn.execute(
            _INSERT_PLAN,
            *(
                plan.id,
                plan.digest,
                plan.snapshot_id or None,
                plan.pvs,
                plan.writes,
                list(plan.skips),
            ),
            *(plan.exact, plan.principal, plan.role, plan.comment),
            *(plan.create_time_ns, plan.expire_time_ns, plan.undoes_restore_id),
            *(plan.recipe, plan.spec, list(plan.stages), list(plan.stage_writes)),
            json.dumps([astuple(wait) for wait in plan.stage_waits]),
        )
        await conn.execute("INSERT INTO restore.plan_data VALUES ($1, $2)", plan.id, packed)

    async def insert_writes(self, conn: Connection, plan_id: str, items: PlanItems) -> None:
        """Store the writes of a plan as rows."""
        rows = items.writes
        if len(rows) == 0:
            return
        stream = copy_rows(
            plan_id,
            [
                (items.number[rows], "i8"),
                (items.stage[rows], "i4"),
                (as_float64(items.current.kind[rows], items.current.data[rows]), "f8"),
                (as_float64(items.target.kind[rows], items.target.data[rows]), "f8"),
                (items.delta[rows], "f8"),
                (items.deviation[rows], "f8"),
            ],
            [items.name_section, items.address_section],
            rows,
        )
        await copy_into(conn, "plan_item", _PLAN_ITEM, stream)

    async def read_plan(self, plan_id: str) -> PlanRecord:
        """One plan. NotFound."""

        async def fetch(conn: Connection) -> Record | None:
            return await conn.fetchrow(f"{_PLAN} WHERE p.id = $1", plan_id)

        return _plan_of_row(await self.database.run_reading(fetch), plan_id)

    async def lock_plan(self, conn: Connection, plan_id: str) -> PlanRecord:
        """One plan, locked until the end of the transaction. NotFound."""
        row = await conn.fetchrow(f"{_PLAN} WHERE p.id = $1 FOR UPDATE OF p", plan_id)
        return _plan_of_row(row, plan_id)

    async def plans(
        self, limit: int, before_id: str | None, chosen: Chosen, now_ns: int
    ) -> list[PlanRecord]:
        """Plans that are chosen, newest first, those made before `before_id`."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(
                f"{_PLAN} WHERE ($1::uuid IS NULL OR p.id < $1)"
                " AND ($2::uuid IS NULL OR p.snapshot_id = $2) AND ($3 = '' OR p.principal = $3)"
                " AND ($5::bigint IS NULL OR p.create_time_ns >= $5)"
                " AND ($6::bigint IS NULL OR p.create_time_ns < $6)"
                f" AND ($7::smallint[] IS NULL OR {_PLAN_STATE} = ANY($7::smallint[]))"
                " ORDER BY p.id DESC LIMIT $4",
                *(before_id, chosen.snapshot_id, chosen.principal, limit),
                *(chosen.from_ns, chosen.to_ns, chosen.states, now_ns),
            )

        return [_plan_of_row(row, "") for row in await self.database.run_reading(fetch)]

    async def plan_items(
        self, plan_id: str, digest: str = "", conn: Connection | None = None
    ) -> PlanItems:
        """The items of a plan. NotFound.

        PLAN_DIGEST_MISMATCH where they are not those of which the plan's digest was made, or that
        is not `digest` (empty: any).
        """

        async def fetch(conn: Connection) -> Record | None:
            return await conn.fetchrow(
                f"SELECT plan.*, d.items FROM ({_PLAN} WHERE p.id = $1) plan"
                " JOIN restore.plan_data d ON d.plan_id = plan.id",
                plan_id,
            )

        row = await (fetch(conn) if conn is not None else self.database.run_reading(fetch))
        if row is None:
            raise _not_found("plan", plan_id)
        return await asyncio.to_thread(
            _unpack_items, _plan_of_row(row, plan_id), row["items"], digest
        )

    # ---- approvals

    async def insert_approval(self, conn: Connection, approval: Approval) -> None:
        """Store that a plan waits for a second person."""
        names = _APPROVAL
        places = ", ".join(f"${index}" for index in range(1, len(names) + 1))
        await conn.execute(
            f"INSERT INTO restore.approval ({', '.join(names)}) VALUES ({places})",
            *(getattr(approval, name) for name in names),
        )

    async def decide_approval(self, conn: Connection, approval: Approval) -> None:
        """Store what a second person has decided. The plan is locked."""
        await conn.execute(
            "UPDATE restore.approval SET state = $2, approver = $3, approver_role = $4,"
            " reason = $5, decide_time_ns = $6, expire_time_ns = $7 WHERE id = $1",
            *(approval.id, int(approval.state), approval.approver, approval.approver_role),
            *(approval.reason, approval.decide_time_ns, approval.expire_time_ns),
        )

    async def list_approvals(
        self,
        limit: int,
        before_id: str | None,
        *,
        plan_id: str | None = None,
        states: list[int] | None = None,
        now_ns: int = 0,
    ) -> list[Approval]:
        """Approvals, newest first, those asked for before `before_id`; None: any."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(
                f"SELECT {', '.join(_APPROVAL)} FROM restore.approval"
                " WHERE ($1::uuid IS NULL OR id < $1) AND ($2::uuid IS NULL OR plan_id = $2)"
                f" AND ($3::smallint[] IS NULL OR {_APPROVAL_STATE} = ANY($3::smallint[]))"
                " ORDER BY id DESC LIMIT $4",
                *(before_id, plan_id, states, limit, now_ns),
            )

        return [_approval_of_row(dict(row)) for row in await self.database.run_reading(fetch)]

    # ---- restores

    async def lock_execution(self, conn: Connection) -> None:
        """Let only one transaction at a time begin a restore."""
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _EXECUTE_LOCK)

    async def insert_restore(self, conn: Connection, restore: RestoreRecord) -> None:
        """Store a restore; where it is the first of its plan, the plan notes it."""
        await conn.execute(
            _INSERT_RESTORE,
            *(restore.id, restore.plan_id, int(restore.state), list(restore.verdicts)),
            *(restore.principal, restore.role, restore.comment, restore.job_id),
            *(restore.start_by_ns, restore.write_timeout_ns, restore.verify_timeout_ns),
            *(restore.accept_moved, restore.create_time_ns, restore.plan_digest),
            *(restore.max_unreachable, restore.continues_restore_id, restore.also_unknown),
        )
        if restore.continues_restore_id is None:
            await conn.execute(
                "UPDATE restore.plan SET restore_id = $2 WHERE id = $1", restore.plan_id, restore.id
            )

    async def open_restores(self, conn: Connection | None = None) -> list[RestoreRecord]:
        """Those that have not ended."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(f"{_RESTORE} WHERE r.end_time_ns = 0 ORDER BY r.id")

        rows = await (fetch(conn) if conn is not None else self.database.run_reading(fetch))
        return [_restore_of_row(row, "") for row in rows]

    async def restore(self, restore_id: str) -> RestoreRecord:
        """One restore. NotFound."""

        async def fetch(conn: Connection) -> Record | None:
            return await conn.fetchrow(f"{_RESTORE} WHERE r.id = $1", restore_id)

        return _restore_of_row(await self.database.run_reading(fetch), restore_id)

    async def lock_restore(self, conn: Connection, restore_id: str) -> RestoreRecord:
        """One restore, locked until the end of the transaction. NotFound."""
        row = await conn.fetchrow(f"{_RESTORE} WHERE r.id = $1 FOR UPDATE OF r", restore_id)
        return _restore_of_row(row, restore_id)

    async def list_restores(
        self, limit: int, before_id: str | None, chosen: Chosen
    ) -> list[RestoreRecord]:
        """Restores that are chosen, newest first, those made before `before_id`."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(
                f"{_RESTORE} WHERE ($1::uuid IS NULL OR r.id < $1)"
                " AND ($2::uuid IS NULL OR p.snapshot_id = $2) AND ($3 = '' OR r.principal = $3)"
                " AND ($5::bigint IS NULL OR r.create_time_ns >= $5)"
                " AND ($6::bigint IS NULL OR r.create_time_ns < $6)"
                " AND ($7::smallint[] IS NULL OR r.state = ANY($7))"
                " ORDER BY r.id DESC LIMIT $4",
                *(before_id, chosen.snapshot_id, chosen.principal, limit),
                *(chosen.from_ns, chosen.to_ns, chosen.states),
            )

        return [_restore_of_row(row, "") for row in await self.database.run_reading(fetch)]

    async def request_abort(
        self, conn: Connection, restore_id: str, reason: str, *, roll_back: bool = False
    ) -> None:
        """Note the wish; whoever runs it sees it."""
        await conn.execute(
            "UPDATE restore.restore SET abort_requested = true, abort_reason = $2,"
            " roll_back_requested = $3, revision = revision + 1"
            " WHERE id = $1 AND NOT abort_requested AND end_time_ns = 0",
            *(restore_id, reason, roll_back),
        )

    async def set_pause(self, conn: Connection, restore_id: str, *, pause: bool) -> None:
        """Note the wish to hold, or to go on; whoever runs it sees it."""
        await conn.execute(
            "UPDATE restore.restore SET pause_requested = $2, revision = revision + 1"
            " WHERE id = $1 AND pause_requested <> $2 AND end_time_ns = 0",
            *(restore_id, pause),
        )

    async def advance_restore(
        self,
        restore_id: str,
        state: RestoreState,
        verdicts: Sequence[int],
        *,
        interfered: int = 0,
        start_ns: int = 0,
    ) -> None:
        """Note state and counts while it runs. WRONG_STATE where that may not follow."""
        allowed = [int(s) for s in _states_before(state) | {state}]
        async with self.database.begin_transaction() as conn:
            before = await conn.fetchrow(
                _ADVANCE, restore_id, int(state), list(verdicts), start_ns, allowed, interfered
            )
            if before is None:
                raise _not_any_more(restore_id, state)
            if before["state"] == state:
                return
            change = ResourceChange(
                Resource.RESTORE,
                EventKind.STATE_CHANGED,
                restore_id,
                state=state.name.lower(),
            )
            await record_events(
                conn,
                [change],
                principal=before["principal"],
                role=before["role"],
                time_ns=now_ns(),
            )

    async def finish_restore(
        self,
        conn: Connection,
        restore: RestoreRecord,
        ended: tuple[PlanItems, Outcome] | None,
        *,
        at_ns: int,
    ) -> None:
        """Store the end: state, counts and error of `restore`, and what became of every item.

        None where the items cannot be trusted.
        """
        status = await conn.execute(
            _FINISH,
            *(restore.id, int(restore.state), list(restore.verdicts), restore.all_verified),
            *(int(restore.error_reason), restore.error_message, at_ns),
            *([int(s) for s in _states_before(restore.state)], restore.interfered),
            *(restore.rollback_restore_id, int(restore.rollback_error_reason)),
            restore.rollback_error_message,
        )
        if status != "UPDATE 1":
            raise _not_any_more(restore.id, restore.state)
        if ended is None:
            return
        items, outcome = ended
        packed = blob.compress_blob(outcome.encode_outcome())
        await conn.execute("INSERT INTO restore.restore_data VALUES ($1, $2)", restore.id, packed)
        rows = items.writes
        if len(rows) == 0:
            return
        stream = copy_rows(
            restore.id,
            [
                (items.number[rows], "i8"),
                (outcome.verdict[rows], "i2"),
                (outcome.code[rows], "i4"),
                (outcome.readback_reached[rows], "i2"),
                (outcome.sent_time[rows], "i8"),
                (outcome.completion_time[rows], "i8"),
                (as_float64(outcome.seen.kind[rows], outcome.seen.data[rows]), "f8"),
            ],
            [items.name_section],
            rows,
        )
        await copy_into(conn, "restore_item", _RESTORE_ITEM, stream)

    async def read_outcome(self, restore_id: str) -> Outcome | None:
        """What became of the items; None while it has not ended."""

        async def fetch(conn: Connection) -> bytes | None:
            packed: bytes | None = await conn.fetchval(
                "SELECT outcome FROM restore.restore_data WHERE restore_id = $1", restore_id
            )
            return packed

        packed = await self.database.run_reading(fetch)
        return None if packed is None else Outcome.decode_outcome(blob.decompress_blob(packed))

    async def continuation_of(self, conn: Connection, restore_id: str) -> str | None:
        """The restore that continues one; None where there is none, or it has sent nothing."""
        continuing_id = await conn.fetchval(
            "SELECT id FROM restore.restore WHERE continues_restore_id = $1 AND NOT"
            " (state = $2 OR state = $3 AND start_time_ns = 0)",
            *(restore_id, int(RestoreState.FAILED), int(RestoreState.ABORTED)),
        )
        return None if continuing_id is None else str(continuing_id)

    async def carried_outcome(self, restore: RestoreRecord) -> Carried | None:
        """What the restore left that this one continues; None: it continues none."""
        if restore.continues_restore_id is None:
            return None
        outcome = await self.read_outcome(restore.continues_restore_id)
        if outcome is None:
            raise Internal(f"restore {restore.continues_restore_id} has no outcome to go on from")
        image = await self.pre_image(restore.continues_restore_id)
        readback = Columns.empty_columns(len(outcome.verdict)) if image is None else image[1]
        return Carried(outcome, readback, restore.also_unknown)

    async def insert_pre_image(self, restore_id: str, setpoint: Columns, readback: Columns) -> None:
        """Store what was there before the first write; harmless when repeated."""
        sections = blob.columns_sections("setpoint", setpoint)
        sections |= blob.columns_sections("readback", readback)
        packed = await asyncio.to_thread(lambda: blob.compress_blob(blob.encode_sections(sections)))
        async with self.database.acquire_connection() as conn:
            await conn.execute(
                "INSERT INTO restore.pre_image VALUES ($1, $2) ON CONFLICT DO NOTHING",
                *(restore_id, packed),
            )

    async def pre_image(self, restore_id: str) -> tuple[Columns, Columns] | None:
        """(setpoints, readbacks) before the first write, rows as in the plan; None: not taken."""

        async def fetch(conn: Connection) -> bytes | None:
            packed: bytes | None = await conn.fetchval(
                "SELECT values FROM restore.pre_image WHERE restore_id = $1", restore_id
            )
            return packed

        packed = await self.database.run_reading(fetch)
        if packed is None:
            return None
        sections = blob.decode_sections(blob.decompress_blob(packed))
        return blob.columns_of("setpoint", sections), blob.columns_of("readback", sections)

    # ---- writes that may still take place

    async def hold_unanswered(self, conn: Connection, restore_id: str, held: Unanswered) -> None:
        """Hold the channels of writes that were sent and never answered."""
        await conn.execute(
            "INSERT INTO restore.unanswered"
            " (restore_id, number, name, address, field, circuit, sent_time_ns)"
            " SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[],"
            " $6::text[], $7::bigint[])",
            *(restore_id, held.numbers, held.names, held.addresses, held.fields, held.circuits),
            held.sent_ns,
        )

    async def unanswered_writes(
        self, conn: Connection | None = None, restore_id: str | None = None
    ) -> list[HeldWrite]:
        """Writes (of one restore, or of all) that may still take place, oldest restore first."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(
                "SELECT u.restore_id, r.principal, u.number, u.name, u.address, u.field,"
                " u.circuit, u.sent_time_ns FROM restore.unanswered u"
                " JOIN restore.restore r ON r.id = u.restore_id WHERE u.release_time_ns = 0"
                " AND ($1::uuid IS NULL OR u.restore_id = $1) ORDER BY u.restore_id, u.number",
                restore_id,
            )

        rows = await (fetch(conn) if conn is not None else self.database.run_reading(fetch))
        return [HeldWrite(**dict(row)) for row in rows]

    async def release_unanswered(self, held: Sequence[HeldWrite], at_ns: int) -> None:
        """Let go of writes whose IOC has answered since. Harmless when repeated."""
        async with self.database.acquire_connection() as conn:
            await conn.execute(
                "UPDATE restore.unanswered u SET release_time_ns = $3"
                " FROM unnest($1::uuid[], $2::bigint[]) AS answered (restore_id, number)"
                " WHERE u.restore_id = answered.restore_id AND u.number = answered.number"
                " AND u.release_time_ns = 0",
                *([w.restore_id for w in held], [w.number for w in held], at_ns),
            )

    # ---- the journal

    async def journal_intent(
        self,
        restore_id: str,
        job: Job,
        batch: int,
        rows: I8,
        numbers: I8,
        at_ns: int,
        steps: I4 | None = None,
    ) -> Permission:
        """Durable when it returns SEND: these rows are about to be sent. Once for each batch.

        `steps` as in `JournalBatch`.

        Otherwise nothing may be sent: the restore was asked to stop or to pause. Raises JobLost
        where this claim of the job is over, or somebody else has ended the restore: the fence
        against a process that was taken for dead.
        """
        async with self.database.acquire_connection() as conn:
            status = await conn.execute(
                _INTENT,
                *(restore_id, batch, rows.tolist(), numbers.tolist(), at_ns, job.owner, job.term),
                None if steps is None else steps.tolist(),
            )
        if status == "INSERT 0 1":
            return Permission.SEND
        restore = await self.restore(restore_id)
        if restore.state.ended:
            raise JobLost(job.id)
        if restore.abort_requested:
            return Permission.STOP
        if restore.pause_requested:
            return Permission.PAUSE
        raise JobLost(job.id)

    async def journal_result(self, restore_id: str, batch: int, codes: I4, at_ns: int) -> None:
        """What came of a batch, once; harmless when repeated. Too late once the restore ended."""
        async with self.database.acquire_connection() as conn:
            await conn.execute(_RESULT, restore_id, batch, codes.tolist(), at_ns)

    async def read_journal(self, restore_id: str) -> list[JournalBatch]:
        """All entries in order."""

        async def fetch(conn: Connection) -> Sequence[Record]:
            return await conn.fetch(
                "SELECT * FROM restore.journal WHERE restore_id = $1 ORDER BY batch", restore_id
            )

        return [_batch_of_row(dict(row)) for row in await self.database.run_reading(fetch)]


def _unpack_items(plan: PlanRecord, packed: bytes, asked: str) -> PlanItems:
    try:
        raw = blob.decompress_blob(packed)
        items = PlanItems.decode_items(raw)
        digest = blob.digest(raw) if plan.recipe == 1 else plan_digest(plan, items)
    except Internal:
        digest = ""
    if {digest} != {plan.digest, asked or plan.digest}:
        raise FailedPrecondition(
            f"the items of plan {plan.id} in the database are not those of which its digest was"
            " made: somebody replaced them. Nothing is written; make a new plan, and find out who"
            " can write to the database",
            reason=Reason.PLAN_DIGEST_MISMATCH,
            metadata={"plan_id": plan.id},
        )
    return items


def _states_before(state: RestoreState) -> set[RestoreState]:
    return {old for old, following in TRANSITIONS.items() if state in following}


def _not_found(what: str, found_id: str) -> NotFound:
    return NotFound(
        f"there is no {what} {found_id}", field="id", metadata={"resource": what, "id": found_id}
    )


def _not_any_more(restore_id: str, state: RestoreState) -> FailedPrecondition:
    return FailedPrecondition(
        f"restore {restore_id} cannot become {state.name.lower()} any more",
        reason=Reason.WRONG_STATE,
    )


def _plan_of_row(row: Record | None, plan_id: str) -> PlanRecord:
    if row is None:
        raise _not_found("plan", plan_id)
    fields: dict[str, Any] = dict(row)
    fields["snapshot_id"] = fields["snapshot_id"] or ""
    for name in ("skips", "stages", "stage_writes"):
        fields[name] = tuple(fields[name])
    fields.pop("items", None)
    fields["stage_waits"] = tuple(
        StageWait(least, most, tuple((mode, writes) for mode, writes in completions), *ramps)
        for least, most, completions, *ramps in json.loads(fields["stage_waits"])
    )
    decision = {name: fields.pop(f"approval_{name}") for name in _APPROVAL}
    approval = None if decision["id"] is None else _approval_of_row(decision)
    try:
        rules = rules_of(restore_pb2.PlanSpec.FromString(fields["spec"]))
    except DecodeError as error:
        raise Internal(f"the stored specification of plan {row['id']} is damaged") from error
    return PlanRecord(rules=rules, approval=approval, **fields)


def _approval_of_row(fields: dict[str, Any]) -> Approval:
    return Approval(**{**fields, "state": ApprovalState(fields["state"])})


def _restore_of_row(row: Record | None, restore_id: str) -> RestoreRecord:
    if row is None:
        raise _not_found("restore", restore_id)
    fields: dict[str, Any] = dict(row)
    fields["snapshot_id"] = fields["snapshot_id"] or ""
    fields["verdicts"] = tuple(fields["verdicts"])
    fields["state"] = RestoreState(fields["state"])
    for name in ("error_reason", "rollback_error_reason"):
        fields[name] = Reason(fields[name])
    return RestoreRecord(**fields)


def _batch_of_row(row: Mapping[str, Any]) -> JournalBatch:
    codes = row["codes"]
    return JournalBatch(
        rows=np.array(row["rows"], np.int64),
        intent_time=row["intent_time_ns"],
        codes=None if codes is None else np.array(codes, np.int32),
        result_time=row["result_time_ns"],
        steps=None if row["steps"] is None else np.array(row["steps"], np.int32),
    )
