from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from drey_core.errors import InvalidArgument
from drey_runtime.migrate import MigrationError, apply_migrations, check_migrations, main


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of the migrations of an importable package `someservice`."""
    folder = tmp_path / "someservice" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    (folder / "0001_first.sql").write_text("CREATE TABLE a (n int);\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    sys.modules.pop("someservice", None)


async def test_applied_once_and_in_order(empty_url: str, package: Path) -> None:
    (package / "0002_second.sql").write_text("ALTER TABLE a ADD m int; CREATE TABLE b (n int);")
    applied = await apply_migrations(empty_url, ["drey_runtime", "someservice"])
    assert [str(migration) for migration in applied] == [
        "drey_runtime 0001_runtime",
        "drey_runtime 0002_roles",
        "drey_runtime 0003_job_notices",
        "drey_runtime 0004_jobs_by_principal",
        "drey_runtime 0005_event_log",
        "drey_runtime 0006_audit_address",
        "someservice 0001_first",
        "someservice 0002_second",
    ]
    assert await apply_migrations(empty_url, ["drey_runtime", "someservice"]) == []
    await check_migrations(empty_url, ["drey_runtime", "someservice"])


async def test_many_at_once(empty_url: str, package: Path) -> None:
    results = await asyncio.gather(
        *(apply_migrations(empty_url, ["someservice"]) for _ in range(4))
    )
    assert sorted(len(applied) for applied in results) == [0, 0, 0, 1]


async def test_a_failing_file_leaves_nothing(empty_url: str, package: Path) -> None:
    (package / "0002_bad.sql").write_text("CREATE TABLE c (n int); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await apply_migrations(empty_url, ["someservice"])
    connection = await asyncpg.connect(empty_url)
    assert await connection.fetchval("SELECT to_regclass('a') IS NOT NULL")
    assert await connection.fetchval("SELECT to_regclass('c') IS NULL")
    await connection.close()
    (package / "0002_bad.sql").write_text("CREATE TABLE c (n int);")
    assert len(await apply_migrations(empty_url, ["someservice"])) == 1


async def test_a_changed_file_is_refused(empty_url: str, package: Path) -> None:
    await apply_migrations(empty_url, ["someservice"])
    (package / "0001_first.sql").write_text("CREATE TABLE a (n bigint);\n")
    with pytest.raises(MigrationError, match="someservice 0001_first was changed"):
        await apply_migrations(empty_url, ["someservice"])
    with pytest.raises(MigrationError, match="changed"):
        await check_migrations(empty_url, ["someservice"])


async def test_check_says_what_to_run(empty_url: str, package: Path) -> None:
    with pytest.raises(MigrationError, match=r"drey_runtime\.migrate --url URL someservice"):
        await check_migrations(empty_url, ["someservice"])


async def test_a_database_ahead_is_refused(empty_url: str, package: Path) -> None:
    (package / "0002_second.sql").write_text("CREATE TABLE b (n int);")
    await apply_migrations(empty_url, ["someservice"])
    (package / "0002_second.sql").unlink()
    with pytest.raises(MigrationError, match="newer version"):
        await check_migrations(empty_url, ["someservice"])


async def test_files_are_named_and_numbered(empty_url: str, package: Path) -> None:
    (package / "0003_gap.sql").write_text("SELECT 1;")
    with pytest.raises(InvalidArgument, match="numbered"):
        await apply_migrations(empty_url, ["someservice"])
    with pytest.raises(InvalidArgument, match="no package"):
        await apply_migrations(empty_url, ["no_such_package"])


def test_the_command(empty_url: str, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", empty_url, "--check", "someservice"]) == 1
    assert "lacks 1 migration" in capsys.readouterr().err
    assert main(["--url", empty_url, "someservice"]) == 0
    assert capsys.readouterr().out == "applied someservice 0001_first\n"
    assert main(["--url", empty_url, "--check", "someservice"]) == 0
