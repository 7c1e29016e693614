"""What happens to channels: loss, return in another shape, rights, metadata, crowds.

Fixtures: `table`, an open table, and `ioc`, an `Ioc` that serves `records.DATABASE` under
`records.ACCESS`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable, Slots
from drey_core.values import ARRAY, Kind, State
from drey_testing.ca import records
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.known import told_text
from drey_testing.ca.suite import WAIT, columns, connected, drained_until, info_until, seen_value

_CHANGING = (
    "R:DOUBLE_ENUM",
    "R:STRING_DOUBLE",
    "R:SCALAR_ARRAY",
    "R:ARRAY_SCALAR",
    "R:LONGER",
    "R:SAME",
)


class LifeConformance:
    """The suite; see the module."""

    async def test_everything_comes_back_otherwise(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, *_CHANGING)
        await table.write_values(slots[3:5], columns([np.arange(5), np.arange(1000.0)]), WAIT)
        await table.subscribe_slots(slots[:5])
        await drained_until(
            table, lambda seen: all(seen.get(s) is not None for s in slots[:5].tolist())
        )
        await info_until(table, lambda: table.read_info(slots).units[0] == b"mA")
        info = table.read_info(slots)
        assert info.kind.tolist()[:5] == [
            Kind.FLOAT64,
            Kind.STRING,
            Kind.INT32,
            Kind.INT32 | ARRAY,
            Kind.FLOAT64 | ARRAY,
        ]
        dead = await table.add_channels(["NOT:THERE"])
        killed = time.time_ns()
        assert (info.state_time <= killed).all() and (info.state_time > killed - 60 * 10**9).all()
        ioc.kill()
        history = _History(table, slots)
        await history.until(lambda: set(history.state.tolist()) == {State.DISCONNECTED})
        # The last known value stays, in the row that says that it is gone.
        assert history.last[int(slots[0])] == 4.5
        assert history.last[int(slots[1])] == b"text"
        lost = table.read_info(slots).state_time
        assert (lost >= killed).all() and (lost <= time.time_ns()).all()
        read = await table.read_values(slots, 0.3)
        assert set(read.code.tolist()) == {ECA.DISCONN}
        assert set(read.values.state.tolist()) == {State.DISCONNECTED}
        assert set(read.values.kind.tolist()) == {Kind.NONE}
        waiting = asyncio.ensure_future(table.read_values(slots[5:], 4 * WAIT))
        try:
            ioc.start(records.RETYPED)
            history = _History(table, slots)
            await history.until(
                lambda: (
                    (history.state == State.CONNECTED).all()
                    and history.last.get(int(slots[0])) == 1
                    and history.last.get(int(slots[1])) == 0.125
                    and history.last.get(int(slots[3])) == 8
                    and {int(slots[2]), int(slots[4])} <= history.last.keys()
                )
            )
            # No value of the old type came with the new connection.
            for slot in slots[:4].tolist():
                old = {0: Kind.FLOAT64, 1: Kind.STRING, 2: Kind.INT32, 3: Kind.INT32 | ARRAY}
                assert old[slots.tolist().index(slot)] not in history.kinds[slot]
            # A read that waited is answered after the return.
            read = await waiting
            assert read.code.tolist() == [ECA.NORMAL] and read.values.value(0) == 2.5
            back = table.read_info(slots).state_time
            assert (back > lost).all() and (back <= time.time_ns()).all()
            assert table.read_info(dead).state_time.tolist() == [0]
            await self._new_shapes(table, slots)
        finally:
            waiting.cancel()
            ioc.kill()
            ioc.start(records.DATABASE)

    async def test_a_write_meant_for_a_former_connection_is_not_sent(
        self, table: ChannelTable, ioc: Ioc
    ) -> None:
        slots = await connected(table, "R:DOUBLE_ENUM", "R:SAME")
        former = table.read_info(slots).state_time
        values = columns([0.0, 5.0])
        codes = await table.write_values(slots, values, WAIT, connected_at=former)
        assert codes.tolist() == [ECA.NORMAL] * 2
        ioc.kill()
        await info_until(table, lambda: bool((table.read_info(slots).state_time > former).all()))
        waiting = asyncio.ensure_future(
            table.write_values(slots, values, 4 * WAIT, connected_at=former)
        )
        try:
            await asyncio.sleep(0)
            ioc.start(records.RETYPED)
            assert (await waiting).tolist() == [ECA.DISCONN] * 2
            read = await table.read_values(slots, WAIT)
            assert [read.values.value(row) for row in (0, 1)] == [1, 2.5]
            # whoever has looked at what they are now may
            now = table.read_info(slots).state_time
            codes = await table.write_values(slots, values, WAIT, connected_at=now)
            assert codes.tolist() == [ECA.NORMAL] * 2
            read = await table.read_values(slots, WAIT)
            assert [read.values.value(row) for row in (0, 1)] == [0, 5.0]
        finally:
            waiting.cancel()
            ioc.kill()
            ioc.start(records.DATABASE)

    async def _new_shapes(self, table: ChannelTable, slots: Slots) -> None:
        await info_until(table, lambda: table.read_info(slots).labels[0] == (b"zero", b"one"))
        await info_until(table, lambda: table.read_info(slots).units[1] == b"V")
        info = table.read_info(slots)
        assert info.kind.tolist()[:5] == [
            Kind.ENUM,
            Kind.FLOAT64,
            Kind.INT32 | ARRAY,
            Kind.INT32,
            Kind.FLOAT64 | ARRAY,
        ]
        assert info.count.tolist() == [1, 1, 5, 1, 2000, 1]
        # Nothing of the double's metadata is left on the enum.
        assert (info.units[0], int(info.precision[0])) == (b"", -1)
        assert np.isnan(info.display_high[0])
        values = columns([0, 0.5, np.arange(4), 9, np.arange(2000.0)])
        assert (await table.write_values(slots[:5], values, WAIT)).tolist() == [ECA.NORMAL] * 5
        got = await table.read_values(slots[:5], WAIT)
        assert got.code.tolist() == [ECA.NORMAL] * 5
        assert [got.values.value(i) for i in (0, 1, 3)] == [0, 0.5, 9]
        assert [len(got.values.value(i)) for i in (2, 4)] == [4, 2000]
        await drained_until(table, lambda seen: _value_length(seen.get(int(slots[4]))) == 2000)

    async def test_all_rights_taken_while_subscribed(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "VEILED", "VEIL")
        await table.write_values(slots[:1], columns([6.5]), WAIT)
        await table.subscribe_slots(slots[:1])
        await drained_until(table, seen_value(slots[0], 6.5))
        late = await self._veil(table, slots)
        try:
            # Still connected; neither read nor written.
            assert table.table_stats().connected == 3
            values = columns([1.0, 1.0])
            veiled = np.concatenate([slots[:1], late])
            assert (await table.read_values(veiled, WAIT)).code.tolist() == [ECA.NORDACCESS] * 2
            assert (await table.write_values(veiled, values, WAIT)).tolist() == [ECA.NOWTACCESS] * 2
        finally:
            ioc.shell("dbpf VEIL 0")
        await info_until(table, lambda: bool(table.read_info(veiled).readable.all()))
        assert table.read_info(veiled).writable.all()
        # Who connected without the right to read learns the metadata when it is given.
        await info_until(table, lambda: table.read_info(veiled).units == [b"kV", b"kV"])
        assert (await table.read_values(veiled, WAIT)).code.tolist() == [ECA.NORMAL] * 2
        assert (await table.write_values(slots[:1], columns([7.25]), WAIT)).tolist() == [ECA.NORMAL]
        await drained_until(table, seen_value(slots[0], 7.25))
        await table.subscribe_slots(late)
        await drained_until(table, seen_value(late[0], 7.25))

    async def _veil(self, table: ChannelTable, slots: Slots) -> Slots:
        """Take all rights away; a channel that connects after that."""
        await table.write_values(slots[1:], columns([1.0]), WAIT)
        await info_until(table, lambda: not table.read_info(slots[:1]).readable[0])
        assert not table.read_info(slots[:1]).writable[0]
        late = await connected(table, "VEILED")
        assert not table.read_info(late).readable[0]
        return late

    async def test_a_value_that_may_not_be_read_any_more(
        self, table: ChannelTable, ioc: Ioc
    ) -> None:
        slots = await connected(table, "VEILED", "VEIL")
        await table.write_values(slots[:1], columns([3.25]), WAIT)
        await table.subscribe_slots(slots[:1])
        await drained_until(table, seen_value(slots[0], 3.25))
        await table.write_values(slots[1:], columns([1.0]), WAIT)
        try:
            gone = await drained_until(table, lambda seen: seen.get(int(slots[0]), 0.0) is None)
            assert gone.state.tolist() == [State.CONNECTED]
        finally:
            ioc.shell("dbpf VEIL 0")
        await drained_until(table, seen_value(slots[0], 3.25))

    async def test_subscribed_without_the_right_to_read(
        self, table: ChannelTable, ioc: Ioc
    ) -> None:
        ioc.shell("dbpf VEIL 1")
        try:
            slots = await connected(table, "VEILED")
            await table.subscribe_slots(slots)
            await asyncio.sleep(0.1)
            table.drain_info()
            got = table.drain_updates()
            assert got.kind.tolist() == [Kind.NONE] and got.state.tolist() == [State.CONNECTED]
        finally:
            ioc.shell("dbpf VEIL 0")
        await drained_until(table, lambda seen: isinstance(seen.get(int(slots[0])), float))

    async def test_properties_change_while_subscribed(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLE")
        await table.subscribe_slots(slots)
        await info_until(table, lambda: table.read_info(slots).units == [b"mA"])
        try:
            for field, value, column, wanted in [
                ("EGU", b"\xb0C", "units", told_text(table, b"\xb0C")),
                ("HOPR", 77.0, "display_high", 77),
                ("LOPR", -77.0, "display_low", -77),
                ("DRVH", 66.0, "control_high", 66),
                ("HIHI", 55.0, "alarm_high", 55),
                ("LOW", -5.0, "warning_low", -5),
                ("PREC", 6, "precision", 6),
            ]:
                property_slots = await connected(table, f"DOUBLE.{field}")
                await table.write_values(property_slots, columns([value]), WAIT)
                await info_until(table, _info_matches(table, slots, column, wanted))
        finally:
            for line in ("EGU mA", "HOPR 10", "LOPR -10", "DRVH 9", "HIHI 8", "LOW -7", "PREC 3"):
                ioc.shell("dbpf DOUBLE." + line)

    async def test_long_strings(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "TEXT.VAL$", "DOUBLE.DESC$", "STRING.VAL$", "TEXT.VAL")
        await table.subscribe_slots(slots)
        info = table.read_info(slots)
        assert info.kind.tolist() == [Kind.STRING] * 4
        every = [b"", b"\xe9" * 299, b"one\ntwo"]
        for text in every:
            assert (await table.write_values(slots[:1], columns([text]), WAIT)).tolist() == [
                ECA.NORMAL
            ]
            assert (await table.read_values(slots[:1], WAIT)).values.value(0) == text
            await drained_until(table, seen_value(slots[0], text))
        values = columns([b"x" * 300, b"described \xff", b"y" * 39])
        code = await table.write_values(slots[:3], values, WAIT)
        assert code.tolist() == [ECA.BADCOUNT, ECA.NORMAL, ECA.NORMAL]
        got = (await table.read_values(slots, WAIT)).values
        assert got.value(1) == b"described \xff"
        assert got.value(2) == b"y" * 39
        # Without `$` 39 bytes of it: here all there is.
        assert got.value(3) == b"one\ntwo"
        await table.write_values(slots[1:3], columns([b"", b"caf\xe9"]), WAIT)

    async def test_integers_that_travel_as_something_larger(
        self, table: ChannelTable, ioc: Ioc
    ) -> None:
        slots = await connected(table, "USHORT", "ULONG", "INT64")
        assert table.read_info(slots).kind.tolist() == [Kind.INT32, Kind.FLOAT64, Kind.FLOAT64]
        code = await table.write_values(slots, columns([0xFFFF, 0xFFFFFFFF, -(2**53)]), WAIT)
        assert code.tolist() == [ECA.NORMAL] * 3
        got = (await table.read_values(slots, WAIT)).values
        assert [got.value(i) for i in range(3)] == [0xFFFF, 0xFFFFFFFF, -(2.0**53)]

    async def test_a_name_many_times(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, *["DOUBLE"] * 200)
        assert len(set(slots.tolist())) == 200
        await table.subscribe_slots(slots)
        await table.write_values(slots[:1], columns([-3.5]), WAIT)
        await drained_until(
            table, lambda seen: [seen.get(s) for s in slots.tolist()].count(-3.5) == 200
        )
        await table.remove_slots(slots[::2])
        await table.write_values(slots[1:2], columns([-4.5]), WAIT)
        await drained_until(
            table, lambda seen: [seen.get(s) for s in slots[1::2].tolist()].count(-4.5) == 100
        )

    async def test_a_crowd_of_dead_channels(self, table: ChannelTable, ioc: Ioc) -> None:
        slots = await connected(table, "DOUBLE", "FAST")
        await table.subscribe_slots(slots)
        alone = await _request_cost(table, slots)
        dead = await table.add_channels([f"NOT:THERE:{i}" for i in range(5_000)])
        await table.subscribe_slots(dead)
        # a cost for each of the dead would be a thousand times as much
        assert (await _request_cost(table, slots)) < max(20 * alone, 2.0)
        await table.remove_slots(dead[::2])
        fresh = await connected(table, "LONG")
        assert table.table_stats().channels == 2_503
        assert table.read_info(dead[1::2]).kind.max() == Kind.NONE
        assert (await table.read_values(fresh, WAIT)).code.tolist() == [ECA.NORMAL]


class _History:
    """What drains said of some slots."""

    def __init__(self, table: ChannelTable, slots: Slots) -> None:
        self._table, self._slots = table, slots
        self.state = np.zeros(len(slots), np.uint8)
        self.last: dict[int, object] = {}
        self.kinds: dict[int, set[int]] = defaultdict(set)

    async def until(self, enough: Callable[[], object]) -> None:
        """Drain until `enough()`."""
        async with asyncio.timeout(2 * WAIT):
            while not enough():
                await self._table.wait_dirty()
                self._table.drain_info()
                got = self._table.drain_updates()
                for i, slot in enumerate(got.key.tolist()):
                    self.state[self._slots == slot] = got.state[i]
                    self.kinds[slot].add(int(got.kind[i]))
                    if got.kind[i]:
                        self.last[slot] = got.value(i)


async def _request_cost(table: ChannelTable, slots: Slots) -> float:
    """Seconds of this process that fifty writes and reads of the first slot take."""
    before = time.process_time()
    for number in range(50):
        assert (await table.write_values(slots[:1], columns([number / 8]), WAIT)).tolist() == [
            ECA.NORMAL
        ]
        assert (await table.read_values(slots, WAIT)).values.value(0) == number / 8
        table.drain_updates()
        table.drain_info()
    return time.process_time() - before


def _info_matches(
    table: ChannelTable, slots: Slots, column: str, wanted: object
) -> Callable[[], bool]:
    """Whether the first slot's `column` is as wanted."""
    return lambda: bool(getattr(table.read_info(slots), column)[0] == wanted)


def _value_length(value: object) -> int:
    return len(value) if isinstance(value, np.ndarray) else -1
