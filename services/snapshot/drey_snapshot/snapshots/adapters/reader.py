"""Forced reads: a table of Channel Access channels that stay connected between snapshots."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np

from drey_ca.guarded import GuardedTable
from drey_ca.interface import ChannelTable
from drey_core.breaker import BreakerBook
from drey_core.values import I8, Columns, Kind


class CaReader:
    """Reads channels from the control system. Nothing of EPICS is loaded before the first read.

    Channels connect when they are first read, which is slow for many; from then on they stay.
    """

    def __init__(
        self, implementation: str, environment: dict[str, str], stack: AsyncExitStack
    ) -> None:
        """As `drey_ca.open_table`; `stack` closes the table at the end of the process."""
        self._implementation, self._environment = implementation, environment
        self._stack = stack
        self.breakers = BreakerBook()
        self._table: GuardedTable | None = None
        self._opened = asyncio.Event()
        self._channels = np.zeros(0, np.int64)
        self._slots = np.zeros(0, np.int64)
        self._lock = asyncio.Lock()

    async def read_channels(
        self, channels: I8, addresses: list[str], living: I8, timeout: float
    ) -> Columns:
        """Values keyed by channel, a row for each in the order asked; one deadline for all.

        A row without a value has kind NONE and the state that says why. `living` are all
        channels of the catalog: connections to others are given up. Takes `timeout` seconds at
        most, apart from making channels.
        """
        async with self._lock:
            table = await self._open_table()
            await self._forget_others(table, living)
            await self._add_channels(table, channels, addresses)
            slots = self._slots[np.searchsorted(self._channels, channels)]
        result = await table.read_values(slots, timeout)
        return replace(result.values, key=channels)

    async def read_labels(
        self, channels: I8, timeout: float
    ) -> list[tuple[tuple[bytes, ...], bytes | None]]:
        """Of enums that were read: the labels that their server told, and the label of now.

        The labels are of when the channel connected, or of a change since that was heard of; the
        label of now is None where it could not be read within `timeout` seconds.
        """
        async with self._lock:
            table = await self._open_table()
            slots = self._slots[np.searchsorted(self._channels, channels)]
        texts = (await table.read_values(slots, timeout, kind=Kind.STRING)).values
        labels = table.read_info(slots).labels
        return [(labels[row], texts.value(row)) for row in range(len(channels))]

    def why_refused(self, channels: I8) -> str:
        """Which of their IOCs are not asked, since when and until when; empty: all are."""
        if self._table is None:
            return ""
        return self._table.why_refused(self._slots[np.isin(self._channels, channels)])

    async def run(self) -> None:
        """Probe IOCs that did not answer, until cancelled."""
        await self._opened.wait()
        assert self._table is not None
        await self._table.run()

    async def _open_table(self) -> ChannelTable:
        if self._table is None:
            from drey_ca import open_table  # loads libca

            opened = await self._stack.enter_async_context(
                open_table(self._implementation, self._environment)
            )
            self._table = GuardedTable(opened, self.breakers)
            self._opened.set()
        return self._table

    async def _forget_others(self, table: ChannelTable, living: I8) -> None:
        gone = ~np.isin(self._channels, living)
        if gone.any():
            await table.remove_slots(self._slots[gone])
            self._channels, self._slots = self._channels[~gone], self._slots[~gone]

    async def _add_channels(self, table: ChannelTable, channels: I8, addresses: list[str]) -> None:
        new = np.flatnonzero(~np.isin(channels, self._channels))
        if len(new) == 0:
            return
        slots = await table.add_channels([addresses[i] for i in new.tolist()])
        joined = np.concatenate([self._channels, channels[new]])
        order = np.argsort(joined, kind="stable")
        self._channels = joined[order]
        self._slots = np.concatenate([self._slots, slots])[order]
