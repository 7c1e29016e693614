"""Following a stream that lasts, and a job to its end: across broken connections."""

from __future__ import annotations

import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from drey_cli.contracts import job_pb2, job_service_pb2
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.failures import from_item_error
from drey_cli.render.jobs import ENDED, job_state, progress_text
from drey_cli.render.table import escape

if TYPE_CHECKING:
    from drey_cli.client import Stream
    from drey_cli.output import Output
    from drey_cli.session import Session

R = TypeVar("R")

TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
QUEUE_SIZE = 64
SILENCE_S = 10.0
SIGN_OF_LIFE_S = 30.0
"""Silence after which a stream of changes is taken for broken; the server speaks each 15 s."""
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 3.0


class Lost:
    """The stream broke and is being connected again. `error` says why."""

    def __init__(self, error: CliError) -> None:
        self.error = error


class Follower(Generic[R]):
    """Messages of a stream that is opened again whenever it breaks.

    A thread reads; messages wait in a queue of 64. When it is full the thread stops reading, so
    that the server merges for us, as it does for every slow reader. `open_stream` is called for
    each connection. `silence_s`: this long without a message means broken (0: never).
    Errors that a new connection cannot mend are raised by `get`.
    """

    def __init__(self, open_stream: Callable[[], Stream[R]], *, silence_s: float = 0.0) -> None:
        self._open_stream = open_stream
        self._silence_s = silence_s
        self._queue: queue.Queue[R | CliError | None] = queue.Queue(QUEUE_SIZE)
        self._stream: Stream[R] | None = None
        self._last = time.monotonic()
        self._backoff = _FIRST_BACKOFF_S
        self._retry_at = 0.0

    def __enter__(self) -> Follower[R]:
        self._connect_stream()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_stream()

    def get(self, timeout_s: float) -> R | Lost | None:
        """The next message, `Lost` when the stream broke, None when nothing came in time.

        Raises StopIteration's cousin `EOFError` when the server ended the stream, CliError when it
        refused it.
        """
        if self._stream is None:
            time.sleep(max(0.0, min(timeout_s, self._retry_at - time.monotonic())))
            if time.monotonic() < self._retry_at:
                return None
            self._connect_stream()
        try:
            item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return self._check_silence()
        self._last = time.monotonic()
        if item is None:
            self._drop_stream()
            raise EOFError
        if isinstance(item, CliError):
            return self._note_loss(item)
        self._backoff = _FIRST_BACKOFF_S
        return item

    def _check_silence(self) -> Lost | None:
        if not self._silence_s or time.monotonic() - self._last < self._silence_s:
            return None
        return self._note_loss(
            CliError("the server is silent", status="UNAVAILABLE", code=ExitCode.UNAVAILABLE)
        )

    def _note_loss(self, error: CliError) -> Lost:
        self._drop_stream()
        if error.status not in TRANSIENT:
            raise error
        self._retry_at = time.monotonic() + self._backoff * random.uniform(0.7, 1.3)
        self._backoff = min(self._backoff * 2, _LAST_BACKOFF_S)
        return Lost(error)

    def _connect_stream(self) -> None:
        self._queue = queue.Queue(QUEUE_SIZE)
        self._last = time.monotonic()
        self._stream = self._open_stream()
        threading.Thread(
            target=_pump_stream, args=(self._stream, self._queue), name="drey-follow", daemon=True
        ).start()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.close()
        # The thread may wait for room in a queue that nobody will read again.
        while not self._queue.empty():
            self._queue.get_nowait()


def _pump_stream(stream: Stream[R], into: queue.Queue[R | CliError | None]) -> None:
    try:
        for message in stream:
            into.put(message)
    except CliError as error:
        into.put(error)
    else:
        into.put(None)


@contextmanager
def hearing_interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, in place of the exception; outside of the main thread nothing."""
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = signal.signal(signal.SIGINT, lambda *_: heard.set())
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def note_lost(out: Output, error: CliError) -> None:
    """Say that a stream is connected again, and goes on where it was."""
    out.note(f"{error.message}; connecting again, nothing is missed", "yellow")


def follow_to_end(
    open_stream: Callable[[], Stream[R]],
    *,
    patience_s: float = 60.0,
    silence_s: float = 0.0,
    on_lost: Callable[[CliError], None] | None = None,
) -> Iterator[R]:
    """Messages of a stream that ends by itself, such as a job's, across broken connections.

    The server's work goes on without us; for `patience_s` we try to find it again, then the last
    error is raised. `silence_s` is that of `Follower`. Ctrl-C is heard within a quarter second and
    raised from here, never in the middle of drawing: an exception inside the progress bar's lock
    would leave it locked for ever.
    """
    lost_since: float | None = None
    with (
        Follower(open_stream, silence_s=silence_s) as follower,
        hearing_interrupts() as interrupted,
    ):
        while True:
            if interrupted.is_set():
                raise KeyboardInterrupt
            try:
                item = follower.get(0.25)
            except EOFError:
                return
            if item is None:
                continue
            if isinstance(item, Lost):
                now = time.monotonic()
                lost_since = lost_since if lost_since is not None else now
                if now - lost_since > patience_s:
                    raise item.error
                if on_lost is not None:
                    on_lost(item.error)
                continue
            lost_since = None
            yield item


def job_states(session: Session, job_id: str) -> Iterator[job_pb2.Job]:
    """Each state of a job until it has ended, across broken connections."""
    from drey_cli.client import WATCH_TIMEOUT_S

    client = session.client

    def open_stream() -> Stream[job_service_pb2.WatchJobResponse]:
        request = job_service_pb2.WatchJobRequest(id=job_id)
        return client.stream(client.jobs.WatchJob, request, timeout_s=WATCH_TIMEOUT_S)

    def show_loss(error: CliError) -> None:
        session.out.note(f"{error.message}; the job goes on, connecting again", "yellow")

    for message in follow_to_end(open_stream, on_lost=show_loss):
        yield message.job
        if job_state(message.job) in ENDED:
            return


def follow_job(session: Session, job_id: str) -> job_pb2.Job:
    """Show a bar until the job has ended; give its last state.

    Ctrl-C leaves the job running and raises KeyboardInterrupt, after saying so.
    """
    last: job_pb2.Job | None = None
    try:
        with session.out.progress() as progress:
            task = progress.add_task("waiting", total=None)
            for job in job_states(session, job_id):
                last = job
                progress.update(
                    task,
                    description=escape(job.phase) or job_state(job),
                    completed=job.done,
                    total=job.total or None,
                )
    except KeyboardInterrupt:
        session.out.note(f"the job goes on: drey job watch {job_id}")
        raise
    if last is None:
        raise CliError(f"job {job_id} cannot be followed", remedy=f"see drey job show {job_id}")
    return last


def check_job(job: job_pb2.Job) -> None:
    """Raise the error of a job that did not succeed."""
    state = job_state(job)
    if state == "succeeded":
        return
    if job.HasField("error"):
        raise from_item_error(job.error)
    raise CliError(
        f"job {job.id} is {state}",
        reason="JOB_" + state.upper(),
        remedy=f"see drey job show {job.id} ({progress_text(job)})",
    )
