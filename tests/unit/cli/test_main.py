"""The tree of commands: help, exit codes, what the root knows without importing."""

import json
import subprocess
import sys

import pytest
import typer

from drey_cli.commands import SUMMARIES
from drey_cli.main import build, run


def groups(app: typer.Typer):
    return {group.name or group.typer_instance.info.name for group in app.registered_groups}


def test_every_summary_is_a_command_and_every_group_has_its_summary():
    app = build()
    commands = {command.name for command in app.registered_commands}
    assert commands | groups(app) == set(SUMMARIES)
    for group in app.registered_groups:
        info = group.typer_instance.info
        assert info.help == SUMMARIES[info.name]


def walk(command, path=()):
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from walk(child, (*path, name))


def test_every_command_has_help_and_json(capsys):
    from typer.main import get_command

    for path, command in walk(get_command(build())):
        assert command.help, path
        if path[0] in {"up", "demo"}:
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--utc", "--server", "--key", "--timeout"} <= options, path
        assert run([*path, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_wrong_usage_is_two_and_json_errors_are_json(capsys):
    assert run(["nonsense"]) == 2
    capsys.readouterr()
    assert run(["pv", "list", "--nonsense", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["reason"] == "USAGE"


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
