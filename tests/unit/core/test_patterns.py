"""Patterns: what they match, and what they cost, whatever a caller writes."""

import ast
import asyncio
import fnmatch
import re._constants as sre
import re._parser as sre_parse
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, Reason
from drey_core.patterns import MAX_CHARACTERS, Patterns
from drey_core.search import SearchIndex
from drey_core.selector import Selector
from drey_runtime.waiting import choose_off_loop

ROOT = Path(__file__).parents[3]
ALPHABET = "ab[]!-*?~^\\\n"


@given(
    st.lists(st.text(ALPHABET, min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.text(ALPHABET, max_size=8), max_size=12),
)
@settings(max_examples=500, deadline=None)
def test_a_set_of_patterns_matches_as_file_names_do(patterns, texts):
    expected = [any(fnmatch.fnmatchcase(text, p) for p in patterns) for text in texts]
    assert Patterns(patterns).any_match(texts) == expected
    assert Patterns(patterns).any_match(reversed(texts)) == expected[::-1]


@given(st.text("ab*? ", max_size=10), st.lists(st.text("ab ", max_size=6), max_size=6))
@settings(max_examples=300, deadline=None)
def test_search_finds_each_word_within_one_field(text, names):
    devices = [name[::-1] + "b" for name in names]
    expected = [
        all(any(fnmatch.fnmatchcase(field, f"*{word}*") for field in row) for word in text.split())
        for row in zip(names, devices, strict=True)
    ]
    assert SearchIndex(names, devices).matching_mask(text).tolist() == expected


def test_forgetting_what_was_remembered_changes_nothing(monkeypatch):
    monkeypatch.setattr("drey_core.patterns._REMEMBERED_BYTES", 2000)
    patterns = ["*a" + "?" * n + "b*" for n in range(12)]
    texts = [f"{n:b}".replace("0", "a").replace("1", "b") for n in range(400)]
    made = Patterns(patterns)
    expected = [any(fnmatch.fnmatchcase(text, p) for p in patterns) for text in texts]
    assert made.any_match(texts) == expected
    assert len(made._states) < 10


@pytest.mark.parametrize(
    "patterns",
    [
        ["*" + "?*" * 200 + "~"],
        ["*" + "a*" * 200 + "~"],
        ["*a*?" * 100 + "~"] * 10,
        ["*[!~]" * 100 + "~"],
        [f"*{'a' * n}?*b" for n in range(200)],
    ],
)
def test_a_character_of_a_text_is_looked_at_once(patterns):
    texts = ["a" * 300 + str(n) for n in range(50)]
    made = Patterns(patterns)
    assert not any(made.any_match(texts))
    # equal beginnings are looked at once for all texts
    assert made.steps <= 300 + sum(len(str(n)) for n in range(50))


def test_patterns_that_trip_a_matcher_that_tries_again():
    index = SearchIndex(["a" * 60] * 50, ["b" * 2000] * 50)
    assert not index.matching_mask("*?" * 200 + "~").any()
    assert not index.matching_mask("~" + "?*" * 200).any()
    assert index.matching_mask("*?" * 200 + "b").all()


def test_globs_of_one_selector_are_bounded_together():
    Selector(globs=("*" * (MAX_CHARACTERS // 2),) * 2).validate_selector()
    with pytest.raises(InvalidArgument) as refused:
        Selector(all=True, excluding=Selector(globs=("?" * 400,) * 100)).validate_selector()
    assert refused.value.reason is Reason.TOO_MANY
    assert refused.value.field == "selector.excluding.globs"


async def test_choices_that_take_long_are_made_beside_the_loop_one_at_a_time():
    here, running, seen = threading.get_ident(), [0], []

    def choose() -> int:
        running[0] += 1
        seen.append(running[0])
        running[0] -= 1
        return threading.get_ident()

    many = [choose_off_loop(choose, takes_long=True) for _ in range(20)]
    assert here not in await asyncio.gather(*many)
    assert seen == [1] * 20
    assert await choose_off_loop(choose, takes_long=False) == here


async def test_a_choice_that_nobody_waits_for_any_more_still_has_its_turn():
    begun, go_on = threading.Event(), threading.Event()

    def choose() -> None:
        begun.set()
        go_on.wait()

    left = asyncio.ensure_future(choose_off_loop(choose, takes_long=True))
    while not begun.is_set():
        await asyncio.sleep(0)
    left.cancel()
    next_one = asyncio.ensure_future(choose_off_loop(lambda: 7, takes_long=True))
    await asyncio.wait({left})
    assert not next_one.done()
    go_on.set()
    assert await next_one == 7


def test_what_takes_long_is_known():
    assert Selector(globs=("*",)).takes_long
    assert Selector(all=True, excluding=Selector(globs=("*",))).takes_long
    assert not Selector(names=("A",), devices=("B",)).takes_long


# --- regular expressions of ours ----------------------------------------------------------------

_PARTS = ("services", "libs/core", "libs/runtime", "libs/cli", "libs/ca/src")
_CALLS = {"compile", "match", "search", "fullmatch", "split", "sub", "findall", "finditer"}


def expressions() -> Iterator[tuple[str, str]]:
    """(place, expression) of every regular expression that is written in the code that runs."""
    for part in _PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                of = node.func.value
                if not (isinstance(of, ast.Name) and of.id == "re" and node.func.attr in _CALLS):
                    continue
                yield f"{path.relative_to(ROOT)}:{node.lineno}", _literal(node.args[0])


def _literal(node: ast.expr) -> str:
    """The text of an expression; what is filled in at run time counts as a number."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            return node.value.decode("latin-1")
        assert isinstance(node.value, str), ast.dump(node)
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [n.value if isinstance(n, ast.Constant) else "9" for n in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _literal(node.left).replace("%d", "9")
    return ""


def tries_again(expression: str) -> bool:
    """Whether a repeat without end stands within a repeat, or two follow where one could be."""

    def endless(items, inside: bool) -> int:
        count = 0
        for code, argument in items:
            if code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
                _, most, inner = argument
                unbounded = most is sre.MAXREPEAT
                if unbounded and inside:
                    return 99
                count += unbounded + endless(inner, inside or unbounded)
            elif code is sre.SUBPATTERN:
                count += endless(argument[-1], inside)
            elif code is sre.BRANCH:
                count += max(endless(branch, inside) for branch in argument[1])
        return count

    return endless(sre_parse.parse(expression), False) > 3


def test_the_rule_knows_bad_ones():
    assert tries_again("(a+)+b")
    assert tries_again(r"(?:[^x]*[^x])*y")
    assert tries_again(r"a*b*a*b*a*~")
    assert not tries_again(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}")


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_no_expression_of_ours_tries_again_and_again(place, expression):
    # of computed ones only `drey_core.patterns` has any: sets of characters, one at a time
    assert expression or "drey_core/patterns.py" in place or "cli/commands/up.py" in place, place
    assert not tries_again(expression), place


def test_nobody_matches_file_name_patterns_by_hand():
    users = [
        str(path.relative_to(ROOT))
        for part in _PARTS
        for path in (ROOT / part).rglob("*.py")
        if "import fnmatch" in path.read_text() or "LIKE $" in path.read_text()
    ]
    assert users == ["libs/core/drey_core/patterns.py"]
