"""The beginning of a restore: its row, its job and its act in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drey_core.errors import FailedPrecondition, Reason
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.execution import count_verdicts, initial_verdicts
from drey_restore.domain.items import PlanItems
from drey_restore.domain.records import RestoreRecord
from drey_restore.usecases.holding import fields_of, first_writing, refuse_held
from drey_runtime import audit
from drey_runtime.admission import Room
from drey_runtime.clock import new_id
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.jobs import JobStore, NewJob

JOB_KIND = "restore"
MOST_OPEN = 32
"""Restores that have not ended; one person has a share. Each runs as soon as it is begun: were it
to wait for a place, those that hold would let nobody else's begin. So many are no burden: no two of
them write the same record."""


def first_verdicts(items: PlanItems) -> tuple[int, ...]:
    """Counts of the verdicts of a plan before anything is sent."""
    return tuple(count_verdicts(initial_verdicts(items.skip)))


@dataclass(frozen=True)
class BegunBy:
    """The act that begins a restore, for the audit and for those who follow the changes."""

    action: str
    after: Mapping[str, Any]
    request_id: str = ""
    events: Sequence[ResourceChange] = ()


class Beginning:
    """Begins restores, one at a time, where nobody else writes one of their records."""

    def __init__(self, store: RestoreStore, jobs: JobStore, share: float) -> None:
        self._store, self._jobs, self._share = store, jobs, share

    async def begin_restore(
        self,
        conn: Connection,
        restore: RestoreRecord,
        items: PlanItems,
        act: BegunBy,
        *,
        after_end_of: str = "",
    ) -> RestoreRecord:
        """Store a restore that waits for a worker; its `id` and `job_id` are made here.

        CHANNELS_HELD where another one writes one of its records, or may still; RESOURCE_EXHAUSTED
        where too many have not ended. `after_end_of`: the restore that ends in the same
        transaction, and lets its records and its place go. The caller holds `lock_execution`.
        """
        others = [r for r in await self._store.open_restores(conn) if r.id != after_end_of]
        await self._check_held(conn, items, others)
        if not after_end_of:
            self._require_place(restore.principal, others)
        restore_id = new_id()
        job = await self._jobs.create_job(
            conn,
            NewJob(
                kind=JOB_KIND,
                principal=restore.principal,
                role=restore.role,
                payload=restore_id.encode(),
                total=len(items.writes),
                result=f"restores/{restore_id}",
                rerun=False,
            ),
        )
        restore = replace(restore, id=restore_id, job_id=job.id)
        await self._store.insert_restore(conn, restore)
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=restore.principal,
                role=restore.role,
                action=act.action,
                object=f"restores/{restore.id}",
                after={
                    "plan_id": restore.plan_id,
                    "plan_digest": restore.plan_digest,
                    "snapshot_id": restore.snapshot_id,
                    **act.after,
                },
                at_ns=restore.create_time_ns,
                request_id=act.request_id,
            ),
            events=[
                *act.events,
                ResourceChange(Resource.RESTORE, EventKind.CREATED, restore.id, state="waiting"),
            ],
        )
        return restore

    def _require_place(self, principal: str, others: Sequence[RestoreRecord]) -> None:
        holders = (other.principal for other in others)
        room = Room.room_with_holders(
            "restores that have not ended", MOST_OPEN, self._share, holders
        )
        room.require_place(principal, principal)

    async def _check_held(
        self, conn: Connection, items: PlanItems, others: Sequence[RestoreRecord]
    ) -> None:
        """CHANNELS_HELD where another restore writes one of these fields, or may still."""
        refuse_held(await self._store.unanswered_writes(conn), items)
        wanted: set[str] = set()
        for other in others:
            held = await self._store.plan_items(other.plan_id, conn=conn)
            if not wanted:
                wanted = fields_of(items)
            both = wanted & fields_of(held)
            if both:
                name, theirs = first_writing(items, both), first_writing(held, both)
                as_named = name if name == theirs else f"{name}, which it calls {theirs}"
                raise FailedPrecondition(
                    f"restore {other.id} of {other.principal} is writing {len(both)} of these"
                    f" channels, the first is {as_named}; wait for it, or abort it",
                    reason=Reason.CHANNELS_HELD,
                    metadata={"restore_id": other.id, "held_by": other.principal, "pv": name},
                )
