"""AuditService."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from drey.audit.v1 import audit_pb2
from drey.audit.v1 import audit_service_pb2 as pb
from drey_core.errors import InvalidArgument, Reason
from drey_core.token import Position, decode_page_token, query_hash
from drey_runtime import audit
from drey_runtime.audit_anchor import AuditAnchors
from drey_runtime.database import Connection, Database
from drey_runtime.mapping.actor import actor
from drey_runtime.mapping.times import time_bound
from drey_runtime.paging import check_page_size, cut_page

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_FINDINGS = 1000


class AuditServicer:
    """Who did what."""

    def __init__(self, db: Database, anchors: AuditAnchors) -> None:
        self._db, self._anchors = db, anchors

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        """See the contract."""
        wanted = audit.Filter(
            request.principal,
            request.action_prefix,
            request.object,
            time_bound(request, "from_time") or 0,
            time_bound(request, "to_time") or 0,
        )
        query = query_hash(
            wanted.actor, wanted.action_prefix, wanted.object, wanted.from_ns, wanted.to_ns
        )
        position = decode_page_token("audit", query, request.page_token)
        before = _sequence(position[0]) if position else 0
        size = check_page_size(request.page_size)

        async def read(conn: Connection) -> list[audit.Entry]:
            return await audit.entries(conn, wanted, before_seq=before, limit=size + 1)

        page, token = cut_page(
            "audit", query, await self._db.read(read), size, _event, lambda entry: [entry.seq]
        )
        return pb.ListEventsResponse(events=page, next_page_token=token)

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, context: Context
    ) -> pb.VerifyChainResponse:
        """See the contract."""
        anchors, problems = await self._anchors.read()
        async with self._db.acquire() as conn:
            findings = await audit.verify(conn, [anchor.head for anchor in anchors])
            head = await audit.read_head(conn)
        findings += [audit.Finding(0, problem) for problem in problems]
        out = pb.VerifyChainResponse(
            findings=[
                audit_pb2.ChainFinding(sequence=found.seq, problem=found.problem)
                for found in findings[:_MAX_FINDINGS]
            ],
            last_sequence=head.seq if head else 0,
            last_hash=head.hash if head else b"",
            anchor_count=len(anchors),
        )
        if anchors:
            out.last_anchor_time.FromNanoseconds(anchors[-1].time_ns)
        return out


def _sequence(position: Position) -> int:
    if not isinstance(position, int):
        raise InvalidArgument(
            "page_token: is not one of this list; leave it empty to begin again",
            reason=Reason.MALFORMED_PAGE_TOKEN,
            field="page_token",
        )
    return position


def _event(entry: audit.Entry) -> audit_pb2.AuditEvent:
    time = Timestamp()
    time.FromNanoseconds(entry.at_ns)
    return audit_pb2.AuditEvent(
        sequence=entry.seq,
        time=time,
        actor=actor(entry.actor, entry.role),
        action=entry.action,
        object=entry.object,
        request_id=entry.request_id,
        before_json=audit.canonical(entry.before) or "",
        after_json=audit.canonical(entry.after) or "",
        hash=entry.hash,
    )
