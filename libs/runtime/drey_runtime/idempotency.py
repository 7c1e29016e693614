"""A repeat of a `request_id` does nothing twice and answers the same.

    async with database.transaction() as conn:
        async with once(conn, method, principal, request_id, request) as slot:
            if slot.seen is None:
                ... do it ...
                slot.response = response.SerializeToString()
    return slot.response

The answer is stored in the caller's transaction: both happen, or neither.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from drey_core.errors import AlreadyExists, Internal, InvalidArgument, Reason
from drey_runtime.database import Connection

MAX_REQUEST_ID_BYTES = 200
KEEP_NS = 7 * 24 * 3600 * 10**9


@dataclass
class Slot:
    """Where the answer of a request goes, or comes from.

    `seen` is the stored answer of the first call, or None when this is the first; set `response`
    then. Afterwards `response` is the answer in both cases.
    """

    seen: bytes | None = None
    response: bytes | None = None


async def find_answer(
    conn: Connection, method: str, principal: str, request_id: str, request: bytes
) -> bytes | None:
    """The stored answer of this very request; None where there is none yet.

    For work that is done before the transaction, about which `once` then decides. Raises
    AlreadyExists with REQUEST_ID_REUSED where the id came with another request before.
    """
    row = await conn.fetchrow(
        "SELECT request_hash, response FROM idem.request"
        " WHERE principal = $1 AND method = $2 AND request_id = $3",
        principal,
        method,
        request_id,
    )
    if row is None:
        return None
    if row["request_hash"] != hashlib.sha256(request).digest():
        raise AlreadyExists(
            f"request_id {request_id!r} was used before with another request: choose a new one",
            reason=Reason.REQUEST_ID_REUSED,
            field="request_id",
        )
    response: bytes = row["response"]
    return response


@asynccontextmanager
async def run_once(
    conn: Connection,
    method: str,
    principal: str,
    request_id: str,
    request: bytes,
    *,
    at_ns: int | None = None,
) -> AsyncIterator[Slot]:
    """Run the body for the first call with this (principal, method, request_id) only.

    Must be inside a transaction. `request` is the request's bytes, deterministic and without
    whatever may differ between repeats. A duplicate that comes while the first is still at it
    waits for its commit. An empty `request_id` remembers nothing. Raises AlreadyExists with
    REQUEST_ID_REUSED where the id came with another request before, and Internal where the body
    of a first call sets no response. If the body raises, nothing is stored.
    """
    if not request_id:
        yield Slot()
        return
    if len(request_id.encode()) > MAX_REQUEST_ID_BYTES or "\0" in request_id:
        raise InvalidArgument(
            f"request_id: at most {MAX_REQUEST_ID_BYTES} bytes, and no NUL", field="request_id"
        )
    if not conn.is_in_transaction():
        raise Internal("once() needs a transaction")
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _lock_key(principal, method, request_id))
    seen = await find_answer(conn, method, principal, request_id, request)
    if seen is not None:
        yield Slot(seen=seen, response=seen)
        return
    slot = Slot()
    yield slot
    if slot.response is None:
        raise Internal(f"{method} left no response for its request_id")
    await conn.execute(
        "INSERT INTO idem.request"
        " (method, principal, request_id, request_hash, response, create_time_ns)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        method,
        principal,
        request_id,
        hashlib.sha256(request).digest(),
        slot.response,
        time.time_ns() if at_ns is None else at_ns,
    )


def _lock_key(principal: str, method: str, request_id: str) -> int:
    text = "\0".join(("drey-request", principal, method, request_id))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


async def forget_old_answers(conn: Connection, *, now_ns: int, keep_ns: int = KEEP_NS) -> int:
    """Delete answers older than `keep_ns` (a week; a day at least); returns how many."""
    gone: int = await conn.fetchval("SELECT idem.forget($1)", now_ns - keep_ns)
    return gone
