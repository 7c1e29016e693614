"""Every `drey` line that a document shows is one that the command takes: words, options, values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from drey_cli.main import drey, every_command, load_command

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    {
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
    }
)
_BLOCK = re.compile(r"^[ ]*```\w*\n(.*?)^[ ]*```$", re.DOTALL | re.MULTILINE)
_TYPED = re.compile(r"^\s*(?:\$ |\w+=\S+ )*(drey (?:.*\\\n)*.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(drey [^`]+)`")
_SHELL = {"|", ">", ">>", "<", "&", "&&", ";", "||"}


def typed_lines(page: Path) -> Iterator[str]:
    """Command lines of the code blocks of a page, each as it is typed."""
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in _TYPED.findall(block):
            yield line.replace("\\\n", " ")


def inline_lines(page: Path) -> Iterator[str]:
    """Commands that the prose of a page names; arguments may be left out there."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for line in _INLINE.findall(prose):
        yield " ".join(line.split())


def words_of(line: str) -> list[str]:
    """The words after `drey`, without what is for the shell."""
    words = shlex.split(line, comments=True)[1:]
    end = next((i for i, word in enumerate(words) if word in _SHELL), len(words))
    return words[:end]


def parse_words(words: list[str]) -> None:
    """Raise what Click would say of these words; nothing is run."""
    with drey.make_context("drey", list(words)) as context:
        rest = [*context._protected_args, *context.args]
        command: click.Command = load_command(rest[0])
        name, rest = rest[0], rest[1:]
        while isinstance(command, click.Group):
            with command.make_context(name, list(rest), parent=context) as inner:
                rest = [*inner._protected_args, *inner.args]
                _, found, rest = command.resolve_command(inner, rest)
                assert found is not None
                command, name = found, found.name or ""
        with command.make_context(name, list(rest), parent=context):
            pass


CASES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in dict.fromkeys(typed_lines(page))
]
PROSE = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in dict.fromkeys(inline_lines(page))
]


@pytest.mark.parametrize("line", CASES)
def test_a_line_that_is_shown_can_be_typed(line: str) -> None:
    parse_words(words_of(line))


@pytest.mark.parametrize("line", PROSE)
def test_a_command_that_is_named_has_these_words_and_options(line: str) -> None:
    known: click.Command = drey
    words = shlex.split(line)[1:]
    while words and isinstance(known, click.Group) and re.fullmatch("[a-z]+", words[0]):
        name = words.pop(0)
        found = load_command(name) if known is drey else known.commands.get(name)
        assert found is not None, f"there is no `{name}` in `{line}`"
        known = found
    options = {name for each in (known, drey) for option in each.params for name in option.opts}
    options |= {name for option in known.params for name in option.secondary_opts}
    parts = (part for word in words for part in re.split(r"[/|]", word))
    named = {part.partition("=")[0] for part in parts if re.match(r"--?[a-z]", part)}
    assert named <= options | {"--help"}, line


def test_sources_name_commands_that_there_are() -> None:
    """Remedies and findings say which command helps."""
    known = {words[:2] for words, _ in every_command()}
    groups = "|".join({words[0] for words in known if len(words) > 1})
    named = re.compile(rf"\bdrey ({groups}) ([a-z]+)\b")
    pages = (ROOT / "web" / "src").rglob("*.ts*")
    sources = [*(ROOT / "libs").rglob("*.py"), *(ROOT / "services").rglob("*.py"), *pages]
    found = {
        (path.name, words)
        for path in sources
        for words in named.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    assert ("pv_import.tsx", ("pv", "rm")) in found
    assert {each for each in found if each[1] not in known} == set()


def test_pages_show_lines_of_most_commands() -> None:
    assert len(CASES) > 40
    assert len(PROSE) > 40
