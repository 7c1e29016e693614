from __future__ import annotations

import asyncio

import asyncpg
import pytest

from drey_core.errors import Internal
from drey_runtime.audit import append, entries, verify
from drey_runtime.database import Database


async def act(db: Database, number: int) -> int:
    async with db.transaction() as conn:
        return await append(
            conn,
            actor="ann",
            role="operator",
            action="pv.update",
            object=f"pvs/{number}",
            before={"description": "π \udcff".encode("utf-8", "replace").decode(), "n": 1},
            after={"n": number},
            at_ns=number,
            request_id="r",
        )


async def tamper(db: Database, statement: str) -> None:
    async with db.transaction() as conn:
        await conn.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
        await conn.execute(statement)
        await conn.execute("ALTER TABLE audit.entry ENABLE TRIGGER USER")


async def findings(db: Database) -> list[tuple[int, str]]:
    async with db.acquire() as conn:
        return [(finding.seq, finding.problem) for finding in await verify(conn)]


async def test_parallel_appends_make_one_chain(db: Database) -> None:
    numbers = await asyncio.gather(*(act(db, n) for n in range(1, 21)))
    assert sorted(numbers) == list(range(1, 21))
    assert await findings(db) == []


async def test_a_rolled_back_act_leaves_no_gap(db: Database) -> None:
    await act(db, 1)
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as conn:
            await append(conn, actor="a", role="", action="x", object="", at_ns=1)
            raise ZeroDivisionError
    assert await act(db, 2) == 2
    assert await findings(db) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entry SET actor = 'bob'",
        "DELETE FROM audit.entry",
        "TRUNCATE audit.entry",
    ],
)
async def test_the_database_refuses_changes(db: Database, statement: str) -> None:
    await act(db, 1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        async with db.acquire() as conn:
            await conn.execute(statement)


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit.entry SET actor = 'bob' WHERE seq = 3", 3),
        ("UPDATE audit.entry SET after = NULL WHERE seq = 1", 1),
        ("DELETE FROM audit.entry WHERE seq = 3", 4),
        ("UPDATE audit.entry SET hash = sha256('x') WHERE seq = 3", 3),
        ("UPDATE audit.entry SET previous_hash = hash WHERE seq = 5", 5),
    ],
)
async def test_tampering_shows(db: Database, statement: str, seq: int) -> None:
    for number in range(1, 6):
        await act(db, number)
    await tamper(db, statement)
    assert seq in [found for found, _ in await findings(db)]


async def test_entries_are_read_newest_first(db: Database) -> None:
    for number in range(1, 4):
        await act(db, number)
    async with db.acquire() as conn:
        found = await entries(conn, limit=2)
        assert [entry.seq for entry in found] == [3, 2]
        assert found[0].after == {"n": 3}
        assert [e.seq for e in await entries(conn, before_seq=2)] == [1]
        assert [e.seq for e in await entries(conn, object="pvs/2")] == [2]


async def test_it_needs_a_transaction(db: Database) -> None:
    with pytest.raises(Internal):
        async with db.acquire() as conn:
            await append(conn, actor="a", role="", action="x", object="", at_ns=1)
