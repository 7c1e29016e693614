"""A watch that lives as long as its reader: it keeps the token, and goes on from it after a cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio

from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2
from drey_client.errors import ClientError, from_call_error
from drey_client.values import LivePv, pv_of_row
from drey_client.watch_state import CHANNELS_CHANGED, WatchModel

if TYPE_CHECKING:
    from drey.common.v1 import value_pb2

TRANSIENT = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED", "UNKNOWN"}
)
"""Statuses that a new connection may mend."""
SILENCE_S = 5.0
"""A gateway that says nothing for so long stands still; it says something once a second."""
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class LiveChange:
    """What became different at once.

    `pvs`: those with news, as they are now; the first change of a watch, and the one after a loss
    that could not be bridged (`whole`), holds them all, and what was held before is void. `left`:
    names of PVs that the watch does not have any more. `live`: what is held can be believed to be
    present, but for channels that say otherwise. `merged`: updates that were replaced by newer
    ones before they were sent, because this reader, or the connection, is slow. `notice`: for
    people, or empty.
    """

    pvs: tuple[LivePv, ...] = ()
    left: tuple[str, ...] = ()
    whole: bool = False
    live: bool = True
    merged: int = 0
    notice: str = ""


class LiveWatch:
    """Changes of some PVs, by `async for`; it ends when it is left, or by `ClientError`.

    It connects again by itself, with the token, and tells so by a change that is not `live`. What a
    new connection cannot mend (a key that is not accepted, nothing chosen) is raised. Not to be
    iterated twice at a time.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        metadata: tuple[tuple[str, str], ...],
        spec: watch_pb2.WatchSpec,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        """`open_channel` makes a connection, a new one after each loss: the last may hang."""
        self._open_channel, self._metadata = open_channel, metadata
        self._spec, self._silence_s = spec, silence_s
        self._state = WatchModel()
        self._changed: set[int] = set()
        self._whole = False
        self.resumed = 0
        """Times that it went on after a cut."""

    def __len__(self) -> int:
        return len(self._state.rows)

    def __getitem__(self, name: str) -> LivePv:
        """A PV by name. KeyError. Each call looks through all: keep a dictionary for more."""
        for row in self._state.rows.values():
            if row.name == name:
                return self._pv_of_row(row)
        raise KeyError(name)

    def pvs(self) -> list[LivePv]:
        """All PVs as they are now, by name."""
        return [
            self._pv_of_row(row) for row in sorted(self._state.rows.values(), key=lambda r: r.name)
        ]

    @property
    def live(self) -> bool:
        """The stream is connected and complete, and the gateway says that it does not lag."""
        return self._state.connected and self._state.complete and not self._state.stalled

    @property
    def stale_count(self) -> int:
        """PVs with a value that cannot be believed to be the present one."""
        return self._state.stale_count

    def __aiter__(self) -> AsyncIterator[LiveChange]:
        return self._follow_stream()

    async def _follow_stream(self) -> AsyncIterator[LiveChange]:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                # closed with this one, so that a watch that is left ends its call at once
                async with aclosing(self._read_messages()) as messages:
                    async for message in messages:
                        pause_s = _FIRST_PAUSE_S
                        change = self._apply_message(message)
                        if change is not None:
                            yield change
                error = ClientError("the server ended the watch", reason="WATCH_ENDED")
            except ClientError as raised:
                error = raised
            if error.reason == "TOKEN_UNKNOWN" and self._state.token:
                self._state.token = ""
            elif error.status and error.status not in TRANSIENT:
                raise error
            self._state.mark_lost()
            self.resumed += 1
            held = () if self._whole else tuple(self._state.rows.values())
            yield LiveChange(
                tuple(map(self._pv_of_row, held)),
                live=False,
                notice=f"{error.message}; connecting again",
            )
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _read_messages(self) -> AsyncGenerator[monitor_service_pb2.WatchPvsResponse, None]:
        request = monitor_service_pb2.WatchPvsRequest(spec=self._spec, token=self._state.token)
        async with self._open_channel() as channel:
            stub: Any = monitor_service_pb2_grpc.MonitorServiceStub(channel)
            call = stub.WatchPvs(request, metadata=self._metadata)
            try:
                while True:
                    try:
                        async with asyncio.timeout(self._silence_s):
                            message = await call.read()
                    except TimeoutError:
                        raise ClientError(
                            f"the server has said nothing for {self._silence_s:g} s",
                            reason="UNAVAILABLE",
                            status="UNAVAILABLE",
                        ) from None
                    except grpc.aio.AioRpcError as error:
                        raise from_call_error(error) from error
                    if message is grpc.aio.EOF:
                        return
                    yield message
            finally:
                call.cancel()

    def _apply_message(self, message: monitor_service_pb2.WatchPvsResponse) -> LiveChange | None:
        """Fold a message in. A baseline is told at its end, as one change."""
        state, kind = self._state, message.WhichOneof("part")
        before = {}
        if kind == "left":
            before = {
                pv.number: pv.name for pv in message.left.pvs if pv.reason != CHANNELS_CHANGED
            }
        merged, stalled = state.merged, state.stalled
        change = state.apply_message(message)
        self._changed.update(row.number for row in change.rows)
        if kind == "baseline_begin":
            self._whole = self._whole or not message.baseline_begin.keeps_state
            self._changed.update(state.rows)  # they are fresh again
            return None
        if kind == "freshness":
            self._changed.update(
                state.rows if message.freshness.all else message.freshness.pv_numbers
            )
        if kind == "metadata":
            self._changed.update(row.number for row in message.metadata.rows)
        if not state.complete:
            return None
        if kind not in ("baseline_end", "diff", "freshness", "left", "metadata", "names") and (
            stalled == state.stalled and not change.notice
        ):
            return None
        whole, self._whole = self._whole, False
        numbers = state.rows if whole else self._changed & state.rows.keys()
        pvs = tuple(self._pv_of_row(state.rows[number]) for number in numbers)
        self._changed.clear()
        left = tuple(name for number, name in before.items() if number not in state.rows)
        return LiveChange(pvs, left, whole, self.live, state.merged - merged, change.notice)

    def _pv_of_row(self, row: value_pb2.PvRow) -> LivePv:
        metadata = self._state.metadata.get(row.number)
        return pv_of_row(row, *(metadata or (None, None)))
