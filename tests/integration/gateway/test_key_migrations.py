"""Keys made before there were permissions."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from drey_core.permissions import permissions_of
from drey_gateway.adapters import keys as table
from drey_runtime import migrate
from tests.integration.gateway.conftest import make_database


async def test_an_old_key_keeps_what_it_could_do_and_gains_nothing(
    postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await make_database(postgres, f"t_{uuid.uuid4().hex}")
    with monkeypatch.context() as patch:
        all_of = migrate.migrations_of
        patch.setattr(
            migrate,
            "migrations_of",
            lambda package: all_of(package)[:1] if package == "drey_gateway" else all_of(package),
        )
        await migrate.apply_migrations(url, ["drey_runtime", "drey_gateway"])
    connection = await asyncpg.connect(url)
    try:
        for role in (1, 2, 3, 4):
            await connection.execute(
                "INSERT INTO access.key (id, name, role, prefix, secret_sha256, create_time_ns,"
                " created_by) VALUES ($1, $2, $3, 'x', $4, 1, 'x')",
                uuid.uuid4(),
                f"old {role}",
                role,
                bytes([role]) * 32,
            )
        await migrate.apply_migrations(url, ["drey_runtime", "drey_gateway"])
        found = {key.name: key.roles for key in await table.all_keys(connection)}
        assert found == {
            "old 1": ("viewer",),
            "old 2": ("operator", "editor"),
            "old 3": ("operator", "editor", "restorer"),
            "old 4": ("admin",),
        }
        # what was an admin's alone, and what a restorer had and an operator had not
        for only in ("snapshot.snapshots.delete_any", "access.keys.create", "audit.events.list"):
            assert only not in permissions_of(found["old 3"])
        for only in ("restore.plans.execute", "job.jobs.cancel_any"):
            assert only not in permissions_of(found["old 2"])
        assert await table.living_admins(connection, 2) == 1
    finally:
        await connection.close()
