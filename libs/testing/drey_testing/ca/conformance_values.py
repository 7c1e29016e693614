"""Values bit for bit: the part of the suite that any Channel Access server can be asked.

Fixtures: `table`, an open table, and `server`, anything that serves the `V:` names of `records`.
What a server does otherwise than softIOC is said by `Server`, so that it stands written here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable, Slots
from drey_core.values import ARRAY, STRING_ARRAY, Columns, Kind, Origin, State
from drey_testing.ca.known import sees_counts_of_scalars, told_cell, told_text
from drey_testing.ca.records import BIG, LABELS, LATE
from drey_testing.ca.suite import (
    WAIT,
    bits,
    columns,
    connected,
    drained_until,
    info_until,
    seen_value,
)

EPICS_EPOCH = 631_152_000
"""1990-01-01 UTC in seconds since 1970: EPICS has no time before it."""


@dataclass(frozen=True)
class Server:
    """In what servers differ. The defaults are softIOC's."""

    shortest: int = 0
    """Elements of an array that has none: some servers cannot send an empty one."""

    latin_labels: bool = True
    """Labels and strings may have any byte."""

    nul_is_nothing: bool = False
    """A character 0 is answered by no element where one was asked for: no table can take that."""


SCALARS = [
    (Kind.FLOAT64, "V:DOUBLE", 0x0000000000000000),
    (Kind.FLOAT64, "V:DOUBLE", 0x8000000000000000),  # -0.0
    (Kind.FLOAT64, "V:DOUBLE", 0x0000000000000001),  # the smallest denormal
    (Kind.FLOAT64, "V:DOUBLE", 0x800FFFFFFFFFFFFF),  # the largest negative denormal
    (Kind.FLOAT64, "V:DOUBLE", 0x7FEFFFFFFFFFFFFF),  # the largest number
    (Kind.FLOAT64, "V:DOUBLE", 0x7FF0000000000000),
    (Kind.FLOAT64, "V:DOUBLE", 0xFFF0000000000000),
    (Kind.FLOAT64, "V:DOUBLE", 0x7FF8000000001234),  # a quiet NaN's payload
    (Kind.FLOAT64, "V:DOUBLE", 0xFFF800000000BEEF),
    (Kind.FLOAT64, "V:DOUBLE", 0x7FF0000000000001),  # a signalling NaN
    (Kind.FLOAT32, "V:FLOAT", 0x80000000),
    (Kind.FLOAT32, "V:FLOAT", 0x00000001),
    (Kind.FLOAT32, "V:FLOAT", 0x807FFFFF),
    (Kind.FLOAT32, "V:FLOAT", 0x7F7FFFFF),
    (Kind.FLOAT32, "V:FLOAT", 0xFF800000),
    (Kind.FLOAT32, "V:FLOAT", 0x7FC01234),
    (Kind.FLOAT32, "V:FLOAT", 0xFFC0BEEF),
    (Kind.FLOAT32, "V:FLOAT", 0x7F800001),
    (Kind.INT32, "V:LONG", 0xFFFFFFFF80000000),
    (Kind.INT32, "V:LONG", 0x000000007FFFFFFF),
    (Kind.INT32, "V:LONG", 0xFFFFFFFFFFFFFFFF),
    (Kind.INT16, "V:SHORT", 0xFFFFFFFFFFFF8000),
    (Kind.INT16, "V:SHORT", 0x7FFF),
    (Kind.UINT8, "V:CHAR", 0x80),
    (Kind.UINT8, "V:CHAR", 0xFF),
    (Kind.UINT8, "V:CHAR", 0x00),
]
"""Kind, name, and the bits of the `data` cell."""

ARRAYS = [
    ("V:DOUBLES", np.array([cell for kind, _, cell in SCALARS if kind == Kind.FLOAT64], "<u8")),
    ("V:FLOATS", np.array([cell for kind, _, cell in SCALARS if kind == Kind.FLOAT32], "<u4")),
    ("V:LONGS", np.array([-(2**31), 2**31 - 1, -1, 0], "<i4")),
    ("V:SHORTS", np.array([-(2**15), 2**15 - 1, -1, 0], "<i2")),
    ("V:CHARS", np.arange(256, dtype=np.uint8)),
]


def _typed_array(name: str, cells: np.ndarray) -> np.ndarray:
    """The array whose bits are `cells`."""
    floating = {"V:DOUBLES": "<f8", "V:FLOATS": "<f4"}
    return cells.view(floating[name]) if name in floating else cells


class ValueConformance:
    """Every value comes back as it went, by a read and by a subscription."""

    @pytest.mark.parametrize(("kind", "name", "cell"), SCALARS, ids=str)
    async def test_bits_of_a_scalar(
        self, table: ChannelTable, server: Server, kind: Kind, name: str, cell: int
    ) -> None:
        slots = await connected(table, name)
        await table.write_values(slots, bits(kind, 1), WAIT)
        await table.subscribe_slots(slots)
        await drained_until(table, lambda seen: int(slots[0]) in seen)
        assert (await table.write_values(slots, bits(kind, cell), WAIT)).tolist() == [ECA.NORMAL]
        if server.nul_is_nothing and (kind, cell) == (Kind.UINT8, 0):
            code = ECA.BADCOUNT if sees_counts_of_scalars(table) else ECA.NORMAL
            assert (await table.read_values(slots, WAIT)).code.tolist() == [code]
            return
        cell = told_cell(table, kind, cell)
        got = (await table.read_values(slots, WAIT)).values
        assert (got.kind[0], int(got.data[0])) == (kind, cell)
        await _wait_monitored(table, slots, kind, cell)

    @pytest.mark.parametrize(("name", "cells"), ARRAYS, ids=[name for name, _ in ARRAYS])
    async def test_bits_of_an_array(
        self, table: ChannelTable, server: Server, name: str, cells: np.ndarray
    ) -> None:
        slots = await connected(table, name)
        await table.subscribe_slots(slots)
        array = _typed_array(name, cells)
        assert (await table.write_values(slots, columns([array]), WAIT)).tolist() == [ECA.NORMAL]
        read = (await table.read_values(slots, WAIT)).values
        assert read.value(0).tobytes() == cells.tobytes()
        await drained_until(table, seen_value(slots[0], array))

    async def test_enum_of_sixteen_states(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:ENUM")
        await info_until(table, lambda: len(table.read_info(slots).labels[0]) == 16)
        labels = [wire_label(server, label) for label in LABELS]
        assert table.read_info(slots).labels[0] == tuple(
            told_text(table, label) for label in labels
        )
        await table.subscribe_slots(slots)
        for index in (15, 0, 7):
            assert (await table.write_values(slots, columns([index]), WAIT)).tolist() == [
                ECA.NORMAL
            ]
            got = (await table.read_values(slots, WAIT)).values
            assert (got.kind[0], got.value(0)) == (Kind.ENUM, index)
            got = (await table.read_values(slots, WAIT, kind=Kind.STRING)).values
            assert got.value(0) == labels[index]
            await drained_until(table, seen_value(slots[0], index))
        # By label too; the longest fits into a string of 40 bytes.
        assert (await table.write_values(slots, columns([labels[3]]), WAIT)).tolist() == [
            ECA.NORMAL
        ]
        assert (await table.read_values(slots, WAIT)).values.value(0) == 3

    async def test_strings(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:STRING", "V:STRINGS")
        await table.subscribe_slots(slots)
        every = [b"", b"x" * 39, b" blanks \t "]
        if server.latin_labels:
            every += [b"\xff\xfe\x80", bytes(range(1, 40)), bytes(range(217, 256))]
        for one in every:
            assert (await table.write_values(slots[:1], columns([one]), WAIT)).tolist() == [
                ECA.NORMAL
            ]
            assert (await table.read_values(slots[:1], WAIT)).values.value(0) == one
        assert (await table.write_values(slots[1:], columns([every]), WAIT)).tolist() == [
            ECA.NORMAL
        ]
        got = (await table.read_values(slots[1:], WAIT)).values
        assert (got.kind[0], got.value(0)) == (STRING_ARRAY, every)
        wanted = {int(slots[0]): every[-1], int(slots[1]): every}
        await drained_until(table, lambda seen: wanted.items() <= seen.items())

    async def test_length_changes_with_each_event(
        self, table: ChannelTable, server: Server
    ) -> None:
        slots = await connected(table, "V:DOUBLES")
        await table.subscribe_slots(slots)
        for length in (3, 1000, 1, 2, 999):
            array = np.arange(length) + length / 7
            assert (await table.write_values(slots, columns([array]), WAIT)).tolist() == [
                ECA.NORMAL
            ]
            await drained_until(table, seen_value(slots[0], array))
        assert table.read_info(slots).count.tolist() == [1000]
        assert (await table.write_values(slots, columns([np.zeros(1001)]), WAIT)).tolist() == [
            ECA.BADCOUNT
        ]

    async def test_an_array_may_be_empty(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:EMPTY")
        await table.subscribe_slots(slots)
        got = (await table.read_values(slots, WAIT)).values
        assert got.kind[0] == Kind.FLOAT64 | ARRAY
        assert len(got.value(0)) == server.shortest
        await drained_until(table, seen_value(slots[0], np.zeros(server.shortest)))

    async def test_ten_megabytes(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:BIG", "V:DOUBLE")
        await table.subscribe_slots(slots)
        array = np.random.default_rng(1).random(BIG)
        assert (await table.write_values(slots[:1], columns([array]), WAIT)).tolist() == [
            ECA.NORMAL
        ]
        got = (await table.read_values(slots[:1], WAIT)).values
        assert got.value(0).tobytes() == array.tobytes()
        del got
        await drained_until(table, seen_value(slots[0], array))

    async def test_order_of_events(self, table: ChannelTable, server: Server) -> None:
        slots = await table.add_channels(["V:COUNTER"])
        await table.subscribe_slots(slots)
        rows = await _write_history(table, slots, 8)
        states = [state for state, _, _ in rows]
        assert set(states) == {State.CONNECTED}
        values = [value for _, value, _ in rows if value is not None]
        steps = np.diff(values)
        assert (steps >= 1).all()
        # Each update was drained or counted as replaced.
        merged = [count for _, value, count in rows if value is not None]
        assert steps.tolist() == [count + 1 for count in merged[1:]]

    async def test_a_burst_is_merged_and_counted(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:LONG", "V:SHORT")
        await table.write_values(slots, columns([1, 1]), WAIT)
        await table.subscribe_slots(slots)
        await drained_until(table, lambda seen: [seen.get(s) for s in slots.tolist()] == [1, 1])
        before = table.table_stats()
        for number in range(2, 52):
            await table.write_values(slots[:1], columns([number]), WAIT)
        rows = merged = 0
        async with asyncio.timeout(WAIT):
            while rows + merged < 50:
                await table.wait_dirty()
                got = table.drain_updates()
                assert set(got.key.tolist()) <= {int(slots[0])}
                rows, merged = rows + len(got), merged + int(got.merged.sum())
        assert (rows + merged, got.value(0)) == (50, 51)
        after = table.table_stats()
        assert (after.updates - before.updates, after.merged - before.merged) == (50, merged)

    async def test_one_call_asks_in_order(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:LONG")
        many = np.repeat(slots, 200)
        values = columns(list(range(200)))
        assert set((await table.write_values(many, values, WAIT)).tolist()) == {ECA.NORMAL}
        assert (await table.read_values(slots, WAIT)).values.value(0) == 199
        got = (await table.read_values(many, WAIT)).values
        assert got.key.tolist() == many.tolist()
        assert set(got.data.tolist()) == {199} and set(got.origin.tolist()) == {Origin.READ}

    async def test_times_are_the_servers(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, "V:DOUBLE")
        await table.subscribe_slots(slots)
        before = time.time_ns()
        await table.write_values(slots, columns([123.0]), WAIT)
        got = (await table.read_values(slots, WAIT)).values
        assert before - 10**9 < int(got.source_time[0]) < time.time_ns() + 10**9
        assert int(got.source_time[0]) <= int(got.receive_time[0]) + 10**9


class TimeConformance:
    """Times as far as EPICS has them. Fixtures as for values; the server has the `T:` names."""

    async def test_times_of_the_whole_epoch(self, table: ChannelTable, server: Server) -> None:
        slots = await connected(table, *LATE)
        await table.subscribe_slots(slots)
        wanted = [
            (EPICS_EPOCH + seconds) * 10**9 + nanoseconds for seconds, nanoseconds in LATE.values()
        ]
        got = (await table.read_values(slots, WAIT)).values
        assert got.source_time.tolist() == wanted
        seen: dict[int, int] = {}
        async with asyncio.timeout(WAIT):
            while len(seen) < len(slots):
                await table.wait_dirty()
                table.drain_info()
                rows = table.drain_updates()
                valued = rows.kind != Kind.NONE
                seen.update(
                    zip(rows.key[valued].tolist(), rows.source_time[valued].tolist(), strict=True)
                )
        assert [seen[slot] for slot in slots.tolist()] == wanted


class RoundConformance:
    """Many rounds of everything, after which nothing is left. Fixtures as for values."""

    async def test_rounds_leave_nothing(self, table: ChannelTable, server: Server) -> None:
        """In a process of its own: what other tests left here is nobody's leak."""
        command = [sys.executable, "-m", "drey_testing.ca.rounds", table.implementation_name]
        rounds = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await rounds.communicate()
        assert rounds.returncode == 0
        sizes = json.loads(output)
        # What is left behind is left by every part.
        grown = min(after - before for before, after in pairwise(sizes))
        assert grown < 1 << 20, f"{grown} bytes stay after each part of the rounds: {sizes}"


def wire_label(server: Server, label: str) -> bytes:
    """A label as the server is told to send it."""
    raw = label.encode("utf-8", "surrogateescape")
    return raw if server.latin_labels else raw.replace(b"\xb0", b"o")


async def _wait_monitored(table: ChannelTable, slots: Slots, kind: Kind, cell: int) -> None:
    """Drain until the subscription brings this cell."""
    async with asyncio.timeout(WAIT):
        while True:
            await table.wait_dirty()
            got: Columns = table.drain_updates()
            table.drain_info()
            if len(got) and (int(got.kind[-1]), int(got.data[-1])) == (kind, cell):
                assert got.origin[-1] == Origin.MONITOR
                return


async def _write_history(
    table: ChannelTable, slots: Slots, values: int
) -> list[tuple[int, float | None, int]]:
    """State, value and merged count of each row drained of one slot, until `values` values."""
    rows: list[tuple[int, float | None, int]] = []
    async with asyncio.timeout(WAIT):
        while sum(value is not None for _, value, _ in rows) < values:
            await table.wait_dirty()
            table.drain_info()
            got = table.drain_updates()
            for i in np.flatnonzero(got.key == slots[0]).tolist():
                value = float(got.value(i)) if got.kind[i] else None
                rows.append((int(got.state[i]), value, int(got.merged[i])))
    return rows
