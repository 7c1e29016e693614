"""Looks after the IOCs: counts connections, asks for echoes, searches again for double names.

Connects channels anew that hang.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drey_ca import Connections
from drey_ca.eca import ECA
from drey_core.errors import InvalidArgument
from drey_core.pages import PAGE_MASK, PAGE_SHIFT
from drey_monitor import mapping
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.domain.hangs import HangBook, hanging_channels
from drey_monitor.domain.iocs import IocBook
from drey_monitor.owned import Shards
from drey_runtime.clock import now_ns

log = logging.getLogger(__name__)

I8 = NDArray[np.int64]

_PERIOD_S = 1.0
_ECHO_TIMEOUT_S = 5.0
_ECHOES = 500
"""At a time: of 2,000 IOCs each is asked every five seconds."""
_NOT_ANSWERED = (ECA.TIMEOUT, ECA.UNRESPTMO)
_GONE = (ECA.DISCONN, ECA.CHANDESTROY)
_SEARCH_S = 3.0
_LOOK_AGAIN_S = 60.0


class IocWatch:
    """One for the process's table.

    An echo is a read of one scalar of the IOC, which the server answers from memory: libca gives
    no other way to ask for one, and its own, after 30 s of silence, tells nobody how long it took.
    """

    def __init__(
        self,
        hub: ChannelHub,
        book: IocBook,
        shards: Shards,
        *,
        echo_timeout_s: float = _ECHO_TIMEOUT_S,
        look_again_s: float = _LOOK_AGAIN_S,
    ) -> None:
        self._hub, self._book, self._shards = hub, book, shards
        self._hangs = HangBook()
        self._echo_timeout_s, self._look_again_s = echo_timeout_s, look_again_s

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count_channels(), name="count connections")
            group.create_task(self._ask_echoes(), name="echoes")
            group.create_task(self._search_again(), name="double names")

    async def _count_channels(self) -> None:
        async with asyncio.TaskGroup() as group:
            reconnecting: asyncio.Task[None] | None = None
            while True:
                connections = self._hub.connection_columns()
                self._book.count(
                    connections.servers, self._owned_at(connections), connections.connected
                )
                self._note_doubles()
                suspects = self._look_for_suspects(connections)
                if len(suspects) and (reconnecting is None or reconnecting.done()):
                    reconnecting = group.create_task(
                        self._reconnect_hung(connections, suspects), name="hung channels"
                    )
                await asyncio.sleep(_PERIOD_S)

    def _owned_at(self, connections: Connections) -> NDArray[np.int32]:
        """Server of each channel, -1 where it is another monitor's and only kept warm here.

        So each channel is counted once, by its owner, and its IOC asked for echoes by that alone.
        """
        shards = self._hub.shards_of(np.arange(len(connections.server)))
        owned = np.array([each.shard for each in self._shards], np.int64)
        return np.where(np.isin(shards, owned), connections.server, np.int32(-1))

    def _note_doubles(self) -> None:
        doubles = [(d.name, d.taken, d.ignored) for d in self._hub.take_served_twice()]
        for double in doubles:
            log.warning("%s is served by %s and by %s; the first is taken", *double)
        self._book.note_doubles(doubles, now_ns())

    def _look_for_suspects(self, connections: Connections) -> I8:
        channels = self._hub.channels_of(np.arange(len(connections.server)))
        suspects = self._hangs.next_suspects(connections, channels, time.monotonic_ns())
        owned = replace(connections, server=self._owned_at(connections))
        self._book.note_hung(self._hangs.count_hung(owned, channels))
        return suspects

    async def _reconnect_hung(self, connections: Connections, suspects: I8) -> None:
        """Read suspects, beside one heard channel of each of their IOCs; one time-out for all."""
        server = connections.server[suspects]
        witness_of = _askable_slots(connections, heard=True)
        witnesses = {s: witness_of[s] for s in np.unique(server).tolist() if s in witness_of}
        channels = self._hub.channels_of(suspects)
        slots = np.concatenate([suspects, np.array(list(witnesses.values()), np.int64)])
        try:
            code = (await self._hub.read_values(slots, self._echo_timeout_s)).code
        except KeyError:
            return  # a channel ended just now; the next look finds the others again
        code, spoken = code[: len(suspects)], code[len(suspects) :]
        alive = {s for s, c in zip(witnesses, spoken.tolist(), strict=True) if c == ECA.NORMAL}
        hangs = hanging_channels(server, code == ECA.NORMAL, np.isin(code, _NOT_ANSWERED), alive)
        renewed = np.zeros(len(suspects), bool)
        renewed[hangs] = await self._hub.reconnect_slots(suspects[hangs], self._addresses_of)
        # a value may have come in the last moment
        hangs &= renewed | self._is_unheard(suspects, channels)
        for channel, is_hung in zip(channels.tolist(), hangs.tolist(), strict=True):
            self._hangs.note_read(channel, time.monotonic_ns(), hangs=is_hung)
        for index in np.unique(server[hangs]).tolist():
            here, address = hangs & (server == index), connections.servers[index]
            log.warning(
                "%d channels of IOC %s hang, among them %d: subscribed, and no value came, though"
                " it answers; %d were connected anew",
                *(int(here.sum()), address, channels[here][0], int(renewed[here].sum())),
            )
            self._book.note_reconnected(address, int(renewed[here].sum()))

    def _is_unheard(self, slots: I8, channels: I8) -> NDArray[np.bool_]:
        unheard = self._hub.connection_columns().unheard_ns[slots] > 0
        waits: NDArray[np.bool_] = unheard & (self._hub.channels_of(slots) == channels)
        return waits

    def _addresses_of(self, shards: I8, channels: I8) -> list[str]:
        """Addresses of channels; empty where their shard is not watched here."""
        pages: dict[int, Sequence[str]] = {}
        out = []
        for shard, channel in zip(shards.tolist(), channels.tolist(), strict=True):
            number = channel >> PAGE_SHIFT
            raw = self._shards.followed(shard).get(number)
            if raw is not None and number not in pages:
                pages[number] = mapping.catalog_channels(raw).addresses
            out.append("" if raw is None else pages[number][channel & PAGE_MASK])
        return out

    async def _ask_echoes(self) -> None:
        """Each round in a task of its own: silent IOCs do not keep the others waiting."""
        async with asyncio.TaskGroup() as rounds:
            while True:
                due = self._book.next_echoes(time.monotonic_ns(), _ECHOES)
                if due:
                    rounds.create_task(self._ask_echo(due), name="echo round")
                await asyncio.sleep(_PERIOD_S)

    async def _ask_echo(self, addresses: list[str]) -> None:
        """One read of one channel of each; one time-out for all of them."""
        connections = self._hub.connection_columns()
        # one that hangs tells nothing of its IOC
        slots_of = _askable_slots(connections) | _askable_slots(connections, heard=True)
        slot_of = {connections.servers[server]: slot for server, slot in slots_of.items()}
        asked = [address for address in addresses if address in slot_of]
        if not asked:
            return
        began = now_ns()
        slots = np.array([slot_of[address] for address in asked], np.int64)
        try:
            answer = await self._hub.read_values(slots, self._echo_timeout_s)
        except KeyError:
            return  # a channel ended just now; the next round asks another
        took = (answer.values.receive_time - began).tolist()
        for address, code, took_ns in zip(asked, answer.code.tolist(), took, strict=True):
            if code in _NOT_ANSWERED:
                log.warning("IOC %s has not answered for %.0f s", address, self._echo_timeout_s)
                self._book.note_silent(address, began)
            elif code not in _GONE:
                self._book.note_answered(address, took_ns)

    async def _search_again(self) -> None:
        """Whether names that two servers had have two still: libca tells while it searches only."""
        while True:
            await asyncio.sleep(self._look_again_s)
            names = [double.name for double in self._book.double_names]
            if not names:
                continue
            try:
                slots = await self._hub.add_unwatched(names)
            except InvalidArgument:
                continue
            self._book.begin_search(names)
            await asyncio.sleep(_SEARCH_S)
            await self._hub.release_slots(slots)
            self._book.end_search()


def _askable_slots(connections: Connections, *, heard: bool = False) -> dict[int, int]:
    """One slot of each server that can be asked at little cost; `heard`: of those with a value."""
    chosen = connections.askable & (connections.unheard_ns == 0) if heard else connections.askable
    slots = np.flatnonzero(chosen)
    servers, first = np.unique(connections.server[slots], return_index=True)
    return dict(zip(servers.tolist(), slots[first].tolist(), strict=True))
