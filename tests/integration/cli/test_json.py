"""With `--json` every command gives what its help says: one object, or one a line."""

import json
import re
import subprocess

import pytest
from google.protobuf import descriptor_pool

from drey_cli.main import every_command

ID = "01930000-0000-7000-8000-00000000aaaa"
WORDS = {
    ("status",): [],
    ("whoami",): [],
    ("breaker", "open"): ["ioc7:5064", "--reason", "repair"],
    ("breaker", "close"): ["ioc7:5064"],
    ("breaker", "automatic"): ["ioc7:5064"],
    ("pv", "list"): [],
    ("pv", "devices"): [],
    ("pv", "show"): ["A:SET"],
    ("pv", "get"): ["A:SET"],
    ("pv", "history"): ["A:SET"],
    ("pv", "watch"): ["A:SET", "--count", "2"],
    ("pv", "add"): ["C:SET"],
    ("pv", "set"): ["A:SET", "--abs", "1"],
    ("pv", "rm"): ["A:SET", "--yes"],
    ("pv", "undelete"): ["A:SET"],
    ("pv", "import"): ["pvs.csv"],
    ("pv", "export"): ["-o", "out.csv"],
    ("tag", "add"): ["Region=LI21", "A:SET"],
    ("tag", "rm"): ["Region=LI21", "A:SET"],
    ("tag", "groups"): [],
    ("tag", "create"): ["Area=1"],
    ("tag", "rename"): ["Region=LI21", "L21"],
    ("tag", "delete"): ["Region=LI21", "--yes"],
    ("tag", "undelete"): ["Region=LI22"],
    ("policy", "list"): [],
    ("policy", "show"): ["PS:1"],
    ("policy", "set"): ["PS:1", "--stage", "1"],
    ("policy", "delete"): ["PS:1", "--yes"],
    ("policy", "explain"): ["A:SET"],
    ("snapshot", "take"): ["--all"],
    ("snapshot", "edit"): ["latest", "--title", "x"],
    ("snapshot", "rm"): ["old", "--yes"],
    ("snapshot", "undelete"): ["dead"],
    ("snapshot", "list"): [],
    ("snapshot", "show"): ["latest"],
    ("snapshot", "read"): ["latest"],
    ("snapshot", "verify"): ["latest"],
    ("snapshot", "compare"): ["old", "live"],
    ("snapshot", "drift"): ["latest", "--for", "1s"],
    ("snapshot", "golden", "set"): ["latest"],
    ("snapshot", "golden", "clear"): ["latest"],
    ("snapshot", "golden", "list"): [],
    ("restore", "plan"): ["latest"],
    ("restore", "undo"): [ID],
    ("restore", "show"): [ID],
    ("restore", "list"): [],
    ("restore", "run"): ["latest", "--yes"],
    ("restore", "watch"): [ID],
    ("restore", "abort"): [ID],
    ("restore", "pause"): [ID],
    ("restore", "resume"): [ID],
    ("restore", "approve"): [ID, "--yes"],
    ("restore", "reject"): [ID, "--reason", "no"],
    ("restore", "approvals"): [],
    ("job", "list"): [],
    ("job", "show"): [ID],
    ("job", "watch"): [ID],
    ("job", "cancel"): [ID],
    ("event", "watch"): [],
    ("key", "create"): ["gui", "--role", "viewer"],
    ("key", "list"): [],
    ("key", "revoke"): [ID, "--yes"],
    ("key", "roles"): [],
    ("key", "bootstrap"): [],
    ("audit", "list"): [],
    ("audit", "watch"): [],
    ("audit", "verify"): [],
    ("audit", "show"): [ID],
    ("audit", "export"): [],
    ("audit", "replay"): [ID, "--speed", "0"],
}
# They start a stack of their own, and are walked end to end.
WITH_A_STACK = {("up",), ("demo",), ("restore", "rehearse")}
COMMANDS = {
    words: getattr(command, "gives", "")
    for words, command in every_command()
    if words not in WITH_A_STACK
}
PACKAGES = (
    "access", "audit", "catalog", "common", "compare", "event", "job", "monitor", "restore",
    "snapshot", "system",
)  # fmt: skip


def documents(text):
    """One object over many lines, or an object a line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def fields_of(message):
    """Names of the fields of a public message."""
    for package in PACKAGES:
        try:
            name = f"drey.{package}.v1.{message}"
            return set(descriptor_pool.Default().FindMessageTypeByName(name).fields_by_name)
        except KeyError:
            continue
    raise AssertionError(f"there is no message {message}")


def shapes(gives):
    """What the help says of an object: fields that it has, or may have."""
    fixed = [set(re.findall(r"\w+", each)) for each in re.findall(r"\{(.*?)\}", gives)]
    messages = [fields_of(each) for each in re.findall(r"\b[A-Z][a-z]+[A-Z]?\w+\b", gives)]
    if " with {" in gives:
        return [], [messages[0] | fixed[0]]
    return fixed, messages


@pytest.fixture
def ready(drey, state, monkeypatch, tmp_path):
    state.answers_all = True
    (tmp_path / "pvs.csv").write_text("Setpoint,Readback\nA:SET,A:RBV\n")
    done = subprocess.CompletedProcess([], 0, stdout="secret\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    return drey


def test_every_command_is_walked():
    assert set(WORDS) == set(COMMANDS)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_json_is_what_the_help_says(ready, words):
    result = ready(*words, *WORDS[words], "--json")
    gives = COMMANDS[words]
    assert result.code in {0, 1, 4} and result.err == "", result
    found = documents(result.out)
    assert found and (len(found) == 1 or " a line" in gives)
    fixed, messages = shapes(gives)
    for document in found:
        keys = set(document)
        assert "error" not in keys, document
        assert keys in fixed or any(keys <= each for each in messages), (keys, gives)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_failures_are_one_object_on_standard_output(ready, words):
    failed = ready(*words, "--no-such-option", "--json")
    assert (failed.code, failed.err) == (2, "")
    (document,) = documents(failed.out)
    assert set(document) == {"error"}
    assert set(document["error"]) == {
        "message", "reason", "status", "field", "remedy", "metadata", "exit_code",
    }  # fmt: skip
    assert document["error"]["remedy"] == f"see drey {' '.join(words)} --help"
