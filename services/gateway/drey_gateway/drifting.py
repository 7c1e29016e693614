"""Serves watches of drift: the stream of each. What is compared and encoded is shared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from drey_core.errors import NotFound, Unavailable
from drey_core.values import I8
from drey_gateway.context import WatchContext
from drey_gateway.domain.drift import (
    DriftCounts,
    DriftPosition,
    DriftTable,
    DriftWanted,
)
from drey_gateway.domain.resume import Token
from drey_gateway.domain.watch import WatchSelection, check_token
from drey_gateway.domain.wire import TakenRows
from drey_gateway.drift_book import DriftBook, WatchedDrift
from drey_gateway.mapping_drift import (
    all_fresh_message,
    baseline_messages,
    begin_message,
    change_messages,
    encode_drift,
    end_message,
    resync_message,
    summary_of,
)
from drey_gateway.mapping_told import pace_messages
from drey_gateway.watching import CHECKPOINT_S, catch_up, checkpoint_of, freshness_changes
from drey_runtime.listening import wait_for_event


class DriftWatch:
    """The stream of one client."""

    def __init__(self, context: WatchContext, book: DriftBook, wanted: DriftWanted) -> None:
        self._context, self._book, self._wanted = context, book, wanted
        self._comparison: WatchedDrift
        self._rows: I8 | None = None
        self._selection: WatchSelection
        self._position = DriftPosition()
        self._stale: frozenset[int] = frozenset()
        self._counts: DriftCounts | None = None
        self._token = ""
        """Of what has been sent, which may be older than the table."""
        self._catalog_version = -1
        self._marks_seen = 0
        self._next_checkpoint = 0.0
        self._next_change = 0.0

    @property
    def _drift_table(self) -> DriftTable:
        return self._comparison.table

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Encoded `WatchDriftResponse` messages, until the client leaves. Raises `DreyError`."""
        token, why = self._wanted.token, ""
        while True:
            self._marks_seen = self._book.golden_generation
            async with self._book.hold_comparison(self._wanted) as self._comparison:
                if why:
                    yield resync_message(why)
                self._catalog_version = self._context.live.catalog_version
                self._rows = await self._find_rows(strict=not why)
                async with aclosing(self._follow_drift(token)) as messages:
                    async for message in messages:
                        yield message
            token, why = None, "another snapshot is golden now"

    async def _follow_drift(self, token: Token | None) -> AsyncGenerator[bytes, None]:
        """Until another snapshot is the reference."""
        async for message in self._begin_watch(token):
            yield message
        while True:
            changed = self._comparison.changed.listen_for_change()
            if await self._has_moved():
                return
            async with aclosing(self._next_turn()) as messages:
                async for message in messages:
                    yield message
            await self._wait_changed(changed)

    async def _has_moved(self) -> bool:
        """Whether the golden mark is another snapshot's. Raises `NotFound` where nobody has it."""
        marks = self._book.golden_generation
        if not self._wanted.golden or self._marks_seen == marks:
            return False
        try:
            reference = await self._book.read_reference(self._wanted)
        except Unavailable:
            return False  # the next turn asks again
        self._marks_seen = marks
        return reference is not self._drift_table.reference

    # --- beginning ---

    async def _find_rows(self, *, strict: bool) -> I8 | None:
        reference = self._drift_table.reference
        return await self._book.choose_rows(self._wanted.selector, reference, strict=strict)

    async def _begin_watch(self, token: Token | None) -> AsyncGenerator[bytes, None]:
        self._take_instant()
        why = ""
        if token is not None:
            await catch_up(self._context.live, token, self._selection)
            self._take_instant()
            why = check_token(token, self._selection, self._context.live.shard_positions())
            if why:
                yield resync_message(why)
                self._take_instant()
        keeps = token is not None and not why
        # what was sent before the rows does not count: they are of the instant that is taken last
        table, selection = self._drift_table, self._selection
        if keeps and token is not None:
            step = table.since_token(selection, self._position, token)
            rows = table.row_bytes(step.rows)
            messages = change_messages(rows, step.left, 0)
        else:
            rows = table.row_bytes(table.baseline_rows(selection, self._position))
            messages = []
        self._token = end = self._comparison.token(selection)
        self._counts = table.counts(selection)
        summary, stale = summary_of(self._counts), table.stale & selection.shards
        yield begin_message(table, len(selection), keeps)
        taken = TakenRows(rows)
        for message in pace_messages(iter(messages) if keeps else baseline_messages(rows), taken):
            yield message
        if keeps:
            # what the client holds may have been told stale or fresh by another gateway
            yield all_fresh_message()
            for change in freshness_changes(self._context, selection, frozenset(), stale):
                yield encode_drift(freshness=change)
        self._stale = stale
        yield encode_drift(summary=summary)
        yield end_message(end)

    def _take_instant(self) -> None:
        """Compare, and choose by what is so now; until the next wait it is one instant."""
        self._book.advance_comparison(self._comparison)
        self._selection = self._drift_table.select_rows(self._rows)

    # --- one turn ---

    async def _next_turn(self) -> AsyncGenerator[bytes, None]:
        if self._wanted.needs_catalog:
            live = self._context.live
            if live.catalog_version != self._catalog_version:
                for message in await self._reselect_rows():
                    yield message
        due = time.monotonic() >= self._next_change
        for message in self._changes_now() if due else self._freshness_changes():
            yield message
        if time.monotonic() >= self._next_checkpoint:
            # all at the same moments, so that they are woken once and sent the same
            self._next_checkpoint = (time.monotonic() // CHECKPOINT_S + 1) * CHECKPOINT_S
            yield self._shared_checkpoint()

    def _shared_checkpoint(self) -> bytes:
        signs, key = self._comparison.signs_of_life(), (self._token, self._selection.shards)
        if key not in signs:
            checkpoint = checkpoint_of(self._context, self._selection.shards, self._token)
            signs[key] = encode_drift(checkpoint=checkpoint)
        return signs[key]

    def _changes_now(self) -> Iterator[bytes]:
        """What the client lacks, taken at once: freshness, rows that agree with it, the counts."""
        table = self._drift_table
        if self._selection.manner is not table.manner:
            self._selection = table.select_rows(self._rows)
        selection, now = self._selection, time.monotonic()
        told = list(self._freshness_changes())
        changes = self._shared_changes(selection)
        self._token = self._comparison.token(selection)
        counted = table.counts(selection)
        counts, self._counts = counted if counted != self._counts else None, counted
        yield from told
        for message in pace_messages(iter(changes), TakenRows(changes)):
            self._next_change = now + self._wanted.min_interval_s
            yield message
        if counts is not None:
            yield encode_drift(summary=summary_of(counts))

    def _freshness_changes(self) -> Iterator[bytes]:
        """What became stale, or fresh again; that waits for no interval."""
        selection = self._selection
        before, self._stale = self._stale, self._drift_table.stale & selection.shards
        for change in freshness_changes(self._context, selection, before, self._stale):
            yield encode_drift(freshness=change)

    def _shared_changes(self, selection: WatchSelection) -> Sequence[bytes]:
        """Who watches the same and was sent the same is sent the same bytes."""
        table, position = self._drift_table, self._position
        if position.turn == table.turn:
            return ()
        shared, key = self._comparison.encoded_messages(), (selection.digest, position.turn)
        step = table.next_step(selection, position)
        if key not in shared:
            shared[key] = change_messages(table.row_bytes(step.rows), step.left, step.merged)
        return shared[key]

    async def _reselect_rows(self) -> list[bytes]:
        """The catalog changed: PVs leave, and join with their rows."""
        version = self._context.live.catalog_version
        try:
            rows = await self._find_rows(strict=False)
        except (Unavailable, NotFound):
            # whoever knows tags and scopes is away, or the scope is gone: what is watched stays so
            return []
        self._catalog_version = version
        messages, table = list(self._changes_now()), self._drift_table
        old, self._rows = self._selection, rows
        self._selection = table.select_rows(rows)
        step = table.reselect_rows(old, self._selection, self._position)
        self._token = self._comparison.token(self._selection)
        return messages + change_messages(table.row_bytes(step.rows), step.left, 0)

    async def _wait_changed(self, changed: asyncio.Event) -> None:
        now = time.monotonic()
        if self._next_change > now:
            # what comes meanwhile is merged
            await asyncio.sleep(max(min(self._next_change, self._next_checkpoint) - now, 0))
            return
        await wait_for_event(changed, max(self._next_checkpoint - now, 0))
