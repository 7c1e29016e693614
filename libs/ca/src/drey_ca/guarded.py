"""A channel table with a circuit breaker for each IOC: one that does not answer is let alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drey_ca.eca import ECA
from drey_ca.interface import (
    ChannelTable,
    Connections,
    InfoColumns,
    ReadResult,
    ServedTwice,
    Slots,
    TableStats,
)
from drey_core.breaker import BreakerBook
from drey_core.values import Columns, Kind, State

log = logging.getLogger(__name__)

_LOOK_S = 0.25
_PROBE_S = 2.0
_UNANSWERED = (ECA.TIMEOUT, ECA.UNRESPTMO, ECA.DISCONN)


class GuardedTable:
    """`ChannelTable` around another one. Give it to whoever reads and writes, and run `run`.

    Rows of an IOC whose breaker is open are not given to the table: they are as those of a channel
    that is not connected (ECA_DISCONN, DISCONNECTED), at once. `why_refused` has the reason.

    A channel that has never connected belongs to no IOC, and has no breaker.
    """

    def __init__(
        self, table: ChannelTable, book: BreakerBook | None = None, *, probe_s: float = _PROBE_S
    ) -> None:
        self._table, self.book = table, book or BreakerBook()
        self._probe_s = probe_s
        self._probes: set[asyncio.Task[None]] = set()
        self._gone: set[str] = set()
        """IOCs that had no connection at their last probe."""

    # --- what is guarded ---

    async def read_values(
        self, slots: Slots, timeout: float, *, kind: Kind | None = None
    ) -> ReadResult:
        """See `ChannelTable.read_values`."""
        slots = np.asarray(slots, np.int64)
        asked = self._not_refused(slots)
        if asked.all():
            result = await self._table.read_values(slots, timeout, kind=kind)
            self._note_codes(slots, result.code)
            return result
        reading = await self._table.read_values(slots[asked], timeout, kind=kind)
        self._note_codes(slots[asked], reading.code)
        silent = Columns.empty_columns(int((~asked).sum())).with_key(slots[~asked])
        silent.state[:] = State.DISCONNECTED
        order = np.argsort(np.concatenate([np.flatnonzero(asked), np.flatnonzero(~asked)]))
        return ReadResult(
            Columns.concat_columns([reading.values, silent]).take_rows(order),
            self._answer_codes(asked, reading.code),
        )

    async def write_values(
        self,
        slots: Slots,
        values: Columns,
        timeout: float,
        *,
        completion: bool = True,
        connected_at: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int32]:
        """See `ChannelTable.write_values`."""
        slots = np.asarray(slots, np.int64)
        asked = self._not_refused(slots)
        chosen = values if asked.all() else values.take_rows(asked)
        codes = await self._table.write_values(
            slots[asked],
            chosen,
            timeout,
            completion=completion,
            connected_at=None if connected_at is None else connected_at[asked],
        )
        self._note_codes(slots[asked], codes)
        return self._answer_codes(asked, codes)

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        """See `ChannelTable.wait_connected`."""
        slots = np.asarray(slots, np.int64)
        asked = self._not_refused(slots)
        up = np.zeros(len(slots), bool)
        up[asked] = await self._table.wait_connected(slots[asked], timeout)
        return up

    def why_refused(self, slots: Slots) -> str:
        """Which IOCs of these slots are not asked, since when, and when they are probed.

        For people; empty where all of them are.
        """
        if not self.book.refused_addresses:
            return ""
        connections = self._table.connection_columns()
        servers = np.unique(connections.server[slots])
        return self.book.why_refused(connections.servers[i] for i in servers.tolist() if i >= 0)

    def refused_codes(self, slots: Slots) -> dict[int, str]:
        """By their places in `slots`: why the IOC is not asked, for people."""
        places = np.flatnonzero(~self._not_refused(slots))
        if len(places) == 0:
            return {}
        connections = self._table.connection_columns()
        servers = connections.server[slots[places]]
        texts = {
            server: self.book.why_refused([connections.servers[server]])
            for server in np.unique(servers).tolist()
        }
        return {
            place: texts[server]
            for place, server in zip(places.tolist(), servers.tolist(), strict=True)
        }

    def _not_refused(self, slots: Slots) -> NDArray[np.bool_]:
        asked = np.ones(len(slots), bool)
        refused = self.book.refused_addresses
        if refused:
            connections = self._table.connection_columns()
            closed = np.array([name in refused for name in connections.servers] + [False])
            # what has none is refused by the table itself
            has_connection = slots < len(connections.server)
            asked[has_connection] = ~closed[connections.server[slots[has_connection]]]
        return asked

    @staticmethod
    def _answer_codes(asked: NDArray[np.bool_], read_codes: NDArray[np.int32]) -> NDArray[np.int32]:
        codes = np.full(len(asked), ECA.DISCONN, np.int32)
        codes[asked] = read_codes
        return codes

    def _note_codes(self, slots: Slots, codes: NDArray[np.int32]) -> None:
        """What the answers say of the IOCs. Costs nothing while all of them answer."""
        unanswered = np.isin(codes, _UNANSWERED)
        if not unanswered.any() and not self.book.has_watched:
            return
        connections = self._table.connection_columns()
        here = slots < len(connections.server)  # some may have been removed meanwhile, none be new
        server, silent = connections.server[slots[here]], unanswered[here]
        now = time.monotonic_ns()
        answering = set(np.unique(server[~silent]).tolist())
        for index in np.unique(server).tolist():
            if index >= 0 and index in answering:
                self.book.note_answered(connections.servers[index])
            elif index >= 0:
                self.book.note_unanswered(connections.servers[index], now)

    # --- probes ---

    async def run(self) -> None:
        """Probe what is suspected or open, until cancelled."""
        try:
            while True:
                self._look_for_gone()
                for address in self.book.next_probes(time.monotonic_ns()):
                    task = asyncio.create_task(
                        self._probe_address(address), name=f"probe {address}"
                    )
                    self._probes.add(task)
                    task.add_done_callback(self._probes.discard)
                await asyncio.sleep(_LOOK_S)
        finally:
            for task in self._probes:
                task.cancel()
            await asyncio.gather(*self._probes, return_exceptions=True)

    def _look_for_gone(self) -> None:
        if not self._gone:
            return
        connections = self._table.connection_columns()
        indexes = np.unique(connections.server[connections.connected]).tolist()
        up = {connections.servers[index] for index in indexes}
        for address in self._gone & up:
            self.book.note_connected(address, time.monotonic_ns())
        self._gone -= up

    async def _probe_address(self, address: str) -> None:
        answered = await self._address_answers(address)
        changed = self.book.end_probe(
            address, answered=answered, now=time.monotonic_ns(), wall_ns=time.time_ns()
        )
        if changed and answered:
            log.info("IOC %s answers again and is asked again", address)
        elif changed:
            log.warning("IOC %s is not asked any more: it answered nothing", address)

    async def _address_answers(self, address: str) -> bool:
        """Whether it answers a read of one scalar; where it has none, whether it is there."""
        connections = self._table.connection_columns()
        index = connections.servers.index(address) if address in connections.servers else -2
        here = connections.server == index
        askable = np.flatnonzero(here & connections.askable)[:1]
        if not len(askable):
            is_there = bool((here & connections.connected).any())
            if not is_there:
                self._gone.add(address)
            return is_there
        try:
            result = await self._table.read_values(askable, self._probe_s)
        except (KeyError, RuntimeError):
            return False  # the channel or the table ended just now
        return int(result.code[0]) not in (*_UNANSWERED, ECA.CHANDESTROY)

    # --- what is not ---

    @property
    def implementation_name(self) -> str:
        """See `ChannelTable.implementation_name`."""
        return self._table.implementation_name

    @property
    def withdraws_writes(self) -> bool:
        """See `ChannelTable.withdraws_writes`."""
        return self._table.withdraws_writes

    async def add_channels(self, names: Sequence[str]) -> Slots:
        """See `ChannelTable.add_channels`."""
        return await self._table.add_channels(names)

    async def remove_slots(self, slots: Slots) -> None:
        """See `ChannelTable.remove_slots`."""
        await self._table.remove_slots(slots)

    async def subscribe_slots(self, slots: Slots) -> None:
        """See `ChannelTable.subscribe_slots`."""
        await self._table.subscribe_slots(slots)

    async def wait_dirty(self) -> None:
        """See `ChannelTable.wait_dirty`."""
        await self._table.wait_dirty()

    def drain_updates(self, max_heap: int = 64 << 20) -> Columns:
        """See `ChannelTable.drain_updates`."""
        return self._table.drain_updates(max_heap)

    def drain_info(self) -> Slots:
        """See `ChannelTable.drain_info`."""
        return self._table.drain_info()

    def read_info(self, slots: Slots) -> InfoColumns:
        """See `ChannelTable.read_info`."""
        return self._table.read_info(slots)

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        """See `ChannelTable.unanswered_slots`."""
        return self._table.unanswered_slots(slots)

    def connection_columns(self) -> Connections:
        """See `ChannelTable.connection_columns`."""
        return self._table.connection_columns()

    def take_served_twice(self) -> list[ServedTwice]:
        """See `ChannelTable.take_served_twice`."""
        return self._table.take_served_twice()

    def table_stats(self) -> TableStats:
        """See `ChannelTable.table_stats`."""
        return self._table.table_stats()

    async def close_table(self) -> None:
        """See `ChannelTable.close_table`."""
        await self._table.close_table()
