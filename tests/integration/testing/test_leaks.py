"""The check for leaks, on a suite of its own in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = """
import asyncio, socket, subprocess, threading, time
import pytest

kept, release = [], threading.Event()

def listening():
    found = socket.create_server(("127.0.0.1", 0))
    kept.append(found)
    return found

async def test_task():
    asyncio.get_running_loop().create_task(asyncio.sleep(600), name="the forgotten one")

def test_thread():
    threading.Thread(target=release.wait, name="the endless one", daemon=True).start()

def test_socket():
    listening()

def test_process():
    kept.append(subprocess.Popen(["sleep", "20.25"]))

def test_process_of_a_process_that_ended():
    subprocess.run(["sh", "-c", "sleep 20.125 & "], check=True)

@pytest.fixture(scope="module")
def tidy():
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found

def test_with_tidy(tidy):
    pass

@pytest.fixture(scope="module")
def untidy():
    return listening()

def test_with_untidy(untidy):
    pass

def test_after_untidy(untidy):
    pass

def test_that_fails_is_not_told_of_its_leaks():
    listening()
    raise RuntimeError

def test_that_lets_go_a_little_later():
    threading.Thread(target=time.sleep, args=(0.1,)).start()

@pytest.mark.asyncio_debug
async def test_exception_that_nobody_fetches():
    async def fail():
        raise RuntimeError("nobody asks")
    task = asyncio.create_task(fail())
    await asyncio.wait({task})

@pytest.mark.asyncio_debug
async def test_a_call_of_another_thread_is_refused():
    with pytest.raises(RuntimeError, match="thread"):
        await asyncio.to_thread(asyncio.get_running_loop().call_soon, print)

def test_last(tidy):
    pass
"""
LEAVES = {
    "test_task": "the forgotten one",
    "test_thread": "the endless one",
    "test_socket": "LISTEN",
    "test_process": "sleep 20.25",
    "test_process_of_a_process_that_ended": "sleep 20.125",
    "test_exception_that_nobody_fetches": "nobody asks",
    # what a fixture of the module made is missed when the module is over
    "test_last": "LISTEN",
}


def test_what_is_left_is_named_and_fails_the_test_that_left_it(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(
        "from drey_testing import leaks\n"
        "leaks.PATIENCE_S = 2.0\n"
        'pytest_plugins = ["drey_testing.leaks"]\n'
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    told = done.stdout.split("ERROR at teardown of ")[1:]
    found = {part.split(" ", 1)[0]: part for part in told}
    assert found.keys() == LEAVES.keys(), done.stdout
    for name, text in LEAVES.items():
        assert text in found[name], done.stdout
    assert "1 failed" in done.stdout
