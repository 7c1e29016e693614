"""What the records of a plan's writes say of themselves: .DISP, .DISA, and their real names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drey_core.values import I8, Kind, as_float64
from drey_restore.adapters.channels import ChannelPool
from drey_restore.domain.addresses import record_name
from drey_restore.domain.execution import ECA_NORMAL
from drey_restore.domain.items import F8, PlanItems
from drey_restore.domain.planning import Mask, RecordFacts
from drey_restore.limits import Clock, Limits

_AGAIN_NS = 600 * 10**9
"""After so long a server that has no such fields is asked again."""


@dataclass(frozen=True)
class _Fixed:
    """What a record says that holds while it is connected since `since_ns`."""

    since_ns: int
    real_name: str
    disv: float


class RecordCheck:
    """Looks with bulk reads: one of the fields that switch, and of a new record one more."""

    def __init__(self, channels: ChannelPool, limits: Limits, clock: Clock) -> None:
        self._channels, self._limits, self._clock = channels, limits, clock
        self._fixed: dict[str, _Fixed] = {}
        self._without: dict[str, int] = {}
        """Records of servers that have no such fields, and until when they are not asked."""

    async def look(self, items: PlanItems) -> RecordFacts:
        """Of the rows that a plan writes. What does not answer is taken as enabled."""
        rows = np.sort(items.writes)
        records = [record_name(items.addresses[row]) for row in rows.tolist()]
        now = self._clock()
        listed = [r for r in dict.fromkeys(records) if self._without.get(r, 0) <= now]
        addresses = [f"{r}.DISP" for r in listed] + [f"{r}.DISA" for r in listed]
        table = self._channels.table
        async with self._channels.use(addresses):
            slots = self._channels.slots(addresses)
            up = await table.wait_connected(slots, self._limits.connect_s)
            there = np.flatnonzero(up[: len(listed)] & up[len(listed) :])
            asked = [addresses[index] for index in [*there, *(there + len(listed))]]
            slots = self._channels.slots(asked)
            found = await table.read(slots, self._limits.read_s)
            since = table.info(self._channels.slots(asked[: len(there)])).state_time
        answered = [listed[index] for index in there.tolist()]
        self._note_missing(set(listed).difference(answered), now)
        await self._learn(answered, since.tolist())
        numbers = as_float64(found.values.kind, found.values.data)
        numbers[(found.code != ECA_NORMAL) | (found.values.kind == Kind.NONE)] = np.nan
        disp, disa = np.split(numbers, 2)
        place = {record: index for index, record in enumerate(answered)}
        at = np.array([place.get(record, len(answered)) for record in records], np.int64)
        disv = np.array([self._disv(record) for record in answered])
        return RecordFacts(
            rows,
            _at(disp > 0, at),
            _at(disa == disv, at),
            {
                row: fixed.real_name
                for row, record in zip(rows.tolist(), records, strict=True)
                if (fixed := self._fixed.get(record)) and fixed.real_name not in ("", record)
            },
        )

    def _disv(self, record: str) -> float:
        return self._fixed[record].disv if record in self._fixed else 1.0

    def _note_missing(self, records: set[str], now_ns: int) -> None:
        for record in records:
            self._without[record] = now_ns + _AGAIN_NS
            self._fixed.pop(record, None)

    async def _learn(self, records: Sequence[str], since: Sequence[int]) -> None:
        """Read the real name and .DISV of records that are new, or were connected again."""
        new = [
            (record, when)
            for record, when in zip(records, since, strict=True)
            if (fixed := self._fixed.get(record)) is None or fixed.since_ns != when
        ]
        if not new:
            return
        table = self._channels.table
        # as a long string: a name may have more than the 39 bytes of a short one
        slots = await table.add([f"{r}.NAME$" for r, _ in new] + [f"{r}.DISV" for r, _ in new])
        try:
            await table.wait_connected(slots, self._limits.connect_s)
            found = await table.read(slots, self._limits.read_s)
        finally:
            await asyncio.shield(table.remove(slots))
        values, good = found.values, found.code == ECA_NORMAL
        numbers: F8 = as_float64(values.kind, values.data)
        for index, (record, when) in enumerate(new):
            texts = good[index] and values.kind[index] == Kind.STRING
            name = values.heap_bytes(index).decode(errors="replace") if texts else ""
            other = index + len(new)
            disv = float(numbers[other]) if good[other] else 1.0
            self._fixed[record] = _Fixed(when if texts and good[other] else 0, name, disv)


def _at(mask: Mask, index: I8) -> Mask:
    """`mask[index]`, False beyond its end."""
    found: Mask = np.append(mask, False)[index]
    return found
