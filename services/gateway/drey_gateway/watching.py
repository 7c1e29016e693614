"""Serves watches: who watches, and the stream of each.

Each watch has a task of its own, woken by one event per change; it takes what its client lacks
from the live state at once, without waiting, and then sends. What a slow client does not take is
merged by nature; one that takes nothing for long is cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np

from drey.common.v1 import form_pb2, selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2 as monitor_pb2
from drey.monitor.v1 import watch_pb2
from drey_core.directory import Directory
from drey_core.errors import NotFound, Unavailable
from drey_core.pages import PAGE_SHIFT
from drey_core.selector import Link, Selector
from drey_core.values import I8
from drey_gateway import mapping
from drey_gateway.domain.live import Live
from drey_gateway.domain.resume import Token, encode_token
from drey_gateway.domain.rows import RowCache
from drey_gateway.domain.watch import (
    BOTH,
    Change,
    Fields,
    Selection,
    WatchState,
    honourable,
    stale_numbers,
)
from drey_gateway.domain.wire import Taken, TakenRows, baseline_messages, diff_messages
from drey_gateway.ports import Resolver
from drey_runtime.admission import Room
from drey_runtime.auth import current_principal
from drey_runtime.choosing import choose_off_loop
from drey_runtime.clock import now_ns
from drey_runtime.stalls import outgoing

CHECKPOINT_S = 0.8
"""A checkpoint is promised each second."""
_CATCH_UP_S = 1.0
_METADATA_ROWS = 500
_NUMBERS = 100_000
_NAMES = 2000
_WARM_ROWS = 8192
_NO_ROWS = np.zeros(0, np.int64)
_ROWS, _COLUMNS = form_pb2.VALUE_FORM_ROWS, form_pb2.VALUE_FORM_COLUMNS
_DELETED = watch_pb2.LEAVE_REASON_DELETED
_NOT_SELECTED = watch_pb2.LEAVE_REASON_NOT_SELECTED
_MOVED = watch_pb2.LEAVE_REASON_CHANNELS_CHANGED


class News:
    """Wakes everybody who waits, once for each `tell`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The event of the next `tell`; get it before looking, so that nothing is missed."""
        return self._event


class Seats:
    """All running watches and reads of this gateway: of so many, one key has a share at most."""

    def __init__(self, limit: int, share: float = 1.0) -> None:
        self._room = Room("watches and reads", limit, share)

    def __len__(self) -> int:
        return self._room.taken

    def taken(self) -> AbstractContextManager[None]:
        """Hold a seat of the key that calls. Raises `ResourceExhausted` when there is none."""
        return self._room.place(current_principal.get().key_id, "this key")


def paced(messages: Iterator[bytes], taken: Taken) -> Iterator[bytes]:
    """`messages` made of `taken`, while what is kept of it is counted as waiting for the client.

    Rows are shared with others as long as they are the latest; of a client that does not read they
    soon are not.
    """
    answers, first, second = outgoing(), next(messages, None), next(messages, None)
    if first is not None:
        yield first
    if second is None:
        return
    left = taken.size() - len(first or b"")
    try:
        for message in chain((second,), messages):
            left -= len(message)
            if answers is not None:
                answers.held = max(left, 0)
            yield message
    finally:
        if answers is not None:
            answers.held = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for."""

    selector: Selector
    message: selector_pb2.Selector
    fields: Fields
    in_columns: bool
    min_interval_s: float
    with_metadata: bool
    allow_unknown: bool
    token: Token | None


@dataclass(frozen=True, slots=True)
class World:
    """What a watch needs around it."""

    live: Live
    news: News
    resolver: Resolver
    stale: Callable[[], dict[int, str]]
    bus_connected: Callable[[], bool]


_T = TypeVar("_T")


def batched(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Names and links, as many at a time as fit into one message."""
    return (items[start : start + _NAMES] for start in range(0, len(items), _NAMES))


class Resolved(NamedTuple):
    """What a selector means by the present directory."""

    rows: I8
    not_found: list[str]
    links: dict[str, list[Link]]
    """Names that are not the PVs' own, and the PVs that they stand for."""


async def resolve(
    world: World, selector: Selector, message: selector_pb2.Selector, allow_unknown: bool
) -> Resolved:
    """Rows, and how names are understood. Raises as the selector's rules say."""
    while True:
        index = world.live.index
        if mapping.needs_catalog(selector):
            numbers, not_found = await world.resolver.resolve(message, allow_unknown)
            rows = world.live.directory.rows_of(np.sort(numbers))
            rows = rows[rows >= 0]
        else:
            choose = partial(index.select, selector, allow_unknown=allow_unknown)
            chosen = await choose_off_loop(choose, takes_long=selector.takes_long)
            rows, not_found = chosen.rows, chosen.not_found
        look_up = partial(index.links, selector.names)
        links = await choose_off_loop(look_up, takes_long=selector.takes_long)
        if world.live.index is index:
            return Resolved(rows, not_found, links)


class Watch:
    """The stream of one client."""

    def __init__(self, world: World, wanted: Wanted) -> None:
        self._world, self._wanted = world, wanted
        self._live = world.live
        self._directory: Directory = self._live.directory
        self._generation = -1
        self._catalog_version = -1
        self._metadata_seen = 0
        self._cache: RowCache | None = None
        self._watched_rows = _NO_ROWS
        self._state: WatchState
        self._token = Token(b"", {}, {})
        self._links: dict[str, list[watch_pb2.NameLink]] = {}
        self._not_found: set[str] = set()
        self._resolved: Resolved
        self._next_checkpoint = 0.0
        self._next_diff = 0.0

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Encoded `WatchPvsResponse` messages, until the client leaves. Raises `DreyError`."""
        try:
            async for message in self._begin_watch():
                yield message
            while True:
                news = self._world.news.listen()
                async with aclosing(self._next_turn()) as messages:
                    async for message in messages:
                        yield message
                await self._wait_news(news)
        finally:
            self.leave()

    def leave(self) -> None:
        """Stop being counted among those for whom rows are encoded; harmless to repeat."""
        if self._cache is not None:
            self._cache.leave(self._watched_rows)
        self._cache, self._watched_rows = None, _NO_ROWS

    # --- beginning ---

    async def _begin_watch(self) -> AsyncIterator[bytes]:
        wanted = self._wanted
        selection = await self._select_rows(wanted.allow_unknown)
        self._state = WatchState(selection)
        why = ""
        if wanted.token is not None:
            await self._catch_up(wanted.token, selection)
            why = honourable(wanted.token, selection, self._live.positions())
            if why:
                yield _encode_message(resync_required=watch_pb2.ResyncRequired(reason=why))
        keeps = wanted.token is not None and not why
        if not keeps:
            await self._warm_rows(selection)
        yield _encode_message(
            baseline_begin=watch_pb2.BaselineBegin(
                pv_count=len(selection),
                keeps_state=keeps,
                form=_COLUMNS if wanted.in_columns else _ROWS,
            )
        )
        for message in self._names_understood():
            yield message
        if wanted.with_metadata:
            async for message in self._send_metadata(selection.rows):
                yield message
        # from here to the rows nothing waits: they are the truth of one instant
        self._metadata_seen = self._live.metadata_generation
        stale = self._stale_shards()
        if keeps and wanted.token is not None:
            change = self._state.since_token(self._live.image, wanted.token, self._live.shard_count)
        else:
            change = self._state.everything(self._live.image)
        taken = self._take_change(change, stale)
        self._cut_instant()
        token = encode_token(self._token)
        for message in paced(baseline_messages(taken), taken):
            yield message
        if keeps:
            # what the client holds may have been told stale or fresh by another gateway
            yield _freshness_message(value_pb2.FRESHNESS_FRESH, "", numbers=None)
            self._state.stale = frozenset()
            for message in self._freshness_changes(stale):
                yield message
        self._state.stale = stale
        yield _encode_message(baseline_end=watch_pb2.BaselineEnd(token=token))

    async def _catch_up(self, token: Token, selection: Selection) -> None:
        """The gateway that gave the token may have been a moment ahead of this one."""
        end = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < end and token.selection == selection.digest:
            mine = self._live.positions()
            if all(mine.get(s, (0, 0)) >= position for s, position in token.seen.items()):
                return
            await asyncio.sleep(0.02)

    async def _warm_rows(self, selection: Selection) -> None:
        """Encode a large selection in pieces, so that others get their turn in between."""
        for start in range(0, len(selection) - _WARM_ROWS, _WARM_ROWS):
            if self._cache is not None and not self._wanted.in_columns:
                rows = selection.rows[start : start + _WARM_ROWS]
                self._cache.rows(rows, np.full(len(rows), BOTH), self._stale_shards())
            await asyncio.sleep(0)

    # --- one turn ---

    async def _next_turn(self) -> AsyncGenerator[bytes, None]:
        live = self._live
        if live.generation != self._generation or (
            live.catalog_version != self._catalog_version
            and mapping.needs_catalog(self._wanted.selector)
        ):
            async for message in self._reselect_rows():
                yield message
        if self._wanted.with_metadata and live.metadata_generation != self._metadata_seen:
            async for message in self._changed_metadata():
                yield message
        now = time.monotonic()
        if now >= self._next_diff:
            for message in self._diff_now():
                self._next_diff = now + self._wanted.min_interval_s
                yield message
        if time.monotonic() >= self._next_checkpoint:
            yield self._make_checkpoint()

    def _diff_now(self) -> Iterator[bytes]:
        """What the client lacks, taken at once: freshness first, then rows that agree with it."""
        stale = self._stale_shards()
        freshness = list(self._freshness_changes(stale))
        change = self._state.diff(self._live.image)
        taken = self._take_change(change, stale)
        self._cut_instant()
        yield from freshness
        yield from paced(diff_messages(taken, change.merged), taken)

    async def _wait_news(self, news: asyncio.Event) -> None:
        now = time.monotonic()
        if self._next_diff > now:
            # what comes meanwhile is merged
            await asyncio.sleep(min(self._next_diff, self._next_checkpoint) - now)
            return
        try:
            async with asyncio.timeout(max(self._next_checkpoint - now, 0)):
                await news.wait()
        except TimeoutError:
            return

    def _make_checkpoint(self) -> bytes:
        self._next_checkpoint = time.monotonic() + CHECKPOINT_S
        stale, clock = self._world.stale(), time.monotonic_ns()
        shards = sorted(self._state.selection.shards)
        torn = any(not self._live.shards[s].stream.in_sync and s in stale for s in shards)
        return _encode_message(
            checkpoint=watch_pb2.Checkpoint(
                token=encode_token(self._token),
                shards=[
                    mapping.shard_state(n, self._live.shards[n], n not in stale, clock)
                    for n in shards
                ],
                time_ns=now_ns(),
                stalled=torn or not self._world.bus_connected(),
            )
        )

    # --- parts of a turn ---

    def _stale_shards(self) -> frozenset[int]:
        return frozenset(self._world.stale()) & self._watched_shards()

    def _watched_shards(self) -> frozenset[int]:
        return self._state.selection.shards

    def _freshness_changes(self, stale: frozenset[int]) -> Iterator[bytes]:
        """Tell what became stale, or fresh again."""
        if stale == self._state.stale:
            return
        selection, count = self._state.selection, self._live.shard_count
        before = stale_numbers(selection, self._state.stale, count)
        after = stale_numbers(selection, stale, count)
        self._state.stale = stale
        reasons = self._world.stale()
        why = "; ".join(sorted({reasons[s] for s in stale if s in reasons}))
        for code, numbers, reason in (
            (value_pb2.FRESHNESS_STALE, np.setdiff1d(after, before), why),
            (value_pb2.FRESHNESS_FRESH, np.setdiff1d(before, after), ""),
        ):
            if len(numbers) == len(selection) > 0:
                yield _freshness_message(code, reason, numbers=None)
                continue
            for start in range(0, len(numbers), _NUMBERS):
                yield _freshness_message(code, reason, numbers=numbers[start : start + _NUMBERS])

    def _take_change(self, change: Change, stale: frozenset[int]) -> Taken:
        if len(change.at) == 0 or self._cache is None:
            return TakenRows([])
        rows = self._state.selection.rows[change.at]
        if self._wanted.in_columns:
            return self._cache.columns(rows, change.channels, stale)
        return TakenRows(self._cache.rows(rows, change.channels, stale))

    def _cut_instant(self) -> None:
        """Note the instant of which everything has just been taken."""
        self._token = self._live.token(self._state.selection)

    async def _send_metadata(self, rows: I8) -> AsyncIterator[bytes]:
        directory = self._directory
        for start in range(0, len(rows), _METADATA_ROWS):
            metadata_rows = mapping.metadata_rows(
                rows[start : start + _METADATA_ROWS],
                directory,
                self._live.metadata,
                self._wanted.fields,
            )
            yield _encode_message(metadata=watch_pb2.MetadataChunk(rows=metadata_rows))

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
        before, old = self._state.selection, self._directory
        try:
            selection = await self._select_rows(True)
        except (Unavailable, NotFound):
            # whoever knows tags and scopes is away, or the scope is gone: what is watched and
            # still there stays watched, and the next turn asks again
            rows = self._live.directory.rows_of(before.numbers)
            selection = self._adopt_rows(rows[rows >= 0])
            self._catalog_version = -1
            self._resolved = Resolved(selection.rows, [*self._not_found], {})
        left, moved, joined = self._state.reselect(selection, self._live.image)
        for message in self._names_understood():
            yield message
        for start in range(0, len(left), _METADATA_ROWS):
            yield self._left_message(left[start : start + _METADATA_ROWS], old)
        for start in range(0, len(moved), _METADATA_ROWS):
            yield self._left_message(moved[start : start + _METADATA_ROWS], old, _MOVED)
        if self._wanted.with_metadata and len(joined):
            async for message in self._send_metadata(selection.rows[joined]):
                yield message
        new = self._take_change(Change.whole(joined), self._stale_shards())
        for message in paced(diff_messages(new, 0), new):
            yield message

    def _left_message(
        self, numbers: I8, old: Directory, reason: watch_pb2.LeaveReason.ValueType | None = None
    ) -> bytes:
        """`reason`: None for "deleted" or "not selected", whichever it is."""
        here = self._live.directory.rows_of(numbers) >= 0
        rows = old.rows_of(numbers)
        return _encode_message(
            left=watch_pb2.PvsLeft(
                pvs=[
                    watch_pb2.PvLeft(
                        number=number,
                        name=old.names[row] if row >= 0 else "",
                        reason=reason or (_NOT_SELECTED if known_number else _DELETED),
                    )
                    for number, row, known_number in zip(
                        numbers.tolist(), rows.tolist(), here.tolist(), strict=True
                    )
                ]
            )
        )

    async def _select_rows(self, allow_unknown: bool) -> Selection:
        catalog_version = self._live.catalog_version
        while True:
            directory = self._live.directory
            resolved = await resolve(
                self._world, self._wanted.selector, self._wanted.message, allow_unknown
            )
            if directory is self._live.directory:
                self._catalog_version, self._resolved = catalog_version, resolved
                return self._adopt_rows(resolved.rows)

    def _names_understood(self) -> Iterator[bytes]:
        """What is new of what the client's names mean."""
        _, missing, named = self._resolved
        links: dict[str, list[watch_pb2.NameLink]] = {}
        for link in mapping.name_links(named, self._directory):
            links.setdefault(link.asked, []).append(link)
        # a name that was waited for, and is a PV's own
        for name in self._not_found.difference(missing, links):
            links[name] = [
                watch_pb2.NameLink(
                    asked=name, number=int(self._directory.pv_number[row]), name=name
                )
                for row in self._resolved.rows.tolist()
                if self._directory.names[row] == name
            ]
        new = [
            link
            for asked, found in links.items()
            if found != self._links.get(asked)
            for link in found
        ]
        lost = [name for name in missing if name not in self._not_found]
        self._links, self._not_found = links, set(missing)
        for part in batched(new):
            yield _encode_message(names=watch_pb2.NamesUnderstood(links=part))
        for gone in batched(lost):
            yield _encode_message(names=watch_pb2.NamesUnderstood(not_found=gone))

    def _adopt_rows(self, rows: I8) -> Selection:
        """Make a selection of rows of the present directory, and be counted there."""
        live = self._live
        selection = Selection.of(
            rows, live.directory, live.image, self._wanted.fields, live.shard_count
        )
        self.leave()
        self._directory, self._generation = live.directory, live.generation
        self._cache = live.cache(self._wanted.fields)
        if not self._wanted.in_columns:
            self._cache.watch(rows)
            self._watched_rows = rows
        return selection


def _encode_message(**part: object) -> bytes:
    raw: bytes = monitor_pb2.WatchPvsResponse(**part).SerializeToString()  # type: ignore[arg-type]
    return raw


def _freshness_message(
    code: value_pb2.Freshness.ValueType, reason: str, *, numbers: I8 | None
) -> bytes:
    return _encode_message(
        freshness=watch_pb2.FreshnessChange(
            freshness=code,
            all=numbers is None,
            pv_numbers=[] if numbers is None else numbers.tolist(),
            reason=reason,
        )
    )
