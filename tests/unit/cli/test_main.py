"""The tree of commands: help, exit codes, what the root knows without importing."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from drey_cli.commands import SUMMARIES
from drey_cli.main import every_command, load_command, run
from drey_cli.registry import command, command_app

ROOT = Path(__file__).resolve().parents[3]
OPTION = re.compile(r"(?<=[`, ])(--[a-z][a-z-]*)(?=[`, ])")


def test_the_root_says_of_each_command_what_it_says_itself(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, summary in SUMMARIES.items():
        assert f" {name} " in shown
        assert load_command(name).help.partition("\n")[0] == summary


def test_a_command_loads_no_other(address_nowhere):
    code = (
        "import sys; from drey_cli.main import run; run(sys.argv[1:]);"
        "print(sorted(m for m in sys.modules if m.startswith('drey_cli.commands.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "whoami", *address_nowhere],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['drey_cli.commands.whoami']"


@pytest.fixture
def address_nowhere():
    return ["--server", "127.0.0.1:1", "--timeout", "2s"]


def test_every_command_has_help_and_json(capsys):
    for path, built in every_command():
        assert built.help, path
        if path[0] in {"up", "demo"}:
            continue
        options = {option for parameter in built.params for option in parameter.opts}
        assert {"--json", "--utc", "--server", "--key", "--timeout"} <= options, path
        assert run([*path, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_commands_and_options_are_those_of_the_reference():
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    head, *sections = re.split(r"^## drey (.+)$", text, flags=re.MULTILINE)
    shared = set(OPTION.findall(head))
    written = {
        tuple(words.split()): set(OPTION.findall(section))
        for words, section in zip(sections[::2], sections[1::2], strict=True)
    }
    built = {
        words: {name for p in each.params for name in [*p.opts, *p.secondary_opts]}
        for words, each in every_command()
    }
    assert set(written) == set(built)
    for words, options in built.items():
        said = {each for each in options if each.startswith("--")} - {"--help"}
        assert written[words] <= said, words
        assert said - written[words] <= shared, words


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option("--width")] = 1
    names: Annotated[list[str], typer.Option("--name")] = field(default_factory=list)


def test_a_parameter_that_is_a_dataclass_becomes_the_options_of_its_fields():
    app, calls = command_app(), []

    @command(app, "draw", examples=("draw [x]",))
    def draw(session, size: Size, what: Annotated[str, typer.Argument()]):
        """Draw it."""
        calls.append((session.out.json, size, what))

    built = get_command(app)
    built.main(["it", "--json", "--name", "a", "--name", "b"], standalone_mode=False)
    built.main(["it", "--width", "3"], standalone_mode=False)
    assert calls == [(True, Size(1, ["a", "b"]), "it"), (False, Size(3, []), "it")]


def test_wrong_usage_is_two_and_json_errors_are_json(capsys):
    assert run(["nonsense"]) == 2
    capsys.readouterr()
    assert run(["pv", "list", "--nonsense", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "USAGE"


def test_unreachable_is_three(capsys):
    assert run(["pv", "list", "--server", "127.0.0.1:1", "--timeout", "2s"]) == 3
    assert "cannot reach" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["pv", "--help"], ["snapshot", "take", "--help"]])
def test_help_imports_no_grpc(words):
    code = (
        "import sys; from drey_cli.main import run; run(sys.argv[1:]);"
        "print(any(m == 'grpc' or m.startswith('google') for m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"
