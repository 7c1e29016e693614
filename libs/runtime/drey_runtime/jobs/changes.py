"""Hears by LISTEN which jobs changed, by one connection for all who want to know in a process.

A trigger of the job table tells of each change with its commit. What is said while there is no
connection is lost: workers and watchers also look by themselves.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from drey_runtime import telemetry
from drey_runtime.listening import NoticeListener

_log = logging.getLogger(__name__)
CHANNEL = "drey_jobs"
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
        self._listeners: dict[str, set[ChangeListener]] = defaultdict(set)
        self._queue_listeners: set[QueueListener] = set()
        self._listener = NoticeListener(
            url,
            CHANNEL,
            name="drey-jobs",
            on_notice=self._on_notice,
            on_connected=self._wake_all,
        )

    @contextmanager
    def listen_to_job(self, job_id: str, listener: ChangeListener) -> Iterator[None]:
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
        await self._listener.run()

    def _on_notice(self, session: int, payload: str) -> None:
        notice = decode_notice(payload)
        if notice is None:
            telemetry.refused_messages.add(1, {"subject": CHANNEL})
            _log.error(
                "a notice that is none was thrown away",
                extra={"channel": CHANNEL, "session": session, "text": payload[:64]},
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
