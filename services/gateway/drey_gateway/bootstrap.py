"""Make the first admin key and print it, once.

    python -m drey_gateway.bootstrap --postgres-url URL [--name admin] [--force]

Refuses when an admin key lives, unless `--force` says so. The database must be migrated.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from drey_core.errors import DreyError, FailedPrecondition, Reason
from drey_core.permissions import ADMIN
from drey_gateway.adapters import keys as table
from drey_gateway.domain.keys import SECRET_BYTES, Key, make_secret
from drey_runtime import audit, migrate
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import open_pool
from drey_runtime.event_log import EventKind, Resource, ResourceChange

_ACTOR = "bootstrap"


async def make_first_key(url: str, name: str = "admin", *, force: bool = False) -> str:
    """The key as its holder sends it. Raises `DreyError` (PROTECTED, ALREADY_EXISTS)."""
    secret, prefix, digest = make_secret(os.urandom(SECRET_BYTES))
    now = now_ns()
    key = Key(new_id(), name, (ADMIN,), prefix, digest, now, 0, 0, _ACTOR)
    async with open_pool(url, name="drey-bootstrap", max_size=1) as pool, pool.acquire() as conn:
        await migrate.check_connection(conn, ("drey_runtime", "drey_gateway"))
        async with conn.transaction():
            if await table.living_admins(conn, now) and not force:
                raise FailedPrecondition(
                    "there is an admin key already; make further ones with it, or say --force",
                    reason=Reason.PROTECTED,
                )
            await table.insert_key(conn, key)
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=_ACTOR,
                    role=ADMIN,
                    action="access.key.create",
                    object=f"keys/{key.id}",
                    after={"name": name, "roles": [ADMIN], "prefix": prefix},
                    at_ns=now,
                ),
                events=[ResourceChange(Resource.KEY, EventKind.CREATED, key.id, name)],
            )
    return secret


def main(argv: Sequence[str] | None = None) -> int:
    """The command: the key on stdout. Exit status 1 with the reason on stderr when refused."""
    parser = argparse.ArgumentParser(prog="python -m drey_gateway.bootstrap", description=__doc__)
    parser.add_argument("--postgres-url", default=os.environ.get("DREY_POSTGRES_URL"))
    parser.add_argument("--name", default="admin", help="name of its holder")
    parser.add_argument("--force", action="store_true", help="even if an admin key lives")
    options = parser.parse_args(argv)
    if not options.postgres_url:
        parser.error("--postgres-url or DREY_POSTGRES_URL is needed")
    try:
        secret = asyncio.run(
            make_first_key(options.postgres_url, options.name, force=options.force)
        )
    except DreyError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{secret}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
