"""`drey up` as a newcomer uses it: output in a file, the documents' commands, no secret told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import psutil
import pytest

from drey_stack.postgres import APPLICATION, OWNER, Postgres
from tests.e2e.collector import collecting

ROOT = Path(__file__).resolve().parents[2]
DREY = [sys.executable, "-m", "drey_cli.main"]
HANGS_S = 500
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.xdist_group("up")  # some take the port 7100 where it is free
_PLAN = re.compile(r"^plan +(\S+)$", re.MULTILINE)


@pytest.fixture
def home(short_folder: Path) -> Path:
    """A folder to work in, whose name leaves room for nothing to be left in /tmp."""
    return short_folder


@pytest.fixture
def short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def _environment(home: Path) -> dict[str, str]:
    (home / "tmp").mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DREY_")}
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"TMPDIR": str(home / "tmp"), "PATH": search}


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + HANGS_S
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.05)


@contextmanager
def _up(home: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running `drey up` in `home`, what it says in the files `out` and `err`; stopped by INT."""
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        process = subprocess.Popen(
            [*DREY, "up", *options],
            cwd=home,
            env=_environment(home) | environment,
            stdout=out,
            stderr=err,
            umask=0,
        )
    try:
        is_up = "Ctrl-C stops everything"
        _wait(lambda: is_up in (home / "out").read_text(), process, home / "err")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(HANGS_S)
    assert status == 0, (home / "err").read_text()
    assert list((home / "tmp").iterdir()) == []


def _refused(home: Path, *options: str) -> str:
    """What a `drey up` that is refused says, to standard error."""
    refused = subprocess.run(
        [*DREY, "up", *options],
        cwd=home,
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert refused.returncode == REFUSED, refused.stdout
    return refused.stderr


def _commands(page: str) -> list[str]:
    """The commands of a page's shell blocks, without comments, but those that start the stack."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
    commands = [re.sub(r"\s+#.*", "", line) for line in lines]
    return [c for c in commands if c and not re.match(r"make|drey up|\. \.venv", c)]


class _Shell:
    """Runs commands one after the other in one folder, as a person with one shell would."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._set: list[str] = []
        self._plan = ""

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        if re.match(r"[A-Z]+=", command):
            self._set.append(command)
        if command.startswith("drey restore run"):
            command = f"drey restore run {self._plan} --yes"
        if "watch" in command.lower():
            # ended when it has said something and had a moment for more
            command = (
                f"{command} > said & while [ ! -s said ] && kill -0 $!; do sleep 0.1; done;"
                " sleep 1; kill -INT $!; wait $!; status=$?; cat said; exit $status"
            )
        done = subprocess.run(
            ["bash", "-c", "\n".join(["set -m", *self._set, command])],
            cwd=self._home,
            env=_environment(self._home),
            capture_output=True,
            text=True,
            timeout=HANGS_S,
            check=False,
        )
        if command.startswith("drey restore plan"):
            self._plan = _PLAN.findall(done.stdout)[-1]
        return done


DIFFERENT, REFUSED, TIMED_OUT = 4, 1, 124


def test_the_commands_of_readme_and_tutorial_in_order(home: Path) -> None:
    with _up(home, "--simulate", "2000"):
        shell = _Shell(home)
        (web,) = re.findall('^web = "(.*)"', (home / ".drey/client.toml").read_text(), re.M)
        assert f"The operators' page: {web};" in (home / "out").read_text()
        for command in _commands("README.md"):
            if command.startswith("grpcurl"):
                continue  # in test_other_languages
            done = shell.run(command)
            fine = {0, DIFFERENT, TIMED_OUT, 130}
            assert done.returncode in fine, f"{command}: {done.stdout}{done.stderr}"
            if "watch" in command:
                assert "QUAD:LI21:1" in done.stdout
        assert shell.run('test -n "$KEY" -a -n "$ADDRESS"').returncode == 0
        for command in _commands("docs/tutorials/first-steps.md"):
            done = shell.run(command)
            refused = command.startswith("drey snapshot take") and "--max-missing" not in command
            fine = {REFUSED} if refused else {0, DIFFERENT, TIMED_OUT, 130}
            assert done.returncode in fine, f"{command}: {done.stdout}{done.stderr}"
        (watch,) = (c for c in _commands("docs/how-to/watch-from-a-program.md") if "watch.py" in c)
        program = "docs/how-to/programs/watch.py"
        watch = watch.replace(program, quote(f"{ROOT}/{program}"))
        done = shell.run(watch.replace("python ", "python -u "))
        assert "QUAD:LI20:" in done.stdout, done.stderr


def _secrets(state: Path, out: str) -> set[str]:
    """Everything that nobody else may know: passwords, private keys, the first key."""
    postgres = Postgres(state / "postgres", fsync=False)
    postgres._secret = (state / "postgres/password").read_text().strip()
    found = {postgres._password_of(OWNER), postgres._password_of(APPLICATION)}
    found |= {path.read_text().strip() for path in state.glob("*/password")}
    for path in state.glob("keys/*.pem"):
        found |= {line for line in path.read_text().splitlines() if "-----" not in line}
    found |= set(re.findall(r"drey_\S{20,}", out))
    assert len(found) >= 3 + 2 + 4 + 1
    return found


def _arguments() -> str:
    words: list[str] = []
    for process in psutil.process_iter():
        try:
            words += process.cmdline()
        except psutil.Error:
            continue
    return "\n".join(words)


def test_no_secret_is_told(home: Path) -> None:
    state = home / ".drey"
    with collecting() as collector:
        telemetry = {"DREY_OTLP_ENDPOINT": collector.endpoint, "DREY_LOG_LEVEL": "DEBUG"}
        with _up(home, "--simulate", "60", **telemetry) as process:
            told = [_arguments()]
            children = psutil.Process(process.pid).children()
            programs = [(child, Path(child.cmdline()[0]).name) for child in children]
            for child, program in programs:  # what fails is what talks
                if program in {"nats-server", "valkey-server", "postgres"}:
                    child.kill()
            again = "postgres ended, starting it again"
            _wait(lambda: again in (home / "err").read_text(), process, home / "err")
            shell = _Shell(home)
            for command in ("drey status", "drey pv list", "DREY_KEY=wrong drey pv list"):
                done = shell.run(command)
                told += [done.stdout, done.stderr, _arguments()]
            out = (home / "out").read_text()
            secrets = _secrets(state, out)
        told += collector.raw
    told += [path.read_text(errors="replace") for path in (home / "err", *state.rglob("*.log"))]
    assert collector.raw
    everything = "\n".join(told)
    lines = [line for text in told for line in text.splitlines()]
    leaked = [line for line in lines if any(secret in line for secret in secrets)]
    assert leaked == []
    assert "eyJ" not in everything  # how a signed token begins
    passwords = [secret for secret in secrets if secret in out and not secret.startswith("drey_")]
    assert passwords == []


def test_a_second_one_in_the_folder_is_refused_and_disturbs_nothing(home: Path) -> None:
    """The first listens at a port that nobody named."""
    with _up(home, "--simulate", "60", "--listen", "127.0.0.1:0"):
        for options in ([], ["--simulate", "60"]):
            assert "is in use by another running stack" in _refused(home, *options)
        done = _Shell(home).run("drey pv get 'QUAD:*'")
        assert done.returncode == 0, done.stderr
        assert "QUAD:" in done.stdout


@pytest.mark.parametrize("state", ["a file", "a file/below", "/proc/no-folder"])
def test_a_state_folder_that_cannot_be_is_refused_with_what_to_do(home: Path, state: str) -> None:
    (home / "a file").write_text("")
    said = _refused(home, "--state", state)
    assert "cannot be used: " in said and state in said
    assert "remedy: " in said and "Errno" not in said


def test_a_folder_of_another_version_is_closed_and_one_that_was_moved_is_found(home: Path) -> None:
    with _up(home, "--simulate", "60"):
        pass
    key = (home / ".drey/client.toml").read_text()
    moved = home / "moved to another place"
    (home / ".drey").rename(moved)
    for path in (moved, moved / "nats", moved / "keys"):
        path.chmod(0o755)
    for path in (*moved.glob("*.log"), moved / "client.toml"):
        path.chmod(0o644)
    (moved / "ports.json").write_text("")  # as a full disk leaves it
    with _up(home, "--state", moved.name, "--simulate", "60"):
        left_open = [p for p in moved.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o077]
        assert left_open == []
        assert moved.stat().st_mode & 0o077 == 0
        assert (moved / "client.toml").read_text().splitlines()[1] in key


def test_a_reader_that_leaves_gets_its_line_and_leaves_nothing_running(home: Path) -> None:
    """Such as `| head -1`. What it says next ends `drey up`; after the last line Ctrl-C does."""
    with subprocess.Popen(
        [sys.executable, "-m", "drey_cli.main", "up"],
        cwd=home,
        env=_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Drey is up at ")
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANGS_S)
    assert "Traceback" not in said
    assert list((home / "tmp").iterdir()) == []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_a_machine_that_dies_ends_it_with_the_reason_and_a_service_that_does_is_told(
    home: Path,
) -> None:
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        process = subprocess.Popen(
            [*DREY, "up", "--simulate", "60"],
            cwd=home,
            env=_environment(home),
            stdout=out,
            stderr=err,
        )
    try:
        _wait(lambda: "Ctrl-C stops" in (home / "out").read_text(), process, home / "err")

        def kill(word: str) -> None:
            (child,) = [c for c in psutil.Process(process.pid).children() if word in _line(c)]
            child.kill()

        kill("drey_restore")
        _wait(lambda: "restore runs again" in (home / "err").read_text(), process, home / "err")
        assert "restore ended by SIGKILL, starting it again" in (home / "err").read_text()
        kill("drey_machine")
        assert process.wait(HANGS_S) != 0
        said = (home / "err").read_text()
        assert "the simulated machine: ended" in said and "Traceback" not in said
    finally:
        process.kill()
        process.wait(HANGS_S)
