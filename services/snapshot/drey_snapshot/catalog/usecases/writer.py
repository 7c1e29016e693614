"""One change of the catalog: lock, decide, write, audit, commit, announce."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drey_runtime import audit
from drey_runtime.auth import current_principal
from drey_runtime.clock import new_id, new_ids, now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.idempotency import run_once
from drey_runtime.interceptor import permission_of
from drey_snapshot.catalog.adapters.writing import read_counters, write_changes
from drey_snapshot.catalog.domain.changes import CatalogState, Changes
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.usecases.events import events_of
from drey_snapshot.catalog.usecases.grants import require_granted_changes
from drey_snapshot.catalog.view import CatalogView

SERVICE = "drey.catalog.v1.CatalogService"


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """Which request it is: the method's name, its `request_id`, and its bytes without that."""

    method: str
    request_id: str
    request: bytes
    service: str = SERVICE


@dataclass(frozen=True, slots=True)
class Act:
    """What was done, for the audit, and the encoded response. `action` empty: nothing to note."""

    response: bytes
    action: str
    object: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What a decision is made in: the edit, the view that it begins from, the transaction."""

    edit: Edit
    view: CatalogView
    conn: Connection


Decide = Callable[[Scene], Awaitable[Act]]


class CatalogWriter:
    """Runs decisions one after the other, each in a transaction of its own."""

    def __init__(self, db: Database, catalog: LiveCatalog) -> None:
        self._db, self._catalog = db, catalog
        # changes take their turn here rather than on the pool's connections, which others need
        self._turn = asyncio.Lock()

    async def write_once(self, call: RequestIdentity, decide: Decide) -> bytes:
        """The response: of `decide`, or of the first call with this request id.

        Effects in this order: the catalog's lock, the decision, rows, audit, commit, event. An
        error in any of them leaves nothing behind. Raises `Unavailable` while Postgres is away,
        or where another change holds the lock for longer than commands may take.
        """
        principal = current_principal.get()
        written: Changes | None = None
        async with (
            self._turn,
            self._db.begin_transaction() as conn,
            run_once(conn, call.method, principal.name, call.request_id, call.request) as slot,
        ):
            if slot.seen is None:
                view = await self._catalog.locked_view(conn)
                state = CatalogState(
                    view.version,
                    view.table,
                    view.tags,
                    view.row_by_name,
                    view.row_by_id,
                    view.policies,
                )
                edit = Edit(state, await read_counters(conn), now_ns(), new_id, new_ids)
                act = await decide(Scene(edit, view, conn))
                changes = edit.made_changes()
                if changes.any:
                    permission = permission_of(f"/{call.service}/{call.method}")
                    require_granted_changes(principal, permission, changes, state, edit.tags)
                    await write_changes(conn, changes)
                    written = changes
                    await audit.append_entry(
                        conn,
                        audit.AuditedAct(
                            actor=principal.name,
                            role=principal.roles_text,
                            action=act.action,
                            object=act.object,
                            before=act.before,
                            after=act.after,
                            at_ns=changes.now_ns,
                            request_id=call.request_id,
                        ),
                        events=events_of(changes, state),
                    )
                slot.response = act.response
        if written is not None:
            if written.only_adds:
                self._catalog.note_written(view.version, written.version, written.added)
            await self._catalog.announce_version(written.version)
        assert slot.response is not None, "decide gave one, or the first call did"
        return slot.response
