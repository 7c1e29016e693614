"""The shards that this process owns now, as its loops share them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import InfoColumns
from drey_core.errors import Unavailable
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_SHIFT
from drey_core.values import KIND_NONE, Columns, Kind, State
from drey_monitor.domain.directory import DirectoryCut, DirectoryState
from drey_monitor.domain.progress import SearchSettling, UpdateRate
from drey_monitor.domain.shard import Counts, ShardState, has_room, latest_columns
from drey_runtime import telemetry
from drey_runtime.instances import QueueState
from drey_runtime.lease import Term

_WAITING_BATCHES = 16
_EARLY_PARTS = 4
_LONGEST_BUSY_NS = 5_000_000_000
"""Below what an owner that ends waits for its successor."""
_STOOD_STILL_S = 2.0
_LEAST_PART = 0.9
"""Of the connected channels of the owner: what a warm standby has of them, or it is none."""

TakeInfo = Callable[[int, NDArray[np.int64]], tuple[NDArray[np.int64], InfoColumns] | None]
"""Of a shard, those among some channels whose info changed, and it; see `ChannelHub`."""


@dataclass(frozen=True, slots=True)
class OwnerPulse:
    """What a heartbeat says beside the state."""

    time_ns: int
    owner: str
    shard_count: int
    channel_access: str
    tick_ms: int
    counts: Counts
    updates_per_s: float


class Owned:
    """One owned shard: its state, and the signals between its loops.

    `outgoing` holds batches that wait for NATS. It is bounded; when it is full a batch is dropped
    and counted: consumers see the gap in the sequence and read the image.
    """

    def __init__(
        self, shard: int, epoch: int, settle_ns: int, term: Term, take_info: TakeInfo
    ) -> None:
        self.state = ShardState(shard, epoch)
        self._term, self._take_info = term, take_info
        self.directory = DirectoryState()
        self.settling = SearchSettling(settle_ns)
        self.rate = UpdateRate()
        self.followed: dict[int, bytes] = {}
        """Encoded pages of the catalog whose channels are watched."""
        self._early: list[Columns] | None = []
        """Values that came while the past was still being read; None once it was."""
        self._unlabeled: list[Columns] = []
        """Values of enums whose labels are not in the image yet."""
        self.outgoing: asyncio.Queue[list[bytes]] = asyncio.Queue(_WAITING_BATCHES)
        self.image_wake = asyncio.Event()
        self.directory_wake = asyncio.Event()
        self.catalog_wake = asyncio.Event()
        self.superseded = asyncio.Event()
        self.newer_epoch = 0
        """Of the owner that superseded this one."""
        self.searched = False
        self.image_failing = False
        self.directory_written: int | None = None
        """Epoch under which the directory was last written to the image."""
        self.dropped_batches = 0
        self._fenced = 0
        self.given = asyncio.Event()
        """Another monitor has prepared for the shard: this one lets go of it."""

    @property
    def shard(self) -> int:
        """Number of the shard."""
        return self.state.shard

    @property
    def may_publish(self) -> bool:
        """Whether batches may be cut: the past was taken over, the epoch is fenced and valid."""
        return self._early is None and self._fenced == self.state.epoch and self._term.still_valid

    def require_valid(self) -> None:
        """Raise `Unavailable` where somebody else may have the shard by now.

        Asked right before whatever leaves this process, since it may have stood still just then.
        """
        if not self._term.still_valid:
            raise Unavailable(f"the lease of shard {self.shard} could not be renewed in time")

    def note_fenced(self, epoch: int) -> None:
        """The image refuses what is older than `epoch`, or is away and cannot be read either."""
        self._fenced = max(self._fenced, epoch)

    def fold_columns(self, columns: Columns) -> None:
        """Take in drained rows, keyed by channel; before `begin` they wait.

        What waits is bounded: merged to the latest row of each channel every few ticks.
        """
        if self._early is None:
            self._fold_labeled(columns)
            return
        self._early.append(columns)
        if len(self._early) > _EARLY_PARTS:
            self._early = [latest_columns(self._early)]

    def begin_publishing(self) -> None:
        """The past was taken over: fold what came meanwhile."""
        early, self._early = self._early or [], None
        for columns in early:
            self._fold_labeled(columns)

    def _fold_labeled(self, columns: Columns) -> None:
        """Fold the rows that can be read by now; a number of an enum waits for its labels.

        So whoever has read a value finds the labels that it had, or newer ones.
        """
        enums = columns.key[columns.kind == Kind.ENUM]
        if len(enums) and (news := self._take_info(self.shard, enums)) is not None:
            self.directory.update_channels(*news)
        unwritten = self.directory.unwritten_labels
        if len(unwritten) and (waiting := np.isin(columns.key, unwritten)).any():
            self._unlabeled = [latest_columns([*self._unlabeled, columns.take_rows(waiting)])]
            self.directory_wake.set()
            columns = columns.take_rows(~waiting)
        self.state.fold_columns(columns)

    def note_directory_written(self, cut: DirectoryCut, epoch: int) -> None:
        """The image has this cut: fold what waited for its labels."""
        self.directory_written = epoch
        self.directory.note_written(cut, is_current=epoch == self.state.epoch)
        unlabeled, self._unlabeled = self._unlabeled, []
        for columns in unlabeled:
            self._fold_labeled(columns)
        # who was away meanwhile is told what changed since, and of that labels are a part
        relabeled = np.array(sorted(cut.relabeled), np.int64)
        self.state.tell_again(np.setdiff1d(relabeled, self.directory.unwritten_labels))

    def forget_channels(self, channels: NDArray[np.int64]) -> None:
        """Nothing is known of these any more."""
        self.directory.forget_channels(channels)
        self._unlabeled = [c.take_rows(~np.isin(c.key, channels)) for c in self._unlabeled]

    def rewrite_image(self) -> None:
        """Everything of the shard goes into the image again."""
        self.directory_written = None
        self.state.mark_all_unwritten()
        self.directory.mark_all()
        self.image_wake.set()
        self.directory_wake.set()

    def begin_epoch(self, epoch: int) -> None:
        """Go on under a greater epoch. What waits under the old one is not published."""
        self.state.begin_epoch(epoch)
        while not self.outgoing.empty():
            self.outgoing.get_nowait()
        self.rewrite_image()

    def send_batches(self, batches: list[bytes]) -> None:
        """Hand batches to the publisher; never waits."""
        try:
            self.outgoing.put_nowait(batches)
        except asyncio.QueueFull:
            self.drop_batch()

    def drop_batch(self) -> None:
        """Count a batch that does not reach NATS."""
        self.dropped_batches += 1
        telemetry.loop_items.add(1, {"loop": "publish dropped"})


class WarmShard:
    """The channels of a shard that another owns, watched here and told to nobody.

    While it is offered to this process, or all the time where this is its warm standby.
    """

    def __init__(self, settle_ns: int) -> None:
        self.followed: dict[int, bytes] = {}
        """Encoded pages of the catalog whose channels are watched."""
        self.added = asyncio.Event()
        """Set while the channels of `followed` are all made."""
        self.catalog_wake = asyncio.Event()
        self.looked_at: float | None = None
        """When the process last looked after it; None: not since its channels were made."""
        self._settling = SearchSettling(settle_ns)
        self._table = PageTable(np.zeros(0, np.int64))
        self._valued_since: int | None = None
        """When as many had a value as the owner says are connected."""

    def follow(self, pages: Mapping[int, bytes], removed: NDArray[np.int64]) -> None:
        """These pages of the catalog changed; what was kept of the channels `removed` is over."""
        self.added.clear()
        self._table.add_pages(np.array(list(pages), np.int64))
        self._table.clear_channels(removed)
        self.followed.update(pages)

    def fold_columns(self, columns: Columns) -> None:
        """Take in drained rows, keyed by channel; the latest of each is kept."""
        self._table.apply_batch(columns)

    def columns(self) -> Columns:
        """What came so far, for the owner to be.

        What was merged meanwhile was the former owner's to publish: it is not told as missed.
        """
        place, slot = np.nonzero(self._table.pages.values["state"])
        return self._table.columns_of_channels(
            (self._table.page_numbers[place] << PAGE_SHIFT) + slot
        ).compact_heap()

    def is_prepared(self, now_ns: int, channels: int, connected: int, asking: int) -> bool:
        """Whether as many have a value as the owner says are connected, or no more come.

        And nothing is asked of their IOCs any more, or for a while there was: one that is busy with
        subscriptions is late with the values that the owner is to publish.
        """
        up, valued = self._count_connected()
        all_valued = valued >= connected
        if not all_valued:
            self._valued_since = None
        elif self._valued_since is None:
            self._valued_since = now_ns
        waited_ns = 0 if self._valued_since is None else now_ns - self._valued_since
        return self.added.is_set() and (
            (all_valued and (not asking or waited_ns >= _LONGEST_BUSY_NS))
            or self._settling.has_settled(
                now_ns, searched=True, channels=channels, connected=up, valued=valued - asking
            )
        )

    def note_look(self, now_s: float) -> bool:
        """Whether it was not looked after for long, by `boottime`: the process was stopped.

        Then older values than the owner has told lie in its sockets, and all of it has to begin
        anew. A loop that is only blocked looks the same; the channels are connected once more.
        """
        before, self.looked_at = self.looked_at, now_s
        return before is not None and now_s - before > _STOOD_STILL_S

    def falls_behind(self, connected: int) -> bool:
        """Whether it is clearly less connected than the owner, though it was prepared.

        Then another may be the better one, and it has to be prepared anew.
        """
        behind = self._count_connected()[0] < _LEAST_PART * connected
        if behind:
            self._settling.restart_search()
        return behind

    def _count_connected(self) -> tuple[int, int]:
        """Channels that are connected, and those of them that have a value."""
        values = self._table.pages.values
        up = values["state"] == State.CONNECTED
        return int(np.count_nonzero(up)), int(np.count_nonzero(up & (values["kind"] != KIND_NONE)))


class LeftToAnother(Exception):
    """A shard that was waited for goes to another monitor."""


class ShardTurn:
    """Whether this process may try for a shard now, and whether it is to prepare for it."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.wanted = asyncio.Event()
        """To be prepared for: it is offered to this process, which may be its standby as well."""
        self.offered = self.standing = self.prepared = False
        self._limit: asyncio.Timeout | None = None

    @asynccontextmanager
    async def try_to_own(self) -> AsyncIterator[None]:
        """For the wait for the lease: `LeftToAnother` where it goes to another meanwhile."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limit = limit
                yield
        except TimeoutError as error:
            if limit.expired():
                raise LeftToAnother from error
            raise
        finally:
            self._limit = None

    def stop_trying(self) -> None:
        """The lease is ours: who is told of another after this goes on."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(None)
        self._limit = None

    def set_free(self, free: bool) -> None:
        """Whether this process may try for it."""
        if free:
            self.free.set()
            return
        self.free.clear()
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
            self._limit = None

    def set_wanted(self, *, offered: bool, standing: bool) -> None:
        """Whether it is offered to this process, and whether this is to be its warm standby."""
        self.offered, self.standing = offered, standing
        if offered or standing:
            self.wanted.set()
        else:
            self.wanted.clear()
            self.prepared = False


class Shards:
    """Which shards are owned, how many may be, and whether they were given up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._owned: dict[int, Owned] = {}
        self._warm: dict[int, WarmShard] = {}
        self._turns: dict[int, ShardTurn] = {}
        self._claimed: set[int] = set()
        self._leased: set[int] = set()
        """Whose leases were won and not given back; for a moment longer than they are owned."""
        self._room = asyncio.Event()
        self._room.set()
        self.released = asyncio.Event()
        self.changed = asyncio.Event()
        """Set when a shard has rows to be cut that no drain announces."""

    def __iter__(self) -> Iterator[Owned]:
        return iter(list(self._owned.values()))

    def __len__(self) -> int:
        return len(self._owned)

    def get(self, shard: int) -> Owned | None:
        """An owned shard, or None."""
        return self._owned.get(shard)

    def shard_turn(self, shard: int) -> ShardTurn:
        """Whose turn it is."""
        return self._turns.setdefault(shard, ShardTurn())

    def fold_columns(self, shard: int, columns: Columns) -> None:
        """Give drained rows to whatever of the shard is here."""
        home = self._owned.get(shard) or self._warm.get(shard)
        if home is not None:
            home.fold_columns(columns)

    def begin_warm(self, shard: int, warm: WarmShard) -> None:
        """Its values are kept from here on."""
        self._warm[shard] = warm

    def warm_shard(self, shard: int) -> WarmShard | None:
        """What is prepared of a shard."""
        return self._warm.get(shard)

    def warm_shards(self) -> list[tuple[int, WarmShard]]:
        """All that is prepared, by shard."""
        return list(self._warm.items())

    def end_warm(self, shard: int) -> WarmShard | None:
        """It is not prepared for any more, because it is owned now, or somebody else's."""
        return self._warm.pop(shard, None)

    def followed(self, shard: int) -> Mapping[int, bytes]:
        """Encoded pages of the catalog whose channels are watched here, as owner or before."""
        home = self._owned.get(shard) or self._warm.get(shard)
        return {} if home is None else home.followed

    @property
    def is_full(self) -> bool:
        """Whether this process may own no more."""
        return not self._room.is_set()

    async def wait_room(self) -> None:
        """Wait until this process may own one more."""
        await self._room.wait()

    def claim_shard(self, shard: int) -> bool:
        """Count a shard whose lease was won; False when there is no room for it any more."""
        if self.released.is_set() or not has_room(len(self._claimed), self._most):
            return False
        self._claimed.add(shard)
        self._leased.add(shard)
        self._tell_room()
        return True

    @property
    def holds_leases(self) -> bool:
        """Whether others still wait for a lease of this process."""
        return bool(self._leased)

    def note_given_back(self, shard: int) -> None:
        """Its lease is free."""
        self._leased.discard(shard)

    def own_shard(self, owned: Owned) -> None:
        """The shard is published from here on."""
        self._owned[owned.shard] = owned

    def leave_shard(self, shard: int) -> None:
        """The shard is not ours any more: nothing of it is published from here on."""
        self._owned.pop(shard, None)
        self._claimed.discard(shard)
        self._tell_room()

    def supersede_owner(self, owned: Owned, epoch: int) -> None:
        """A newer owner was heard of: the ownership ends, and publishing at once."""
        owned.newer_epoch = epoch
        owned.superseded.set()
        self.leave_shard(owned.shard)

    def release_all(self) -> int:
        """Give up all shards and take none again; their number."""
        count = len(self._claimed)
        self.released.set()
        self._room.clear()
        return count

    def queue_states(self) -> list[QueueState]:
        """Batches of each owned shard that wait for NATS."""
        return [
            QueueState(
                f"batches of shard {owned.shard}",
                owned.outgoing.qsize(),
                owned.outgoing.maxsize,
                owned.dropped_batches,
            )
            for owned in self
        ]

    def _tell_room(self) -> None:
        if not self.released.is_set() and has_room(len(self._claimed), self._most):
            self._room.set()
        else:
            self._room.clear()
