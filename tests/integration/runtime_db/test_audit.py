from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from drey_core.errors import Internal
from drey_runtime import audit
from drey_runtime.audit import (
    AuditedAct,
    AuditFilter,
    append_entry,
    read_entries,
    read_head,
    verify_chain,
    walk_chain,
)
from drey_runtime.audit_anchor import LOG_MESSAGE, AnchorFile, AuditAnchors
from drey_runtime.auth import Principal, current_principal, make_keys
from drey_runtime.database import Database

from .conftest import until


async def act(db: Database, number: int) -> int:
    async with db.begin_transaction() as conn:
        return await append_entry(
            conn,
            AuditedAct(
                actor="ann",
                role="operator",
                action="pv.update",
                object=f"pvs/{number}",
                before={"description": "π \udcff".encode("utf-8", "replace").decode(), "n": 1},
                after={"n": number},
                at_ns=number,
                request_id="r",
            ),
            events=(),
        )


async def tamper(db: Database, statement: str) -> None:
    async with db.begin_transaction() as conn:
        await conn.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
        await conn.execute(statement)
        await conn.execute("ALTER TABLE audit.entry ENABLE TRIGGER USER")


async def findings(db: Database) -> list[tuple[int, str]]:
    async with db.acquire_connection() as conn:
        return [(finding.seq, finding.problem) for finding in await verify_chain(conn)]


async def test_parallel_appends_make_one_chain(db: Database) -> None:
    numbers = await asyncio.gather(*(act(db, n) for n in range(1, 21)))
    assert sorted(numbers) == list(range(1, 21))
    assert await findings(db) == []


async def test_the_chain_is_walked_beside_the_loop(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long chain takes seconds, in which the gateway has watches to serve."""
    for number in range(1, 6):
        await act(db, number)
    monkeypatch.setattr(audit, "_ROWS", 2)
    threads: list[threading.Thread] = []
    hashed = audit.chain_hash

    def chain_hash(previous: bytes, row: audit.HashedRow) -> bytes:
        threads.append(threading.current_thread())
        return hashed(previous, row)

    monkeypatch.setattr(audit, "chain_hash", chain_hash)
    assert await findings(db) == []
    assert len(threads) == 5
    assert threading.current_thread() not in threads


async def test_a_rolled_back_act_leaves_no_gap(db: Database) -> None:
    await act(db, 1)
    with pytest.raises(ZeroDivisionError):
        async with db.begin_transaction() as conn:
            await append_entry(
                conn, AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
            )
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
        async with db.acquire_connection() as conn:
            await conn.execute(statement)


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit.entry SET actor = 'bob' WHERE seq = 3", 3),
        ("UPDATE audit.entry SET after = NULL WHERE seq = 1", 1),
        ("DELETE FROM audit.entry WHERE seq = 3", 4),
        ("UPDATE audit.entry SET hash = sha256('x') WHERE seq = 3", 3),
        ("UPDATE audit.entry SET previous_hash = hash WHERE seq = 5", 5),
        ("UPDATE audit.entry SET address = '192.0.2.7' WHERE seq = 2", 2),
        ("UPDATE audit.entry SET address = '' WHERE seq = 4", 4),
    ],
)
async def test_tampering_shows(db: Database, statement: str, seq: int) -> None:
    for number in range(1, 6):
        with calling("ann", "192.0.2.1" if number == 4 else ""):
            await act(db, number)
    await tamper(db, statement)
    assert seq in [found for found, _ in await findings(db)]


@contextmanager
def calling(name: str, address: str) -> Iterator[None]:
    token = current_principal.set(Principal(name, (), address=address))
    try:
        yield
    finally:
        current_principal.reset(token)


async def test_an_act_has_the_address_of_who_called_for_it(db: Database) -> None:
    await act(db, 1)
    with calling("ann", "192.0.2.1"):
        await act(db, 2)
    with calling("bob", "192.0.2.2"):  # who asks for what goes on in the name of ann
        await act(db, 3)
    async with db.acquire_connection() as conn:
        acts = await read_entries(conn)
    assert [entry.address for entry in reversed(acts)] == ["", "192.0.2.1", ""]
    assert await findings(db) == []


async def test_rows_from_before_there_were_addresses_are_part_of_the_chain(db: Database) -> None:
    fields = ["00" * 32, 1, 5, "ann", "operator", "pv.update", "pvs/1", "r", None, '{"n":1}']
    digest = hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).digest()
    async with db.begin_transaction() as conn:
        await conn.execute(
            "INSERT INTO audit.entry (seq, at_ns, actor, role, action, object, request_id, before,"
            " after, previous_hash, hash)"
            " VALUES (1, 5, 'ann', 'operator', 'pv.update', 'pvs/1', 'r', NULL, $1, $2, $3)",
            *('{"n":1}', bytes(32), digest),
        )
    with calling("ann", "192.0.2.1"):
        await act(db, 2)
    await act(db, 3)
    assert await findings(db) == []


async def test_entries_are_read_newest_first(db: Database) -> None:
    for number in range(1, 4):
        await act(db, number)
    async with db.acquire_connection() as conn:
        found = await read_entries(conn, limit=2)
        assert [entry.seq for entry in found] == [3, 2]
        assert found[0].after == {"n": 3}
        for wanted, expected in (
            (AuditFilter(actor="bob"), []),
            (AuditFilter(actor="ann", action_prefix="pv."), [3, 2, 1]),
            (AuditFilter(action_prefix="pv_"), []),
            (AuditFilter(from_ns=2), [3, 2]),
            (AuditFilter(to_ns=3), [2, 1]),
        ):
            assert [entry.seq for entry in await read_entries(conn, wanted)] == expected
        assert [e.seq for e in await read_entries(conn, before_seq=2)] == [1]
        assert [e.seq for e in await read_entries(conn, AuditFilter(object="pvs/2"))] == [2]


async def test_what_a_newer_version_keeps_beside_is_no_obstacle(db: Database) -> None:
    await act(db, 1)
    async with db.begin_transaction() as conn:
        await conn.execute("ALTER TABLE audit.entry ADD COLUMN newer text NOT NULL DEFAULT ''")
    await act(db, 2)
    async with db.acquire_connection() as conn:
        assert [entry.seq for entry in await read_entries(conn)] == [2, 1]
    assert await findings(db) == []


async def test_it_needs_a_transaction(db: Database) -> None:
    with pytest.raises(Internal):
        async with db.acquire_connection() as conn:
            await append_entry(
                conn, AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
            )


@pytest.fixture
def anchor_file(tmp_path: Path) -> AnchorFile:
    make_keys(tmp_path / "keys", ["gateway", "somebody"])
    return AnchorFile.open_file(tmp_path / "anchors", tmp_path / "keys" / "gateway.pem")


async def problems(db: Database, anchors: AuditAnchors) -> list[str]:
    """What `VerifyChain` finds."""
    kept, broken = await anchors.load_anchors()
    async with db.acquire_connection() as conn:
        found = await verify_chain(conn, [anchor.head for anchor in kept])
    return broken + [finding.problem for finding in found]


async def test_an_end_that_was_cut_off_shows(
    db: Database, anchor_file: AnchorFile, caplog: pytest.LogCaptureFixture
) -> None:
    anchors = AuditAnchors(db, anchor_file, 60)
    with caplog.at_level(logging.INFO):
        await anchors.write_anchor()
        for number in range(1, 6):
            await act(db, number)
        await anchors.write_anchor()
        await anchors.write_anchor()
    assert [record.message for record in caplog.records] == [LOG_MESSAGE]
    assert (anchor_file.path.stat().st_mode & 0o777) == 0o600
    assert len((await anchors.load_anchors())[0]) == 1
    assert await problems(db, anchors) == []
    await tamper(db, "DELETE FROM audit.entry WHERE seq > 3")
    assert await findings(db) == [], "from inside it cannot be seen"
    assert await problems(db, anchors) == ["rows 4 to 5 were anchored and are cut off"]
    # nor does it help to let it grow again
    for number in range(6, 10):
        await act(db, number)
    assert await problems(db, anchors) == ["is not the row that was anchored"]
    caplog.clear()
    await anchors.write_anchor()
    assert "not the one that was anchored" in caplog.text
    # and a new process, which knows only the file, notices too
    again = AuditAnchors(db, anchor_file, 60)
    running = asyncio.create_task(again.run())
    await until(lambda: caplog.text.count("not the one that was anchored") == 2)
    running.cancel()
    await asyncio.wait({running})
    assert len((await anchors.load_anchors())[0]) == 1


async def test_an_anchor_that_we_did_not_set_shows(
    db: Database, anchor_file: AnchorFile, tmp_path: Path
) -> None:
    await act(db, 1)
    other = AnchorFile.open_file(anchor_file.path, tmp_path / "keys" / "somebody.pem")
    await AuditAnchors(db, other, 60).write_anchor()
    with anchor_file.path.open("a") as file:
        file.write('{"sequence": 1}\nno json\n[]\n')
    anchors = AuditAnchors(db, anchor_file, 60)
    await anchors.write_anchor()
    assert [problem.split(" of ")[0] for problem in await problems(db, anchors)] == [
        "line 1",
        "line 2",
        "line 3",
        "line 4",
    ]
    assert len((await anchors.load_anchors())[0]) == 1


async def test_without_a_file_the_log_has_it(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await act(db, 1)
    with caplog.at_level(logging.INFO):
        await AuditAnchors(db, None, 60).write_anchor()
    async with db.acquire_connection() as conn:
        head = await read_head(conn)
    assert head is not None
    (record,) = caplog.records
    assert (record.sequence, record.hash) == (head.seq, head.hash.hex())  # type: ignore[attr-defined]


async def test_a_file_that_cannot_be_written_is_tried_again(
    db: Database, anchor_file: AnchorFile, caplog: pytest.LogCaptureFixture
) -> None:
    await act(db, 1)
    anchor_file.path.mkdir()
    anchors = AuditAnchors(db, AnchorFile(anchor_file.path / "x" / "y", anchor_file._key), 0.02)
    running = asyncio.create_task(anchors.run())
    await until(lambda: "cannot be written" in caplog.text)
    (anchor_file.path / "x").mkdir()
    await until((anchor_file.path / "x" / "y").exists)
    running.cancel()
    await asyncio.wait({running})
    assert len((await anchors.load_anchors())[0]) == 1


async def test_a_line_that_was_torn_is_no_anchor_and_no_finding(
    db: Database, anchor_file: AnchorFile
) -> None:
    """By a full disk, or a kill in the middle of it: the next one takes its place."""
    await act(db, 1)
    anchors = AuditAnchors(db, anchor_file, 60)
    await anchors.write_anchor()
    whole = anchor_file.path.read_bytes()
    for torn in (whole[:1], whole[:-1]):
        anchor_file.path.write_bytes(whole + torn)
        assert await problems(db, anchors) == []
        await act(db, 2)
        await anchors.write_anchor()
        kept, broken = await anchors.load_anchors()
        assert (len(kept), broken, kept[-1].head.seq > 1) == (2, [], True)
        assert await problems(db, anchors) == []
        anchor_file.path.write_bytes(whole)


async def test_a_walk_says_how_far_it_looked(db: Database) -> None:
    async with db.acquire_connection() as conn:
        assert await walk_chain(conn) == ([], None)
        for number in range(1, 4):
            await act(db, number)
        assert await walk_chain(conn) == ([], await read_head(conn))
