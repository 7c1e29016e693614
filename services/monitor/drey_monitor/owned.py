"""The shards that this process owns now, as its loops share them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from drey_core.errors import Unavailable
from drey_core.values import Columns
from drey_monitor.domain.directory import DirectoryState
from drey_monitor.domain.merging import latest
from drey_monitor.domain.ownership import has_room
from drey_monitor.domain.progress import SearchSettling, UpdateRate
from drey_monitor.domain.shard import Counts, ShardState
from drey_runtime import telemetry
from drey_runtime.instances import QueueState
from drey_runtime.lease import Term

_WAITING_BATCHES = 16
_EARLY_PARTS = 4


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

    def __init__(self, shard: int, epoch: int, settle_ns: int, term: Term) -> None:
        self.state = ShardState(shard, epoch)
        self._term = term
        self.directory = DirectoryState()
        self.settling = SearchSettling(settle_ns)
        self.rate = UpdateRate()
        self.followed: dict[int, bytes] = {}
        """Encoded pages of the catalog whose channels are watched."""
        self._early: list[Columns] | None = []
        """Values that came while the past was still being read; None once it was."""
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

    @property
    def shard(self) -> int:
        """Number of the shard."""
        return self.state.shard

    @property
    def publishes(self) -> bool:
        """Whether batches may be cut: the past was taken over, the epoch is fenced and valid."""
        return self._early is None and self._fenced == self.state.epoch and self._term.valid

    def require_valid(self) -> None:
        """Raise `Unavailable` where somebody else may have the shard by now.

        Asked right before whatever leaves this process, since it may have stood still just then.
        """
        if not self._term.valid:
            raise Unavailable(f"the lease of shard {self.shard} could not be renewed in time")

    def fenced(self, epoch: int) -> None:
        """The image refuses what is older than `epoch`, or is away and cannot be read either."""
        self._fenced = max(self._fenced, epoch)

    def fold(self, columns: Columns) -> None:
        """Take in drained rows, keyed by channel; before `begin` they wait.

        What waits is bounded: merged to the latest row of each channel every few ticks.
        """
        if self._early is None:
            self.state.fold(columns)
            return
        self._early.append(columns)
        if len(self._early) > _EARLY_PARTS:
            self._early = [latest(self._early)]

    def begin(self) -> None:
        """The past was taken over: fold what came meanwhile."""
        early, self._early = self._early or [], None
        for columns in early:
            self.state.fold(columns)

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

    def send(self, batches: list[bytes]) -> None:
        """Hand batches to the publisher; never waits."""
        try:
            self.outgoing.put_nowait(batches)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        """Count a batch that does not reach NATS."""
        self.dropped_batches += 1
        telemetry.loop_items.add(1, {"loop": "publish dropped"})


class Shards:
    """Which shards are owned, how many may be, and whether they were given up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._owned: dict[int, Owned] = {}
        self._claimed: set[int] = set()
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

    async def wait_room(self) -> None:
        """Wait until this process may own one more."""
        await self._room.wait()

    def claim(self, shard: int) -> bool:
        """Count a shard whose lease was won; False when there is no room for it any more."""
        if self.released.is_set() or not has_room(len(self._claimed), self._most):
            return False
        self._claimed.add(shard)
        self._tell_room()
        return True

    def own(self, owned: Owned) -> None:
        """The shard is published from here on."""
        self._owned[owned.shard] = owned

    def leave(self, shard: int) -> None:
        """The shard is not ours any more: nothing of it is published from here on."""
        self._owned.pop(shard, None)
        self._claimed.discard(shard)
        self._tell_room()

    def supersede(self, owned: Owned, epoch: int) -> None:
        """A newer owner was heard of: the ownership ends, and publishing at once."""
        owned.newer_epoch = epoch
        owned.superseded.set()
        self.leave(owned.shard)

    def release_all(self) -> int:
        """Give up all shards and take none again; their number."""
        count = len(self._claimed)
        self.released.set()
        self._room.clear()
        return count

    def queues(self) -> list[QueueState]:
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
