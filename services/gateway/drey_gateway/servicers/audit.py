"""AuditService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from drey.audit.v1 import audit_pb2
from drey.audit.v1 import audit_service_pb2 as pb
from drey_core.errors import InvalidArgument, NotFound
from drey_core.token import decode_page_token, query_hash
from drey_gateway.context import WatcherLimit
from drey_gateway.following import follow_log
from drey_runtime import audit
from drey_runtime.audit_anchor import AuditAnchors
from drey_runtime.auth import current_principal
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.mapping.common import actor, time_bound, timestamp_message
from drey_runtime.paging import check_page_size, cut_page
from drey_runtime.waiting import ChangeSignal, Turns

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_FINDINGS = 1000
_PAGE_ACTS = 200
_WALKS = 2
"""Walks along the whole chain at a time, of one key its share: each holds a connection for long."""


class AuditServicer:
    """Who did what."""

    def __init__(
        self,
        db: Database,
        anchors: AuditAnchors,
        changed: ChangeSignal,
        limiter: WatcherLimit,
        share: float,
    ) -> None:
        self._turns = Turns(_WALKS, share)
        self._db, self._anchors = db, anchors
        self._changed, self._limiter = changed, limiter

    async def GetEvent(self, request: pb.GetEventRequest, context: Context) -> pb.GetEventResponse:
        """See the contract."""

        async def read(conn: Connection) -> audit.Entry | None:
            return await audit.read_entry(conn, request.sequence)

        entry = await self._db.run_reading(read)
        if entry is None:
            raise NotFound(f"no act has the number {request.sequence}", field="sequence")
        return pb.GetEventResponse(act=_to_event(entry))

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract."""
        wanted = audit.AuditFilter(request.principal, request.action_prefix, request.target)
        after = request.after_sequence if request.HasField("after_sequence") else None
        with self._limiter.take_watcher():
            acts = FollowedAudit(self._db, wanted)
            yield await acts.begin_at(after)
            async with aclosing(follow_log(acts, self._changed)) as messages:
                async for message in messages:
                    yield message

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        """See the contract."""
        wanted = audit.AuditFilter(
            request.principal,
            request.action_prefix,
            request.target,
            time_bound(request, "from_time") or 0,
            time_bound(request, "to_time") or 0,
        )
        query = query_hash(
            wanted.actor, wanted.action_prefix, wanted.object, wanted.from_ns, wanted.to_ns
        )
        position = decode_page_token("audit", query, request.page_token, (int,))
        before = int(position[0]) if position else 0
        size = check_page_size(request.page_size)

        async def read_entries(conn: Connection) -> list[audit.Entry]:
            return await audit.read_entries(conn, wanted, before_seq=before, limit=size + 1)

        found = await self._db.run_reading(read_entries)
        page, token = await asyncio.to_thread(
            cut_page, "audit", query, found, size, _to_event, lambda entry: [entry.seq]
        )
        return pb.ListEventsResponse(events=page, next_page_token=token)

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, context: Context
    ) -> pb.VerifyChainResponse:
        """See the contract."""
        anchors, problems = await self._anchors.load_anchors()
        async with (
            self._turns.take_turn(current_principal.get().holder),
            self._db.acquire_connection() as conn,
        ):
            findings, head = await audit.walk_chain(conn, [anchor.head for anchor in anchors])
        findings += [audit.ChainFault(0, problem) for problem in problems]
        out = pb.VerifyChainResponse(
            findings=[
                audit_pb2.ChainFinding(sequence=finding.seq, problem=finding.problem)
                for finding in findings[:_MAX_FINDINGS]
            ],
            last_sequence=head.seq if head else 0,
            last_hash=head.hash if head else b"",
            anchor_count=len(anchors),
        )
        if anchors:
            out.last_anchor_time.FromNanoseconds(anchors[-1].time_ns)
        return out


class FollowedAudit:
    """One client's way through the audit trail."""

    def __init__(self, db: Database, wanted: audit.AuditFilter) -> None:
        self._db, self._wanted = db, wanted
        self._sequence = 0

    async def begin_at(self, after: int | None) -> pb.WatchEventsResponse:
        """The first message. `Unavailable`; `InvalidArgument` for a number that is not there."""
        head = await self._db.run_reading(audit.read_head)
        last = head.seq if head else 0
        self._sequence = last if after is None else after
        if not 0 <= self._sequence <= last:
            raise InvalidArgument(
                f"after_sequence: the last act has the number {last}; leave it out to begin now",
                field="after_sequence",
            )
        return self.make_checkpoint(stalled=False)

    async def next_messages(self) -> Sequence[pb.WatchEventsResponse]:
        """As `FollowedLog`."""

        async def read_entries(conn: Connection) -> tuple[list[audit.Entry], int]:
            return await audit.entries_after(conn, self._wanted, self._sequence, _PAGE_ACTS)

        entries, self._sequence = await self._db.run_reading(read_entries)
        if not entries:
            return ()
        return [pb.WatchEventsResponse(events=pb.AuditBatch(events=map(_to_event, entries)))]

    def make_checkpoint(self, *, stalled: bool) -> pb.WatchEventsResponse:
        """As `FollowedLog`."""
        return pb.WatchEventsResponse(
            checkpoint=pb.AuditCheckpoint(
                sequence=self._sequence, time=timestamp_message(now_ns()), stalled=stalled
            )
        )


def _to_event(entry: audit.Entry) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(
        sequence=entry.seq,
        time=timestamp_message(entry.at_ns),
        actor=actor(entry.actor, entry.role),
        action=entry.action,
        target=entry.object,
        request_id=entry.request_id,
        before_json=audit.canonical_json(entry.before) or "",
        after_json=audit.canonical_json(entry.after) or "",
        hash=entry.hash,
        address=entry.address,
    )
