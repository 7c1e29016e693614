"""Taking a snapshot: gather the values, pass the gates, store everything in one transaction."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from drey_core.errors import InvalidArgument, Unavailable, Unimplemented
from drey_core.page_storage import store_text
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SHIFT, PageHash, Pages, hash_bytes
from drey_core.selector import Selector
from drey_core.values import I8, KIND_NONE, Columns, Kind, State
from drey_runtime import audit
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import Connection
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.waiting import choose_off_loop, run_together
from drey_snapshot.catalog.live_catalog import LiveCatalog
from drey_snapshot.catalog.view import CatalogView
from drey_snapshot.snapshots.adapters.library import Library
from drey_snapshot.snapshots.adapters.live import ImageReading, LiveSource
from drey_snapshot.snapshots.adapters.metadata import KnownMetadata, MetadataSource
from drey_snapshot.snapshots.adapters.reader import CaReader
from drey_snapshot.snapshots.adapters.store import SnapshotStore
from drey_snapshot.snapshots.domain.chosen import encode_selector
from drey_snapshot.snapshots.domain.gates import (
    Mask,
    in_scope,
    require_coverage,
    require_fresh,
    slots_of,
)
from drey_snapshot.snapshots.domain.lru import Lru
from drey_snapshot.snapshots.domain.order import TakeOrder
from drey_snapshot.snapshots.domain.prepared import Prepared, prepare_pages
from drey_snapshot.snapshots.domain.records import Facts, Labels, Record, ShardStamp, Source
from drey_snapshot.snapshots.domain.titles import fill_title, title_values
from drey_snapshot.snapshots.domain.tree import NO_PAGE, TreeEntry, encode_tree
from drey_snapshot.snapshots.domain.views import DirectoryView, Names, ValuesView
from drey_snapshot.snapshots.usecases.forced_reads import ForcedReads

log = logging.getLogger(__name__)

Finish = Callable[[Connection, str], Awaitable[object]]
"""What else belongs into the transaction that stores a snapshot, by its id."""
_REQUIRED = "spec.gates.required"
_KNOWN_HASHES = 40_000
"""Some 250 bytes each. What is forgotten is sent to Postgres once more, which has it already."""
_SCOPES = 4


@dataclass(frozen=True, slots=True)
class Maker:
    """For whom, and by which job, a snapshot is taken."""

    job_id: str
    principal: str
    role: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """PVs chosen: rows of the directory, their channels and the pages of these, all ascending.

    `slots` are those of the channels, shape (pages, 256); `required` the rows that must be there.
    """

    view: CatalogView
    rows: I8
    channels: I8
    page_numbers: I8
    slots: Mask
    required: I8


@dataclass(frozen=True, slots=True)
class Gathered:
    """Values of a scope and where they came from."""

    pages: Pages
    time_ns: int
    shards: tuple[ShardStamp, ...]
    read: Columns = field(default_factory=lambda: Columns.empty_columns(0))
    """What was read of the channels themselves."""

    @property
    def read_enums(self) -> Columns:
        """Numbers of enums among it."""
        return self.read.take_rows(self.read.kind == Kind.ENUM)


@dataclass(frozen=True, slots=True)
class GatedValues:
    """Values that passed the gates, hashed, and what was known of their channels then."""

    begin_ns: int
    scope: Scope
    time_ns: int
    shards: tuple[ShardStamp, ...]
    prepared: Prepared
    metadata: KnownMetadata


@dataclass(frozen=True, slots=True)
class _Tree:
    """What a snapshot has beside values: the hashes of its directory's tree and of its selector.

    `pages` are all of these pages by hash, and `stored` gives the stored form of some of them.
    """

    hash: PageHash
    chosen: PageHash
    entries: tuple[TreeEntry, ...]
    pages: frozenset[PageHash]
    stored: Callable[[Collection[PageHash]], dict[PageHash, bytes]]


class Taker:
    """Takes snapshots. One may be used for several at a time."""

    def __init__(
        self,
        store: SnapshotStore,
        library: Library,
        catalog: LiveCatalog,
        live: LiveSource,
        metadata: MetadataSource,
        reader: CaReader,
    ) -> None:
        self._store, self._library = store, library
        self._catalog, self._live, self._metadata = catalog, live, metadata
        self._reader, self._forced = reader, ForcedReads(reader, live)
        # Hashes believed to be in the database, because a transaction that stored or met them was
        # committed: their pages need not be compressed and sent. Each snapshot asks all the same
        # whether they are there, for a database can come back older than it was.
        self._known: Lru[PageHash, None] = Lru(_KNOWN_HASHES)
        self._names: Names | None = None
        # Of one version of the catalog, for a scope keeps that version in memory.
        self._scopes: Lru[tuple[Selector, Selector | None], Scope] = Lru(_SCOPES)
        self._scopes_version = 0

    async def check_order(self, order: TakeOrder) -> Scope:
        """Refuse what can be refused before a job is made; the PVs chosen."""
        if order.source not in (Source.IMAGE, Source.READ, Source.IMAGE_THEN_READ):
            raise Unimplemented(
                f"spec.source: snapshots from {order.source.name} are not built in this version",
                field="spec.source",
            )
        scope = await self.order_scope(order)
        if len(scope.rows) == 0:
            raise InvalidArgument(
                "spec.selector: chooses no PV, so there is nothing to take",
                field="spec.selector",
            )
        return scope

    async def order_scope(self, order: TakeOrder) -> Scope:
        """The PVs of an order; kept for a while, as the same are taken again and again."""
        view = await self._catalog.current_view()
        return await self._scope_of(view, order.selector, order.gates.required)

    async def gather_values(self, order: TakeOrder, scope: Scope) -> GatedValues:
        """Gather the values, pass the gates, and hash. Cancelling it leaves nothing behind.

        Raises `FailedPrecondition` where a gate refuses, `Unavailable` where a part is away.
        """
        begin = time.monotonic_ns()
        gathered = await self._gather_values(order, scope)
        # after the values: a monitor writes a value when the labels that it has are written
        metadata = await (
            self._metadata.current_metadata()
            if gathered.shards
            else self._metadata.current_or_cached()
        )
        metadata = await self._forced.check_labels(
            metadata, gathered.read_enums, order.read_timeout_s
        )
        require_coverage(
            gathered.pages,
            scope.view.directory,
            scope.rows,
            scope.required,
            order.gates.max_missing,
            "" if order.source == Source.IMAGE else self._reader.why_refused(scope.channels),
        )
        # In one thread: hashing gives up the GIL a page at a time, and two that take it in turns
        # are no faster than one.
        prepared = await asyncio.to_thread(
            prepare_pages, gathered.pages, gathered.time_ns, self._known.__contains__
        )
        return GatedValues(begin, scope, gathered.time_ns, gathered.shards, prepared, metadata)

    async def store_reading(
        self, order: TakeOrder, reading: GatedValues, maker: Maker, finish: Finish
    ) -> Record:
        """Store what was read, once a job: again, it gives the snapshot that the job made before.

        `finish` is called in the transaction, near its end. Cancelling it leaves nothing behind.
        """
        scope, prepared, metadata = reading.scope, reading.prepared, reading.metadata
        tree = self._build_tree(scope, metadata, order.selector)
        facts = Facts(
            id=new_id(),
            job_id=maker.job_id,
            time_ns=reading.time_ns,
            digest=prepared.digest,
            directory_hash=tree.hash,
            catalog_version=scope.view.version,
            source=order.source,
            principal=maker.principal,
            role=maker.role,
            scope=order.selector.scope,
            pv_count=len(scope.rows),
            counts=prepared.counts,
            skew=prepared.skew,
            shards=reading.shards,
            duration_ns=time.monotonic_ns() - reading.begin_ns,
            selector_hash=tree.chosen,
        )
        values = title_values(
            reading.time_ns, order.selector.scope, order.source.text, len(scope.rows)
        )
        title = fill_title(order.title_template, values)
        labels = Labels(title, order.comment, order.labels)
        record = await self._insert_snapshot(facts, labels, prepared, tree, maker, finish)
        if record is None:
            return await self._made_before(maker.job_id)
        self._remember_stored(record, prepared, tree, scope, metadata)
        return record

    async def made_by(self, job_id: str) -> Record | None:
        """The snapshot that a job made; None where it has made none."""
        return await self._store.by_job(job_id)

    # --- gathering ---

    async def _scope_of(
        self, view: CatalogView, selector: Selector, required: Selector | None = None
    ) -> Scope:
        if self._scopes_version != view.version:
            self._scopes, self._scopes_version = Lru(_SCOPES), view.version
        scope = self._scopes.get((selector, required))
        if scope is None:
            scope = await choose_off_loop(
                lambda: self._find_scope(view, selector, required),
                takes_long=selector.takes_long or (required is not None and required.takes_long),
            )
            if self._scopes_version == view.version:
                self._scopes.put_value((selector, required), scope)
        return scope

    @staticmethod
    def _find_scope(view: CatalogView, selector: Selector, required: Selector | None) -> Scope:
        rows, _ = view.select_numbers(selector, path="spec.selector")
        directory = view.directory
        both = np.concatenate([directory.setpoint_channel[rows], directory.readback_channel[rows]])
        channels = np.sort(both[both != 0])
        numbers = np.unique(channels >> PAGE_SHIFT)
        required_rows = np.zeros(0, np.int64)
        if required is not None:
            required_rows, _ = view.select_numbers(required, path=_REQUIRED)
            if len(required_rows) == 0:
                raise InvalidArgument(
                    f"{_REQUIRED}: chooses no PV, so it would require nothing", field=_REQUIRED
                )
        return Scope(view, rows, channels, numbers, slots_of(numbers, channels), required_rows)

    async def _gather_values(self, order: TakeOrder, scope: Scope) -> Gathered:
        if order.source == Source.READ:
            time_ns = now_ns()
            columns = await self._forced.read_channels(
                scope.view.directory, scope.channels, order.read_timeout_s
            )
            await self._forced.recall_connected(columns)
            return Gathered(_as_pages(scope, [columns]), time_ns, (), columns)
        try:
            live = await self._live.read_pages(scope.page_numbers)
        except Unavailable:
            if order.source != Source.IMAGE_THEN_READ:
                raise
            log.warning("the image is away: every channel is read")
            columns = await self._forced.read_channels(
                scope.view.directory, scope.channels, order.read_timeout_s
            )
            return Gathered(_as_pages(scope, [columns]), now_ns(), (), columns)
        stamps = tuple(p.stamp for p in live.pulses if p.known)
        pages = in_scope(live.pages, scope.channels, scope.slots)
        if order.source == Source.IMAGE:
            require_fresh(live.pulses, order.gates.max_age_ns)
            return Gathered(pages, live.time_ns, stamps)
        return await self._fill_image(order, scope, live, pages, stamps)

    async def _fill_image(
        self,
        order: TakeOrder,
        scope: Scope,
        live: ImageReading,
        pages: Pages,
        stamps: tuple[ShardStamp, ...],
    ) -> Gathered:
        """The image, with a read of what it cannot be believed about."""
        held = pages.columns_of_channels(scope.channels)
        doubtful = (held.state != State.CONNECTED) | (held.kind == KIND_NONE)
        stale = live.stale_pages(order.gates.max_age_ns)
        doubtful |= np.isin(scope.channels >> PAGE_SHIFT, stale)
        if not doubtful.any():
            return Gathered(pages, live.time_ns, stamps)
        read = await self._forced.read_channels(
            scope.view.directory, scope.channels[doubtful], order.read_timeout_s
        )
        # What a read could not reach keeps the last value seen, as disconnected.
        lost = (read.kind == KIND_NONE) & (held.kind[doubtful] != KIND_NONE)
        kept = np.ones(len(scope.channels), bool)
        kept[np.flatnonzero(doubtful)[~lost]] = False
        state = held.state.copy()
        state[np.flatnonzero(doubtful)[lost]] = State.DISCONNECTED
        image = held.take_rows(kept)
        image.state[:] = state[kept]
        read = read.take_rows(~lost)
        return Gathered(_as_pages(scope, [image, read]), now_ns(), stamps, read)

    async def _read_channels(self, scope: Scope, channels: I8, timeout: float) -> Columns:
        return await self._forced.read_channels(scope.view.directory, channels, timeout)

    # --- storing ---

    def _build_tree(self, scope: Scope, metadata: KnownMetadata, selector: Selector) -> _Tree:
        view = scope.view
        entries, forms = [], {}
        for number in scope.page_numbers.tolist():
            catalog, known_page = view.page_hashes[number], metadata.known.get(number)
            entries.append(TreeEntry(number, catalog, known_page.hash if known_page else NO_PAGE))
            forms[catalog] = partial(bytes, view.stored_pages[number])
            if known_page is not None:
                forms[known_page.hash] = partial(bytes, known_page.stored)
        raw = encode_tree(entries)
        tree_hash = hash_bytes(raw)
        forms[tree_hash] = partial(store_text, raw)
        selector_bytes = encode_selector(selector)
        chosen = hash_bytes(selector_bytes)
        forms[chosen] = partial(store_text, selector_bytes)

        def stored_pages(hashes: Collection[PageHash]) -> dict[PageHash, bytes]:
            return {h: forms[h]() for h in hashes if h in forms}

        return _Tree(tree_hash, chosen, tuple(entries), frozenset(forms), stored_pages)

    async def _insert_snapshot(
        self,
        facts: Facts,
        labels: Labels,
        prepared: Prepared,
        tree: _Tree,
        maker: Maker,
        finish: Finish,
    ) -> Record | None:
        # compressed while Postgres is busy with the rest
        packing = asyncio.ensure_future(asyncio.to_thread(prepared.stored_pages))
        async with _ended_after(packing), self._store.db.begin_transaction() as conn:
            no = await self._store.insert_snapshot(
                conn,
                facts,
                labels,
                prepared.pages.numbers.tolist(),
                prepared.value_hashes,
                prepared.times_hashes,
            )
            if no is None:
                return None
            await self._insert_pages(conn, await packing, prepared, tree)
            await finish(conn, facts.id)
            await audit.append_entry(
                conn,
                audit.AuditedAct(
                    actor=maker.principal,
                    role=maker.role,
                    action="snapshot.take",
                    object=f"snapshots/{facts.id}",
                    after=_audit_fields(facts, labels),
                    at_ns=facts.time_ns,
                    request_id=maker.request_id,
                ),
                events=[
                    ResourceChange(
                        Resource.SNAPSHOT,
                        EventKind.CREATED,
                        facts.id,
                        labels.title,
                        etag=labels.etag,
                    )
                ],
            )
        return Record(no, facts, labels, tree.stored([tree.chosen])[tree.chosen])

    async def _insert_pages(
        self, conn: Connection, new: dict[PageHash, bytes], prepared: Prepared, tree: _Tree
    ) -> None:
        """Add the pages that may be new, and those that were believed there and are not."""
        new |= tree.stored([h for h in tree.pages if h not in self._known])
        believed = {*prepared.value_hashes, *prepared.times_hashes, *tree.pages} - new.keys()
        lost = frozenset(await self._store.insert_pages(conn, new, believed))
        if not lost:
            return
        log.warning("%d pages that were stored are not in the database any more", len(lost))
        again = await asyncio.to_thread(prepared.stored_of, lost) | tree.stored(lost)
        if await self._store.insert_pages(conn, again, lost - again.keys()):
            raise AssertionError("a page that belongs to a snapshot can be made from it")

    async def _made_before(self, job_id: str) -> Record:
        record = await self._store.by_job(job_id)
        if record is None:
            raise AssertionError("a unique job id was refused, yet no snapshot has it")
        return record

    def _remember_stored(
        self,
        record: Record,
        prepared: Prepared,
        tree: _Tree,
        scope: Scope,
        metadata: KnownMetadata,
    ) -> None:
        """Note what is stored now, and keep the view: who takes a snapshot looks at it next."""
        for stored in (prepared.value_hashes, prepared.times_hashes, tree.pages):
            for h in stored:
                self._known.put_value(h, None)
        where = self._library.kept_directory(tree.hash)
        if where is None:
            if len(scope.rows) != len(scope.view.directory):
                return  # a part: its directory is put together when somebody reads it
            where = DirectoryView(
                self._names_of(scope.view),
                metadata.index,
                {e.page: e.metadata for e in tree.entries if e.metadata != NO_PAGE},
            )
            self._library.keep_directory(tree.hash, where)
        view = ValuesView(where, prepared.pages, record.facts.time_ns, tuple(prepared.value_hashes))
        self._library.keep_view(record.facts.id, view)

    def _names_of(self, view: CatalogView) -> Names:
        if self._names is None or self._names.directory is not view.directory:
            self._names = Names(view.directory)
        return self._names

    # --- the live machine, for comparisons ---

    async def live_view(self, max_age_ns: int) -> ValuesView:
        """The machine as the image has it now. `Unavailable` while Redis is away."""
        # the catalog rarely changes: the image is read beside the question whether it has
        everything = Selector(all=True)
        kept = self._scopes.get((everything, None))
        guess = np.zeros(0, np.int64) if kept is None else kept.page_numbers
        view, live = await run_together(self._catalog.current_view(), self._live.read_pages(guess))
        scope = await self._scope_of(view, everything)
        if not np.array_equal(scope.page_numbers, guess):
            live = await self._live.read_pages(scope.page_numbers)
        metadata = await self._metadata.current_metadata()  # after the values, see `gather_values`
        hashes = {n: known_page.hash for n, known_page in metadata.known.items()}
        return ValuesView(
            DirectoryView(self._names_of(view), metadata.index, hashes),
            in_scope(live.pages, scope.channels, scope.slots),
            live.time_ns,
            stale_shards=sum(not p.is_fresh(max_age_ns) for p in live.pulses),
            stale_pages=live.stale_pages(max_age_ns),
            live=True,
        )


@asynccontextmanager
async def _ended_after(task: asyncio.Future[Any]) -> AsyncIterator[None]:
    """See to it that a task is over at the end of the body."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _as_pages(scope: Scope, parts: list[Columns]) -> Pages:
    table = PageTable(scope.page_numbers)
    table.apply_batch(Columns.concat_columns(parts))
    return in_scope(table.take_pages(np.arange(len(scope.page_numbers))), scope.channels)


def _audit_fields(facts: Facts, labels: Labels) -> dict[str, object]:
    return {
        "digest": facts.digest.hex(),
        "directory": facts.directory_hash.hex(),
        "source": Source(facts.source).name.lower(),
        "pvs": facts.pv_count,
        "title": labels.title,
    }
