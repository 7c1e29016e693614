"""Looks after the IOCs: counts connections, asks for echoes, searches again for double names."""

from __future__ import annotations

import asyncio
import logging
import time

import numpy as np

from drey_ca.eca import ECA
from drey_core.errors import InvalidArgument
from drey_monitor.adapters.channels import ChannelHub
from drey_monitor.domain.iocs import IocBook
from drey_runtime.clock import now_ns

log = logging.getLogger(__name__)

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
        *,
        echo_timeout_s: float = _ECHO_TIMEOUT_S,
        look_again_s: float = _LOOK_AGAIN_S,
    ) -> None:
        self._hub, self._book = hub, book
        self._echo_timeout_s, self._look_again_s = echo_timeout_s, look_again_s

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count(), name="count connections")
            group.create_task(self._ask_echoes(), name="echoes")
            group.create_task(self._search_again(), name="double names")

    async def _count(self) -> None:
        while True:
            connections = self._hub.connections()
            self._book.count(connections.servers, connections.server, connections.connected)
            doubles = [(d.name, d.taken, d.ignored) for d in self._hub.take_served_twice()]
            for double in doubles:
                log.warning("%s is served by %s and by %s; the first is taken", *double)
            self._book.note_doubles(doubles, now_ns())
            await asyncio.sleep(_PERIOD_S)

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
        connections = self._hub.connections()
        askable = np.flatnonzero(connections.askable)
        servers, first = np.unique(connections.server[askable], return_index=True)
        slot_of = {
            connections.servers[server]: slot
            for server, slot in zip(servers.tolist(), askable[first].tolist(), strict=True)
        }
        asked = [address for address in addresses if address in slot_of]
        if not asked:
            return
        began = now_ns()
        slots = np.array([slot_of[address] for address in asked], np.int64)
        try:
            answer = await self._hub.read(slots, self._echo_timeout_s)
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
            names = [double.name for double in self._book.doubles]
            if not names:
                continue
            try:
                slots = await self._hub.add_unwatched(names)
            except InvalidArgument:
                continue
            self._book.begin_search(names)
            await asyncio.sleep(_SEARCH_S)
            await self._hub.release(slots)
            self._book.end_search()
