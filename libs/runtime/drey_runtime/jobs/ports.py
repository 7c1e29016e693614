"""What the job library needs of the bus. `drey_runtime.bus.Bus` is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from nats.aio.msg import Msg
from nats.js import JetStreamContext


class JobBus(Protocol):
    """NATS under one namespace."""

    namespace: str

    @property
    def connected(self) -> bool:
        """Whether NATS answers now."""
        ...

    @property
    def js(self) -> JetStreamContext:
        """JetStream over the same connection."""
        ...

    def subject(self, *parts: object) -> str:
        """`{namespace}.v1.{parts}`."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish, or raise `Unavailable`."""
        ...

    async def subscribe(self, subject: str, handler: Callable[[Msg], Awaitable[None]]) -> None:
        """Call `handler` for every message, through reconnections."""
        ...
