"""Conditions over PVs: looked at when a plan is made, and watched while its restore writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from drey_ca.eca import ECA
from drey_ca.interface import ChannelTable, ReadResult, Slots
from drey_core.directory import Directory
from drey_core.errors import DreyError, FailedPrecondition, InvalidArgument, Reason
from drey_core.names import escape_text
from drey_core.values import Columns, Kind, Severity, State
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.expressions import (
    Condition,
    Name,
    NotKnownError,
    compile_condition,
    plain_value,
)
from drey_restore.domain.records import Guard, Rules
from drey_restore.limits import Limits

OpenTable = Callable[[], AbstractAsyncContextManager[ChannelTable]]
_PVA = 2
_ASK_EVERY_S = 1.0
_LAG_S = 0.5
"""A read that ends so much later than it may says that this process stood still, not the IOC."""
_NO_VALUE = "is not connected, or gives no value"


@dataclass(frozen=True)
class _Watched:
    """A condition of a plan; `addresses[i]` is where the value of its name i comes from."""

    guard: Guard
    field: str
    condition: Condition
    addresses: tuple[str, ...]


class Guards:
    """Checks the conditions of plans, and opens channels of their own to watch them."""

    def __init__(self, catalog: CatalogClient, open_table: OpenTable, limits: Limits) -> None:
        self._catalog, self._open_table, self._limits = catalog, open_table, limits

    async def check_rules(self, rules: Rules) -> None:
        """What a plan may have: expressions that can be judged now, whatever they say.

        InvalidArgument: no expression, an unknown PV, types that do not fit. FailedPrecondition
        (DISCONNECTED): a PV has no value that counts.
        """
        async with self.watch_rules(rules) as watch:
            watch.refuse_unknown()

    @asynccontextmanager
    async def watch_rules(self, rules: Rules) -> AsyncIterator[GuardWatch]:
        """The conditions of `rules`, with the values that came within the connect time-out."""
        compiled = [
            (guard, field, compile_condition(guard.expression, f"{field}.expression"))
            for guard, field in _guard_conditions(rules)
        ]
        if not compiled:
            yield GuardWatch([], [], None, np.zeros(0, np.int64), [], 0)
            return
        directory = await self._catalog.current_directory()
        listed = [
            _Watched(
                guard,
                field,
                each,
                tuple(_channel_address(directory, name, field) for name in each.names),
            )
            for guard, field, each in compiled
        ]
        addresses = sorted({address for watched in listed for address in watched.addresses})
        async with self._open_table() as table:
            slots = await table.add_channels(addresses)
            await table.subscribe_slots(slots)
            guards = listed[: len(rules.guards)]
            gates, silent_s = listed[len(guards) :], self._limits.guard_silence_s
            watch = GuardWatch(guards, gates, table, slots, addresses, silent_s)
            await watch.look_first(self._limits.connect_s)
            yield watch


class GuardWatch:
    """The latest values of what conditions look at. `changed` is set with each of them.

    They come by subscription. The channels are read each second besides: an IOC that hangs tells
    nothing on a circuit that is still open, and a change within a dead band is not told either.
    """

    def __init__(
        self,
        guards: Sequence[_Watched],
        gates: Sequence[_Watched],
        table: ChannelTable | None,
        slots: Slots,
        addresses: Sequence[str],
        silent_s: float,
    ) -> None:
        self._guards, self._gates, self._table = guards, gates, table
        self._slots, self._silent_s = slots, silent_s
        self._address_of = dict(zip(slots.tolist(), addresses, strict=True))
        self._values: dict[str, Any] = {}
        self._why_not = dict.fromkeys(addresses, _NO_VALUE)
        self._silent: dict[str, str] = {}
        """Those that did not answer the last read, and which IOC that is."""
        self._heard_ns: dict[str, int] = {}
        """When the last value came of each that is connected."""
        self.changed = asyncio.Event()

    async def look_first(self, timeout_s: float) -> None:
        """Until every channel has a value, or the time is over."""
        end = time.monotonic() + timeout_s
        while self._why_not and (left := end - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._next_values()
            except TimeoutError:
                return

    async def run(self, on_broken: Callable[[DreyError], None]) -> None:
        """Judge the guards with each change, until cancelled."""
        if self._table is None:
            await asyncio.Event().wait()
            return

        def judge_all() -> None:
            broken = self.broken_guard()
            if broken is not None:
                on_broken(broken)
            self.changed.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_values(judge_all), name="subscribed guards")
            group.create_task(self._ask_for_ever(self._table, judge_all), name="guards read")

    async def _follow_values(self, judge: Callable[[], None]) -> None:
        while True:
            judge()
            await self._next_values()

    async def _ask_for_ever(self, table: ChannelTable, judge: Callable[[], None]) -> None:
        asks_again = False
        while True:
            if not asks_again:
                await asyncio.sleep(_ASK_EVERY_S)
            began = time.monotonic()
            reading = await table.read_values(self._slots, self._silent_s)
            stood_still = time.monotonic() - began > self._silent_s + _LAG_S
            asks_again = stood_still and not asks_again
            if not asks_again:
                self._take_read(table, reading)
                judge()

    def _take_read(self, table: ChannelTable, reading: ReadResult) -> None:
        info = table.read_info(self._slots)
        for row, slot in enumerate(self._slots.tolist()):
            address, code = self._address_of[slot], reading.code[row]
            self._silent.pop(address, None)
            if code in (ECA.TIMEOUT, ECA.UNRESPTMO):
                self._silent[address] = (
                    f"has not answered for {self._silent_s:g} s{_at_ioc(info.host[row])}"
                )
            elif code == ECA.NORMAL and address in self._heard_ns:
                received_ns = int(reading.values.receive_time[row])
                if received_ns >= self._heard_ns[address]:  # nothing newer was told meanwhile
                    self._take_value(reading.values, row, info.labels[row], info.host[row])

    def broken_guard(self) -> DreyError | None:
        """GUARD_FAILED for the first guard that does not hold, or cannot be known."""
        for watched in self._guards:
            why = self._why_not_met(watched)
            if why is not None:
                shown = watched.guard.description or watched.guard.expression
                return FailedPrecondition(
                    f"guard {shown!r}: {why}. Nothing more is written",
                    reason=Reason.GUARD_FAILED,
                    metadata={"guard": watched.guard.expression, "why": why},
                )
        return None

    def not_met(self, guard: Guard) -> str | None:
        """Why the condition of a gate does not hold; None: it does."""
        return next(
            (self._why_not_met(each) for each in self._gates if each.guard == guard),
            "it is not watched",
        )

    def refuse_unknown(self) -> None:
        """Raise where one of the conditions could not be judged now."""
        for watched in (*self._guards, *self._gates):
            why = self._why_unknown(watched)
            field = f"{watched.field}.expression"
            if why is not None:
                raise FailedPrecondition(
                    f"{field}: {why}; nothing can be written under it",
                    reason=Reason.DISCONNECTED,
                    field=field,
                    metadata={"field": field},
                )
            try:
                self._judge_guard(watched)
            except NotKnownError as error:
                raise InvalidArgument(
                    f"{field}: {error}", field=field, metadata={"field": field}
                ) from error

    def _why_unknown(self, watched: _Watched) -> str | None:
        """The first PV of a condition that has no value that counts, and why."""
        for name, address in zip(watched.condition.names, watched.addresses, strict=True):
            why = self._why_not.get(address) or self._silent.get(address)
            if why is not None:
                return f"{name[1]} {why}"
        return None

    def _judge_guard(self, watched: _Watched) -> bool:
        values = {
            name: self._values[address]
            for name, address in zip(watched.condition.names, watched.addresses, strict=True)
        }
        return watched.condition.holds_for(values)

    def _why_not_met(self, watched: _Watched) -> str | None:
        why = self._why_unknown(watched)
        if why is not None:
            return why
        try:
            if self._judge_guard(watched):
                return None
        except NotKnownError as error:
            return str(error)
        pairs = zip(watched.condition.names, watched.addresses, strict=True)
        return ", ".join(f"{name[1]} is {self._values[address]!r:.60}" for name, address in pairs)

    async def _next_values(self) -> None:
        """Wait for changes, and take them."""
        if self._table is None:
            return
        await self._table.wait_dirty()
        self._table.drain_info()
        found = self._table.drain_updates()
        info = self._table.read_info(found.key)
        for row in range(len(found)):
            self._take_value(found, row, info.labels[row], info.host[row])

    def _take_value(self, columns: Columns, row: int, labels: Sequence[bytes], host: str) -> None:
        address = self._address_of[int(columns.key[row])]
        if columns.state[row] == State.CONNECTED:
            self._heard_ns[address] = int(columns.receive_time[row])
        else:
            self._heard_ns.pop(address, None)
        try:
            self._values[address] = _plain_value(columns, row, labels)
            self._why_not.pop(address, None)
        except NotKnownError as why:
            self._values.pop(address, None)
            self._why_not[address] = f"{why}{_at_ioc(host)}"


def _at_ioc(host: str) -> str:
    return f" (IOC {host})" if host else ""


def _plain_value(columns: Columns, row: int, labels: Sequence[bytes]) -> Any:
    """A value as an expression sees it: of an enumeration its label, where it has one."""
    if columns.state[row] != State.CONNECTED or columns.kind[row] == Kind.NONE:
        raise NotKnownError(_NO_VALUE)
    if columns.severity[row] == Severity.INVALID:
        raise NotKnownError("is INVALID")
    value = columns.value(row)
    if columns.kind[row] == Kind.ENUM and int(value) < len(labels):
        return labels[int(value)].decode(errors="replace")
    return plain_value(int(value) if columns.kind[row] == Kind.ENUM else value)


def _guard_conditions(rules: Rules) -> list[tuple[Guard, str]]:
    """Guards first, then what gates want to hold, each with its field."""
    listed = [(guard, f"spec.guards[{i}]") for i, guard in enumerate(rules.guards)]
    return listed + [
        (gate.guard, f"spec.gates[{i}].must_hold")
        for i, gate in enumerate(rules.gates)
        if gate.guard is not None
    ]


def _channel_address(directory: Directory, name: Name, field: str) -> str:
    """Where the value of a name comes from."""
    which, pv = name
    try:
        row = directory.names.index(pv)
    except ValueError:
        raise _refused_guard(field, f"there is no PV {escape_text(pv)} in the catalog") from None
    setpoint = directory.setpoint_address[row]
    found = setpoint if which == "setpoint" else directory.readback_address[row] or setpoint
    if not found:
        raise _refused_guard(field, f"{pv} has no setpoint")
    if directory.protocol[row] == _PVA:
        raise _refused_guard(field, f"{pv} is of a protocol that restores do not speak")
    return found


def _refused_guard(field: str, why: str) -> InvalidArgument:
    field = f"{field}.expression"
    return InvalidArgument(f"{field}: {why}", field=field, metadata={"field": field})
