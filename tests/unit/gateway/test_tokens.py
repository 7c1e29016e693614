"""Resume tokens and keys."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey_core.errors import InvalidArgument, Reason, Unauthenticated, Unavailable
from drey_gateway.domain import resume
from drey_gateway.domain.keys import SECRET_BYTES, Key, KeyRing, make_secret
from drey_gateway.domain.resume import Token, decode_token, encode_token, selection_hash
from drey_testing.corpus import other_spellings

U64 = st.integers(0, 2**64 - 1)


POINTS = st.tuples(U64, U64)


@given(
    st.binary(min_size=16, max_size=16),
    st.dictionaries(st.integers(0, 1023), st.tuples(POINTS, POINTS)),
)
def test_round_trip(selection, shards):
    positions, seen = ({n: pair[i] for n, pair in shards.items()} for i in (0, 1))
    token = Token(selection, positions, seen)
    assert decode_token(encode_token(token)) == token


@given(st.text(max_size=200))
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidArgument) as caught:
        decode_token(text)
    assert caught.value.reason is Reason.TOKEN_UNKNOWN


@given(st.integers(0, 60), st.integers(1, 255))
def test_an_altered_token_is_refused(at, by):
    raw = bytearray(encode_token(Token(bytes(16), {0: (1, 2)}, {0: (1, 3)})).encode())
    raw[at % len(raw)] ^= by
    text = raw.decode("latin-1")
    if text == encode_token(Token(bytes(16), {0: (1, 2)}, {0: (1, 3)})):
        return
    with pytest.raises(InvalidArgument):
        decode_token(text)


@given(st.dictionaries(st.integers(0, 1023), st.tuples(POINTS, POINTS), max_size=3))
def test_a_token_has_one_spelling(shards):
    positions, seen = ({n: pair[i] for n, pair in shards.items()} for i in (0, 1))
    token = encode_token(Token(bytes(range(16)), positions, seen))
    for other in other_spellings(token):
        with pytest.raises(InvalidArgument) as caught:
            decode_token(other)
        assert caught.value.reason is Reason.TOKEN_UNKNOWN


def test_a_token_has_its_shards_once_and_in_order():
    one, other = (
        resume._ENTRY.pack(shard, 1, sequence, 1, sequence) for shard, sequence in ((0, 5), (1, 6))
    )
    for entries in (one + one, other + one):
        body = resume._MAGIC + bytes(16) + entries
        raw = resume._check_body(body) + body
        with pytest.raises(InvalidArgument):
            decode_token(base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


def test_a_selection_is_what_is_watched():
    one, two = np.array([1]), np.array([2])
    assert selection_hash(one, two, two) != selection_hash(one, two, one)


def _key(expire: int = 0, revoke: int = 0) -> tuple[str, Key]:
    secret, prefix, digest = make_secret(bytes(range(SECRET_BYTES)))
    return secret, Key("i", "n", ("viewer",), prefix, digest, 1, expire, revoke, "x")


def test_keys():
    ring = KeyRing()
    secret, key = _key()
    with pytest.raises(Unavailable):
        ring.find(secret, 5)
    ring.load_keys([key])
    assert ring.find(secret, 5) is key
    for wrong in ("", "drey_", secret[:-1], secret + "x", secret.upper(), "é" * 50):
        with pytest.raises(Unauthenticated) as caught:
            ring.find(wrong, 5)
        assert caught.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("expire", "revoke", "reason"),
    [(4, 0, Reason.KEY_EXPIRED), (0, 3, Reason.KEY_REVOKED), (4, 3, Reason.KEY_REVOKED)],
)
def test_dead_keys(expire, revoke, reason):
    ring = KeyRing()
    secret, key = _key(expire, revoke)
    ring.load_keys([key])
    with pytest.raises(Unauthenticated) as caught:
        ring.find(secret, 5)
    assert caught.value.reason is reason
