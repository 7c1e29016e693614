"""The tree of commands: help, exit codes, what the root knows without importing."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from drey_cli import start
from drey_cli.commands import SUMMARIES
from drey_cli.errors import ExitCode
from drey_cli.main import every_command, load_command, run_command
from drey_cli.options import argument, option, packed_options
from drey_cli.session import command, group

ROOT = Path(__file__).resolve().parents[3]
TABLE_ROW = re.compile(r"^\| (`.+?) \|", re.MULTILINE)
OPTION = re.compile(r"(?<=[`, ])(--[a-z][a-z-]*)(?=[`, ])")


def test_the_root_says_of_each_command_what_it_says_itself(capsys):
    assert run_command(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert f" {name} " in shown
        assert (load_command(name).help or "").partition("\n")[0] == summary


def test_a_command_loads_no_other(address_nowhere):
    code = (
        "import sys; from drey_cli.main import run_command; run_command(sys.argv[1:]);"
        "print(sorted(m for m in sys.modules if m.startswith('drey_cli.commands.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "whoami", *address_nowhere],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['drey_cli.commands.key']"


@pytest.fixture
def address_nowhere():
    return ["--server", "127.0.0.1:1", "--timeout", "2s"]


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback(monkeypatch):
    class Interrupted:
        def find_spec(self, name, path, target=None):
            if name == "drey_cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "drey_cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        start.main()
    assert caught.value.code == ExitCode.INTERRUPTED


@pytest.mark.parametrize("command", [["pv", "get"], ["status", "--key"], ["restore", "plan"]])
def test_what_is_not_utf8_is_refused_before_anything_is_sent(capsys, monkeypatch, command):
    assert run_command([*command, b"x\xff".decode(errors="surrogateescape")]) == 2
    assert "is not UTF-8 at character 2" in capsys.readouterr().err
    monkeypatch.setenv("DREY_KEY", b"k\xff".decode(errors="surrogateescape"))
    assert run_command(["status"]) == 2
    shown = capsys.readouterr().err
    assert "DREY_KEY is not UTF-8" in shown
    assert "dcff" not in shown


def test_every_command_has_help_and_json(capsys):
    for path, built in every_command():
        assert built.help, path
        if path[0] in {"up", "demo"}:
            continue
        options = {option for parameter in built.params for option in parameter.opts}
        assert {"--json", "--utc", "--server", "--key", "--timeout"} <= options, path
        assert run_command([*path, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_commands_and_options_are_those_of_the_reference():
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    head, *sections = re.split(r"^## drey (.+)$", text, flags=re.MULTILINE)
    shared = set(OPTION.findall(head))
    written = {
        tuple(words.split()): section
        for words, section in zip(sections[::2], sections[1::2], strict=True)
    }
    built = {
        words: {name for p in each.params for name in [*p.opts, *p.secondary_opts]}
        for words, each in every_command()
    }
    assert set(written) == set(built)
    for words, options in built.items():
        said = {each for each in options if each.startswith("--")} - {"--help"}
        in_tables = OPTION.findall("\n".join(TABLE_ROW.findall(written[words])))
        assert set(in_tables) <= said, words
        assert said - set(OPTION.findall(written[words])) <= shared, words


@dataclass(frozen=True)
class Size:
    width: int
    names: tuple[str, ...]


def test_packed_options_reach_the_function_as_one_object_beside_its_own():
    app, calls = group("Draw."), []
    size_options = packed_options(
        "size",
        Size,
        option("--width", "size_width", default=1),
        option("--name", "size_names", multiple=True),
    )

    @command("draw", app, gives="{}", examples=("draw [x]",))
    @argument("what", help="What is drawn.")
    @size_options
    def draw(session, size, what):
        """Draw it."""
        calls.append((session.out.json, size, what))

    draw.main(["it", "--json", "--name", "a", "--name", "b"], standalone_mode=False)
    app.main(["draw", "it", "--width", "3"], standalone_mode=False)
    assert calls == [(True, Size(1, ("a", "b")), "it"), (False, Size(3, ()), "it")]


def test_wrong_usage_is_two_and_json_errors_are_json(capsys):
    assert run_command(["nonsense"]) == 2
    capsys.readouterr()
    assert run_command(["pv", "list", "--nonsense", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "USAGE"


def test_unreachable_is_three(capsys):
    assert run_command(["pv", "list", "--server", "127.0.0.1:1", "--timeout", "2s"]) == 3
    assert "cannot reach" in capsys.readouterr().err


NEVER = {"typer", "pydantic", "numpy", "drey_stack", "drey_machine", "drey_core", "psutil"}
CALLS = {"grpc", "google", "asyncio", "drey"}
AREAS = {f"drey.{area}" for area in ("access", "audit", "compare", "event", "restore", "system")}
WITH_MONITOR = AREAS - {"drey.compare"}
"""What the messages of the monitor do not speak of themselves."""


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (["--help"], NEVER | CALLS | {"rich"}),
        (["pv", "--help"], NEVER | CALLS | {"rich"}),
        (["snapshot", "take", "--help"], NEVER | CALLS | {"rich"}),
        (["restore", "run", "--nonsense", "--json"], NEVER | CALLS | {"rich"}),
        (["pv", "get", "X", "--json"], NEVER | WITH_MONITOR | {"rich"}),
        (["pv", "list", "--json"], NEVER | AREAS | {"rich"}),
        (["status", "--json"], NEVER | (WITH_MONITOR - {"drey.system"}) | {"rich"}),
        (["restore", "list", "--json"], NEVER | (AREAS - {"drey.restore"}) | {"rich"}),
        (["snapshot", "compare", "live"], NEVER | (AREAS - {"drey.compare"})),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_no_more_than_it_needs(words, forbidden, address_nowhere):
    code = (
        "import sys; from drey_cli.main import run_command; run_command(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr, sep='\\n')"
    )
    where = [] if "--help" in words else address_nowhere
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *where], capture_output=True, text=True, check=True
    )
    assert not set(done.stderr.splitlines()) & forbidden
