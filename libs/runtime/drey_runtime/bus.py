"""NATS: value batches and events under one namespace.

A `Bus` may be made while NATS is away: it connects in the background and reconnects for ever. A
client that ended, whatever ended it, is replaced by a new one with the same subscriptions.
Publishing while disconnected raises `Unavailable` at once: values are latest-wins, the image in
Redis is what consumers resynchronise from, so nothing is queued for later.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from drey_core.errors import Reason, Unavailable, error_text
from drey_runtime import telemetry
from drey_runtime.nats_client import (
    BadSubjectError,
    Client,
    MaxPayloadError,
    Msg,
    NatsError,
    NoRespondersError,
    Subscription,
)
from drey_runtime.retrying import backoff_delay, reraise_cancellation
from drey_runtime.settings import CommonSettings

log = logging.getLogger(__name__)

MessageHandler = Callable[[Msg], Awaitable[None]]
_PENDING_MESSAGES = 4096
_PENDING_BYTES = 256 << 20
_FLUSH_S = 2
_CLOSE_S = 2
_LOOK_S = 0.5
# a client that has not found back for so long is not trusted to do it any more
_GIVE_UP_S = 15.0
_LIVED_S = 10.0
_SAY_AGAIN_S = 10.0
# the server gives its errors as text, and nothing else
_REFUSED_SUBSCRIPTION = "permissions violation for subscription"


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
        self._ended = asyncio.Event()
        self._refused = ""
        self._said: dict[str, tuple[float, int]] = {}
        self.reconnects = 0

    @classmethod
    def bus_of_service(cls, settings: CommonSettings, name: str) -> Bus:
        """The bus of the settings, with their TLS and credentials. OSError for a bad file."""
        return cls(settings.nats_url, settings.namespace, name, _security_arguments(settings))

    def full_subject(self, *parts: object) -> str:
        """`{namespace}.v1.{parts joined by dots}`."""
        return ".".join([self.namespace, "v1", *map(str, parts)])

    @property
    def connected(self) -> bool:
        """Whether NATS answers now, and lets us have all that we subscribed to."""
        return bool(self.nc.is_connected) and not self._refused

    async def run(self) -> None:
        """Keep a client connected, a new one where the last ended; closes it when cancelled."""
        failures = 0
        try:
            while True:
                begin = time.monotonic()
                why = await self._connect_once() or await self._until_lost()
                log.error("the NATS client ended (%s): a new one is made", why)
                self._changed.set()
                await self._close_client()
                failures = 0 if time.monotonic() - begin > _LIVED_S else failures + 1
                await asyncio.sleep(backoff_delay(failures, first_s=0.1, cap_s=5.0))
                self.nc = Client()
                self.reconnects += 1
        finally:
            await self._close_client()

    async def _close_client(self) -> None:
        """Close it in a task of its own: what it raises, a cancellation too, ends nothing here."""
        closing = asyncio.create_task(self.nc.close())
        try:
            done, _ = await asyncio.wait([closing], timeout=_CLOSE_S)
        finally:
            closing.cancel()
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log_rarely(f"closing the client: {error_text(error)}")

    async def _until_lost(self) -> str:
        """Wait until this client is of no use any more; why that is."""
        heard = time.monotonic()
        while True:
            if self._refused:
                return self._refused
            if self.nc.is_closed:
                return f"closed: {self.nc.last_error or 'without an error'}"
            if self.nc.is_connected:
                heard = time.monotonic()
            elif time.monotonic() - heard > _GIVE_UP_S:
                return f"not connected again within {_GIVE_UP_S:.0f} s"
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._ended.wait()
            self._ended.clear()

    async def wait_connected(self, timeout: float) -> None:
        """Wait until NATS answers; `Unavailable` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self.connected:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise self._unavailable_bus() from error

    async def _connect_once(self) -> str:
        """Connect and subscribe, retrying for ever; why the client is of no use, or nothing."""
        self._refused = ""
        self._ended.clear()
        failures = 0
        while True:
            try:
                async with asyncio.timeout(_GIVE_UP_S):
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
                        closed_cb=self._on_closed,
                        **self._security,
                    )
                break
            except (NatsError, OSError, TimeoutError) as error:
                reraise_cancellation()
                self._log_rarely(f"away, trying again: {error_text(error)}")
                await self._close_client()
                self.nc = Client()
                await asyncio.sleep(backoff_delay(failures, first_s=0.1, cap_s=2.0))
                failures += 1
        try:
            for subject, handler in self._wanted:
                await self._open_subscription(subject, handler)
            # what the server refuses, it has said by then
            await self.nc.flush(_FLUSH_S)
        except (NatsError, OSError, TimeoutError) as error:
            reraise_cancellation()
            return f"it could not subscribe: {error_text(error)}"
        self._changed.set()
        return self._refused

    def _log_rarely(self, text: str) -> None:
        """Log what may come many times a second now and then only, and how often it came."""
        said_at, kept_back = self._said.get(text, (float("-inf"), 0))
        if time.monotonic() - said_at < _SAY_AGAIN_S:
            self._said[text] = (said_at, kept_back + 1)
            return
        if len(self._said) > 100:
            self._said.clear()
        self._said[text] = (time.monotonic(), 0)
        log.warning("NATS: %s", text, extra={"times": kept_back + 1})

    async def _on_error(self, error: Exception) -> None:
        text = error_text(error)
        if not isinstance(error, NatsError | OSError | TimeoutError):
            log.error("a message could not be handled", exc_info=error)
        elif _REFUSED_SUBSCRIPTION in text.lower():
            # the client goes on as if it were subscribed, and would hear nothing for ever
            self._refused = f"{text}; let the NATS user subscribe to it"
            self._ended.set()
        else:
            self._log_rarely(text)

    async def _on_closed(self) -> None:
        self._ended.set()

    async def _on_disconnected(self) -> None:
        log.warning("NATS disconnected")
        self._changed.set()

    async def _on_reconnected(self) -> None:
        log.info("NATS reconnected")
        self.reconnects += 1
        self._changed.set()

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish with the current trace in the headers. `Unavailable` when NATS is away.

        And where it never takes the message: that is too large, or the subject is none.

        Returns when the bytes are in the connection's buffer; it may wait for a flush when that
        is full.
        """
        if not self.connected:
            raise self._unavailable_bus()
        try:
            await self.nc.publish(subject, payload, headers=telemetry.trace_headers() or None)
        except (BadSubjectError, MaxPayloadError) as error:
            # who waits for NATS to be back and tries again would say nothing, for ever
            self._log_rarely(f"what is for {subject!r} is not taken: {error}")
            raise Unavailable(
                f"NATS does not take a message of {len(payload)} bytes for {subject!r}: {error}",
                reason=Reason.BUS_UNAVAILABLE,
            ) from error
        except (NatsError, OSError) as error:
            raise self._unavailable_bus() from error

    async def request_answer(
        self, subject: str, payload: bytes, headers: dict[str, str], timeout: float
    ) -> bytes | None:
        """The answer of whoever listens; None: nobody does. `Unavailable` when none comes in time,
        NATS is away, or never takes a message of that size."""
        if not self.connected:
            raise self._unavailable_bus()
        try:
            answer = await self.nc.request(
                subject, payload, timeout=timeout, headers=headers | telemetry.trace_headers()
            )
        except NoRespondersError:
            return None
        except MaxPayloadError as error:
            raise Unavailable(
                f"NATS does not take a message of {len(payload)} bytes for {subject!r}: send less"
                " at a time",
                reason=Reason.BUS_UNAVAILABLE,
            ) from error
        except (NatsError, OSError, TimeoutError) as error:
            reraise_cancellation()
            raise Unavailable(
                f"no answer over NATS within {timeout:.0f} s: {error_text(error)}",
                reason=Reason.BUS_UNAVAILABLE,
            ) from error
        return bytes(answer.data)

    def _unavailable_bus(self) -> Unavailable:
        address = self._servers[0].rpartition("@")[2]  # without user and password
        return Unavailable(f"NATS at {address} is away", reason=Reason.BUS_UNAVAILABLE)

    async def subscribe_handler(self, subject: str, handler: MessageHandler) -> None:
        """Call `handler` with every message of `subject` (wildcards allowed), in order.

        Holds through reconnections, and may be called before the first connection. When more
        than 4096 messages or 256 MiB wait, further ones are dropped and NATS reports a slow
        consumer; consumers of numbered streams see the gap and resynchronise.
        """
        self._wanted.append((subject, handler))
        if self.nc.is_connected:
            try:
                await self._open_subscription(subject, handler)
            except (NatsError, OSError):
                # where the client ends right now, the next one subscribes
                if not self.nc.is_closed:
                    raise

    async def _open_subscription(self, subject: str, handler: MessageHandler) -> Subscription:
        return await self.nc.subscribe(
            subject,
            cb=handler,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )


def _security_arguments(settings: CommonSettings) -> dict[str, Any]:
    """Arguments of `Client.connect`."""
    arguments: dict[str, Any] = {}
    if settings.nats_ca is not None:
        arguments["tls"] = ssl.create_default_context(cafile=str(settings.nats_ca))
        if settings.nats_cert is not None:
            arguments["tls"].load_cert_chain(settings.nats_cert, settings.nats_key)
    if settings.nats_credentials is not None:
        arguments["user_credentials"] = str(settings.nats_credentials)
    if settings.nats_nkey is not None:
        arguments["nkeys_seed"] = str(settings.nats_nkey)
    return arguments
