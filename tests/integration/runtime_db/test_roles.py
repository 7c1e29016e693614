"""What the role of the services may do: as much as the services need, and no more."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from drey_runtime.audit import AuditedAct, append_entry
from drey_runtime.clock import now_ns
from drey_runtime.database import Database
from drey_runtime.event_log import (
    EventKind,
    Resource,
    ResourceChange,
    forget_events,
    read_events,
    record_events,
)
from drey_runtime.idempotency import forget_old_answers
from drey_runtime.migrate import MigrationError, apply_migrations
from drey_stack import Postgres
from drey_stack.postgres import APPLICATION, OWNER

from .conftest import make_database

PACKAGES = ["drey_runtime", "drey_snapshot", "drey_restore", "drey_gateway"]
IMMUTABLE = {
    "audit.entry": "actor = 'somebody else'",
    "snapshot.page": "data = ''",
    "snapshot.snapshot": "time_ns = 0",
    "snapshot.manifest": "page_no = 0",
    "restore.plan": "digest = ''",
    "restore.plan_data": "items = ''",
    "restore.plan_item": "target = 0",
    "restore.restore_data": "outcome = ''",
    "restore.restore_item": "verdict = 0",
    "restore.journal": "rows = '{}'",
}


def statements() -> Iterator[str]:
    for table, change in IMMUTABLE.items():
        yield f"UPDATE {table} SET {change}"
        yield f"DELETE FROM {table}"
        yield f"TRUNCATE {table} CASCADE"


@pytest.fixture
async def name(postgres: Postgres) -> str:
    """A database with everything, granted to the application."""
    made = f"t_{uuid.uuid4().hex}"
    await apply_migrations(await make_database(postgres.url, made), PACKAGES, APPLICATION)
    return made


@pytest.fixture
async def application(
    postgres: Postgres, name: str
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(postgres.database_url(name, APPLICATION))
    yield connection
    await connection.close()


async def test_neither_role_is_a_superuser(postgres: Postgres, application) -> None:
    roles = await application.fetch(
        "SELECT rolname, rolsuper, rolcreaterole, rolbypassrls, rolreplication FROM pg_roles"
        " WHERE rolname = ANY($1)",
        [OWNER, APPLICATION],
    )
    assert sorted(row["rolname"] for row in roles) == [APPLICATION, OWNER]
    assert not any(any(tuple(row)[1:]) for row in roles)
    owner = await asyncpg.connect(postgres.url)
    for connection in (owner, application):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT pg_read_file('/etc/passwd')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")
    await owner.close()


async def test_what_is_immutable_refuses_the_application(application) -> None:
    for statement in statements():
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE audit.entry DISABLE TRIGGER USER",
        "DROP TABLE audit.entry",
        "CREATE TABLE snapshot.mine (a int)",
        "CREATE SCHEMA mine",
        "DELETE FROM idem.request",
        "DELETE FROM lease.epoch",
        "DELETE FROM event_log.event",
        "UPDATE event_log.event SET kind = 'updated'",
        "DELETE FROM event_log.forgotten",
        "UPDATE access.key SET roles = '{admin}'",
        "DELETE FROM catalog.pv",
        "INSERT INTO drey_meta.migration VALUES ('a', 1, 'b', 'c')",
    ],
)
async def test_what_no_service_does_is_refused(application, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.execute(statement)


async def test_the_application_uses_each_table(application) -> None:
    """A table that a migration adds has to be granted too: see `grants.sql` of its package."""
    without = await application.fetch(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v')"
        " AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
        " AND NOT has_table_privilege(c.oid, 'SELECT')"
    )
    assert [row[0] for row in without] == []


async def test_audit_and_forgetting_work_as_the_application(postgres: Postgres, name: str) -> None:
    async with (
        Database(postgres.database_url(name, APPLICATION)) as database,
        database.begin_transaction() as conn,
    ):
        assert (
            await append_entry(
                conn, AuditedAct(actor="a", role="", action="x", object="", at_ns=1), events=()
            )
            == 1
        )
        insert = "INSERT INTO idem.request VALUES ('m', 'p', $1, '', '', $2)"
        await conn.execute(insert, "old", 0)
        now_ns = await conn.fetchval("SELECT jobs.now_ns()")
        await conn.execute(insert, "young", now_ns)
        # what is younger than a day stays, whatever is asked
        assert await forget_old_answers(conn, now_ns=now_ns * 2, keep_ns=0) == 1


async def test_events_are_told_read_and_forgotten_as_the_application(
    postgres: Postgres, name: str
) -> None:
    change = ResourceChange(Resource.KEY, EventKind.CREATED, "id", "name")
    async with Database(postgres.database_url(name, APPLICATION)) as database:
        async with database.acquire_connection() as conn:
            start = (await read_events(conn, None, 1)).position
        async with database.begin_transaction() as conn:
            await record_events(conn, [change], principal="ann", role="admin", time_ns=1)
        async with database.begin_transaction() as conn:
            page = await read_events(conn, start, 10)
            assert [event.change for event in page.events] == [change]
            assert await forget_events(conn, now_ns=now_ns()) == 1


async def test_an_epoch_only_grows(postgres: Postgres, name: str) -> None:
    owner = await asyncpg.connect(postgres.database_url(name))
    await owner.execute("INSERT INTO lease.epoch VALUES ('shard-0', 7, 'a', 0)")
    for statement in ("UPDATE lease.epoch SET epoch = 7", "DELETE FROM lease.epoch"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.execute(statement)
    await owner.close()


async def test_grants_to_a_role_that_is_not_there(empty_url: str) -> None:
    with pytest.raises(MigrationError, match="no role nobody_made: make it first"):
        await apply_migrations(empty_url, ["drey_runtime"], "nobody_made")
