"""Supervision of real processes, and that none outlives its supervisor."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from drey_stack import Child, ChildFailed, ChildState, RestartPolicy, Supervisor

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time, pathlib, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)",
]

STACK = """
import asyncio, signal, sys
from contextlib import AsyncExitStack
from pathlib import Path
from drey_stack import Child, Nats, Postgres, Supervisor, Valkey

async def main():
    folder = Path(sys.argv[1])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Postgres(folder / "postgres", fsync=False))
        await stack.enter_async_context(Nats(folder / "nats"))
        await stack.enter_async_context(Valkey(folder / "valkey"))
        supervisor = await stack.enter_async_context(Supervisor())
        argv = [sys.executable, "-c", "import time; time.sleep(600)", str(folder)]
        for name in "abcd":
            await supervisor.start_child(Child(name, argv))
        (folder / "up").touch()
        await supervisor.wait_any_failed()

# a shell starts its background jobs, and so perhaps these tests, with the signal ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
"""


async def test_killed_child_is_back_within_a_moment_and_both_is_told():
    said: list[str] = []
    async with Supervisor(said.append) as supervisor:
        await supervisor.start_child(Child("a", SLEEP))
        before = supervisor.child_statuses()[0].pid
        supervisor.kill("a")
        after = await supervisor.wait_for("a", ChildState.READY, restarts=1)
        assert after.pid not in {None, before} and after.restarts == 1
        assert after.last_returncode == -signal.SIGKILL
        async with asyncio.timeout(60):
            while len(said) < 2:
                await asyncio.sleep(0.01)
        assert said == ["a ended by SIGKILL, starting it again", "a runs again"]
    assert not psutil.pid_exists(after.pid)


async def test_child_that_keeps_ending_fails_for_good(tmp_path: Path):
    log = tmp_path / "log"
    argv = [sys.executable, "-c", "print('last words'); raise SystemExit(3)"]
    policy = RestartPolicy(initial_s=0.01, limit=2)
    async with Supervisor() as supervisor:
        await supervisor.start_child(Child("a", argv, log=log, restart=policy))
        with pytest.raises(ChildFailed, match="last words") as caught:
            await supervisor.wait_any_failed()
        assert caught.value.returncode == 3
        assert supervisor.child_statuses()[0].restarts == 2


async def test_first_start_waits_for_readiness_and_says_why_not(tmp_path: Path):
    async def never() -> None:
        raise ConnectionRefusedError

    argv = [sys.executable, "-c", "print('no luck'); raise SystemExit(4)"]
    async with Supervisor() as supervisor:
        with pytest.raises(ChildFailed, match="no luck"):
            await supervisor.start_child(Child("a", argv, log=tmp_path / "log", ready=never))
        with pytest.raises(ChildFailed, match="not ready"):
            await supervisor.start_child(Child("b", SLEEP, ready=never, ready_within_s=0.2))
        assert supervisor.child_statuses() == []


async def test_stops_in_reverse_order_and_by_force(tmp_path: Path):
    mark = tmp_path / "mark"

    async def ready() -> None:
        if not mark.exists():
            raise FileNotFoundError

    async with Supervisor() as supervisor:
        await supervisor.start_child(Child("a", SLEEP))
        argv = [*STUBBORN, str(mark)]
        await supervisor.start_child(Child("b", argv, ready=ready, stop_grace_s=0.2))
        pids = [status.pid for status in supervisor.child_statuses()]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_back_off_grows_and_is_capped():
    policy = RestartPolicy(initial_s=0.1, cap_s=1.0, jitter=0.25)
    assert all(0.075 <= policy.restart_delay(1) <= 0.1 for _ in range(50))
    assert all(0.75 <= policy.restart_delay(900) <= 1.0 for _ in range(50))


def of(folder: Path) -> list[str]:
    """Command lines of the processes that name the folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


async def until_none(folder: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while left := of(folder):
        assert time.monotonic() < end, left
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_survives_a_signal_at_any_moment(number: signal.Signals, tmp_path: Path):
    script = tmp_path / "stack.py"
    script.write_text(STACK)
    folder = tmp_path / "state"
    folder.mkdir()
    chooser = random.Random(3)
    for moment in [None, *(chooser.uniform(0.05, 1.8) for _ in range(5))]:
        (folder / "up").unlink(missing_ok=True)
        with (tmp_path / "out").open("ab") as out:
            argv = [sys.executable, str(script), str(folder)]
            run = subprocess.Popen(argv, stderr=out)  # noqa: ASYNC220
        begun = time.monotonic()
        try:
            while run.poll() is None and not (folder / "up").exists():
                if moment is not None and time.monotonic() - begun > moment:
                    break
                await asyncio.sleep(0.01)
            assert run.poll() is None, (tmp_path / "out").read_text()
            run.send_signal(number)
            await asyncio.to_thread(run.wait, 500)
        finally:
            run.kill()  # a test that fails leaves nothing either
        if number is signal.SIGINT:
            assert of(folder) == []
        await until_none(folder)
