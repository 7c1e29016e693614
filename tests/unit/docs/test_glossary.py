"""The classes of the domain speak in words of the glossary, or in words that need none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOMAIN = ("libs/core/drey_core/*.py", "services/*/*/domain/*.py", "services/*/*/*/domain/*.py")
PLAIN = {
    *("carried", "cell", "chooser", "climbing", "converted", "counters", "counts", "effective"),
    *("facts", "fields", "flat", "followable", "given", "kind", "level", "linear", "link", "lru"),
    *("order", "override", "patterns", "prepared", "problems", "queue", "record"),
    *("refusal", "report", "rules", "since", "steady", "subject", "summary", "unanswered"),
    *("search", "wanted"),
}
"""What these mean in a class name, they mean in English, or to any programmer."""


def words_of_the_glossary() -> set[str]:
    text = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8").lower()
    words = set(re.findall(r"[a-z]+", text.replace("dead-band", "deadband")))
    return words | {f"{word}s" for word in words} | {word.removesuffix("s") for word in words}


def classes_of_the_domain() -> dict[str, str]:
    """Names with the file; errors are listed in docs/reference/errors.md."""
    classes: dict[str, str] = {}
    for pattern in DOMAIN:
        for path in set(ROOT.glob(pattern)) - {ROOT / "libs/core/drey_core/errors.py"}:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    classes[node.name] = str(path.relative_to(ROOT))
    return classes


def test_the_domain_speaks_in_words_of_the_glossary() -> None:
    known_words = words_of_the_glossary() | PLAIN
    classes = classes_of_the_domain()
    assert len(classes) > 150
    unknown = {
        name: path
        for name, path in classes.items()
        if known_words.isdisjoint(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower()))
    }
    assert not unknown, f"in docs/reference/glossary.md, or PLAIN here: {unknown}"


def test_no_plain_word_is_listed_in_vain() -> None:
    names = " ".join(re.sub(r"([A-Z])", r" \1", name).lower() for name in classes_of_the_domain())
    assert set(names.split()) >= PLAIN
