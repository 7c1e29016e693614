"""Who is calling, inside the house. Nobody is trusted by address.

The gateway authenticates the caller and passes on a short-lived token that it signs; the services
verify it with the public keys they were given. Services that call each other sign for themselves,
and such a token never carries more than the role of a viewer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from drey_core.errors import Unauthenticated
from drey_core.principal import Principal, Role

__all__ = [
    "GATEWAY",
    "REQUEST_METADATA",
    "TOKEN_METADATA",
    "Authenticator",
    "Principal",
    "Role",
    "TokenSigner",
    "TokenVerifier",
    "current_principal",
    "make_keys",
]

TOKEN_METADATA = "x-drey-token"
REQUEST_METADATA = "x-request-id"
_AUDIENCE = "drey"
_LIFETIME_S = 60
GATEWAY = "gateway"


current_principal: ContextVar[Principal] = ContextVar("drey_principal")
"""The principal of the call being served; set by the interceptor."""


class Authenticator(Protocol):
    """Finds out who calls."""

    def authenticate(self, metadata: Mapping[str, str], method: str) -> Principal:
        """Who calls `/package.Service/Method`, from lower-case metadata.

        Raises `Unauthenticated`.
        """
        ...

    def renew(self, principal: Principal) -> Principal:
        """What a caller who was let in may do by now. Raises `Unauthenticated`: nothing."""
        ...


class TokenSigner:
    """Signs tokens as one service."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey) -> None:
        self._issuer, self._key = issuer, key

    @classmethod
    def from_file(cls, issuer: str, path: Path) -> TokenSigner:
        """The signer with the private key in `path` (PEM)."""
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path} is not an Ed25519 private key")
        return cls(issuer, key)

    def sign(self, principal: Principal) -> str:
        """A token for `principal`, good for a minute."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": _AUDIENCE,
            "sub": principal.name,
            "role": int(principal.role),
            "kid": principal.key_id,
            "rid": principal.request_id,
            "iat": now,
            "exp": now + _LIFETIME_S,
        }
        return jwt.encode(claims, self._key, "EdDSA", headers={"kid": self._issuer})

    def own_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a call that the service makes for itself, as a viewer."""
        return ((TOKEN_METADATA, self.sign(Principal(f"service:{self._issuer}", Role.VIEWER))),)


class TokenVerifier:
    """An `Authenticator` by tokens of trusted issuers."""

    def __init__(self, public_keys: Mapping[str, str]) -> None:
        self._keys = {issuer: _public_key(issuer, pem) for issuer, pem in public_keys.items()}

    @classmethod
    def from_file(cls, path: Path) -> TokenVerifier:
        """The verifier with the public keys in `path`: a JSON object of issuer and PEM."""
        return cls(json.loads(path.read_text()))

    def renew(self, principal: Principal) -> Principal:
        """As `Authenticator`: a token is looked at once; the gateway cuts what it let in."""
        return principal

    def authenticate(self, metadata: Mapping[str, str], method: str) -> Principal:
        """As `Authenticator`."""
        token = metadata.get(TOKEN_METADATA)
        if not token:
            raise Unauthenticated(
                "this service is called through the gateway: the call carries no token"
            )
        try:
            issuer = str(jwt.get_unverified_header(token).get("kid", ""))
            key = self._keys.get(issuer)
            if key is None:
                raise Unauthenticated(f"the token's issuer {issuer!r} is not trusted here")
            claims = jwt.decode(
                token,
                key,
                ["EdDSA"],
                audience=_AUDIENCE,
                issuer=issuer,
                leeway=5,
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from error
        role = Role(int(claims["role"]))
        if issuer != GATEWAY:
            role = min(role, Role.VIEWER)
        return Principal(
            str(claims["sub"]), role, str(claims.get("kid", "")), str(claims.get("rid", ""))
        )


def _public_key(issuer: str, pem: str) -> Ed25519PublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"the key of {issuer} is not an Ed25519 public key")
    return key


def make_keys(folder: Path, issuers: Iterable[str]) -> None:
    """Write a private key `<issuer>.pem` for each, and `trusted.json`; keep what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    public: dict[str, str] = {}
    for issuer in issuers:
        path = folder / f"{issuer}.pem"
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            path.touch(mode=0o600)
            path.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
        public[issuer] = (
            loaded.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )
    (folder / "trusted.json").write_text(json.dumps(public, indent=1))
