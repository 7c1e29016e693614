"""The documents say what the code says: included files, generated pages, links, commands."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from drey_cli.main import every_command

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READMES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")} - set(PAGES)
)
_INCLUDED = re.compile(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```\n", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
_DREY = re.compile(r"^(?:\$ )?drey ([a-z]+)(?: ([a-z]+))?", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drey_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_pages_have_not_drifted(generator: ModuleType) -> None:
    drifted = [
        name_of(path)
        for path, text in generator.pages().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert not drifted, f"run `make docs`: {drifted}"


def test_every_included_file_is_shown_as_it_is() -> None:
    included = [
        (page, ROOT / name, text)
        for page in PAGES
        for name, text in _INCLUDED.findall(page.read_text(encoding="utf-8"))
    ]
    assert {name_of(path) for _, path, _ in included} >= {
        "docs/how-to/go-client/main.go",
        "docs/how-to/go-client/buf.gen.yaml",
        "docs/how-to/programs/watch.py",
    }
    for page, path, text in included:
        assert text == path.read_text(encoding="utf-8"), (
            f"{name_of(page)} shows another {path.name}"
        )


@pytest.mark.parametrize("path", sorted((DOCS / "how-to/programs").glob("*.py")), ids=name_of)
def test_program_compiles(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_each_picture_is_shown_and_made_by_a_test() -> None:
    """`shoot` compares what the page says on each, of which `words.json` has a record."""
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if link.endswith(".png")
    }
    there = set(DOCS.rglob("*.png"))
    assert shown == there
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/e2e").glob("*.py"))
    made = set(re.findall(r'shoot\(page, "([^"]+)"', tests))
    recorded = json.loads((DOCS / "how-to/pictures/words.json").read_text(encoding="utf-8"))
    assert {path.stem for path in there} == set(recorded)
    assert set(recorded) <= made


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=name_of)
def test_commands_exist(page: Path) -> None:
    known = [words for words, _ in every_command()]
    for group, word in _DREY.findall(page.read_text(encoding="utf-8")):
        assert (group,) in known or (group, word) in {words[:2] for words in known}, (
            f"{name_of(page)}: there is no `drey {group} {word}`"
        )


def test_settings_named_exist(generator: ModuleType) -> None:
    """A variable in a document is one of a service, the command, a build, a benchmark or a test."""
    from drey_runtime.settings import CLIENT_VARIABLES, SERVICES, environment_variables

    known = set(CLIENT_VARIABLES) | {
        "DREY_PLAINTEXT",
        "DREY_CA_NATIVE",
        "DREY_BENCH_CHANNEL_ACCESS",
        "DREY_BENCH_ENDURANCE_S",
        "DREY_PAGE_PICTURES",
        "DREY_WEB",
        "DREY_TEST_EXPLORE",
    }
    for service in SERVICES:
        settings = getattr(
            importlib.import_module(f"drey_{service}.settings"), f"{service.capitalize()}Settings"
        )
        known |= set(environment_variables(settings).values())
    for page in [*PAGES, *READMES]:
        named = set(re.findall(r"\bDREY_[A-Z_]+[A-Z]\b(?![_*<])", page.read_text(encoding="utf-8")))
        assert named <= known, f"{name_of(page)}: {named - known}"
