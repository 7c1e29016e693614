"""Ids, page tokens, names and times."""

import base64
import hashlib
import uuid
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, Reason
from drey_core.ids import new_uuid7, parse_uuid
from drey_core.names import name_problem, text_problem
from drey_core.times import (
    NS_PER_SECOND,
    SUSPECT_BEFORE_NS,
    format_time,
    is_suspect,
)
from drey_core.token import decode_page_token, encode_page_token, query_hash
from drey_testing.corpus import HOSTILE_CHARACTERS, other_spellings

NOW = 1_785_000_000_123_456_789
TIMES = st.integers(0, 2**62)


@given(TIMES, st.binary(min_size=8, max_size=16))
def test_an_id_is_a_uuid_of_version_7_with_its_time(now, random):
    text = new_uuid7(now, random)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == now // 1_000_000
    assert parse_uuid(text.upper(), "id") == text


@given(st.tuples(TIMES, TIMES), st.binary(min_size=8, max_size=8))
def test_ids_sort_by_time(times, random):
    early, late = sorted(times)
    if late - early >= 245:
        assert new_uuid7(early, random) < new_uuid7(late, random)


def test_ids_need_randomness_and_a_time():
    for now, random in ((NOW, b"short"), (-1, bytes(8)), (2**90, bytes(8))):
        with pytest.raises(ValueError):
            new_uuid7(now, random)


@pytest.mark.parametrize(
    "text",
    ["", "x", "{01900000-0000-7000-8000-000000000000}", "01900000000070008000000000000000",
     "01900000-0000-7000-8000-00000000000g", "0190000000000-700-8000-000000000000", "µ" * 36],
)  # fmt: skip
def test_what_is_no_id(text):
    with pytest.raises(InvalidArgument) as caught:
        parse_uuid(text, "snapshot.id")
    assert caught.value.reason is Reason.MALFORMED_ID
    assert caught.value.field == "snapshot.id"


PARTS = {
    str: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    UUID: st.uuids().map(str),
}


@given(st.text(), st.lists(st.sampled_from(list(PARTS)), max_size=4), st.data())
def test_page_tokens_round_trip(kind, parts, data):
    query, position = query_hash(kind, 5), [data.draw(PARTS[part]) for part in parts]
    token = encode_page_token(kind, query, position)
    assert decode_page_token(kind, query, token, parts) == position
    assert decode_page_token(kind, query, "", parts) is None
    with pytest.raises(InvalidArgument) as caught:
        decode_page_token(kind, query, token, [*parts, str])
    assert caught.value.reason is Reason.MALFORMED_PAGE_TOKEN


@given(st.text(max_size=5), st.integers(0, 9))
def test_a_page_token_has_one_spelling(name, number):
    query, parts = query_hash(), (str, int)
    for other in other_spellings(encode_page_token("pvs", query, [name, number])):
        with pytest.raises(InvalidArgument) as caught:
            decode_page_token("pvs", query, other, parts)
        assert caught.value.reason is Reason.MALFORMED_PAGE_TOKEN


@pytest.mark.parametrize(
    "body",
    ['[1,"pvs","{}",[ 1]]', '[1,"p\\u0076s","{}",[1]]', '[1.0,"pvs","{}",[1]]', "[" * 200_000],
)
def test_a_page_token_is_refused_where_its_body_is_spelled_in_another_way(body):
    raw = body.format(query_hash().hex()).encode()
    raw = hashlib.blake2b(raw, digest_size=8, person=b"drey-page").digest() + raw
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    with pytest.raises(InvalidArgument):
        decode_page_token("pvs", query_hash(), text, [int])


@pytest.mark.parametrize(
    ("part", "position"),
    [(str, "a\0"), (str, "\ud800"), (str, 1), (str, None), (str, ["a"]), (int, 2**63), (int, True),
     (int, 1.0), (int, "1"), (float, 1), (UUID, "x"), (UUID, "0190000000007000800000000000000a"),
     (UUID, 5), (UUID, {})],
)  # fmt: skip
def test_a_forged_position_is_no_page_token(part, position):
    token = encode_page_token("pvs", query_hash(), [position])
    with pytest.raises(InvalidArgument) as caught:
        decode_page_token("pvs", query_hash(), token, [part])
    assert caught.value.reason is Reason.MALFORMED_PAGE_TOKEN


@given(st.text(max_size=80))
def test_what_is_no_page_token(text):
    if text:
        with pytest.raises(InvalidArgument) as caught:
            decode_page_token("pvs", query_hash(), text, (str, int))
        assert caught.value.reason is Reason.MALFORMED_PAGE_TOKEN
        assert caught.value.field == "page_token"


def test_a_page_token_serves_one_list_and_one_query():
    token = encode_page_token("pvs", query_hash("a"), ["X", 3])
    altered = token[:12] + ("A" if token[12] != "A" else "B") + token[13:]
    for kind, query, text in (
        ("tags", query_hash("a"), token),
        ("pvs", query_hash("b"), token),
        ("pvs", query_hash("a"), altered),
        ("pvs", query_hash("a"), token[:-4]),
    ):
        with pytest.raises(InvalidArgument):
            decode_page_token(kind, query, text, (str, int))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("SR01:QF1.VAL", None),
        ('SR:X.{"dbnd":{"abs":1}}', None),
        ("x" * 500, None),
        ("Größe", None),
        ("", "empty"),
        ("x" * 501, "501 bytes"),
        ("µ" * 251, "502 bytes"),
        ("a b", "blank at position 2"),
        (" a", "blank"),
        ("a\n", "blank"),
        ("a\xa0b", "blank"),
        ("a\0", "U+0000"),
        ("a\x7f", "U+007F"),
        ("a\x85", "blank"),
        ("\ud800", "Unicode"),
        ("a\u202eb", "U+202E at position 2"),
        ("a\u200b", "U+200B"),
    ],
)
def test_names(name, problem):
    found = name_problem(name)
    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize("text", ["", "Größe", "束流", "کتاب‌ها", "π ≈ 3", "👍🏽", "a\xa0b"])
def test_texts_of_any_language(text):
    assert text_problem(text) is None


@pytest.mark.parametrize("char", HOSTILE_CHARACTERS)
def test_characters_that_act_on_a_display(char):
    assert f"U+{ord(char):04X} at position 2" in (text_problem(f"a{char}b") or "")
    assert f"U+{ord(char):04X} at position 2" in (text_problem(f"a{char}b", multiline=True) or "")
    assert name_problem(f"a{char}b") is not None


def test_lines_only_where_they_are_allowed():
    assert text_problem("a\r\n\tb", multiline=True) is None
    for char in "\r\n\t":
        assert text_problem(f"a{char}b") is not None


def test_suspect_source_times():
    receive = NOW
    source = {
        0: False,
        NOW: False,
        NOW + 60 * NS_PER_SECOND: False,
        NOW + 60 * NS_PER_SECOND + 1: True,
        SUSPECT_BEFORE_NS - 1: True,
        SUSPECT_BEFORE_NS: False,
        -1: True,
        2**63 - 1: True,
        -(2**63): True,
    }
    array = np.array(list(source), np.int64)
    found = is_suspect(array, np.full(len(array), receive))
    assert found.tolist() == list(source.values())
    assert is_suspect(np.array([2**63 - 1]), np.array([0])).tolist() == [False]


def test_formatting_times():
    assert format_time(0) == ""
    assert format_time(NOW) == "2026-07-25T17:20:00.123456789Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_time(2**63 - 1).startswith("2262-")
