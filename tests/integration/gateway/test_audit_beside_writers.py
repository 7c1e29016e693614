"""The audit trail, listed, followed and verified while acts are written without a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drey.audit.v1 import audit_service_pb2 as pb
from drey_gateway.context import WatcherLimit
from drey_gateway.servicers.audit import AuditServicer
from drey_runtime import audit
from drey_runtime.audit_anchor import AnchorFile, AuditAnchors
from drey_runtime.auth import Principal, current_principal, make_keys
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.waiting import ChangeSignal

WRITERS = 4
ACTS = 600


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    async with Database(url) as found:
        yield found


async def write_acts(db: Database, name: str, begun: asyncio.Event) -> None:
    for number in range(ACTS // WRITERS):
        async with db.begin_transaction() as conn:
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=name,
                    role="editor",
                    action="pv.update",
                    object=f"pvs/{number}",
                    at_ns=now_ns(),
                ),
                events=(),
            )
        if number == 5:
            begun.set()


async def list_all(servicer: Any, **filters: Any) -> list[int]:
    request = pb.ListEventsRequest(page_size=17, **filters)
    sequences: list[int] = []
    while True:
        answer = await servicer.ListEvents(request, None)
        sequences += [event.sequence for event in answer.events]
        request.page_token = answer.next_page_token
        if not request.page_token:
            return sequences


async def follow(servicer: Any, seen: list[int]) -> None:
    async for message in servicer.WatchEvents(pb.WatchEventsRequest(after_sequence=0), None):
        seen += [event.sequence for event in message.events.events]


async def test_nothing_is_missed_told_twice_or_called_broken(db: Database, tmp_path: Path) -> None:
    current_principal.set(Principal("auditor", ()))
    make_keys(tmp_path / "keys", ["gateway"])
    file = AnchorFile.open_file(tmp_path / "anchors", tmp_path / "keys" / "gateway.pem")
    anchors = AuditAnchors(db, file, 0.0)
    changed = ChangeSignal()
    servicer: Any = AuditServicer(db, anchors, changed, WatcherLimit(10), 1.0)
    begun = asyncio.Event()
    seen: list[int] = []
    async with asyncio.timeout(120):
        following = asyncio.create_task(follow(servicer, seen))
        anchoring = asyncio.create_task(anchors.run())
        writers = [asyncio.create_task(write_acts(db, f"w{n}", begun)) for n in range(WRITERS)]
        await begun.wait()
        looks = 0
        while not all(writer.done() for writer in writers):
            whole = await list_all(servicer)
            # newest first, none missing, none twice, down to the first one
            assert whole == list(range(whole[0], 0, -1))
            filtered = await list_all(servicer, principal="w1")
            assert filtered == sorted(set(filtered), reverse=True)
            check = await servicer.VerifyChain(pb.VerifyChainRequest(), None)
            assert not check.findings
            async with db.acquire_connection() as conn:
                assert check.last_hash == await audit.read_hash(conn, check.last_sequence)
            looks += 1
            changed.notify_change()
        await asyncio.gather(*writers)
        assert looks >= 1
        while len(seen) < ACTS:
            changed.notify_change()
            await asyncio.sleep(0.01)
        assert seen == list(range(1, ACTS + 1))
        following.cancel()
        anchoring.cancel()
        await asyncio.wait([following, anchoring])
        await anchors.write_anchor()
    await _cut_and_replace(db, servicer)


async def _cut_and_replace(db: Database, servicer: Any) -> None:
    async with db.begin_transaction() as conn:
        await conn.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
        await conn.execute("DELETE FROM audit.entry WHERE seq > $1", ACTS - 10)
    check = await servicer.VerifyChain(pb.VerifyChainRequest(), None)
    assert [f.problem for f in check.findings] == [
        f"rows {ACTS - 9} to {ACTS} were anchored and are cut off"
    ]
    assert check.last_sequence == ACTS - 10
    await write_acts(db, "forger", asyncio.Event())
    check = await servicer.VerifyChain(pb.VerifyChainRequest(), None)
    assert {f.problem for f in check.findings} == {"is not the row that was anchored"}
