"""Wakes whoever follows a job in this process, by one subscription for all."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from drey_runtime import telemetry
from drey_runtime.jobs.ports import JobBus
from drey_runtime.jobs.wire import decode_changed

_log = logging.getLogger(__name__)
Listener = Callable[[int], None]


class Changes:
    """Listeners by job. Messages may be lost with NATS: listeners also look by themselves."""

    def __init__(self, bus: JobBus | None) -> None:
        self._bus = bus
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._subscribed = False

    @contextmanager
    def listen(self, job_id: str, listener: Listener) -> Iterator[None]:
        """Call `listener` with the revision of each change of the job, on the event loop."""
        self._listeners[job_id].add(listener)
        try:
            yield
        finally:
            self._listeners[job_id].discard(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    async def subscribe(self) -> None:
        """Begin to receive; harmless to call again."""
        if self._bus is not None and not self._subscribed:
            self._subscribed = True
            await self._bus.subscribe(self._bus.subject("jobs", "*"), self._on_message)

    async def _on_message(self, message: Msg) -> None:
        changed = decode_changed(message.data)
        if changed is not None:
            self.wake(*changed)
        else:
            telemetry.refused_messages.add(1, {"subject": message.subject})
            _log.error("a change of a job cannot be read", extra={"subject": message.subject})

    def wake(self, job_id: str, revision: int) -> None:
        """Tell the listeners of this process."""
        for listener in list(self._listeners.get(job_id, ())):
            listener(revision)
