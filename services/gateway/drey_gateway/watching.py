"""Serves watches: the stream of each.

Each watch has a task of its own, woken by one event per change; it takes what its client lacks
from the live state at once, without waiting, and then sends. What a slow client does not take is
merged by nature; one that takes nothing for long is cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

import numpy as np

from drey.common.v1 import form_pb2, value_pb2
from drey.monitor.v1 import watch_pb2
from drey_core.directory import Directory
from drey_core.errors import NotFound, Unavailable, fields_at
from drey_core.extracts import ArrayShape
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8
from drey_core.wire_values import wrap_payload
from drey_gateway import mapping
from drey_gateway.context import WatchContext
from drey_gateway.domain.array_limits import ArrayPacer
from drey_gateway.domain.deadband import DeadbandFilter
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.resume import Token, encode_token
from drey_gateway.domain.rows import RowCache
from drey_gateway.domain.terms import Terms
from drey_gateway.domain.wanted import Wanted
from drey_gateway.domain.watch import (
    BOTH,
    WatchDiff,
    WatchSelection,
    WatchState,
    check_token,
    stale_numbers,
)
from drey_gateway.domain.wire import InstantValues, TakenRows, baseline_messages, diff_messages
from drey_gateway.mapping_told import (
    NamesTold,
    encode_part,
    freshness_change,
    left_messages,
    pace_messages,
)
from drey_gateway.selecting import Resolved, resolve_terms
from drey_runtime.clock import now_ns
from drey_runtime.listening import wait_for_event

CHECKPOINT_S = 0.8
"""A checkpoint is promised each second."""
_CATCH_UP_S = 1.0
_METADATA, _METADATA_ROWS = 8, 1
"""Fields of `WatchPvsResponse` and of `MetadataChunk`."""
_NUMBERS = 100_000
_WARM_ROWS = 8192
_NO_ROWS = np.zeros(0, np.int64)
_ROWS, _COLUMNS = form_pb2.VALUE_FORM_ROWS, form_pb2.VALUE_FORM_COLUMNS
_MOVED = watch_pb2.LEAVE_REASON_CHANNELS_CHANGED


async def catch_up(live: LiveState, token: Token, selection: WatchSelection) -> None:
    """The gateway that gave the token may have been a moment ahead of this one."""
    end = time.monotonic() + _CATCH_UP_S
    while time.monotonic() < end and token.selection == selection.digest:
        mine = live.shard_positions()
        if all(mine.get(s, (0, 0)) >= position for s, position in token.seen.items()):
            return
        await asyncio.sleep(0.02)


def checkpoint_of(
    context: WatchContext, watched: frozenset[int], token: str
) -> watch_pb2.Checkpoint:
    """The sign of life of a watch of these shards."""
    stale, clock, shards = context.stale(), time.monotonic_ns(), context.live.shards
    torn = any(not shards[n].stream.in_sync and n in stale for n in watched)
    return watch_pb2.Checkpoint(
        token=token,
        shards=[mapping.shard_state(n, shards[n], n not in stale, clock) for n in sorted(watched)],
        time_ns=now_ns(),
        stalled=torn or not context.bus_connected(),
    )


def freshness_changes(
    context: WatchContext, selection: WatchSelection, before: frozenset[int], after: frozenset[int]
) -> Iterator[watch_pb2.FreshnessChange]:
    """What became stale, or fresh again, where other shards are stale than before."""
    if before == after:
        return
    count = context.live.shard_count
    numbers_before = stale_numbers(selection, before, count)
    numbers_after = stale_numbers(selection, after, count)
    reasons = context.stale()
    why = "; ".join(sorted({reasons[s] for s in after if s in reasons}))
    for code, numbers, reason in (
        (value_pb2.FRESHNESS_STALE, np.setdiff1d(numbers_after, numbers_before), why),
        (value_pb2.FRESHNESS_FRESH, np.setdiff1d(numbers_before, numbers_after), ""),
    ):
        if len(numbers) == len(selection) > 0:
            yield freshness_change(code, reason, numbers=None)
            continue
        for start in range(0, len(numbers), _NUMBERS):
            yield freshness_change(code, reason, numbers=numbers[start : start + _NUMBERS])


class Watch:
    """The stream of one client."""

    def __init__(self, context: WatchContext, wanted: Wanted) -> None:
        self._context, self._wanted = context, wanted
        self._live = context.live
        self._directory: Directory = self._live.directory
        self._generation = -1
        self._catalog_version = -1
        self._metadata_seen = 0
        self._cache: RowCache | None = None
        self._watched_rows = _NO_ROWS
        self._watched_shape: ArrayShape | None = None
        self._state: WatchState
        self._token = Token(b"", {}, {})
        self._names = NamesTold()
        self._resolved: Resolved
        self._next_checkpoint = 0.0
        self._next_diff = 0.0

    @property
    def wanted(self) -> Wanted:
        """What it watches."""
        return self._wanted

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Encoded `WatchPvsResponse` messages, until the client leaves. Raises `DreyError`."""
        try:
            await self.choose_rows()
            async for message in self.begin_baseline():
                yield message
            while True:
                changed = self._context.changed.listen_for_change()
                async with aclosing(self.next_turn()) as messages:
                    async for message in messages:
                        yield message
                await self._wait_changed(changed)
        finally:
            self.leave_rows()

    def leave_rows(self) -> None:
        """Stop being counted among those for whom rows are encoded; harmless to repeat."""
        if self._cache is not None:
            self._cache.leave_rows(self._watched_rows, self._watched_shape)
        self._cache, self._watched_rows = None, _NO_ROWS

    # --- beginning ---

    async def choose_rows(self) -> None:
        """Find the PVs; once, before `begin`. Raises `DreyError`."""
        wanted = self._wanted
        selection = await self._select_rows(wanted.terms, wanted.allow_unknown)
        sieve = pacer = None
        channels = np.stack([selection.setpoints, selection.readbacks])
        if wanted.deadband is not None:
            sieve = DeadbandFilter(wanted.deadband, channels, selection.rows, self._directory)
        if wanted.arrays.is_paced:
            pacer = ArrayPacer(wanted.arrays, channels)
        self._state = WatchState(selection, sieve, pacer)

    async def begin_baseline(self) -> AsyncGenerator[bytes, None]:
        """The baseline."""
        wanted, selection = self._wanted, self._state.selection
        why = ""
        if wanted.token is not None:
            await catch_up(self._live, wanted.token, selection)
            why = check_token(wanted.token, selection, self._live.shard_positions())
            if why:
                yield encode_part(resync_required=watch_pb2.ResyncRequired(reason=why))
        keeps = wanted.token is not None and not why
        if not keeps:
            await self._warm_rows(selection)
        yield encode_part(
            baseline_begin=watch_pb2.BaselineBegin(
                pv_count=len(selection),
                keeps_state=keeps,
                form=_COLUMNS if wanted.in_columns else _ROWS,
            )
        )
        for message in self._tell_names():
            yield message
        # what changes while the rest is sent is sent again
        self._metadata_seen = self._live.metadata_generation
        if wanted.with_metadata:
            async for message in self._send_metadata(selection.rows):
                yield message
        # from here to the rows nothing waits: they are the truth of one instant
        stale, image, now = self._stale_shards(), self._live.image, time.monotonic()
        if keeps and wanted.token is not None:
            count = self._live.shard_count
            change = self._state.since_token(image, wanted.token, count, now)
        else:
            change = self._state.baseline_diff(image, now)
        taken = self._take_change(change, stale)
        self._cut_instant()
        token = encode_token(self._token)
        for message in pace_messages(baseline_messages(taken), taken):
            yield message
        if keeps:
            # what the client holds may have been told stale or fresh by another gateway
            fresh = freshness_change(value_pb2.FRESHNESS_FRESH, "", numbers=None)
            yield encode_part(freshness=fresh)
            self._state.stale = frozenset()
            for message in self._freshness_changes(stale):
                yield message
        self._state.stale = stale
        yield encode_part(baseline_end=watch_pb2.BaselineEnd(token=token))

    async def _warm_rows(self, selection: WatchSelection) -> None:
        """Encode a large selection in pieces, so that others get their turn in between."""
        for start in range(0, len(selection) - _WARM_ROWS, _WARM_ROWS):
            if self._cache is not None and not self._wanted.in_columns:
                rows = selection.rows[start : start + _WARM_ROWS]
                both, shape = np.full(len(rows), BOTH), self._wanted.arrays.shape
                self._cache.rows(rows, both, self._stale_shards(), shape)
            await asyncio.sleep(0)

    # --- one turn ---

    async def next_turn(self) -> AsyncGenerator[bytes, None]:
        """What is due now; nothing, where nothing has changed."""
        live = self._live
        if live.generation != self._generation or (
            live.catalog_version != self._catalog_version and self._wanted.needs_catalog
        ):
            async for message in self._reselect_rows():
                yield message
        if self._wanted.with_metadata and live.metadata_generation != self._metadata_seen:
            async for message in self._changed_metadata():
                yield message
        due = time.monotonic() >= self._next_diff
        for message in self._diff_now() if due else self._freshness_changes(self._stale_shards()):
            yield message
        if time.monotonic() >= self._next_checkpoint:
            yield self._make_checkpoint()

    def _diff_now(self) -> Iterator[bytes]:
        """What the client lacks, taken at once: freshness first, then rows that agree with it."""
        stale, now = self._stale_shards(), time.monotonic()
        freshness = list(self._freshness_changes(stale))
        change = self._state.next_diff(self._live.image, now)
        taken = self._take_change(change, stale)
        self._cut_instant()
        yield from freshness
        for message in pace_messages(diff_messages(taken, change.merged), taken):
            self._next_diff = now + self._wanted.min_interval_s
            yield message

    def next_deadline(self) -> float:
        """When a turn is due although nothing changes, of the monotonic clock."""
        if self._next_diff > time.monotonic():
            return min(self._next_diff, self._next_checkpoint)
        return min(self._state.next_due(), self._next_checkpoint)

    async def _wait_changed(self, changed: asyncio.Event) -> None:
        now = time.monotonic()
        left = max(self.next_deadline() - now, 0)
        if self._next_diff > now:
            # what comes meanwhile is merged
            await asyncio.sleep(left)
            return
        await wait_for_event(changed, left)

    def _make_checkpoint(self) -> bytes:
        self._next_checkpoint = time.monotonic() + CHECKPOINT_S
        shards, token = self._state.selection.shards, encode_token(self._token)
        return encode_part(checkpoint=checkpoint_of(self._context, shards, token))

    # --- parts of a turn ---

    def _stale_shards(self) -> frozenset[int]:
        return frozenset(self._context.stale()) & self._watched_shards()

    def _watched_shards(self) -> frozenset[int]:
        return self._state.selection.shards

    def _freshness_changes(self, stale: frozenset[int]) -> Iterator[bytes]:
        """Tell what became stale, or fresh again."""
        before, self._state.stale = self._state.stale, stale
        for change in freshness_changes(self._context, self._state.selection, before, stale):
            yield encode_part(freshness=change)

    def _take_change(self, change: WatchDiff, stale: frozenset[int]) -> InstantValues:
        if len(change.at) == 0 or self._cache is None:
            return TakenRows([])
        rows, shape = self._state.selection.rows[change.at], self._wanted.arrays.shape
        if self._wanted.in_columns:
            return self._cache.taken_columns(rows, change.channels, stale, shape)
        return TakenRows(self._cache.rows(rows, change.channels, stale, shape))

    def _cut_instant(self) -> None:
        """Note the instant of which everything has just been taken."""
        self._token = self._state.cut_instant(self._live.token(self._state.selection))

    async def _send_metadata(self, rows: I8) -> AsyncIterator[bytes]:
        encoder, wanted = self._context.metadata, self._wanted.fields
        for found in encoder.encode_rows(rows, self._directory, self._live.metadata, wanted):
            yield wrap_payload(
                _METADATA, b"".join(wrap_payload(_METADATA_ROWS, row) for row in found)
            )

    async def _changed_metadata(self) -> AsyncIterator[bytes]:
        seen, self._metadata_seen = self._metadata_seen, self._live.metadata_generation
        pages = [n for n, changed_at in self._live.metadata_changed.items() if changed_at > seen]
        selection = self._state.selection
        channels = np.stack([selection.setpoints, selection.readbacks])
        hit = np.isin(channels >> PAGE_SHIFT, pages) & (channels > 0)
        async for message in self._send_metadata(selection.rows[hit.any(axis=0)]):
            yield message

    async def _reselect_rows(self) -> AsyncIterator[bytes]:
        """The catalog changed: PVs leave, and join with their rows."""
        numbers, old = self._state.selection.numbers, self._directory
        try:
            selection = await self._select_rows(self._wanted.terms, True)
        except (Unavailable, NotFound):
            # whoever knows tags and scopes is away, or the scope is gone: what is watched and
            # still there stays watched, and the next turn asks again
            rows = self._live.directory.rows_of(numbers)
            selection = self._adopt_rows(rows[rows >= 0])
            self._catalog_version = -1
            self._resolved = Resolved(selection.rows, [*self._names.not_found], {})
        async for message in self._move_rows(selection, old):
            yield message

    async def amend_selection(self, wanted: Wanted, new: Terms) -> AsyncIterator[bytes]:
        """Watch other PVs from now on, or at another pace; PVs leave, and join with their rows.

        `wanted` must agree with what is wanted now by `keeps_baseline`; `new` are the terms
        that the client has just given: what was found before may be gone since. Raises `DreyError`
        before anything has changed; iterate what it returns at once.
        """
        old = self._directory
        if not wanted.allow_unknown:
            with fields_at(selector="add"):
                await resolve_terms(self._context, new, False)
        selection = await self._select_rows(wanted.terms, True)
        self._wanted = wanted
        self._next_diff = self._next_checkpoint = 0.0
        return self._move_rows(selection, old)

    async def _move_rows(self, selection: WatchSelection, old: Directory) -> AsyncIterator[bytes]:
        left, moved, joined = self._state.reselect_rows(
            selection, self._live.image, old, self._directory, time.monotonic()
        )
        for message in self._tell_names():
            yield message
        for message in left_messages(left, old, self._live.directory):
            yield message
        for message in left_messages(moved, old, self._live.directory, _MOVED):
            yield message
        if self._wanted.with_metadata and len(joined):
            async for message in self._send_metadata(selection.rows[joined]):
                yield message
        new = self._take_change(WatchDiff.baseline_diff(joined), self._stale_shards())
        for message in pace_messages(diff_messages(new, 0), new):
            yield message

    async def _select_rows(self, terms: Terms, allow_unknown: bool) -> WatchSelection:
        catalog_version = self._live.catalog_version
        while True:
            directory = self._live.directory
            with fields_at(selector=self._wanted.path):
                resolved = await resolve_terms(self._context, terms, allow_unknown)
            if directory is self._live.directory:
                self._catalog_version, self._resolved = catalog_version, resolved
                return self._adopt_rows(resolved.rows)

    def _tell_names(self) -> Iterator[bytes]:
        for names in self._names.tell_news(*self._resolved, self._directory):
            yield encode_part(names=names)

    def _adopt_rows(self, rows: I8) -> WatchSelection:
        """Make a selection of rows of the present directory, and be counted there."""
        live = self._live
        wanted = self._wanted
        selection = WatchSelection.select_watched(
            rows, live.directory, live.image, wanted.fields, live.shard_count, wanted.manner
        )
        self.leave_rows()
        self._directory, self._generation = live.directory, live.generation
        self._cache = live.row_cache(wanted.fields)
        self._watched_rows = _NO_ROWS if wanted.in_columns else rows
        self._cache.watch_rows(self._watched_rows, wanted.arrays.shape)
        self._watched_shape = wanted.arrays.shape
        return selection
