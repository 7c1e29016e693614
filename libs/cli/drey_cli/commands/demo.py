"""`drey demo`: the main job, end to end, on a simulated machine."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from drey_cli.commands.up import require_linux
from drey_cli.errors import CliError
from drey_cli.exits import ExitCode
from drey_cli.output import Output
from drey_cli.registry import command_app

app = command_app()


@app.command("demo")
def demo(
    pvs: Annotated[int, typer.Option(min=20, max=200_000, help="PVs of the machine.")] = 2000,
    disturb: Annotated[int, typer.Option(min=1, help="PVs to disturb.")] = 200,
    report: Annotated[
        Path | None, typer.Option(help="Write the steps and their times here, as JSON.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the state in this new folder, to look at.")
    ] = None,
) -> None:
    """Start everything with a simulated machine and walk the main job.

    Watch, snapshot, disturb, compare, plan, restore, verify. Exit code 0 only if the restored
    machine equals the snapshot by an independent read. Nothing is left running, and nothing on disk
    unless --keep says so. It touches no IOC of the site.
    """
    require_linux()
    from drey_stack import StackError
    from drey_stack.foreground import Interrupted, foreground

    out = Output()
    try:
        with foreground() as front:
            folder = keep or Path(tempfile.mkdtemp(prefix="drey-demo-"))
            try:
                ok = front.run(_run_demo(out, folder, pvs, min(disturb, pvs // 4), report))
            finally:
                if keep is None:
                    shutil.rmtree(folder)
    except Interrupted:
        out.note("stopped; nothing is left running")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (StackError, OSError) as error:
        raise CliError(str(error), reason="STACK_FAILED") from error
    if not ok:
        raise typer.Exit(ExitCode.DIFFERENT)


async def _run_demo(out: Output, folder: Path, pvs: int, disturb: int, path: Path | None) -> bool:
    from drey_cli.demo.walk import Report, Walk
    from drey_stack.simulated import SimulatedMachine
    from drey_stack.whole import Stack, StackOptions

    begin = time.perf_counter()
    report = Report(out)
    async with AsyncExitStack() as started:
        with report.step(f"Start a simulated machine of {pvs:,} PVs: a softIOC on loopback"):
            machine = SimulatedMachine(folder / "machine", pvs)
            await started.enter_async_context(machine)
        with report.step("Start Postgres, NATS, Valkey and the four services", "drey up"):
            stack = Stack(StackOptions(folder / "state", epics=machine.environment))
            await started.enter_async_context(stack)
        channel = stack.channel(**{"grpc.max_receive_message_length": 16 << 20})
        await started.enter_async_context(channel)
        ok = await Walk(channel, stack.key, machine, report).run(disturb)
    if path is not None:
        report.write(path, pvs=pvs, ok=ok)
    verdict = "The machine is as it was." if ok else "The machine is NOT as it was."
    out.text(f"{verdict} {time.perf_counter() - begin:.1f} s in all.", "bold")
    return ok
