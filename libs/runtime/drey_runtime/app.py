"""The frame of a service process: signals first, then everything in one stack and one group.

A service's composition root is `async def main(settings, app)`; it enters its resources in
`app.stack`, starts its loops with `app.start`, and returns; the process then lives until a signal
comes or a loop ends, which stops the group. Exit code 0 after a signal, 1 otherwise.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol, TypeVar

import uvloop

from drey_runtime import logs, telemetry
from drey_runtime.settings import CommonSettings, SettingsError, load_settings

if TYPE_CHECKING:
    from drey_runtime.scraping import MetricsEndpoint

log = logging.getLogger(__name__)

S = TypeVar("S", bound=CommonSettings)


class Loop(Protocol):
    """Work that ends, is cancelled, or raises."""

    async def run(self) -> None: ...


class LoopEnded(RuntimeError):
    """A loop that should run for ever came to its end."""


class App:
    """What a composition root is given."""

    def __init__(self, stack: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self.stack = stack
        self._group = group
        self.stopping = asyncio.Event()
        self._farewells: list[Callable[[], Awaitable[None]]] = []

    def start_loop(self, loop: Loop, name: str = "") -> asyncio.Task[None]:
        """Run a loop until the process stops; its end or failure stops the process."""
        label = name or type(loop).__name__
        return self._group.create_task(self._run_forever(loop, label), name=label)

    def before_stop(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """Await this after the signal to stop, while the loops still run. It is to be short."""
        self._farewells.append(farewell)

    async def say_farewell(self) -> None:
        """What was given to `before_stop`, in turn."""
        for farewell in self._farewells:
            await farewell()

    async def _run_forever(self, loop: Loop, label: str) -> None:
        try:
            await loop.run()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self.stopping.is_set() or (task is not None and task.cancelling()):
                raise
            # a group of tasks takes no notice of one that was cancelled from inside
            raise LoopEnded(f"{label} was cancelled, and nobody had asked for it") from error
        if not self.stopping.is_set():
            raise LoopEnded(f"{label} ended")


def service_version() -> str:
    """Version of this installation."""
    try:
        return version("drey-runtime")
    except PackageNotFoundError:
        return "0"


def run_service(
    name: str, settings_class: type[S], main: Callable[[S, App], Awaitable[None]]
) -> None:
    """Load the settings, run the service, and exit the process."""
    try:
        settings = load_settings(settings_class)
        endpoint = _open_metrics(settings) if settings.metrics_listen else None
    except SettingsError as error:
        print(f"drey-{name}: {error}", file=sys.stderr)  # noqa: T201  logs are not set up yet
        sys.exit(2)
    logs.configure_logging(name, settings.log_level, settings.log_format)
    readers = [endpoint.reader] if endpoint is not None else []
    telemetry.configure_telemetry(name, service_version(), settings.otlp_endpoint, *readers)
    if endpoint is not None:
        endpoint.start_listening()
    # The catalog and the image are many objects that live long and hold no cycles, an import
    # makes hundreds of thousands: looking through all of them every few thousand allocations
    # costs tens of milliseconds at a time.
    gc.set_threshold(50_000, 20, 100)
    try:
        code = uvloop.run(_run_lifetime(name, settings, main))
    finally:
        if endpoint is not None:
            endpoint.stop_listening()
        telemetry.shutdown_telemetry()
    sys.exit(code)


def _open_metrics(settings: CommonSettings) -> MetricsEndpoint:
    # Imported here: a process whose metrics nobody fetches starts without it, and sooner.
    from drey_runtime.scraping import MetricsEndpoint

    return MetricsEndpoint.open_endpoint(settings)


async def _run_lifetime(name: str, settings: S, main: Callable[[S, App], Awaitable[None]]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.TaskGroup() as group:
                    app = App(stack, group)
                    group.create_task(_until_stopped(name, settings, main, app, stop))
            except* _Stopped:
                log.info("stopping")
        return 0
    except* SettingsError as error:
        log.error("refused to start: %s", error.exceptions[0])
    except* Exception as error:
        log.error("ended by a failure", exc_info=error)
    return 1


async def _until_stopped(
    name: str,
    settings: S,
    main: Callable[[S, App], Awaitable[None]],
    app: App,
    stop: asyncio.Event,
) -> None:
    """Set up, wait for the signal, and take the group down by raising `_Stopped`."""
    setup = asyncio.ensure_future(main(settings, app))
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({setup, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if setup.done():
            setup.result()
            log.info("%s is up", name)
            await waiting
            await app.say_farewell()
    finally:
        app.stopping.set()
        for task in (setup, waiting):
            task.cancel()
        # what setting up leaves half done it ends before the stack closes under it
        await asyncio.wait({setup, waiting})
    raise _Stopped


class _Stopped(Exception):
    pass
