"""What every implementation of `drey_ca.interface.ChannelTable` must do, against a soft IOC.

A test module takes the suite by subclassing `TableConformance` and giving two fixtures:
`table`, an open table, and `ioc`, an `Ioc` that serves `records.DATABASE` under `records.ACCESS`.
Values and lives of channels have modules of their own (`conformance_values`, `conformance_life`).
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable, Slots
from drey_core.errors import InvalidArgument
from drey_core.values import ARRAY, STRING_ARRAY, Kind, Origin, State
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.known import told_text
from drey_testing.ca.suite import (
    LONG,
    WAIT,
    bits,
    columns,
    connected,
    drained_until,
    info_until,
    seen_value,
    within,
)


class TableConformance:
    """The suite; see the module."""

    async def test_kinds_and_metadata(self, table: ChannelTable, ioc: Ioc) -> None:
        names = [
            "DOUBLE",
            "LONG",
            "FLOAT",
            "FLOATS",
            "SHORT",
            "CHAR",
            "CHARS",
            "ENUM",
            "STRING",
            "STRINGS",
            "TEXT.VAL$",
        ]
        slots = await connected(table, *names)
        await info_until(table, lambda: table.read_info(slots[:1]).units == [b"mA"])
        await info_until(table, lambda: len(table.read_info(slots[7:8]).labels[0]) == 3)
        info = table.read_info(slots)
        assert info.kind.tolist() == [
            Kind.FLOAT64,
            Kind.INT32,
            Kind.FLOAT32,
            Kind.FLOAT32 | ARRAY,
            Kind.INT16,
            Kind.UINT8,
            Kind.UINT8 | ARRAY,
            Kind.ENUM,
            Kind.STRING,
            STRING_ARRAY,
            Kind.STRING,
        ]
        assert info.labels[7] == (b"off", b"on", told_text(table, b"\xe9t\xe9"))
        assert info.precision[0] == 3
        limits = [info.display_low, info.warning_low, info.alarm_high, info.control_high]
        assert [float(column[0]) for column in limits] == [-10, -7, 8, 9]
        assert info.readable.all() and info.writable.all()
        assert math.isnan(info.display_low[8])
        assert info.host[0]

    async def test_scalars_bit_for_bit(self, table: ChannelTable, ioc: Ioc) -> None:
        cases = [
            ("DOUBLES", [0x7FF8000000001234, 0xFFF0000000000000, 0x8000000000000000, 1], "<u8"),
            ("FLOATS", [0x7FC01234, 0xFF800000, 0x80000000, 1], "<u4"),
        ]
        for name, cells, layout in cases:
            slots = await connected(table, name)
            array = np.array(cells, layout).view(layout.replace("u", "f"))
            assert (await table.write_values(slots, columns([array]), WAIT)).tolist() == [
                ECA.NORMAL
            ]
            got = (await table.read_values(slots, WAIT)).values
            assert got.value(0).tobytes() == array.tobytes()
        slots = await connected(table, "DOUBLE", "FLOAT", "LONG", "SHORT", "CHAR")
        for kind, slot, cell in [
            (Kind.FLOAT64, 0, 0x8000000000000000),
            (Kind.FLOAT32, 1, 0x7FC01234),
            (Kind.INT32, 2, 0xFFFFFFFF80000000),
            (Kind.INT16, 3, 0xFFFFFFFFFFFF8000),
            (Kind.UINT8, 4, 0xFF),
        ]:
            one = slots[slot : slot + 1]
            assert (await table.write_values(one, bits(kind, cell), WAIT)).tolist() == [ECA.NORMAL]
            got = (await table.read_values(one, WAIT)).values
            assert (got.kind[0], int(got.data[0])) == (kind, cell)
            assert got.origin[0] == Origin.READ

    async def test_strings_and_arrays(self, table: ChannelTable, ioc: Ioc) -> None:
        names = ["STRING", "STRINGS", "TEXT.VAL$", "CHARS", "DOUBLES", "ENUM"]
        slots = await connected(table, *names)
        await table.subscribe_slots(slots)
        values: list[object] = [
            b"\xff\xfe caf\xe9",
            [b"a", b"", b"\xe9"],
            b"long " * 40,
            np.arange(5, dtype=np.uint8),
            np.array([math.inf]),
            b"on",
        ]
        assert (await table.write_values(slots, columns(values), WAIT)).tolist() == [ECA.NORMAL] * 6
        read = await table.read_values(slots, WAIT)
        assert read.code.tolist() == [ECA.NORMAL] * 6
        got = read.values
        assert [got.value(i) for i in range(3)] == values[:3]
        assert got.value(3).tolist() == [0, 1, 2, 3, 4]
        assert got.value(4).tolist() == [math.inf] and got.kind[4] == Kind.FLOAT64 | ARRAY
        assert (got.kind[5], got.value(5)) == (Kind.ENUM, 1)
        wanted = {int(slots[i]): values[i] for i in range(3)}
        await drained_until(table, lambda seen: wanted.items() <= seen.items())

    async def test_empty_array(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "FLOATS")
        ioc.shell('dbpf "FLOATS.PROC" 1')
        await table.write_values(slots, columns([np.zeros(0, "f4")]), WAIT)
        fresh = await connected(table, "FLOATS.NORD")
        count = (await table.read_values(fresh, WAIT)).values.value(0)
        assert len((await table.read_values(slots, WAIT)).values.value(0)) == count

    async def test_read_as_another_kind(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "ENUM", "DOUBLE", "LONG", "SHORT", "STRING")
        await table.write_values(slots, columns([1, 2.75, -7, 3, b"12"]), WAIT)
        got = await table.read_values(slots, WAIT, kind=Kind.STRING)
        assert got.code.tolist() == [ECA.NORMAL] * 5
        assert (got.values.kind == Kind.STRING).all()
        assert (got.values.origin == Origin.READ).all()
        # PREC of DOUBLE is 3: the server formats.
        assert [got.values.value(i) for i in range(5)] == [b"on", b"2.750", b"-7", b"3", b"12"]
        got = await table.read_values(slots, WAIT, kind=Kind.FLOAT64)
        assert [got.values.value(i) for i in range(5)] == [1.0, 2.75, -7.0, 3.0, 12.0]
        got = await table.read_values(slots, WAIT, kind=Kind.INT32)
        assert [got.values.value(i) for i in range(5)] == [1, 2, -7, 3, 12]
        assert (got.values.kind == Kind.INT32).all()

    async def test_read_arrays_as_another_kind(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLES", "STRINGS")
        values: list[object] = [np.array([1.0, -2.0, 3.0]), [b"4", b"5"]]
        await table.write_values(slots, columns(values), WAIT)
        got = (await table.read_values(slots, WAIT, kind=Kind.INT16)).values
        assert got.kind.tolist() == [Kind.INT16 | ARRAY] * 2
        assert [got.value(i).tolist() for i in range(2)] == [[1, -2, 3], [4, 5]]
        got = (await table.read_values(slots[:1], WAIT, kind=Kind.STRING)).values
        assert got.kind[0] == STRING_ARRAY
        assert [float(text) for text in got.value(0)] == [1.0, -2.0, 3.0]

    async def test_read_as_a_kind_that_is_refused(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLE", "STRING", "TEXT.VAL$")
        for kind in (Kind.INT64, Kind.UINT64, Kind.BOOL, Kind.INT8, Kind.UINT16, Kind.UINT32):
            with pytest.raises(ValueError):
                await table.read_values(slots[:1], WAIT, kind=kind)
        with pytest.raises(ValueError):
            await table.read_values(slots, WAIT, kind=Kind.STRING)
        await table.write_values(slots[1:2], columns([b"no number"]), WAIT)
        got = await table.read_values(slots[:2], WAIT, kind=Kind.FLOAT64)
        assert got.code.tolist() == [ECA.NORMAL, ECA.GETFAIL]
        assert got.values.kind.tolist() == [Kind.FLOAT64, Kind.NONE]

    async def test_times_and_alarms(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "NEVER", "DOUBLE")
        got = (await table.read_values(slots, WAIT)).values
        assert got.source_time[0] == 631_152_000 * 10**9
        assert (got.severity[0], got.status[0]) == (3, 17)
        before = time.time_ns()
        await table.write_values(slots[1:], columns([8.5]), WAIT)
        got = (await table.read_values(slots[1:], WAIT)).values
        for each in (got.source_time, got.receive_time):
            assert before - 10**9 < int(each[0]) < time.time_ns() + 10**9
        assert (got.severity[0], got.status[0]) == (2, 3)

    async def test_write_conversions(self, table: ChannelTable, ioc: Ioc) -> None:
        names = ["DOUBLE", "DOUBLE", "LONG", "LONG", "LONG", "STRING", "STRING", "DOUBLE", "ENUM"]
        slots = await connected(table, *names)
        values: list[object] = [3, 2**53 + 1, 7.0, 7.5, 2**31, 1.0, b"x" * 40, b"text", 2]
        code = await table.write_values(slots, columns(values), WAIT)
        assert code.tolist() == [
            ECA.NORMAL,
            ECA.NOCONVERT,
            ECA.NORMAL,
            ECA.NOCONVERT,
            ECA.NOCONVERT,
            ECA.BADTYPE,
            ECA.BADSTR,
            ECA.BADTYPE,
            ECA.NORMAL,
        ]
        got = (await table.read_values(slots, WAIT)).values
        assert [got.value(i) for i in (0, 2, 8)] == [3.0, 7, 2]

    async def test_write_refused(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "LOCKED", "DISABLED", "ENUM", "DOUBLE")
        values = columns([1.0, 1.0, b"no such label", 2.0])
        code = (await table.write_values(slots, values, WAIT)).tolist()
        assert code[0] == ECA.NOWTACCESS
        assert code[1] == ECA.PUTFAIL
        assert code[2] == ECA.PUTFAIL
        assert code[3] == ECA.NORMAL

    async def test_write_without_completion(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLE")
        await table.subscribe_slots(slots)
        code = await table.write_values(slots, columns([-2.25]), WAIT, completion=False)
        assert code.tolist() == [ECA.NORMAL]
        await drained_until(table, lambda seen: seen.get(int(slots[0])) == -2.25)

    async def test_access_rights_change(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "SWITCHED", "SWITCH")
        assert table.read_info(slots).writable.all()
        await table.write_values(slots[1:], columns([0.0]), WAIT)
        await info_until(table, lambda: not table.read_info(slots).writable[0])
        await table.write_values(slots[1:], columns([1.0]), WAIT)
        await info_until(table, lambda: bool(table.read_info(slots).writable[0]))

    async def test_labels_change(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "ENUM", "ENUM.ONST")
        await table.subscribe_slots(slots[:1])
        await info_until(table, lambda: len(table.read_info(slots[:1]).labels[0]) == 3)
        await table.write_values(slots[1:], columns([b"running"]), WAIT)
        await info_until(table, lambda: table.read_info(slots[:1]).labels[0][1] == b"running")
        await table.write_values(slots[1:], columns([b"on"]), WAIT)

    async def test_dead_names_cost_one_deadline(self, table: ChannelTable, ioc: Ioc) -> None:
        dead = [f"NOT:THERE:{i}" for i in range(2_000)]
        await connected(table, "DOUBLE")
        slots = await table.add_channels([*dead, "DOUBLE", "LONG"])
        assert (await table.wait_connected(slots[-2:], WAIT)).all()
        before = time.monotonic()
        read = await table.read_values(slots, 5)
        # A deadline for each would be hours.
        assert 4 < time.monotonic() - before < WAIT
        assert read.code.tolist() == [ECA.DISCONN] * 2_000 + [ECA.NORMAL] * 2
        assert (read.values.state[:2_000] == State.NEVER_CONNECTED).all()
        await within(WAIT, table.close_table())

    async def test_duplicates_order_and_removal(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "FAST", "FAST", "DOUBLE")
        assert len(set(slots.tolist())) == 3
        await table.subscribe_slots(slots)
        await table.subscribe_slots(slots)
        await drained_until(table, lambda seen: {int(s) for s in slots} <= seen.keys())
        await table.remove_slots(slots[:1])
        with pytest.raises(KeyError):
            table.read_info(slots[:1])
        for _ in range(5):
            await table.wait_dirty()
            assert int(slots[0]) not in table.drain_updates().key.tolist()
        order = slots[[2, 1, 2]]
        assert (await table.read_values(order, WAIT)).values.key.tolist() == order.tolist()

    async def test_heap_budget(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLES", "DOUBLES", "DOUBLES")
        await table.write_values(slots[:1], columns([np.arange(1000.0)]), WAIT)
        await table.subscribe_slots(slots)
        seen: list[int] = []
        async with asyncio.timeout(WAIT):
            while set(seen) != set(slots.tolist()):
                await table.wait_dirty()
                got = table.drain_updates(max_heap=1)
                full = [int(s) for i, s in enumerate(got.key) if got.kind[i]]
                assert len(full) <= 1
                seen += full

    async def test_cancelling(self, table: ChannelTable, ioc: Ioc) -> None:
        await _slow_is_idle(table)
        slots = await connected(table, "SLOW", "DOUBLE")
        dead = await table.add_channels(["NOT:THERE"])
        late = table.table_stats().late_completions
        for work in (
            table.write_values(slots[:1], columns([1.0]), WAIT),
            table.read_values(dead, WAIT),
            table.wait_connected(dead, WAIT),
        ):
            task = asyncio.ensure_future(work)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(WAIT):
            while table.table_stats().late_completions == late:
                await asyncio.sleep(0.05)
        await table.subscribe_slots(slots[1:])
        for _ in range(20):
            table.drain_updates()
            table.drain_info()
            task = asyncio.ensure_future(table.wait_dirty())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        new = float((await table.read_values(slots[1:], WAIT)).values.value(0)) % 8 + 0.125
        await table.write_values(slots[1:], columns([new]), WAIT)
        await drained_until(table, seen_value(slots[1], new))

    async def test_write_deadline(self, table: ChannelTable, ioc: Ioc) -> None:
        await _slow_is_idle(table)
        slots = await connected(table, "SLOW", "DOUBLE")
        code = await _written_beside_slow(table, ioc, slots, [2.0, 3.0])
        assert code == [ECA.TIMEOUT, ECA.NORMAL]

    async def test_what_may_still_happen(self, table: ChannelTable, ioc: Ioc) -> None:
        await _slow_is_idle(table)
        slots = await connected(table, "SLOW", "DOUBLE")
        dead = await table.add_channels(["NOT:THERE"])
        every = np.concatenate([slots, dead])
        code = await _written_beside_slow(table, ioc, every, [2.0, 3.0, 4.0])
        assert code == [ECA.TIMEOUT, ECA.NORMAL, ECA.DISCONN]
        assert table.unanswered_slots(every).tolist() == [True, False, False]
        await _all_answered(table, slots)
        for delay in _slow_for(ioc):
            cancelled = asyncio.ensure_future(table.write_values(slots, columns([3.0, 4.0]), WAIT))
            await asyncio.sleep(delay)
            assert not table.unanswered_slots(slots).any()  # the call has not ended
            cancelled.cancel()
            await asyncio.wait([cancelled])
            unanswered = table.unanswered_slots(slots).tolist()
            await _all_answered(table, slots)
            if not unanswered[1]:
                break
        assert unanswered == [True, False]
        await table.remove_slots(slots[:1])
        with pytest.raises(KeyError):
            table.unanswered_slots(slots[:1])

    async def test_close_from_any_state(self, table: ChannelTable, ioc: Ioc) -> None:
        await _slow_is_idle(table)
        slots = await connected(table, "SLOW", "FAST")
        await table.subscribe_slots(slots)
        dead = await table.add_channels(["NOT:THERE"])
        work: list[asyncio.Future[object]] = [
            asyncio.ensure_future(table.read_values(dead, LONG)),
            asyncio.ensure_future(table.write_values(slots[:1], columns([1.0]), LONG)),
            asyncio.ensure_future(table.wait_connected(dead, LONG)),
        ]
        await asyncio.sleep(0.05)
        await within(WAIT, table.close_table())
        await table.close_table()
        await within(WAIT, asyncio.wait(work))

    async def test_adding_and_removing_stays_flat(self, table: ChannelTable, ioc: Ioc) -> None:
        process = psutil.Process()
        used = 0
        for turn in range(1_000):
            slots = await table.add_channels(["DOUBLE", "LONG", "NOT:THERE"])
            await table.subscribe_slots(slots)
            if turn % 50 == 0:
                await table.wait_connected(slots[:2], WAIT)
            await table.remove_slots(slots)
            if turn == 200:
                gc.collect()
                used = process.memory_info().rss
        gc.collect()
        assert table.table_stats().channels == 0
        assert int(slots.max()) < 256
        assert process.memory_info().rss - used < 8 << 20

    async def test_bad_names(self, table: ChannelTable, ioc: Ioc) -> None:
        for bad in ("", "a b", "a\n", "x" * 501):
            with pytest.raises(InvalidArgument):
                await table.add_channels(["DOUBLE", bad])
        assert table.table_stats().channels == 0


def _slow_for(ioc: Ioc) -> Iterator[float]:
    """Deadlines, each longer than the last, with SLOW set to take three times as long.

    The first is enough on most machines for what is answered at once.
    """
    for delay in (0.3, 3.0, 30.0):
        ioc.shell(f'dbpf "SLOWSEQ.DLY1" {3 * delay}')
        yield delay
    ioc.shell('dbpf "SLOWSEQ.DLY1" 1')


async def _written_beside_slow(
    table: ChannelTable, ioc: Ioc, slots: Slots, values: list[float]
) -> list[int]:
    """Codes of a write of SLOW, which is first, and others, whose second is answered."""
    code: list[int] = []
    for delay in _slow_for(ioc):
        await _slow_is_idle(table)
        code = (await table.write_values(slots, columns(values), delay)).tolist()
        if code[1] != ECA.TIMEOUT:
            break
    return code


async def _all_answered(table: ChannelTable, slots: Slots) -> None:
    async with asyncio.timeout(WAIT):
        while table.unanswered_slots(slots).any():
            await asyncio.sleep(0.05)


async def _slow_is_idle(table: ChannelTable) -> None:
    """Wait until what an earlier test wrote to SLOW is done.

    A record that still processes for somebody else is no part of a new put-callback, which then
    is complete at once.
    """
    busy = await connected(table, "SLOWSEQ.PACT")
    async with asyncio.timeout(WAIT):
        while (await table.read_values(busy, WAIT)).values.value(0):
            await asyncio.sleep(0.05)
    await table.remove_slots(busy)
