"""One shard: waits for its lease, and while it is held watches, publishes and keeps the image."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.election import epoch_believable, first_epoch
from drey_core.errors import Unavailable
from drey_core.values import State
from drey_monitor import mapping
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.domain.catalog import (
    ChannelPage,
    Channels,
    ChannelsChange,
    channels_difference,
    unchanged,
)
from drey_monitor.domain.shard import next_epoch, pages_of_shard
from drey_monitor.loops.catalog import CatalogFollower
from drey_monitor.loops.directory import DirectoryWriter
from drey_monitor.loops.epochs import EpochListener
from drey_monitor.loops.heartbeat import Heartbeats
from drey_monitor.loops.image_writer import ImageWriter
from drey_monitor.loops.publisher import BatchPublisher
from drey_monitor.owned import LeftToAnother, Owned, Shards, ShardTurn, WarmShard
from drey_monitor.settings import MonitorSettings
from drey_runtime.bus import Bus
from drey_runtime.clock import boottime_s, now_ns
from drey_runtime.image import EpochSuperseded, Image, catalog_page
from drey_runtime.lease import Lease, LeaseLost, Term
from drey_runtime.retrying import backoff_delay

log = logging.getLogger(__name__)

I8 = NDArray[np.int64]
_STEADY_S = 30.0
_FENCE_S = 1.0
_LOOK_S = 0.05
_LOOK_STEADY_S = 0.5
_TAKE_S = 10.0
_BACKOFF_CAP_S = 10.0
_MANY = 10
"""A change that adds more than one in `_MANY` of a shard's channels unsettles it."""


class _Released(Exception):
    """The shard was given up, by a call or to another monitor."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the catalog of one version means for a shard: its pages that changed."""

    version: int
    pages: Mapping[int, bytes]
    channels: Mapping[int, Channels]
    change: ChannelsChange


@dataclass(frozen=True)
class OwnerParts:
    """What the owners of all shards in a process share."""

    settings: MonitorSettings
    lease: Lease
    shards: Shards
    hub: ChannelHub
    catalog: CatalogFollower
    epochs: EpochListener
    image: Image
    bus: Bus


class Owner:
    """Owns one shard whenever it can. One for each shard of the site in each process."""

    def __init__(self, shard: int, parts: OwnerParts) -> None:
        self._shard, self._settings, self._lease = shard, parts.settings, parts.lease
        self._shards, self._hub, self._catalog = parts.shards, parts.hub, parts.catalog
        self._epochs, self._image, self._bus = parts.epochs, parts.image, parts.bus
        self._settled = False
        """Not owned, and nothing of a former ownership is left to be ended."""

    async def run(self) -> None:
        """Wait, own, lose, for ever; beside it prepare, where the shard is offered or stood by."""
        async with asyncio.TaskGroup() as group:
            owning = group.create_task(self._own_for_ever())
            group.create_task(self._prepare_for_ever())
            await owning  # also where it is cancelled from inside, of which the group tells nothing

    async def _own_for_ever(self) -> None:
        losses, turn = 0, self._shards.shard_turn(self._shard)
        while True:
            await self._shards.wait_room()
            await self._catalog.known.wait()
            await turn.free.wait()
            began, was_ours = time.monotonic(), False
            self._settled = True
            try:
                async with (
                    turn.try_to_own(),
                    self._lease.held(f"shard-{self._shard}", floor=self._epoch_floor) as term,
                ):
                    turn.stop_trying()
                    if self._shards.claim_shard(self._shard):
                        began, was_ours, self._settled = time.monotonic(), True, False
                        await self._own_shard(term)
            except* LeftToAnother:
                log.info("shard %d is left to another", self._shard)
            except* LeaseLost:
                log.warning("shard %d was lost", self._shard)
            except* EpochSuperseded:
                log.warning("shard %d has a newer owner", self._shard)
            except* _Released:
                log.info("shard %d was given up", self._shard)
            self._shards.note_given_back(self._shard)
            if not was_ours:
                continue
            # the lease is free already; ending many channels takes a while
            await self._hub.drop_shard(self._shard)
            # two sites under one namespace would take the shard from each other for ever
            losses = 0 if time.monotonic() - began > _STEADY_S else losses
            await asyncio.sleep(backoff_delay(losses, cap_s=_BACKOFF_CAP_S))
            losses += 1

    # --- before it is ours ---

    async def _prepare_for_ever(self) -> None:
        turn = self._shards.shard_turn(self._shard)
        while True:
            await turn.wanted.wait()
            if self._settled and self._catalog.known.is_set():
                await self._prepare_shard(turn)
            await asyncio.sleep(_LOOK_S)

    async def _prepare_shard(self, turn: ShardTurn) -> None:
        """Watch the channels while another owns the shard, until it is ours or not wanted."""
        warm = WarmShard(round(self._settings.settle * 1e9))
        self._shards.begin_warm(self._shard, warm)
        try:
            warm.catalog_wake.set()
            while await self._stand_by(turn, warm):
                async with asyncio.timeout(_TAKE_S):
                    while self._keeps(warm) and not turn.wanted.is_set():
                        await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            log.info("shard %d: prepared, and not handed over", self._shard)
        finally:
            turn.prepared = False
            if self._keeps(warm):
                self._shards.end_warm(self._shard)
                await self._hub.drop_shard(self._shard)

    def _keeps(self, warm: WarmShard) -> bool:
        """Whether it was not taken over by this process's ownership."""
        return self._shards.warm_shard(self._shard) is warm

    async def _stand_by(self, turn: ShardTurn, warm: WarmShard) -> bool:
        """Follow owner and catalog while it is wanted; whether the shard is to come now.

        Where it was offered another cannot have it: the owner lets go, and this process waits for
        the lease.
        """
        was_offered = False
        while turn.wanted.is_set() and self._keeps(warm):
            was_offered = turn.offered
            if warm.catalog_wake.is_set():
                await self._follow_warm(warm)
            self._note_prepared(turn, warm)
            if warm.note_look(boottime_s()):
                log.warning("shard %d: this process stood still; it is prepared anew", self._shard)
                return False
            # while it only stands by, nothing but a change of the catalog is urgent
            is_steady = turn.prepared and not turn.offered
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_STEADY_S if is_steady else _LOOK_S):
                    await warm.catalog_wake.wait()
        return was_offered and self._keeps(warm)

    async def _follow_warm(self, warm: WarmShard) -> None:
        """Make the channels what the catalog says."""
        warm.catalog_wake.clear()
        plan = self._plan_pages(warm.followed)
        change = plan.change
        log.info(
            "shard %d: warm, follows the catalog: %d channels come, %d go",
            self._shard,
            len(change.added),
            len(change.removed),
        )
        slots = self._hub.unmap_channels(self._shard, change.removed)
        warm.follow(plan.pages, change.removed)
        await self._hub.release_slots(slots)
        await self._watch_channels(change)
        warm.added.set()
        warm.looked_at = None

    def _note_prepared(self, turn: ShardTurn, warm: WarmShard) -> None:
        beat = self._epochs.beats.get(self._shard)
        channels, connected = (beat.channels, beat.connected) if beat else (0, 0)
        if turn.prepared:
            turn.prepared = not warm.falls_behind(connected)
        else:
            turn.prepared = warm.is_prepared(
                time.monotonic_ns(), channels, connected, self._hub.table_stats().asking
            )

    async def _take_warm(self) -> WarmShard | None:
        """What was prepared, once all of its channels are made; None where nothing was."""
        while (
            warm := self._shards.warm_shard(self._shard)
        ) is not None and not warm.added.is_set():
            await warm.added.wait()
        if warm is not None and warm.note_look(boottime_s()):
            log.warning("shard %d: this process stood still; it begins anew", self._shard)
            self._shards.end_warm(self._shard)
            await self._hub.drop_shard(self._shard)
            return None
        return warm

    async def _epoch_floor(self) -> int:
        """The greatest epoch seen anywhere, and the least of now, for where none is remembered."""
        try:
            async with asyncio.timeout(1.0):
                seen = await self._image.epoch(self._shard)
        except (Unavailable, TimeoutError):
            seen = 0
        known_epoch = max(self._epochs.epoch(self._shard), first_epoch(now_ns()))
        return max(seen, known_epoch) if epoch_believable(seen, known_epoch) else known_epoch

    async def _own_shard(self, term: Term) -> None:
        granted = term.epoch
        owned = Owned(
            self._shard,
            next_epoch(granted),
            round(self._settings.settle * 1e9),
            term,
            self._hub.take_info_of,
        )
        log.info("owning shard %d under epoch %d", self._shard, owned.state.epoch)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guard_shard(owned), name="guard")
                group.create_task(self._watch_released(), name="released")
                group.create_task(self._watch_given(owned), name="given")
                group.create_task(self._watch_term(owned, term, granted), name="term")
                warm = await self._take_warm()
                plan = self._plan_change(owned)
                self._shards.own_shard(owned)
                change = plan.change
                if warm is not None:
                    self._shards.end_warm(self._shard)
                    missed = self._plan_pages(warm.followed)
                    change = missed.change
                    warm.follow(missed.pages, change.removed)
                    owned.fold_columns(warm.columns())
                    await self._hub.release_slots(
                        self._hub.unmap_channels(self._shard, change.removed)
                    )
                # connecting takes longest, and costs this thread little: it goes beside the rest
                watching = group.create_task(self._watch_channels(change), name="watch")
                await self._take_over(owned, plan)
                for loop in self._shard_loops(owned):
                    group.create_task(loop.run(), name=type(loop).__name__)
                await watching
                await self._follow_catalog(owned)
        finally:
            self._shards.leave_shard(self._shard)

    def _shard_loops(
        self, owned: Owned
    ) -> tuple[BatchPublisher, ImageWriter, DirectoryWriter, Heartbeats]:
        return (
            BatchPublisher(self._bus, owned),
            ImageWriter(self._image, owned),
            DirectoryWriter(
                self._hub,
                self._image,
                self._bus,
                owned,
                self._shards,
                self._settings.metadata_period,
            ),
            Heartbeats(self._settings, self._hub, self._shards, self._image, self._bus, owned),
        )

    # --- losing it ---

    async def _guard_shard(self, owned: Owned) -> None:
        await owned.superseded.wait()
        raise EpochSuperseded(owned.shard, owned.newer_epoch, owned.state.epoch)

    async def _watch_released(self) -> None:
        await self._shards.released.wait()
        raise _Released

    async def _watch_given(self, owned: Owned) -> None:
        await owned.given.wait()
        raise _Released

    async def _watch_term(self, owned: Owned, term: Term, granted: int) -> None:
        """Go on where the lease had to be taken again, or was renewed too late.

        Under a new epoch in the first case: somebody else may have had it.
        """
        while True:
            await term.changed.wait()
            term.changed.clear()
            if term.epoch != granted:
                granted = term.epoch
                owned.begin_epoch(next_epoch(granted, owned.state.epoch))
                log.info("shard %d goes on under epoch %d", owned.shard, owned.state.epoch)
                await self._fence_shard(owned)
            owned.image_wake.set()
            owned.directory_wake.set()
            self._shards.changed.set()

    async def _fence_shard(self, owned: Owned) -> None:
        """Make the image refuse older epochs before anything is published under this one.

        So whoever has read the image knows whose batches to drop. Where Redis is away nobody
        reads it, and values go out all the same.
        """
        epoch = owned.state.epoch
        try:
            async with asyncio.timeout(_FENCE_S):
                await self._image.claim_shard(owned.shard, epoch)
        except (Unavailable, TimeoutError) as error:
            why = str(error) or f"no answer within {_FENCE_S:.0f} s"
            log.warning("shard %d: epoch %d is not in the image: %s", owned.shard, epoch, why)
        owned.note_fenced(epoch)

    # --- the channels ---

    async def _take_over(self, owned: Owned, plan: _Plan) -> None:
        """Begin with the values and metadata of the last owner, as far as the image has them."""
        await self._fence_shard(owned)
        inherited = np.zeros(0, np.int64)
        try:
            raws = await self._image.catalog_bytes(list(plan.pages))
            former = _former_channels(plan, raws)
            numbers = list(former)
            values, _ = await self._image.read_pages(numbers)
            metadata = await self._image.metadata_pages(numbers)
        except Unavailable as error:
            log.warning("shard %d begins without a past: %s", self._shard, error.message)
        else:
            same = {n: unchanged(page, plan.channels[n]) for n, page in former.items()}
            if former:
                inherited = owned.state.inherit_pages(values, np.stack([same[n] for n in numbers]))
            owned.directory.inherit_pages(metadata, same)
        self._take_in(owned, plan, inherited)
        owned.begin_publishing()

    async def _follow_catalog(self, owned: Owned) -> None:
        """Make the channels what the catalog says, after each change."""
        while True:
            owned.searched = True
            await owned.catalog_wake.wait()
            plan = self._plan_change(owned)
            slots = self._hub.unmap_channels(owned.shard, plan.change.removed)
            self._take_in(owned, plan, np.zeros(0, np.int64))
            await self._hub.release_slots(slots)
            await self._watch_channels(plan.change)

    def _plan_change(self, owned: Owned) -> _Plan:
        """What is to be done to follow the catalog as it is now; later changes wake again."""
        owned.catalog_wake.clear()
        return self._plan_pages(owned.followed)

    def _plan_pages(self, followed: Mapping[int, bytes]) -> _Plan:
        """Likewise, for one that has followed these pages."""
        raw = self._catalog.raw
        mine = pages_of_shard(raw, self._shard, self._settings.shards)
        pages = {n: raw[n] for n in mine if raw[n] is not followed.get(n)}
        channels = {n: mapping.catalog_channels(page) for n, page in pages.items()}
        change = ChannelsChange.join_changes(
            [
                channels_difference(_known_channels(followed.get(n)), page)
                for n, page in channels.items()
            ]
        )
        return _Plan(self._catalog.version, pages, channels, change)

    def _take_in(self, owned: Owned, plan: _Plan, inherited: I8) -> None:
        """Change state and directory; `inherited`: channels whose last value was taken over."""
        change = plan.change
        self._change_state(owned, plan, inherited)
        owned.directory.set_catalog(plan.version, plan.pages)
        owned.forget_channels(change.removed)
        owned.followed.update(plan.pages)
        self._shards.changed.set()
        owned.image_wake.set()
        owned.directory_wake.set()
        if len(change.added) or len(change.removed):
            log.info(
                "shard %d: %d channels come, %d go",
                owned.shard,
                len(change.added),
                len(change.removed),
            )

    def _change_state(self, owned: Owned, plan: _Plan, inherited: I8) -> None:
        state, change = owned.state, plan.change
        before = state.counts().channels
        state.grow_pages(np.array(list(plan.pages), np.int64))
        state.remove_channels(change.gone_channels)
        unsupported = change.added[change.unsupported]
        state.add_channels(unsupported, State.UNSUPPORTED)
        # one that is inherited does not begin as NEVER_CONNECTED
        searched = change.added[~change.unsupported]
        state.add_channels(np.setdiff1d(searched, inherited, assume_unique=True))
        if len(change.added) * _MANY > before:
            owned.searched = False
            owned.settling.restart_search()

    async def _watch_channels(self, change: ChannelsChange) -> None:
        rows = np.flatnonzero(change.watchable)
        unsupported = int(np.count_nonzero(change.unsupported))
        if unsupported:
            log.warning(
                "shard %d: %d channels are of PVAccess, which is not spoken here",
                self._shard,
                unsupported,
            )
        if len(rows) + unsupported < len(change.added):
            log.warning(
                "shard %d: %d channels have addresses that no channel can have",
                self._shard,
                len(change.added) - len(rows) - unsupported,
            )
        addresses = [change.addresses[i] for i in rows.tolist()]
        await self._hub.add_channels(self._shard, change.added[rows], addresses)


def _former_channels(plan: _Plan, raws: Sequence[bytes | None]) -> dict[int, ChannelPage]:
    """Channels as the last owner had them, by page; `raws` are the image's pages of the catalog.

    Those that are as the catalog has them now, nearly all, are not decoded again.
    """
    former: dict[int, ChannelPage] = {}
    for (number, now), raw in zip(plan.pages.items(), raws, strict=True):
        page = plan.channels[number] if raw == now else catalog_page(number, raw)
        if page is not None:
            former[number] = page
    return former


def _known_channels(raw: bytes | None) -> Channels | None:
    return None if raw is None else mapping.catalog_channels(raw)
