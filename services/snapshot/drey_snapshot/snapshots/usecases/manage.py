"""Everything about snapshots that is not their values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drey_core.errors import (
    Aborted,
    FailedPrecondition,
    Internal,
    NotFound,
    Reason,
    Unimplemented,
)
from drey_core.page_storage import hash_values, load_text, load_times, load_values
from drey_core.pages import PageHash, hash_bytes
from drey_runtime import audit
from drey_runtime.auth import Principal
from drey_runtime.clock import now_ns
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_snapshot.snapshots.adapters.store import SnapshotFilter, SnapshotStore
from drey_snapshot.snapshots.domain.records import GoldenMark, Labels, Record
from drey_snapshot.snapshots.domain.tree import NO_PAGE, decode_tree, digest_of
from drey_snapshot.snapshots.usecases.read import no_such_snapshot

_CHECKED_AT_ONCE = 512
_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Check:
    """What a verification found; `findings` empty: intact."""

    pages: int
    findings: list[str]


@dataclass(frozen=True, slots=True)
class _NotedChange:
    """A change of what is said of a snapshot, as the audit and those who follow are told."""

    action: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    events: Sequence[ResourceChange]


class Manager:
    """Lists, labels, deletes and verifies snapshots."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store

    async def get_snapshot(self, snapshot_id: str) -> Record:
        """A snapshot, also one that was deleted: its `delete_time_ns` says so. `NotFound`."""
        record = await self._store.by_id(snapshot_id)
        if record is None:
            raise no_such_snapshot(snapshot_id, "id")
        return record

    async def list_records(self, chosen: SnapshotFilter, limit: int) -> list[Record]:
        """Snapshots, newest first."""
        return await self._store.list_records(chosen, limit)

    async def count_records(self, chosen: SnapshotFilter) -> int:
        """How many there are of them on all pages; as many as an int32 holds, at most."""
        return await self._store.count_records(chosen, 2**31 - 1)

    async def update_snapshot(
        self,
        conn: Connection,
        snapshot_id: str,
        etag: str,
        changes: Mapping[str, Any],
        principal: Principal,
    ) -> Record:
        """Change some of the labels, by field name, in the caller's transaction.

        Raises `NotFound`, and `Aborted` where `etag` is given and not the current one. Audited.
        """
        record = await self._lock_snapshot(conn, snapshot_id, "snapshot.id")
        _check_etag(record, etag)
        before = {name: getattr(record.labels, name) for name in changes}
        if before == dict(changes):
            return record
        changed = replace(record.labels, **changes, version=record.labels.version + 1)
        event = _event_of(record, changed, EventKind.UPDATED)
        noted = _NotedChange("snapshot.update", before, changes, [event])
        await self._store_labels(conn, record, changed, noted, principal)
        return replace(record, labels=changed)

    async def set_golden(
        self,
        conn: Connection,
        snapshot_id: str,
        key: tuple[str, str],
        reason: str,
        etag: str,
        principal: Principal,
    ) -> tuple[Record, str]:
        """Mark as golden for `key`, (scope, label), in the caller's transaction. Audited.

        Gives the snapshot, and the id of the other that had the mark before, or none. Raises as
        `update`, and `Unimplemented` for a scope.
        """
        _check_scope(key[0])
        await self._store.lock_golden(conn)
        record = await self._lock_snapshot(conn, snapshot_id, "snapshot_id")
        _check_etag(record, etag)
        mark = GoldenMark(*key, principal.name, principal.roles_text, reason, now_ns())
        moved = await self._store.set_golden(conn, record.no, mark)
        before = {"snapshot_id": moved} if moved else {}
        after = _describe_mark(key, reason)
        events = [ResourceChange(Resource.GOLDEN, EventKind.CREATED, snapshot_id, key[1])]
        if moved and moved != snapshot_id:
            events.insert(0, ResourceChange(Resource.GOLDEN, EventKind.DELETED, moved, key[1]))
        noted = _NotedChange("snapshot.golden.set", before, after, events)
        return await self._remark_golden(conn, record, noted, principal), moved

    async def clear_golden(
        self,
        conn: Connection,
        snapshot_id: str,
        key: tuple[str, str],
        reason: str,
        etag: str,
        principal: Principal,
    ) -> Record:
        """Take a mark away, in the caller's transaction. Audited. Raises as `set_golden`."""
        _check_scope(key[0])
        await self._store.lock_golden(conn)
        record = await self._lock_snapshot(conn, snapshot_id, "snapshot_id")
        _check_etag(record, etag)
        if key not in [(mark.scope, mark.label) for mark in record.golden]:
            raise NotFound(
                f"snapshot {snapshot_id} is not golden under the label {key[1]!r}",
                field="label",
                metadata={"resource": "golden", "id": key[1]},
            )
        await self._store.clear_golden(conn, *key)
        before = _describe_mark(key, reason)
        events = [ResourceChange(Resource.GOLDEN, EventKind.DELETED, snapshot_id, key[1])]
        noted = _NotedChange("snapshot.golden.clear", before, {}, events)
        return await self._remark_golden(conn, record, noted, principal)

    async def _remark_golden(
        self, conn: Connection, record: Record, noted: _NotedChange, principal: Principal
    ) -> Record:
        await self._store_labels(conn, record, record.labels, noted, principal)
        return await self._lock_snapshot(conn, record.facts.id, "snapshot_id")

    async def delete_snapshot(
        self, conn: Connection, snapshot_id: str, etag: str, principal: Principal
    ) -> Record:
        """Delete softly, in the caller's transaction. Audited.

        Raises `NotFound`, `Aborted` for an etag that is not the current one, `FailedPrecondition`
        PROTECTED for a golden one, and `PermissionDenied` where somebody else took it and the
        caller may not delete those.
        """
        record = await self._lock_snapshot(conn, snapshot_id, "id")
        _check_etag(record, etag)
        if record.golden:
            raise FailedPrecondition(
                f"snapshot {snapshot_id} is golden: take its marks away before deleting it",
                reason=Reason.PROTECTED,
                metadata={"resource": "snapshot", "id": snapshot_id},
            )
        if record.facts.principal != principal.name:
            principal.require_permission(
                "snapshot.snapshots.delete_any",
                f"snapshot {snapshot_id} was taken by {record.facts.principal}; deleting what"
                " others took",
            )
        gone = replace(record.labels, delete_time_ns=now_ns(), version=record.labels.version + 1)
        after = {"delete_time_ns": gone.delete_time_ns}
        event = _event_of(record, gone, EventKind.DELETED)
        noted = _NotedChange("snapshot.delete", {}, after, [event])
        await self._store_labels(conn, record, gone, noted, principal)
        return replace(record, labels=gone)

    async def undelete_snapshot(
        self, conn: Connection, snapshot_id: str, principal: Principal
    ) -> Record:
        """Bring back a deleted one, in the caller's transaction; audited. `NotFound`."""
        record = await self._store.lock_snapshot(conn, snapshot_id)
        if record is None:
            raise no_such_snapshot(snapshot_id, "id")
        if not record.labels.delete_time_ns:
            return record
        back = replace(record.labels, delete_time_ns=0, version=record.labels.version + 1)
        before = {"delete_time_ns": record.labels.delete_time_ns}
        event = _event_of(record, back, EventKind.UNDELETED)
        noted = _NotedChange("snapshot.undelete", before, {}, [event])
        await self._store_labels(conn, record, back, noted, principal)
        return replace(record, labels=back)

    async def _lock_snapshot(self, conn: Connection, snapshot_id: str, field: str) -> Record:
        record = await self._store.lock_snapshot(conn, snapshot_id)
        if record is None or record.labels.delete_time_ns:
            raise no_such_snapshot(snapshot_id, field)
        return record

    async def _store_labels(
        self,
        conn: Connection,
        record: Record,
        labels: Labels,
        noted: _NotedChange,
        principal: Principal,
    ) -> None:
        await self._store.replace_labels(conn, record.no, labels)
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=principal.name,
                role=principal.roles_text,
                action=noted.action,
                object=f"snapshots/{record.facts.id}",
                before=noted.before,
                after=noted.after,
                at_ns=now_ns(),
                request_id=principal.request_id,
            ),
            events=noted.events,
        )

    async def verify_snapshot(self, snapshot_id: str) -> Check:
        """Read every page of a snapshot from the database and hash it again; past all caches."""
        record = await self.get_snapshot(snapshot_id)
        manifest = await self._store.read_manifest(record.no)
        findings: list[str] = []
        digest = digest_of([(e.page, e.value_hash) for e in manifest])
        if digest != record.facts.digest:
            findings.append(
                f"the digest is {record.facts.digest.hex()}, that of the manifest {digest.hex()}"
            )
        tree = record.facts.directory_hash
        directory, trees = await self._directory_hashes(tree, findings)
        groups = (
            ("values", [e.value_hash for e in manifest]),
            ("times", [e.times_hash for e in manifest]),
            ("directory", directory),
            ("selector", [h for h in [record.facts.selector_hash] if h is not None]),
        )
        checked = trees
        for what, hashes in groups:
            unique = list(dict.fromkeys(hashes))
            for first in range(0, len(unique), _CHECKED_AT_ONCE):
                part = unique[first : first + _CHECKED_AT_ONCE]
                data = await self._store.page_data_or_less(part)
                findings += await asyncio.to_thread(_check_pages, what, part, data)
            checked += len(unique)
        more = len(findings) - _FINDINGS
        if more > 0:
            findings = [*findings[:_FINDINGS], f"and {more} more"]
        return Check(checked, findings)

    async def _directory_hashes(
        self, tree: PageHash, findings: list[str]
    ) -> tuple[list[PageHash], int]:
        data = await self._store.page_data_or_less([tree])
        bad_pages = _check_pages("directory tree", [tree], data)
        findings += bad_pages
        if bad_pages:
            return [], 1
        (raw,) = load_text([data[tree]])
        entries = decode_tree(raw)
        return [h for e in entries for h in (e.catalog, e.metadata) if h != NO_PAGE], 1


def _check_scope(scope: str) -> None:
    if scope:
        raise Unimplemented(
            "scope: saved scopes are not built in this version; leave it empty for the whole"
            " catalog, and tell several golden snapshots apart by label",
            field="scope",
        )


def _event_of(record: Record, labels: Labels, kind: EventKind) -> ResourceChange:
    return ResourceChange(Resource.SNAPSHOT, kind, record.facts.id, labels.title, etag=labels.etag)


def _describe_mark(key: tuple[str, str], reason: str) -> dict[str, str]:
    return {"scope": key[0], "label": key[1], "reason": reason}


def _check_etag(record: Record, etag: str) -> None:
    if etag and etag != record.labels.etag:
        raise Aborted(
            f"snapshot {record.facts.id} was changed since it was read; read it again",
            metadata={"etag": record.labels.etag},
        )


def _check_pages(
    what: str, hashes: Sequence[PageHash], data: Mapping[PageHash, bytes]
) -> list[str]:
    """Hash stored pages again; what is wrong with them."""
    return [problem for h in hashes if (problem := _check_page(what, h, data.get(h)))]


def _check_page(what: str, expected: PageHash, blob: bytes | None) -> str:
    if blob is None:
        return f"{what} page {expected.hex()} is not there"
    try:
        if what == "values":
            actual = hash_values(*load_values([blob])[0])
        elif what == "times":
            actual = hash_bytes(load_times([blob])[0])
        else:
            actual = hash_bytes(load_text([blob])[0])
    except Internal as error:
        return f"{what} page {expected.hex()}: {error.message}"
    return "" if actual == expected else f"{what} page {expected.hex()} has another content"
