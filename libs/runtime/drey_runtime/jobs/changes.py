"""Hears by LISTEN which jobs changed, by one connection for all who want to know in a process.

A trigger of the job table tells of each change with its commit. What is said while there is no
connection is lost: workers and watchers also look by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from drey_core.errors import Unavailable
from drey_runtime import telemetry
from drey_runtime.backoff import backoff
from drey_runtime.database import connect, guard

_log = logging.getLogger(__name__)
CHANNEL = "drey_jobs"
_PING_S = 1.0
_SILENCE_S = 2.0
_LIVED_S = 10.0
_ANY_REVISION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class JobNotice:
    """A job changed; `queued`: it can be begun, now or after its delay."""

    job_id: str
    revision: int
    queued: bool
    kind: str


ChangeListener = Callable[[int], None]
"""Called with the revision of a job, which is the greatest there is where some may be missed."""
QueueListener = Callable[[JobNotice | None], None]
"""Called with a queued job, or with None where some may be missed."""


def decode_notice(payload: str) -> JobNotice | None:
    """What the trigger says, `{id} {revision} {state} {kind}`; None for anything else."""
    try:
        job_id, revision, state, kind = payload.split(" ", 3)
        return JobNotice(str(UUID(job_id)), int(revision), state == "queued", kind)
    except ValueError:
        return None


class JobChanges:
    """Who listens to which job, and who to those that are queued. Callbacks must not block."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: dict[str, set[ChangeListener]] = defaultdict(set)
        self._queue_listeners: set[QueueListener] = set()

    @contextmanager
    def listen(self, job_id: str, listener: ChangeListener) -> Iterator[None]:
        """Call `listener` after each change of the job, on the event loop."""
        self._listeners[job_id].add(listener)
        try:
            yield
        finally:
            self._listeners[job_id].discard(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    @contextmanager
    def listen_to_queue(self, listener: QueueListener) -> Iterator[None]:
        """Call `listener` with each job that is queued, on the event loop."""
        self._queue_listeners.add(listener)
        try:
            yield
        finally:
            self._queue_listeners.discard(listener)

    async def run(self) -> None:
        """Listen until cancelled, by a new connection where the last one died."""
        failures = 0
        while True:
            begin = time.monotonic()
            try:
                await self._hear()
            except Unavailable as error:
                _log.warning("changes of jobs are not heard", extra={"error": error.message})
            failures = 0 if time.monotonic() - begin > _LIVED_S else failures + 1
            await asyncio.sleep(backoff(failures, first_s=0.1, cap_s=2.0))

    async def _hear(self) -> None:
        """Until the connection is lost, or silent for too long: `Unavailable`."""
        lost = asyncio.Event()
        with guard():
            connection = await connect(
                self._url, name="drey-jobs", timeout=_SILENCE_S, command_timeout=_SILENCE_S
            )
        try:
            with guard(connection):
                connection.add_termination_listener(lambda _: lost.set())
                await connection.add_listener(CHANNEL, self._on_notice)
                self._wake_all()
                while True:
                    await wait_for_event(lost, _PING_S)
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _on_notice(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        notice = decode_notice(str(payload))
        if notice is None:
            telemetry.refused_messages.add(1, {"subject": channel})
            _log.error(
                "a notice that is none was thrown away",
                extra={"channel": channel, "session": pid, "text": str(payload)[:64]},
            )
            return
        if notice.queued:
            for tell in list(self._queue_listeners):
                tell(notice)
        for listener in list(self._listeners.get(notice.job_id, ())):
            listener(notice.revision)

    def _wake_all(self) -> None:
        """What was said before we listened was not heard: everybody looks once."""
        for tell in list(self._queue_listeners):
            tell(None)
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener(_ANY_REVISION)


async def wait_for_event(event: asyncio.Event, timeout: float) -> None:
    """Return once it is set, or after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
