import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drey_core.errors import Unauthenticated
from drey_runtime.auth import (
    TOKEN_METADATA,
    Principal,
    Role,
    TokenSigner,
    TokenVerifier,
    make_keys,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path, ["gateway", "monitor"])
    return tmp_path


def verify(keys: Path, token: str) -> Principal:
    verifier = TokenVerifier.from_file(keys / "trusted.json")
    return verifier.authenticate({TOKEN_METADATA: token}, "")


def test_the_gateways_word_is_believed(keys: Path) -> None:
    signer = TokenSigner.from_file("gateway", keys / "gateway.pem")
    principal = Principal("ann", Role.RESTORER, "key", "request")
    assert verify(keys, signer.sign(principal)) == principal


def test_a_service_is_worth_no_more_than_a_viewer(keys: Path) -> None:
    signer = TokenSigner.from_file("monitor", keys / "monitor.pem")
    assert verify(keys, signer.sign(Principal("x", Role.ADMIN))).role == Role.VIEWER


def test_a_service_cannot_sign_as_the_gateway(keys: Path) -> None:
    signer = TokenSigner.from_file("gateway", keys / "monitor.pem")
    with pytest.raises(Unauthenticated):
        verify(keys, signer.sign(Principal("x", Role.ADMIN)))


def test_strangers_and_nonsense_are_refused(keys: Path) -> None:
    stranger = TokenSigner("stranger", Ed25519PrivateKey.generate())
    for token in (stranger.sign(Principal("x", Role.ADMIN)), "nonsense", ""):
        with pytest.raises(Unauthenticated):
            verify(keys, token)


def test_a_token_ends(keys: Path) -> None:
    signer = TokenSigner.from_file("gateway", keys / "gateway.pem")
    old = int(time.time()) - 600
    claims = {"iss": "gateway", "aud": "drey", "sub": "x", "role": 4, "iat": old, "exp": old + 60}
    token = jwt.encode(claims, signer._key, "EdDSA", headers={"kid": "gateway"})
    with pytest.raises(Unauthenticated, match="expired"):
        verify(keys, token)


def test_keys_are_made_once_and_for_their_owner_only(keys: Path) -> None:
    before = (keys / "gateway.pem").read_bytes()
    make_keys(keys, ["gateway", "monitor", "restore"])
    assert (keys / "gateway.pem").read_bytes() == before
    assert (keys / "restore.pem").stat().st_mode & 0o077 == 0
