"""Names that look the same and were two, from before there was one form of them."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from drey_runtime import migrate
from tests.integration.snapshot.conftest import Parts

ONE, TWO = "Ger\u00e4t", "Gera\u0308t"
PACKAGES = ["drey_runtime", "drey_snapshot"]


async def test_of_two_names_that_look_the_same_one_is_told_apart(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(parts.postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = parts.postgres.database_url(name)
    with monkeypatch.context() as patch:
        all_of = migrate.migrations_of
        patch.setattr(
            migrate,
            "migrations_of",
            lambda package: all_of(package)[:7] if package == "drey_snapshot" else all_of(package),
        )
        await migrate.apply_migrations(url, PACKAGES)
    connection = await asyncpg.connect(url)
    try:
        ids = sorted(uuid.uuid4() for _ in range(5))
        for number, device in enumerate((ONE, TWO, "plain"), 1):
            await connection.execute(
                "INSERT INTO catalog.pv VALUES ($1, $2, $3, $4, '', 1, false, $1, 0, $3, '', 0, 0,"
                " 0, 0, NULL, '{}', 1, 1, 1)",
                number,
                uuid.uuid4(),
                f"{TWO}{number}",
                device,
            )
        for group_id, group in zip(ids[:2], (ONE, TWO), strict=True):
            await connection.execute(
                "INSERT INTO catalog.tag_group VALUES ($1, $2, $3, '', 1)",
                *(group_id, group, group.lower()),
            )
        for number, (tag_id, of_group, tag) in enumerate(
            ((ids[2], ids[0], TWO), (ids[3], ids[0], ONE), (ids[4], ids[1], TWO)), 1
        ):
            await connection.execute(
                "INSERT INTO catalog.tag VALUES ($1, $2, $3, $4, $5)",
                *(number, tag_id, of_group, tag, tag.lower()),
            )
        before = await connection.fetchval("SELECT version FROM catalog.version")

        await migrate.apply_migrations(url, PACKAGES)

        pvs = await connection.fetch("SELECT name, device, version FROM catalog.pv ORDER BY number")
        assert [row["name"] for row in pvs] == [f"{TWO}{number}" for number in (1, 2, 3)]
        assert [row["device"] for row in pvs] == [ONE, ONE, "plain"]
        # who follows the catalog hears of the one that changed
        assert [row["version"] for row in pvs] == [1, before + 1, 1]
        assert await connection.fetchval("SELECT version FROM catalog.version") == before + 1
        groups = await connection.fetch("SELECT name, folded FROM catalog.tag_group ORDER BY id")
        assert [row["name"] for row in groups] == [ONE, f"{ONE} {ids[1]}"]
        tags = await connection.fetch("SELECT name, folded FROM catalog.tag ORDER BY number")
        assert [row["name"] for row in tags] == [ONE, f"{ONE} {ids[3]}", ONE]
        assert all(row["folded"] == row["name"].lower() for row in (*groups, *tags))
    finally:
        await connection.close()
