"""Plain SQL migrations: `NNNN_name.sql` in the folder `migrations` of each package.

    python -m drey_runtime.migrate --url URL --application-role drey_app \\
        drey_runtime drey_snapshot drey_restore drey_gateway

The URL is that of the owner of the schemas. The role as which the services connect is granted what
`grants.sql` of each package says, and no more, each time anew.

Packages are migrated in the order given, each file in one transaction of its own, everything under
one advisory lock, so that several may start it at once. `drey_meta.migration` says what was
applied, with the checksum of the file: one that was changed afterwards is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from drey_core.errors import DreyError, FailedPrecondition, InvalidArgument
from drey_runtime.database import Connection, guard_connection, server_settings

_LOCK = 0x64726579_6D696772  # "dreymigr"
_LOCK_WAIT_S = 120
_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_META = """
CREATE SCHEMA IF NOT EXISTS drey_meta;
CREATE TABLE IF NOT EXISTS drey_meta.migration (
    package text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, version)
);
"""


class MigrationError(FailedPrecondition):
    """The database's schema is not the one that this code needs."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    package: str
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        """As people write it: package and file."""
        return f"{self.package} {self.version:04d}_{self.name}"


def migrations_of(package: str) -> list[Migration]:
    """The package's files by version. Reads them, without importing the package.

    Empty where there is no such folder. Raises InvalidArgument for an unknown package, a file
    with another kind of name, or a gap in the versions.
    """
    folder = _folder_of(package) / "migrations"
    migrations = [_read_migration(package, path) for path in sorted(folder.glob("*.sql"))]
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(migrations) + 1)):
        raise InvalidArgument(f"migrations of {package} are not numbered 1, 2, 3 …: {versions}")
    return migrations


def grants_of(package: str) -> str:
    """The package's grants, for the role `:application`; empty where it has none."""
    path = _folder_of(package) / "grants.sql"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidArgument(f"no package {package!r} is installed", field="packages")
    return Path(next(iter(spec.submodule_search_locations)))


def _read_migration(package: str, path: Path) -> Migration:
    match = _FILE.match(path.name)
    if match is None:
        raise InvalidArgument(f"{package}: {path.name} is not named NNNN_name.sql")
    return Migration(package, int(match[1]), match[2], path.read_text(encoding="utf-8"))


async def apply_migrations(
    url: str, packages: Sequence[str], application_role: str = ""
) -> list[Migration]:
    """Apply what is missing, and grant what is needed; returns the migrations applied.

    Nothing of a failing file stays. Raises `Unavailable` where Postgres is away, MigrationError for
    a changed file, and asyncpg's error where the SQL is wrong. Waits up to two minutes for another
    run to end.
    """
    wanted = [migration for package in packages for migration in migrations_of(package)]
    with guard_connection():
        connection = await asyncpg.connect(
            url,
            timeout=10,
            command_timeout=600,
            server_settings=server_settings("drey-migrate", statement_s=600),
        )
        try:
            applied = await _apply_locked(connection, packages, wanted)
            if application_role:
                await _grant_role(connection, packages, application_role)
            return applied
        finally:
            await connection.close(timeout=3)


async def _apply_locked(
    connection: Connection, packages: Sequence[str], wanted: list[Migration]
) -> list[Migration]:
    await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    await connection.execute(_META)
    applied = await _read_applied(connection, packages)
    missing = _missing_migrations(applied, wanted)
    for migration in missing:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO drey_meta.migration (package, version, name, checksum)"
                " VALUES ($1, $2, $3, $4)",
                migration.package,
                migration.version,
                migration.name,
                migration.checksum,
            )
    return missing


async def _grant_role(connection: Connection, packages: Sequence[str], role: str) -> None:
    name = await connection.fetchval("SELECT quote_ident($1::text)", role)
    if await connection.fetchval("SELECT to_regrole($1) IS NULL", name):
        raise MigrationError(
            f"the database has no role {role}: make it first, CREATE ROLE {name} LOGIN PASSWORD …"
        )
    async with connection.transaction():
        for package in packages:
            await connection.execute(grants_of(package).replace(":application", name))


async def _read_applied(
    connection: Connection, packages: Sequence[str]
) -> dict[tuple[str, int], tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT package, version, name, checksum FROM drey_meta.migration"
        " WHERE package = ANY($1::text[])",
        list(packages),
    )
    return {(row["package"], row["version"]): (row["name"], row["checksum"]) for row in rows}


def _missing_migrations(
    applied: dict[tuple[str, int], tuple[str, str]], wanted: list[Migration]
) -> list[Migration]:
    """What is not applied; MigrationError where the database has other things than the files."""
    known_migrations = {(migration.package, migration.version): migration for migration in wanted}
    for key, (name, checksum) in sorted(applied.items()):
        migration = known_migrations.get(key)
        if migration is None:
            raise MigrationError(
                f"the database has migration {key[0]} {key[1]:04d}_{name}, which this version does"
                " not know: run a newer version of Drey"
            )
        if migration.checksum != checksum:
            raise MigrationError(
                f"migration {migration} was changed after it had been applied: restore the file"
                " and put the change into a new one"
            )
    return [migration for key, migration in known_migrations.items() if key not in applied]


async def check_connection(connection: Connection, packages: Sequence[str]) -> None:
    """Raise MigrationError, saying what to run, unless the schema is exactly that of the files."""
    wanted = [migration for package in packages for migration in migrations_of(package)]
    with guard_connection():
        there = await connection.fetchval("SELECT to_regclass('drey_meta.migration') IS NOT NULL")
        applied = await _read_applied(connection, packages) if there else {}
    missing = _missing_migrations(applied, wanted)
    if missing:
        raise MigrationError(
            f"the database lacks {len(missing)} migration(s), the first is {missing[0]}: run"
            f" python -m drey_runtime.migrate --url URL {' '.join(packages)}"
        )


async def check_migrations(url: str, packages: Sequence[str]) -> None:
    """The same on a connection of its own. Also raises `Unavailable`."""
    with guard_connection():
        connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
        try:
            await check_connection(connection, packages)
        finally:
            await connection.close(timeout=3)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit status: 0 done, 1 refused, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m drey_runtime.migrate", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("DREY_POSTGRES_URL"))
    parser.add_argument(
        "--application-role", default="", help="role of the services, to grant what they need"
    )
    parser.add_argument("--check", action="store_true", help="only say whether all is applied")
    parser.add_argument("packages", nargs="+")
    options = parser.parse_args(argv)
    if not options.url:
        parser.error("--url or DREY_POSTGRES_URL is needed")
    try:
        if options.check:
            asyncio.run(check_migrations(options.url, options.packages))
            return 0
        for migration in asyncio.run(
            apply_migrations(options.url, options.packages, options.application_role)
        ):
            sys.stdout.write(f"applied {migration}\n")
    except DreyError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except asyncpg.PostgresError as error:
        sys.stderr.write(f"the database refused a migration: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
