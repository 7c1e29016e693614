"""Reading the same channels again and again, where an IOC that is silent holds up no other."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import NamedTuple

import numpy as np

from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable, ReadResult, Slots
from drey_core.values import I8, Columns
from drey_restore.domain.items import scatter_rows
from drey_restore.domain.settling import Mask

_LOOK_S = 0.5
_SILENT = (ECA.TIMEOUT, ECA.UNRESPTMO)
_NOT_PROMPT = (*_SILENT, ECA.DISCONN)


class _Answer(NamedTuple):
    reading: ReadResult
    is_prompt: bool


class Looks:
    """Looks at the same kind of channels; an asynchronous context manager, which ends its reads.

    A look takes half a second at most. An IOC that has not answered by then is read beside the
    looks, for as long as a read may take, and again and again until it is prompt: the next look
    has what it answered meanwhile.
    """

    def __init__(self, table: ChannelTable, read_s: float) -> None:
        self._table, self._read_s = table, read_s
        self._beside: dict[str, asyncio.Task[_Answer]] = {}

    async def __aenter__(self) -> Looks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._beside.values():
            task.cancel()
        await asyncio.gather(*self._beside.values(), return_exceptions=True)

    async def read_slots(self, slots: Slots) -> ReadResult:
        """What they show; ECA_TIMEOUT where nothing was answered since the look before."""
        hosts = np.array(self._table.read_info(slots).host, object)
        found = ReadResult(
            Columns.empty_columns(len(slots)).with_key(slots),
            np.full(len(slots), ECA.TIMEOUT, np.int32),
        )
        asked = np.ones(len(slots), bool)
        for host, task in list(self._beside.items()):
            rows = np.flatnonzero(hosts == host)
            asked[rows] = False
            if len(rows) and task.done():
                del self._beside[host]
                answer = task.result()
                found = _merge_readings(found, rows, answer.reading)
                if not answer.is_prompt:
                    self._read_beside(host, slots[rows])
        rows = np.flatnonzero(asked)
        if len(rows) == 0:
            return found
        reading = await self._table.read_values(slots[rows], min(_LOOK_S, self._read_s))
        late = rows[np.isin(reading.code, _NOT_PROMPT)]
        for host in set(hosts[late].tolist()):
            self._read_beside(host, slots[late[hosts[late] == host]])
        return reading if len(rows) == len(slots) else _merge_readings(found, rows, reading)

    def _read_beside(self, host: str, slots: Slots) -> None:
        self._beside[host] = asyncio.create_task(self._read_once(slots), name=f"late {host}")

    async def _read_once(self, slots: Slots) -> _Answer:
        began = time.monotonic()
        reading = await self._table.read_values(slots, self._read_s)
        late = np.isin(reading.code, _NOT_PROMPT).any()
        return _Answer(reading, not late and time.monotonic() - began < _LOOK_S)


def was_answered(reading: ReadResult) -> Mask:
    """Which channels a look knows something of, be it that they are not connected."""
    known: Mask = ~np.isin(reading.code, _SILENT)
    return known


def _merge_readings(found: ReadResult, rows: I8, reading: ReadResult) -> ReadResult:
    """`found` with what was read for those of its `rows` that are in `reading`."""
    order = np.argsort(reading.values.key)
    places = np.searchsorted(reading.values.key[order], found.values.key[rows])
    places = order[np.minimum(places, len(order) - 1)]
    same = reading.values.key[places] == found.values.key[rows]
    codes = found.code.copy()
    codes[rows[same]] = reading.code[places[same]]
    return ReadResult(
        scatter_rows(found.values, rows[same], reading.values.take_rows(places[same])), codes
    )
