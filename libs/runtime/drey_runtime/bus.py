"""NATS: value batches, events, and JetStream under one namespace.

A `Bus` may be made while NATS is away: it connects in the background and reconnects for ever.
Publishing while disconnected raises `Unavailable` at once: values are latest-wins, the image in
Redis is what consumers resynchronise from, so nothing is queued for later.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from drey_core.errors import Reason, Unavailable
from drey_runtime import telemetry
from drey_runtime.settings import CommonSettings

log = logging.getLogger(__name__)

MessageHandler = Callable[[Msg], Awaitable[None]]
_PENDING_MESSAGES = 4096
_PENDING_BYTES = 256 << 20


class Bus:
    """One NATS connection. Use `run()` in the task group, then everything else."""

    def __init__(
        self, url: str, namespace: str, name: str, security: dict[str, Any] | None = None
    ) -> None:
        self._servers = [u.strip() for u in url.split(",")]
        self._security = security or {}
        self.namespace = namespace
        self._name = name
        self.nc: Client = Client()
        self._wanted: list[tuple[str, MessageHandler]] = []
        self._changed = asyncio.Event()
        self.reconnects = 0

    @classmethod
    def of(cls, settings: CommonSettings, name: str) -> Bus:
        """The bus of the settings, with their TLS and credentials. OSError for a bad file."""
        return cls(settings.nats_url, settings.namespace, name, _security(settings))

    def subject(self, *parts: object) -> str:
        """`{namespace}.v1.{parts joined by dots}`."""
        return ".".join([self.namespace, "v1", *map(str, parts)])

    @property
    def connected(self) -> bool:
        """Whether NATS answers now."""
        return bool(self.nc.is_connected)

    @property
    def js(self) -> JetStreamContext:
        """JetStream over this connection."""
        return self.nc.jetstream(timeout=5)

    async def run(self) -> None:
        """Connect, retrying for ever, then wait; closes the connection when cancelled."""
        try:
            await self._connect()
            await asyncio.Event().wait()
        finally:
            with suppress(NatsError, TimeoutError, OSError):
                await asyncio.wait_for(self.nc.close(), 2)

    async def wait_connected(self, timeout: float) -> None:
        """Wait until NATS answers; `Unavailable` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self.connected:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise self._away() from error

    async def _connect(self) -> None:
        delay = 0.1
        while True:
            try:
                await self.nc.connect(
                    servers=self._servers,
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=2,
                    max_outstanding_pings=2,
                    pending_size=64 << 20,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    **self._security,
                )
                break
            except (NatsError, OSError, TimeoutError) as error:
                log.warning("NATS is away, trying again: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
        for subject, handler in self._wanted:
            await self._subscribe(subject, handler)
        self._changed.set()

    async def _on_error(self, error: Exception) -> None:
        log.warning("NATS: %s", error or type(error).__name__)

    async def _on_disconnected(self) -> None:
        log.warning("NATS disconnected")
        self._changed.set()

    async def _on_reconnected(self) -> None:
        log.info("NATS reconnected")
        self.reconnects += 1
        self._changed.set()

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish with the current trace in the headers. `Unavailable` when NATS is away.

        Returns when the bytes are in the connection's buffer; it may wait for a flush when that
        is full.
        """
        if not self.connected:
            raise self._away()
        try:
            await self.nc.publish(subject, payload, headers=telemetry.headers() or None)
        except (NatsError, OSError) as error:
            raise self._away() from error

    def _away(self) -> Unavailable:
        return Unavailable(f"NATS at {self._servers[0]} is away", reason=Reason.BUS_UNAVAILABLE)

    async def subscribe(self, subject: str, handler: MessageHandler) -> None:
        """Call `handler` with every message of `subject` (wildcards allowed), in order.

        Holds through reconnections, and may be called before the first connection. When more
        than 4096 messages or 256 MiB wait, further ones are dropped and NATS reports a slow
        consumer; consumers of numbered streams see the gap and resynchronise.
        """
        self._wanted.append((subject, handler))
        if self.nc.is_connected:
            await self._subscribe(subject, handler)

    async def _subscribe(self, subject: str, handler: MessageHandler) -> Subscription:
        return await self.nc.subscribe(
            subject,
            cb=handler,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )


def _security(settings: CommonSettings) -> dict[str, Any]:
    """Arguments of `Client.connect`."""
    found: dict[str, Any] = {}
    if settings.nats_ca is not None:
        found["tls"] = ssl.create_default_context(cafile=str(settings.nats_ca))
        if settings.nats_cert is not None:
            found["tls"].load_cert_chain(settings.nats_cert, settings.nats_key)
    if settings.nats_credentials is not None:
        found["user_credentials"] = str(settings.nats_credentials)
    if settings.nats_nkey is not None:
        found["nkeys_seed"] = str(settings.nats_nkey)
    return found
