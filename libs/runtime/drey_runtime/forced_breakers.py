"""Follows what administrators say of circuit breakers."""

from __future__ import annotations

from drey_core.breaker import BreakerBook
from drey_core.errors import Malformed
from drey_runtime.bus import Bus
from drey_runtime.clock import now_ns
from drey_runtime.edge import decode_breakers, note_error
from drey_runtime.nats_client import Msg


class ForcedBreakers:
    """Keeps a process's breakers as the gateways tell each two seconds."""

    def __init__(self, book: BreakerBook) -> None:
        self._book = book
        self._changed_ns = -1

    async def subscribe_to_bus(self, bus: Bus) -> None:
        """Begin to listen; may be called while NATS is away."""
        await bus.subscribe_handler(bus.full_subject("breakers"), self._on_list)

    async def _on_list(self, message: Msg) -> None:
        try:
            told = decode_breakers(message.data)
        except Malformed as error:
            note_error(error, "forced breakers")
            return
        if told.changed_ns > self._changed_ns:
            self._changed_ns = told.changed_ns
            self._book.hold_modes({b.address: int(b.mode) for b in told.breakers}, now_ns())
