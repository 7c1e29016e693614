"""Following a stream that lasts, or that ends by itself, across broken connections."""

from __future__ import annotations

import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from drey_cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    import grpc

    from drey_cli.client import CliClient, Stream
    from drey_cli.session import CliSession

Q = TypeVar("Q")
R = TypeVar("R")

TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
QUEUE_SIZE = 64
TICK_S = 0.25
WATCH_TIMEOUT_S = 3600.0
"""Deadline of a stream that lasts; it is opened again after it."""
SILENCE_S = 10.0
"""Silence after which a watch of PVs is taken for broken."""
SIGN_OF_LIFE_S = 30.0
"""Silence after which a stream of changes is taken for broken; the server speaks each 15 s."""
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 3.0


class StreamLost:
    """The stream broke and is being connected again. `error` says why."""

    def __init__(self, error: CliError) -> None:
        self.error = error


def follow_ticks(
    open_stream: Callable[[], Stream[R]], *, silence_s: float = 0.0
) -> Iterator[R | StreamLost | None]:
    """Messages, `StreamLost` and None, as `_follow_stream` says; Ctrl-C is raised from here.

    It is heard within a quarter second, and never raised in the middle of something: inside the
    lock of a table that is drawn it would leave that locked for ever, and inside a callback of gRPC
    it would be lost.
    """
    with hearing_interrupts() as interrupted:
        for item in _follow_stream(open_stream, silence_s):
            if interrupted.is_set():
                raise KeyboardInterrupt
            yield item


def _follow_stream(
    open_stream: Callable[[], Stream[R]], silence_s: float
) -> Iterator[R | StreamLost | None]:
    """Messages of a stream that is opened again whenever it breaks, until the server ends it.

    Gives `StreamLost` when it broke, and None at least four times a second while nothing comes. A
    thread reads; messages wait in a queue of 64. When it is full the thread stops reading, so that
    the server merges for us, as it does for every slow reader. `silence_s`: this long without a
    message means broken (0: never). Errors that a new connection cannot mend are raised.
    """
    backoff_s = _FIRST_BACKOFF_S
    while True:
        error = None
        stream, inbox = open_stream(), queue.Queue[R | CliError | None](QUEUE_SIZE)
        threading.Thread(target=_pump_stream, args=(stream, inbox), daemon=True).start()
        heard_at = time.monotonic()
        try:
            while error is None:
                try:
                    item = inbox.get(timeout=TICK_S)
                except queue.Empty:
                    yield None
                    if silence_s and time.monotonic() - heard_at > silence_s:
                        error = CliError(
                            "the server is silent", status="UNAVAILABLE", code=ExitCode.UNAVAILABLE
                        )
                    continue
                heard_at = time.monotonic()
                if item is None:
                    return
                if isinstance(item, CliError):
                    error = item
                else:
                    backoff_s = _FIRST_BACKOFF_S
                    yield item
        finally:
            stream.close_call()
            # The thread may wait for room in a queue that nobody will read again.
            while not inbox.empty():
                inbox.get_nowait()
        if error.status not in TRANSIENT:
            raise error
        yield StreamLost(error)
        retry_at = time.monotonic() + backoff_s * random.uniform(0.7, 1.3)
        backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
        while (rest_s := retry_at - time.monotonic()) > 0:
            time.sleep(min(rest_s, TICK_S))
            yield None


def _pump_stream(stream: Stream[R], inbox: queue.Queue[R | CliError | None]) -> None:
    try:
        for message in stream:
            inbox.put(message)
    except CliError as error:
        inbox.put(error)
    else:
        inbox.put(None)


def follow_stream(
    session: CliSession,
    method_of: Callable[[CliClient], grpc.UnaryStreamMultiCallable[Q, R]],
    request: Q,
    *,
    meanwhile: str = "nothing is missed",
    silence_s: float = 0.0,
    patience_s: float = 60.0,
) -> Iterator[R]:
    """Messages of a stream, across broken connections; each asks with the request as it is then.

    Each goes to where the server is written down then, by `method_of` the client of that moment.
    The server's work goes on without us: a loss is told with what is so `meanwhile`. For
    `patience_s` we try to find it again, then the last error is raised. Ctrl-C as in
    `follow_ticks`.
    """
    lost_since: float | None = None

    def open_stream() -> Stream[R]:
        client = session.find_server_again()
        return client.stream_method(method_of(client), request, timeout_s=WATCH_TIMEOUT_S)

    for item in follow_ticks(open_stream, silence_s=silence_s):
        if isinstance(item, StreamLost):
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > patience_s:
                raise item.error
            session.out.print_note(f"{item.error.message}; {meanwhile}, connecting again", "yellow")
        elif item is not None:
            lost_since = None
            yield item


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
