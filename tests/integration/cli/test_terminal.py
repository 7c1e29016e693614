"""What needs a terminal or a pipe of its own: questions, Ctrl-C, a reader that goes away."""

import os
import pty
import subprocess
import sys
import threading
import time
from shlex import quote

import pytest

from drey.restore.v1 import restore_service_pb2
from drey_cli.main import run_command

PLAN = "01950000-0000-7000-8000-000000000001"
DREY = [sys.executable, "-m", "drey_cli.main"]


def until(condition, told=str):
    """Wait until `condition` holds; `told` says what there is instead."""
    end = time.monotonic() + 300.0
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.02)


class Terminal:
    """`drey` on a pseudo-terminal that is its controlling one, so that Ctrl-C reaches it."""

    def __init__(self, address, *words, program=DREY):
        self.shown = b""
        pid, self._master = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(program[0], [*program, *words, "--server", address])
        self._pid = pid
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while chunk := os.read(self._master, 65536):
                self.shown += chunk
        except OSError:
            return  # The other end is closed: Linux says so with EIO.

    def wait_for(self, text):
        until(lambda: text in self.shown, lambda: self.shown.decode(errors="replace"))

    def type(self, text):
        os.write(self._master, text)

    def code(self):
        _, status = os.waitpid(self._pid, 0)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def held(state):
    """The restore stays in writing until it is aborted."""
    state.hold_restore = threading.Event()
    yield
    state.hold_restore.set()


def test_no_is_no(address, state):
    terminal = Terminal(address, "restore", "run", PLAN)
    terminal.wait_for(b"[y/N]")
    terminal.type(b"n\n")
    assert terminal.code() == 1
    assert state.calls == []


def test_ctrl_c_leaves_it_running_or_aborts_it(address, state, held):
    terminal = Terminal(address, "restore", "run", PLAN, "--yes")
    terminal.wait_for(b"writing")
    terminal.type(b"\x03")
    terminal.wait_for(b"[a]bort?")
    terminal.shown = b""
    terminal.type(b"c\n")
    terminal.wait_for(b"writing")
    terminal.shown = b""
    terminal.type(b"\x03")
    terminal.wait_for(b"[a]bort?")
    terminal.type(b"l\n")
    assert terminal.code() == 130
    assert "aborted" not in state.calls
    terminal = Terminal(address, "restore", "run", PLAN, "--yes")
    terminal.wait_for(b"writing")
    terminal.type(b"\x03")
    terminal.wait_for(b"[a]bort?")
    terminal.type(b"a\n")
    assert terminal.code() == 4
    assert "aborted" in state.calls


def asked_at_ctrl_c(address):
    """`drey restore run`, which has been told Ctrl-C, at its question."""
    terminal = Terminal(address, "restore", "run", PLAN, "--yes")
    terminal.wait_for(b"writing")
    terminal.type(b"\x03")
    terminal.wait_for(b"[a]bort?")
    return terminal


def test_a_second_ctrl_c_leaves_it_running(address, state, held):
    terminal = asked_at_ctrl_c(address)
    terminal.type(b"\x03")
    terminal.wait_for(b"the restore goes on: drey restore watch")
    assert terminal.code() == 130
    assert not {"aborted", "paused"} & {call for call in state.calls if isinstance(call, str)}


def test_ctrl_c_that_another_thread_gets_ends_a_question(address):
    """The kernel gives a signal to any thread, and then it ends no read of the first one."""
    asking = """
import signal, threading
from drey_cli.output import Output
timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
timer.start()
try:
    Output().ask_question("shall it? ")
except KeyboardInterrupt:
    print("heard")
"""
    terminal = Terminal(address, program=[sys.executable, "-c", asking])
    terminal.wait_for(b"heard")
    assert terminal.code() == 0


def test_ctrl_c_goes_back_where_that_is_said(address, state, held):
    terminal = asked_at_ctrl_c(address)
    terminal.type(b"b\n")
    terminal.wait_for(b"then it writes what was there before")
    assert terminal.code() == 4
    (request,) = state.of(restore_service_pb2.AbortRestoreRequest)
    assert request.roll_back and "Ctrl-C" in request.reason


def test_ctrl_c_again_while_it_is_aborted_says_what_is_not_known(address, state, held):
    state.unanswered = "AbortRestore"
    terminal = asked_at_ctrl_c(address)
    terminal.type(b"a\n")
    until(lambda: "aborted" in state.calls)
    terminal.type(b"\x03")
    terminal.wait_for(b"whether that was heard is not known: drey restore show")
    assert terminal.code() == 130


def test_ctrl_c_before_it_is_known_to_have_begun_says_so(address, state):
    state.unanswered = "ExecutePlan"
    terminal = Terminal(address, "restore", "run", PLAN, "--yes")
    until(lambda: state.of(restore_service_pb2.ExecutePlanRequest))
    terminal.type(b"\x03")
    terminal.wait_for(b"whether it began is not known: drey restore list")
    assert terminal.code() == 130


def test_watch_draws_a_table(address):
    terminal = Terminal(address, "pv", "watch", "A:SET", "--for", "1s")
    terminal.wait_for(b"A:SET")
    terminal.wait_for(b"fresh")
    assert terminal.code() in {0, 3}


def test_drift_draws_a_table(address):
    terminal = Terminal(address, "snapshot", "drift", "latest", "--for", "2s")
    terminal.wait_for(b"B:SET")
    terminal.wait_for(b"1 different")
    assert terminal.code() in {0, 3}


def test_a_reader_that_goes_away_is_no_traceback(address):
    done = subprocess.run(
        f"{quote(sys.executable)} -m drey_cli.main pv export --server {address} | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def _in_shell(line):
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["pv list", "pv list --json", "pv export", "status"])
def test_a_full_disk_is_told(address, words):
    drey = f"{quote(sys.executable)} -m drey_cli.main"
    done = _in_shell(f"{drey} {words} --server {address} > /dev/full")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_change_nothing(address, closed):
    done = _in_shell(
        f"{quote(sys.executable)} -m drey_cli.main pv list --server {address} {closed}"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_keys_can_be_bootstrapped_only_where_the_gateway_is(monkeypatch, capsys):
    calls = []

    class Done:
        returncode = 0
        stdout = "secret\n"

    def fake(arguments, *, env, **_):
        calls.append((arguments, env.get("DREY_POSTGRES_URL")))
        return Done()

    monkeypatch.setattr(subprocess, "run", fake)
    assert run_command(["key", "bootstrap", "--postgres-url", "postgresql://u:p@h/d"]) == 0
    assert capsys.readouterr().out == "secret\n"
    assert calls == [([sys.executable, "-m", "drey_gateway.bootstrap"], "postgresql://u:p@h/d")]


def test_ctrl_c_pauses_and_goes_on_watching(address, state, held):
    terminal = Terminal(address, "restore", "run", PLAN, "--yes")
    terminal.wait_for(b"writing")
    terminal.type(b"\x03")
    terminal.wait_for(b"[p]ause")
    terminal.type(b"p\n")
    terminal.wait_for(b"drey restore resume")
    assert "paused" in state.calls and "aborted" not in state.calls
    terminal.wait_for(b"writing")
    state.hold_restore.set()
    assert terminal.code() == 0
