"""What a plan is made of that is read from the control system while it is made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey_core.directory import Directory
from drey_core.values import ARRAY, I8, Kind, State
from drey_restore.adapters.channels import ChannelPool
from drey_restore.adapters.live import ChannelReading
from drey_restore.domain.execution import ECA_NORDACCESS, ECA_NORMAL
from drey_restore.domain.planning import PROTOCOL_PVA, Mask
from drey_restore.domain.policy import PolicyRows, done_address
from drey_restore.limits import Limits


class PlanReads:
    """Reads by channels of our own, which stay open for the restore that may follow."""

    def __init__(self, channels: ChannelPool, limits: Limits) -> None:
        self._channels, self._limits = channels, limits

    async def read_live(
        self, directory: Directory, rows: I8, wanted: Mask, live: ChannelReading
    ) -> ChannelReading:
        """The present values of those `wanted`, by a read of our own; else they are not known.

        A monitor only hears of changes beyond the dead bands of a record, so what it says does not
        decide. That it says a channel is not there saves waiting for it.
        """
        absent = (live.values.state != State.CONNECTED) & ~live.stale
        there = ~absent & (rows >= 0) & wanted
        there &= take_at(directory.setpoint_channel, rows) != 0
        there &= take_at(directory.protocol.astype(np.int64), rows) != PROTOCOL_PVA
        there &= take_at(directory.read_only.astype(np.int64), rows) == 0
        asked = np.flatnonzero(there)
        addresses = [directory.setpoint_address[row] for row in rows[asked].tolist()]
        table = self._channels.table
        async with self._channels.use_channels(addresses) as used:
            up = await table.wait_connected(used.used_slots(), self._limits.connect_s)
            refusals = table.refused_codes(used.used_slots())
            reading = await table.read_values(used.used_slots()[up], self._limits.read_s)
            info = table.read_info(used.used_slots()[up])
            enums = np.flatnonzero(info.kind & ~np.uint8(ARRAY) == Kind.ENUM)
            # so that the labels are those of now when the next plan, or its restore, looks
            await table.subscribe_slots(info.slot[enums])
        asked_up = asked[up]
        live = live.with_labels(asked_up[enums], [info.labels[index] for index in enums.tolist()])
        read = reading.code == ECA_NORMAL
        silent = np.concatenate([asked[~up], asked_up[~read & (reading.code != ECA_NORDACCESS)]])
        live = live.with_read(asked_up[read], reading.values.take_rows(read), silent)
        not_asked = {int(asked[place]): why for place, why in refusals.items()}
        return replace(live.with_access(asked_up, info.writable), not_asked=not_asked)

    async def look_at_done(self, policies: PolicyRows, setpoints: list[str]) -> frozenset[int]:
        """Rows whose done channel is connected, and is a number or an enumeration."""
        asked = {
            row: address
            for stated_policy, rows in policies.rows_by_policy(np.ones(len(setpoints), bool))
            for row in (rows.tolist() if stated_policy.policy.done_channel else ())
            if (address := done_address(stated_policy.policy, setpoints[row]))
        }
        if not asked:
            return frozenset()
        addresses = sorted(set(asked.values()))
        table = self._channels.table
        async with self._channels.use_channels(addresses) as used:
            up = await table.wait_connected(used.used_slots(), self._limits.connect_s)
            kinds = table.read_info(used.used_slots()).kind
        numbers = up & ~np.isin(kinds & ~np.uint8(ARRAY), (Kind.NONE, Kind.STRING))
        good = {addresses[index] for index in np.flatnonzero(numbers).tolist()}
        return frozenset(row for row, address in asked.items() if address in good)


def take_at(column: I8, rows: I8) -> I8:
    """`column[rows]`, 0 where the row is -1."""
    return np.where(rows >= 0, column[rows], 0) if len(column) else np.zeros(len(rows), np.int64)
