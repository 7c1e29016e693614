import json
import logging
import socket
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drey_core.errors import Unauthenticated
from drey_runtime.auth import (
    AHEAD_S,
    LIFETIME_S,
    SKEW_S,
    TOKEN_METADATA,
    Principal,
    TokenSigner,
    TokenVerifier,
    make_keys,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path, ["gateway", "monitor"])
    return tmp_path


METHOD = "/drey.restore.v1.RestoreService/ExecutePlan"
ANN = Principal("ann", ("operator", "restorer"), "key", "request", address="192.0.2.1")


def verify(keys: Path, token: str, *, method: str = METHOD, ahead: float = 0.0) -> Principal:
    """By the restore service, whose clock is `ahead` seconds ahead of ours."""
    public = json.loads((keys / "trusted.json").read_text())
    verifier = TokenVerifier(public, "restore", lambda: time.time() + ahead)
    return verifier.authenticate_call({TOKEN_METADATA: token}, method)


def sign(keys: Path, issuer: str = "gateway", key: str = "", **more: str) -> str:
    signer = TokenSigner.from_file(issuer, keys / f"{key or issuer}.pem")
    return signer.sign_token(ANN, **{"audience": "restore", "method": METHOD} | more)


def test_the_gateways_word_is_believed(keys: Path) -> None:
    assert verify(keys, sign(keys)) == ANN


def test_a_service_is_worth_no_more_than_a_viewer(keys: Path) -> None:
    assert verify(keys, sign(keys, "monitor")).roles == ()
    own = dict(
        TokenSigner.from_file("monitor", keys / "monitor.pem").own_metadata("restore", METHOD)
    )
    assert verify(keys, own[TOKEN_METADATA]).roles == ("viewer",)


def test_a_service_cannot_sign_as_the_gateway(keys: Path) -> None:
    with pytest.raises(Unauthenticated):
        verify(keys, sign(keys, "gateway", "monitor"))


def test_strangers_and_nonsense_are_refused(keys: Path) -> None:
    stranger = TokenSigner("stranger", Ed25519PrivateKey.generate())
    for token in (stranger.sign_token(ANN, "restore", METHOD), "nonsense", ""):
        with pytest.raises(Unauthenticated):
            verify(keys, token)


def test_a_token_is_for_one_method_of_one_part(keys: Path) -> None:
    with pytest.raises(Unauthenticated, match=r"[Aa]udience"):
        verify(keys, sign(keys, audience="snapshot"))
    with pytest.raises(Unauthenticated, match=r"the token is for .*ListPlans, not for .*Execute"):
        verify(keys, sign(keys, method="/drey.restore.v1.RestoreService/ListPlans"))


@pytest.mark.parametrize("claim", ["aud", "mth", "iat", "exp", "hst", "sub", "roles", "iss"])
def test_a_token_that_lacks_something_is_refused(keys: Path, claim: str) -> None:
    whole = jwt.decode(sign(keys), options={"verify_signature": False})
    del whole[claim]
    signer = TokenSigner.from_file("gateway", keys / "gateway.pem")
    token = jwt.encode(whole, signer._key, "EdDSA", headers={"kid": "gateway"})
    with pytest.raises(Unauthenticated):
        verify(keys, token)


@pytest.mark.parametrize("ahead", [0.0, 4.0, LIFETIME_S + 4.0, -4.0, -8.0, -AHEAD_S + 1.0])
def test_a_skew_within_the_tolerance_is_borne(keys: Path, ahead: float) -> None:
    assert verify(keys, sign(keys), ahead=ahead) == ANN


@pytest.mark.parametrize(
    ("ahead", "said"), [(-AHEAD_S - 3.0, "ahead of"), (LIFETIME_S + 8.0, "behind")]
)
def test_a_skew_beyond_it_is_told_with_both_hosts(
    keys: Path, caplog: pytest.LogCaptureFixture, ahead: float, said: str
) -> None:
    token = sign(keys)
    with caplog.at_level(logging.WARNING), pytest.raises(Unauthenticated) as caught:
        verify(keys, token, ahead=ahead)
    text = caught.value.message
    host = socket.gethostname()
    assert "clock skew" in text and said in text
    assert f"{LIFETIME_S + SKEW_S} s behind and {AHEAD_S} s ahead are tolerated" in text
    assert f"gateway on {host}" in text and f"restore on {host}" in text
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", text)]


def test_keys_are_made_once_and_for_their_owner_only(keys: Path) -> None:
    before = (keys / "gateway.pem").read_bytes()
    make_keys(keys, ["gateway", "monitor", "restore"])
    assert (keys / "gateway.pem").read_bytes() == before
    assert (keys / "restore.pem").stat().st_mode & 0o077 == 0
