"""The channel table over `aioca`, through its public functions, as its other users call them.

It is the fallback where the native table cannot be built, and the independent reference of the
conformance suite. This package's README lists what aioca cannot do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import aioca
import numpy as np
from epicscorelibs.ca import cadef
from numpy.typing import NDArray

from drey_ca import _dbr as dbr
from drey_ca import _process
from drey_ca._encode import encode_value, wire_array
from drey_ca.eca import ECA
from drey_ca.interface import (
    Connections,
    InfoColumns,
    ReadResult,
    ServedTwice,
    Slots,
    TableStats,
)
from drey_ca.names import checked_names
from drey_core.errors import InvalidArgument
from drey_core.values import (
    ARRAY,
    STRING_ARRAY,
    Columns,
    Kind,
    Origin,
    State,
    heap_ref,
    pack_strings,
    scalar_bits,
)

_STRIDE = 1_000
"""Channels made, removed or looked at between two turns of the event loop."""

_WINDOW = 1_000
"""Requests under way to one server: an IOC loses completions that find its queue of 2,000 full."""

_LOOK_S = 0.5
"""Between two looks at what aioca does not report, at `_STRIDE` channels each."""

_RETRY_S = 0.05
_IS_CONNECTED = 2
_PENDING = -1
_LIMITS = {
    "display_high": "upper_disp_limit",
    "display_low": "lower_disp_limit",
    "alarm_high": "upper_alarm_limit",
    "warning_high": "upper_warning_limit",
    "warning_low": "lower_warning_limit",
    "alarm_low": "lower_alarm_limit",
    "control_high": "upper_ctrl_limit",
    "control_low": "lower_ctrl_limit",
}
"""Columns of `InfoColumns`, and what aioca calls them."""

_open_tables: set[AiocaTable] = set()
_attached: list[bool] = []


def is_attached() -> bool:
    """Whether the process's one aioca context exists: it has read its environment for good."""
    return bool(_attached)


class _Value(NamedTuple):
    kind: int = 0
    data: int = 0
    blob: bytes | None = None
    severity: int = 0
    status: int = 0
    source_time: int = 0
    receive_time: int = 0


class _Metadata(NamedTuple):
    precision: int = -1
    limits: tuple[float, ...] = (float("nan"),) * len(_LIMITS)
    units: bytes = b""
    labels: tuple[bytes, ...] = ()


_NO_VALUE, _NO_METADATA = _Value(), _Metadata()


class _BadCount(Exception):
    """More elements than the channel has."""


@dataclass(slots=True, eq=False)
class _Channel:
    """One slot. `connection` grows when a connection is lost: what its monitors say is old then."""

    name: str
    slot: int
    up: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    follower: asyncio.Task[None] | None = None
    monitors: dict[str, aioca.Subscription] = field(default_factory=dict)
    connection: int = 0
    removed: bool = False
    wanted: bool = False
    state: int = int(State.NEVER_CONNECTED)
    state_time: int = 0
    unheard_since: int = 0
    native: int = -1
    count: int = 0
    readable: bool = False
    writable: bool = False
    host: str = ""
    metadata: _Metadata = _NO_METADATA
    value: _Value = _NO_VALUE
    unseen: bool = False
    bygone: bool = False
    """Its value is of an earlier connection."""
    unlabeled: bool = False
    """An enum whose metadata has not come since it connected."""
    merged: int = 0
    dropped: int = 0
    unanswered: int = 0

    @property
    def access_withheld(self) -> bool:
        """Whether a value has come that cannot be told yet: a number of an enum without labels."""
        return self.unlabeled and not self.bygone and self.value.kind == Kind.ENUM

    def drop_value(self) -> None:
        self.value, self.unseen, self.bygone = _NO_VALUE, False, False

    @property
    def long_string(self) -> bool:
        return self.name.endswith("$")

    @property
    def kind(self) -> int:
        if self.native < 0:
            return int(Kind.NONE)
        if self.long_string:
            return int(Kind.STRING)
        return int(dbr.SCALAR_KIND[self.native]) | (ARRAY if self.count != 1 else 0)

    def close_monitors(self) -> None:
        for monitor in self.monitors.values():
            # aioca forgets a subscription that it could not make, and does not say so
            with suppress(KeyError):
                monitor.close()
        self.monitors.clear()


@dataclass(slots=True, eq=False)
class _Request:
    """One row of a bulk call. `handed`: libca has it; `abandoned`: and had when the call ended."""

    channel: _Channel
    is_write: bool
    code: int = _PENDING
    handed: bool = False
    abandoned: bool = False
    value: _Value = _NO_VALUE
    task: asyncio.Task[None] | None = None


class AiocaTable:
    """`drey_ca.interface.ChannelTable` in Python. Make it inside the loop that will use it."""

    withdraws_writes = False
    """aioca closes channels all together only, at the end of its last table."""

    def __init__(self) -> None:
        self._process = _process.claim_process()
        aioca.get_channel_infos()  # makes the context, with the environment as it is now
        _attached[:] = [True]
        self._channels: dict[int, _Channel] = {}
        self._free: deque[int] = deque()
        self._dirty: dict[int, None] = {}
        self._info_dirty: set[int] = set()
        self._wake = asyncio.Event()
        self._requests: set[_Request] = set()
        self._windows: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_WINDOW)
        )
        self._updates = self._merged = self._bad_events = self._late = 0
        self._closed = False
        _open_tables.add(self)
        self._looker = asyncio.create_task(self._look_around(), name="look at CA rights")

    async def __aenter__(self) -> AiocaTable:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close_table()

    @property
    def implementation_name(self) -> str:
        """`aioca`."""
        return "aioca"

    # -- channels ---------------------------------------------------------------------------

    async def add_channels(self, names: Sequence[str]) -> Slots:
        """See `ChannelTable.add_channels`. Cancelled half-way, it takes back what it had made."""
        self._check_open()
        checked_names(names)
        made: list[_Channel] = []
        try:
            for index, name in enumerate(names):
                if index % _STRIDE == _STRIDE - 1:
                    await asyncio.sleep(0)
                    self._check_open()
                made.append(await self._make_channel(name))
        except BaseException:
            self._drop_channels(made)
            raise
        return np.array([channel.slot for channel in made], np.int64)

    async def _make_channel(self, name: str) -> _Channel:
        try:
            await aioca.connect(name, wait=False, timeout=None)
        except cadef.CAException as error:
            raise InvalidArgument(f"no channel can be made for {name!r}: {error}") from error
        # All slots given out are in use or free, so the next new one is their number.
        number = len(self._channels) + len(self._free)
        channel = _Channel(name, self._free.popleft() if self._free else number)
        self._channels[channel.slot] = channel
        channel.follower = asyncio.create_task(self._follow_channel(channel), name=f"follow {name}")
        return channel

    async def remove_slots(self, slots: Slots) -> None:
        """See `ChannelTable`. aioca keeps their connections until the last table closes."""
        self._check_open()
        gone = list(dict.fromkeys(self._channels_of(slots)))
        for start in range(0, len(gone), _STRIDE):
            self._drop_channels(gone[start : start + _STRIDE])
            await asyncio.sleep(0)

    def _drop_channels(self, channels: list[_Channel]) -> None:
        for channel in channels:
            if channel.removed:
                continue
            channel.removed = True
            channel.close_monitors()
            if channel.follower is not None:
                channel.follower.cancel()
            channel.up.set()
            del self._channels[channel.slot]
            self._free.append(channel.slot)
            self._dirty.pop(channel.slot, None)
            self._info_dirty.discard(channel.slot)
        self._end_requests(lambda request: request.channel.removed)

    def _end_requests(self, which: Callable[[_Request], bool]) -> None:
        """End requests whose channel is no more. A write that libca has may still happen."""
        for request in [request for request in self._requests if which(request)]:
            if request.code == _PENDING:
                sent = request.is_write and request.handed
                request.code = int(ECA.TIMEOUT if sent else ECA.CHANDESTROY)
            if request.task is not None:
                request.task.cancel()

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        """See `ChannelTable.wait_connected`. Of slots removed meanwhile: False."""
        self._check_open()
        channels = self._channels_of(slots)
        try:
            async with asyncio.timeout(max(timeout, 0)):
                while missing := [channel for channel in channels if not channel.up.is_set()]:
                    for channel in missing:
                        await channel.up.wait()
        except TimeoutError:
            pass  # the answer says which are missing
        up = [channel.state == State.CONNECTED and not channel.removed for channel in channels]
        return np.array(up, np.bool_)

    async def _follow_channel(self, channel: _Channel) -> None:
        """Keep what is known of a channel: through every connection, until it is cancelled."""
        while True:
            self._on_connected(channel, await _connected_info(channel.name))
            await channel.lost.wait()
            channel.lost.clear()
            channel.close_monitors()  # libca would go on with them in the type of before

    def _on_connected(self, channel: _Channel, info: aioca.CAInfo) -> None:
        if (info.datatype, info.count) != (channel.native, channel.count):
            channel.value, channel.unseen, channel.metadata = _NO_VALUE, False, _NO_METADATA
        channel.native, channel.count, channel.host = info.datatype, info.count, info.host
        channel.readable, channel.writable = bool(info.read), bool(info.write)
        if not channel.readable:
            channel.drop_value()
        channel.bygone = channel.value is not _NO_VALUE
        channel.unlabeled = channel.kind == Kind.ENUM
        channel.state, channel.state_time = int(State.CONNECTED), time.time_ns()
        channel.unanswered = 0
        self._mark_changed(channel, value=True, info=True)
        self._open_monitors(channel)
        channel.up.set()

    def _on_lost(self, channel: _Channel) -> None:
        channel.connection += 1
        if channel.access_withheld:
            channel.drop_value()
        channel.state, channel.state_time = int(State.DISCONNECTED), time.time_ns()
        channel.up.clear()
        channel.lost.set()
        self._mark_changed(channel, value=True, info=True)

    async def _look_around(self) -> None:
        """Look for what aioca does not report: rights that change, monitors that it has ended."""
        waiting: deque[_Channel] = deque()
        while True:
            await asyncio.sleep(_LOOK_S)
            waiting = waiting or deque(self._channels.values())
            for _ in range(min(_STRIDE, len(waiting))):
                channel = waiting.popleft()
                if channel.state == State.CONNECTED and not channel.removed:
                    await self._look_at(channel)

    async def _look_at(self, channel: _Channel) -> None:
        info = await _info_now(channel.name)
        if info is None:
            self._on_lost(channel)
            return
        rights = bool(info.read), bool(info.write)
        if rights != (channel.readable, channel.writable):
            channel.readable, channel.writable = rights
            if not channel.readable:
                channel.drop_value()
            self._mark_changed(channel, value=not channel.readable, info=True)
        for use, monitor in list(channel.monitors.items()):
            if monitor.state == monitor.CLOSED:  # aioca ends it when an event has no good value
                self._bad_events += channel.readable
                del channel.monitors[use]
        self._open_monitors(channel)

    # -- values -----------------------------------------------------------------------------

    async def subscribe_slots(self, slots: Slots) -> None:
        """See `ChannelTable.subscribe_slots`."""
        self._check_open()
        for channel in self._channels_of(slots):
            channel.wanted = True
            if channel.state == State.CONNECTED:
                self._open_monitors(channel)

    def _open_monitors(self, channel: _Channel) -> None:
        """Of properties, which also tells that a connection is lost, and of the value."""
        if not channel.readable:
            return
        connection = channel.connection

        def make_listener(take: Callable[[_Channel, Any], None]) -> Callable[[Any], None]:
            def on_event(event: Any) -> None:
                if channel.removed or channel.connection != connection:
                    return
                if event.ok:
                    take(channel, event)
                else:
                    self._on_lost(channel)

            return on_event

        if "properties" not in channel.monitors:
            channel.monitors["properties"] = aioca.camonitor(
                channel.name,
                make_listener(self._on_properties),
                events=aioca.DBE_PROPERTY,
                datatype=channel.native,
                format=aioca.FORMAT_CTRL,
                count=1,
                notify_disconnect=True,
            )
        if channel.wanted and "value" not in channel.monitors:
            channel.dropped = 0
            channel.unheard_since = time.monotonic_ns()
            channel.monitors["value"] = aioca.camonitor(
                channel.name,
                make_listener(self._on_value),
                datatype=_request_datatype(channel.name, channel.native),
                format=aioca.FORMAT_TIME,
                notify_disconnect=True,
            )

    def _on_value(self, channel: _Channel, event: Any) -> None:
        if not channel.unlabeled:
            channel.unheard_since = 0
        try:
            value = _decode_event(event)
        except _BadCount:
            self._bad_events += 1
            return
        dropped = channel.monitors["value"].dropped_callbacks
        replaced = dropped - channel.dropped
        channel.dropped = dropped
        channel.merged += replaced + channel.unseen
        self._updates += replaced + 1
        channel.value, channel.unseen, channel.bygone = value, True, False
        self._mark_changed(channel, value=not channel.access_withheld)

    def _on_properties(self, channel: _Channel, event: Any) -> None:
        metadata = _Metadata(
            getattr(event, "precision", -1),
            tuple(float(getattr(event, theirs, "nan")) for theirs in _LIMITS.values()),
            getattr(event, "units", "").encode(),
            tuple(label.encode() for label in getattr(event, "enums", ())),
        )
        changed = repr(metadata) != repr(channel.metadata)  # NaN is not equal to itself
        if channel.access_withheld:
            channel.unheard_since = 0
        channel.metadata, channel.unlabeled = metadata, False
        self._mark_changed(channel, value=channel.unseen, info=changed)

    def _mark_changed(self, channel: _Channel, *, value: bool = False, info: bool = False) -> None:
        if value:
            self._dirty[channel.slot] = None
        if info:
            self._info_dirty.add(channel.slot)
        self._wake.set()

    async def wait_dirty(self) -> None:
        """See `ChannelTable.wait_dirty`."""
        self._check_open()
        await asyncio.sleep(0)  # events reach this table by turns of the loop only
        while not (self._dirty or self._info_dirty):
            self._wake.clear()
            await self._wake.wait()
            self._check_open()

    def drain_updates(self, max_heap: int = 64 << 20) -> Columns:
        """See `ChannelTable.drain_updates`."""
        self._check_open()
        chosen: list[_Channel] = []
        room = max_heap
        for slot in list(self._dirty):  # what was left by the last drain comes first
            channel = self._channels[slot]
            if channel.access_withheld:
                del self._dirty[slot]
                continue
            size = len(channel.value.blob or b"")
            if size > room and room != max_heap:
                continue
            room -= size
            del self._dirty[slot]
            chosen.append(channel)
        chosen.sort(key=lambda channel: channel.slot)
        columns = _value_columns(chosen, [channel.value for channel in chosen], Origin.MONITOR)
        columns.merged[:] = [min(channel.merged, 0xFFFF_FFFF) for channel in chosen]
        columns.state[[channel.bygone for channel in chosen]] = State.DISCONNECTED
        for channel in chosen:
            self._merged += channel.merged
            channel.merged, channel.unseen = 0, False
        return columns

    def drain_info(self) -> Slots:
        """See `ChannelTable.drain_info`."""
        self._check_open()
        slots, self._info_dirty = sorted(self._info_dirty), set()
        return np.array(slots, np.int64)

    def read_info(self, slots: Slots) -> InfoColumns:
        """See `ChannelTable.read_info`."""
        self._check_open()
        every = self._channels_of(slots)
        limits = np.array([channel.metadata.limits for channel in every]).reshape(-1, len(_LIMITS))
        return InfoColumns(
            slot=np.array([channel.slot for channel in every], np.int64),
            kind=np.array([channel.kind for channel in every], np.uint8),
            count=np.array([channel.count for channel in every], np.int64),
            state_time=np.array([channel.state_time for channel in every], np.int64),
            readable=np.array([channel.readable for channel in every], np.bool_),
            writable=np.array([channel.writable for channel in every], np.bool_),
            precision=np.array([channel.metadata.precision for channel in every], np.int16),
            units=[channel.metadata.units for channel in every],
            labels=[channel.metadata.labels for channel in every],
            host=[channel.host for channel in every],
            **{ours: limits[:, index].copy() for index, ours in enumerate(_LIMITS)},
        )

    # -- bulk requests ----------------------------------------------------------------------

    async def read_values(
        self, slots: Slots, timeout: float, *, kind: Kind | None = None
    ) -> ReadResult:
        """See `ChannelTable.read_values`."""
        self._check_open()
        channels = self._channels_of(slots)
        asked = None if kind is None else dbr.dbr_type(kind)
        texts = [channel.slot for channel in channels if channel.long_string]
        if asked is not None and texts:
            raise ValueError(f"the long string in slot {texts[0]} takes no kind")
        requests = [_Request(channel, is_write=False) for channel in channels]
        await self._run_requests(
            requests, [self._get_value(request, asked) for request in requests], timeout
        )
        values = _value_columns(channels, [request.value for request in requests], Origin.READ)
        return ReadResult(values, self._result_codes(requests, ECA.TIMEOUT))

    async def _get_value(self, request: _Request, asked: int | None) -> None:
        """Until there is an answer: what was lost with a connection is asked again."""
        name = request.channel.name

        async def get_once(info: aioca.CAInfo) -> int:
            datatype = _request_datatype(name, info.datatype if asked is None else asked)
            try:
                got = await aioca.caget(
                    name, datatype=datatype, format=aioca.FORMAT_TIME, timeout=None
                )
                request.value = _decode_event(got)
            except aioca.CANothing as error:
                return int(error.errorcode)
            except (AssertionError, IndexError, _BadCount) as error:  # aioca's ways to say so
                self._bad_events += 1
                return int(ECA.BADTYPE if isinstance(error, AssertionError) else ECA.BADCOUNT)
            return int(ECA.NORMAL)

        await self._ask_server(request, get_once)

    async def write_values(
        self,
        slots: Slots,
        values: Columns,
        timeout: float,
        *,
        completion: bool = True,
        connected_at: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int32]:
        """See `ChannelTable`. ECA_TIMEOUT also where the server was lost after sending."""
        self._check_open()
        channels = self._channels_of(slots)
        if len(values) != len(channels):
            raise ValueError(f"{len(values)} values for {len(channels)} slots")
        rows = _EncodedRows(channels, values, connected_at)
        requests = [_Request(channel, is_write=True) for channel in channels]
        puts = [self._put_value(request, rows, i, completion) for i, request in enumerate(requests)]
        await self._run_requests(requests, puts, timeout)
        return self._result_codes(requests, ECA.UNRESPTMO)

    async def _put_value(
        self, request: _Request, rows: _EncodedRows, row: int, completion: bool
    ) -> None:
        """Until it is handed over and answered, in whichever call's time that is."""
        channel = request.channel

        async def put_once(info: aioca.CAInfo) -> int:
            if rows.is_of_former(row, info):
                request.code = int(ECA.DISCONN)
                return int(ECA.NORMAL)  # that is its last word
            code, datatype, array = rows.get(row, info)
            if code != ECA.NORMAL:
                return code
            request.handed = True  # `caput` gives it to libca before it lets anybody else run
            try:
                await aioca.caput(
                    channel.name, array, datatype=datatype, wait=completion, timeout=None
                )
            except aioca.CANothing as error:
                if error.errorcode != ECA.DISCONN:
                    return int(error.errorcode)
                channel.unanswered += not request.abandoned
                request.abandoned = False
                return int(ECA.TIMEOUT)
            except cadef.CAException:
                request.handed = False
                raise
            return int(ECA.NORMAL)

        await self._ask_server(request, put_once)
        if request.abandoned:
            self._late += 1
            channel.unanswered = max(channel.unanswered - 1, 0)

    async def _ask_server(
        self, request: _Request, attempt: Callable[[aioca.CAInfo], Awaitable[int]]
    ) -> None:
        """Ask the server in its turn, again where it is lost before it has the question."""
        name = request.channel.name
        while True:
            info = await _connected_info(name)
            async with self._windows[info.host]:
                try:
                    code = await attempt(await _connected_info(name))
                except cadef.CAException as error:  # by libca, at once: nothing was sent
                    code = int(error.status)
                except cadef.Disconnected:
                    code = int(ECA.DISCONN)
            if code != ECA.DISCONN:
                if request.code == _PENDING:
                    request.code = code
                return
            await asyncio.sleep(_RETRY_S)

    async def _run_requests(
        self, requests: list[_Request], work: list[Any], timeout: float
    ) -> None:
        """Do it all at once, until the deadline. Writes that libca has by then go on alone."""
        for request, each in zip(requests, work, strict=True):
            request.task = asyncio.create_task(each)
            request.task.add_done_callback(partial(self._forget_request, request))
        self._requests.update(requests)
        tasks = [request.task for request in requests if request.task is not None]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=max(timeout, 0))
        finally:
            for request, task in zip(requests, tasks, strict=True):
                if task.done():
                    if not task.cancelled():
                        task.result()
                elif request.is_write and request.handed and request.code == _PENDING:
                    request.abandoned, request.code = True, int(ECA.TIMEOUT)
                    request.channel.unanswered += 1
                else:
                    task.cancel()

    def _result_codes(self, requests: list[_Request], late: ECA) -> NDArray[np.int32]:
        """What became of each; `late` of those whose server is there and had no time for them."""
        for request in requests:
            if request.code == _PENDING:
                up = request.channel.state == State.CONNECTED
                request.code = int(late if up else ECA.DISCONN)
        return np.array([request.code for request in requests], np.int32)

    def _forget_request(self, request: _Request, _: asyncio.Task[None]) -> None:
        self._requests.discard(request)

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        """See `ChannelTable.unanswered_slots`."""
        self._check_open()
        return np.array([channel.unanswered > 0 for channel in self._channels_of(slots)], np.bool_)

    # -- servers ----------------------------------------------------------------------------

    def connection_columns(self) -> Connections:
        """See `ChannelTable.connection_columns`."""
        n = len(self._channels) + len(self._free)
        server, up, askable = np.full(n, -1, np.int32), np.zeros(n, bool), np.zeros(n, bool)
        unheard, now = np.zeros(n, np.int64), time.monotonic_ns()
        index: dict[str, int] = {}
        for slot, channel in self._channels.items():
            if channel.host:
                server[slot] = index.setdefault(channel.host, len(index))
                up[slot] = channel.state == State.CONNECTED
                askable[slot] = up[slot] and channel.readable and channel.count == 1
                monitor = channel.monitors.get("value")
                # one that aioca has closed was answered by something that it could not use
                if (
                    monitor is not None
                    and channel.unheard_since
                    and monitor.state != monitor.CLOSED
                ):
                    unheard[slot] = up[slot] and now - channel.unheard_since
        return Connections(list(index), server, up, askable, unheard)

    def take_served_twice(self) -> list[ServedTwice]:
        """See `ChannelTable.take_served_twice`."""
        return []

    # -- the rest ---------------------------------------------------------------------------

    def table_stats(self) -> TableStats:
        """See `ChannelTable.table_stats`. `merged` counts as rows are drained."""
        every = self._channels.values()
        return TableStats(
            channels=len(every),
            connected=sum(channel.state == State.CONNECTED for channel in every),
            subscribed=sum(channel.wanted for channel in every),
            updates=self._updates,
            merged=self._merged,
            bad_events=self._bad_events,
            late_completions=self._late,
            asking=sum(channel.unheard_since > 0 for channel in every),
        )

    async def close_table(self) -> None:
        """See `ChannelTable.close_table`. Reads and writes under way end with ECA_CHANDESTROY."""
        if self._closed:
            return
        self._closed = True
        _open_tables.discard(self)
        self._wake.set()
        self._looker.cancel()
        tasks = [self._looker, *(r.task for r in self._requests if r.task is not None)]
        tasks += [c.follower for c in self._channels.values() if c.follower is not None]
        self._end_requests(lambda _: True)
        if os.getpid() == self._process:
            self._drop_channels(list(self._channels.values()))
            if not _open_tables:
                aioca.purge_channel_caches()
        await asyncio.wait(tasks)

    def _channels_of(self, slots: Slots) -> list[_Channel]:
        return [self._channels[slot] for slot in np.asarray(slots, np.int64).reshape(-1).tolist()]

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the channel table is closed")
        _process.check_process(self._process)


class _EncodedRows:
    """What a write sends, encoded for the channels' types, and again where they change."""

    def __init__(
        self,
        channels: list[_Channel],
        values: Columns,
        connected_at: NDArray[np.int64] | None,
    ) -> None:
        self._channels, self._values, self._connected_at = channels, values, connected_at
        self._shapes = [(channel.native, channel.count) for channel in channels]
        self._long_string = np.array([channel.long_string for channel in channels], np.bool_)
        shapes = np.array(self._shapes, np.int64).reshape(-1, 2)
        self._wire = encode_value(values, shapes[:, 0], shapes[:, 1], self._long_string)

    def is_of_former(self, row: int, info: aioca.CAInfo) -> bool:
        """Whether the channel has connected anew since the caller looked at it."""
        return self._connected_at is not None and (
            self._shapes[row] != (info.datatype, info.count)
            or self._channels[row].state_time != self._connected_at[row]
        )

    def get(self, row: int, info: aioca.CAInfo) -> tuple[int, int, NDArray[Any]]:
        """ECA code, DBR type and elements of a row."""
        if self._shapes[row] == (info.datatype, info.count):
            return wire_array(self._wire, row)
        row_index = np.array([row])
        native, count = np.array([info.datatype]), np.array([info.count])
        wire = encode_value(
            self._values.take_rows(row_index), native, count, self._long_string[row_index]
        )
        return wire_array(wire, 0)


async def _info_now(name: str) -> aioca.CAInfo | None:
    """What libca says of a channel, or None where it is not connected; lets nobody else run."""
    info = await aioca.cainfo(name, wait=False, timeout=None, throw=False)
    usable = info.ok and info.state == _IS_CONNECTED and info.datatype < len(dbr.SCALAR_KIND)
    return info if usable else None


async def _connected_info(name: str) -> aioca.CAInfo:
    """The same when it is connected; the caller goes on before anything else runs."""
    while True:
        await aioca.connect(name, timeout=None)
        info = await _info_now(name)
        if info is not None:
            return info
        await asyncio.sleep(_RETRY_S)


def _request_datatype(name: str, basic: int) -> Any:
    """What to ask aioca for: texts as bytes, since as `str` they lose what is not UTF-8."""
    if name.endswith("$"):
        return aioca.DBR_CHAR_BYTES
    return bytes if basic == dbr.DBR_STRING else basic


def _decode_event(event: Any) -> _Value:
    """A value of aioca's in `FORMAT_TIME`. Raises `_BadCount`."""
    kind, data, blob = int(dbr.SCALAR_KIND[event.datatype]), 0, None
    if isinstance(event, bytes):
        kind, blob = int(Kind.STRING), bytes(event)
    elif event.element_count == 1:
        data = scalar_bits(kind, event)
    elif len(event) > event.element_count:
        raise _BadCount
    elif kind == Kind.STRING:
        kind, blob = STRING_ARRAY, pack_strings(event.tolist())
    else:
        kind, blob = kind | ARRAY, event.tobytes()
    seconds, nanoseconds = event.raw_stamp
    source_time = seconds * 10**9 + nanoseconds
    return _Value(kind, data, blob, event.severity, event.status, source_time, time.time_ns())


def _value_columns(channels: list[_Channel], values: Iterable[_Value], origin: Origin) -> Columns:
    """One row a channel. Without a value it has no origin either."""
    columns = Columns.empty_columns(len(channels))
    heap: list[bytes] = []
    size = 0
    for row, (channel, value) in enumerate(zip(channels, values, strict=True)):
        columns.key[row], columns.state[row] = channel.slot, channel.state
        columns.kind[row] = value.kind
        columns.origin[row] = origin if value.kind else Origin.NONE
        columns.severity[row], columns.status[row] = value.severity, value.status
        columns.source_time[row] = value.source_time
        columns.receive_time[row] = value.receive_time
        columns.data[row] = value.data
        if value.blob is not None:
            columns.data[row] = heap_ref(size, len(value.blob))
            heap.append(value.blob)
            size += len(value.blob)
    return replace(columns, heap=b"".join(heap))
