"""The port: many Channel Access channels, in columns.

Two implementations stand behind it: `drey_ca.native_table` (Cython over libca) and
`drey_ca.aioca_table` (over `aioca`), its fallback and reference. Everything above sees only this
module. Slots are row numbers of the table, given by `add` and dead after `remove`; the table never
confuses a removed slot's late events with a newer channel. All methods belong to one event loop
and are not thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drey_core.values import Columns, Kind

Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class InfoColumns:
    """What is known of n channels beside their values; each field has n entries.

    `kind` is the native `drey_core.values.Kind` (with `ARRAY` when `count` > 1), NONE while
    never connected. Limits are NaN where the type has none. `precision` is -1 where the type
    has none. Texts are the IOC's own bytes. `state_time` is when the connection was last made or
    lost, in nanoseconds since 1970 UTC by this host's clock; 0 while never connected.
    """

    slot: Slots
    kind: NDArray[np.uint8]
    count: NDArray[np.int64]
    state_time: NDArray[np.int64]
    readable: NDArray[np.bool_]
    writable: NDArray[np.bool_]
    precision: NDArray[np.int16]
    display_low: NDArray[np.float64]
    display_high: NDArray[np.float64]
    warning_low: NDArray[np.float64]
    warning_high: NDArray[np.float64]
    alarm_low: NDArray[np.float64]
    alarm_high: NDArray[np.float64]
    control_low: NDArray[np.float64]
    control_high: NDArray[np.float64]
    units: list[bytes]
    labels: list[tuple[bytes, ...]]
    host: list[str]


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a bulk read gave: one row a slot asked, in the order asked.

    `code` is an ECA status for each (see `drey_ca.eca`); rows whose code is not `ECA_NORMAL`
    have kind NONE and the state that explains it. `values.key` holds the slots and
    `values.origin` says `READ`: the value came by this read, not from a subscription.
    """

    values: Columns
    code: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TableStats:
    """Counters since the table was made; `channels`, `connected` and `asking` are as of now."""

    channels: int
    connected: int
    subscribed: int
    updates: int
    merged: int
    bad_events: int
    late_completions: int
    asking: int
    """What was or is to be asked for watched channels and is not answered: first values, metadata,
    subscriptions to values. 0: their servers are done with all channels that are connected.
    """


@dataclass(frozen=True, slots=True)
class Connections:
    """Which server each channel is, or was last, connected to.

    The columns are indexed by slot, and are as long as there are slots. `server`: index into
    `servers`, -1 where there is no such channel or it has never connected. `askable`: connected,
    a scalar and readable, so that a read of it costs next to nothing. `unheard_ns`: for how long
    the subscription of a connected, readable channel has been waiting for its first event, since it
    was asked for or the channel came back, and an enum's for its labels; 0 where something came of
    it, be it a refusal.
    """

    servers: list[str]
    """Names as Channel Access knows them, `host:port`; each once."""
    server: NDArray[np.int32]
    connected: NDArray[np.bool_]
    askable: NDArray[np.bool_]
    unheard_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ServedTwice:
    """A name to which two servers answered: the one that was taken, and one that was not."""

    name: str
    taken: str
    ignored: str


class ChannelTable(Protocol):
    """A set of channels that may grow and shrink while running."""

    @property
    def implementation_name(self) -> str:
        """`aioca` or `native`."""
        ...

    @property
    def withdraws_writes(self) -> bool:
        """Whether `remove` closes channels at their server, which drops what waits on them."""
        ...

    async def add_channels(self, names: Sequence[str]) -> Slots:
        """Create channels and begin to search for them; does not wait for connection.

        The same name may be added more than once; each has its own slot. Raises
        `drey_core.errors.InvalidArgument` naming the first name that no channel can have
        (empty, longer than 500 bytes, with a control character or a blank).
        """
        ...

    async def remove_slots(self, slots: Slots) -> None:
        """Forget channels, with their subscriptions and dirty marks. Unknown slots: KeyError."""
        ...

    async def wait_connected(self, slots: Slots, timeout: float) -> NDArray[np.bool_]:
        """Wait until all are connected or `timeout` seconds are over; which of them are."""
        ...

    async def subscribe_slots(self, slots: Slots) -> None:
        """Keep the latest value of these in the table, through every reconnection.

        Values come in the native type with time and alarm (DBE_VALUE | DBE_ALARM); property
        changes refresh the metadata. Does not wait. Addresses that end in `$` are long
        strings and arrive as one STRING. Subscribing twice changes nothing.
        """
        ...

    async def wait_dirty(self) -> None:
        """Return when `drain` would give a row or `drain_info` a slot; at once if so now.

        Cancelling it loses nothing. One wake-up per burst.
        """
        ...

    def drain_updates(self, max_heap: int = 64 << 20) -> Columns:
        """The changed slots since the last drain, at most once each, with their latest value.

        Includes changes of connection: a disconnected channel keeps its last value with state
        DISCONNECTED, also after its return, until a value of the new connection has come. The
        number of an enum waits until `info` has the labels that its server tells now. A value that
        may not be read any more is replaced by none. `merged` counts the updates that were
        replaced unseen. Heap values beyond `max_heap` bytes stay dirty for the next drain (at
        least one is always taken). Never blocks. `key` holds slots, ascending.
        """
        ...

    def drain_info(self) -> Slots:
        """Slots whose `info` changed since last asked, ascending. Never blocks."""
        ...

    def read_info(self, slots: Slots) -> InfoColumns:
        """What is known of these now. Never blocks."""
        ...

    async def read_values(
        self, slots: Slots, timeout: float, *, kind: Kind | None = None
    ) -> ReadResult:
        """Read all from their servers, past any subscription; one deadline for all.

        In the native type of each, or all as `kind`, where the server converts: an enum or a
        double as `Kind.STRING`, for instance. `ValueError` for a kind that Channel Access lacks
        (64-bit integers, BOOL, INT8, UINT16, UINT32). Long strings (`$`) take no `kind`.

        Takes at most `timeout` seconds plus scheduling: what has not answered then has code
        ECA_TIMEOUT, what is not connected then ECA_DISCONN. Does not touch the subscribed values.
        """
        ...

    async def write_values(
        self,
        slots: Slots,
        values: Columns,
        timeout: float,
        *,
        completion: bool = True,
        connected_at: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int32]:
        """Write row i of `values` to `slots[i]`; an ECA code for each; one deadline for all.

        With `completion` a put-callback: ECA_NORMAL means that the record finished
        processing. Without it: that it was handed over for sending. ENUM rows are written by
        index, strings and arrays as such.

        `connected_at`: the `state_time` of each channel when the caller looked at what it is. A row
        whose channel has connected anew since, and may be of another type or have other labels, is
        not written: ECA_DISCONN. Without it a row is encoded for what its channel is by then.

        **ECA_TIMEOUT always and only means that the row was handed over and not answered: it may
        still happen.** Rows with any other code but ECA_NORMAL were not written and never will be
        by this call, among them ECA_NOWTACCESS where access rights forbid it, ECA_DISCONN where
        not connected within the deadline, ECA_UNRESPTMO where connected and the row's turn had
        not come, because its server took too little. What was not handed over when the call ends
        (returns or is cancelled, or the table is closed) never is; `unanswered` tells what was.
        Late answers are counted, and delivered to nobody.
        """
        ...

    def unanswered_slots(self, slots: Slots) -> NDArray[np.bool_]:
        """Which of these have a write that may still happen although its call has ended.

        True from the end of a `write` that handed a value over and got no answer (whether it
        returned ECA_TIMEOUT or was cancelled) until the answer comes. Where the server was lost
        in between no answer will: then until the server is back and has answered something that
        was asked after it. Without completion: until the server has answered something that was
        asked after the value. Never blocks. Of removed slots nothing is known: KeyError.

        aioca's table cannot ask a server what it has taken: it says False of writes without
        completion, and of a lost server's as soon as the channel is back.
        """
        ...

    def connection_columns(self) -> Connections:
        """Where the channels are connected, now. Never blocks; costs a pass over the slots.

        Ask for it each second or so where channels are subscribed: it also has those looked after
        whose server forgot them, so that others of it need not wait for them.
        """
        ...

    def take_served_twice(self) -> list[ServedTwice]:
        """Names that were found at two servers, since last asked; 64 at most are kept.

        It shows when a channel is searched for, and not afterwards. Names are cut at 64
        characters. aioca's table hears nothing of it: always none.
        """
        ...

    def table_stats(self) -> TableStats:
        """Counters. Never blocks."""
        ...

    async def close_table(self) -> None:
        """Clear every channel and subscription; under a second from any state; idempotent."""
        ...
