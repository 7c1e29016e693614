"""Who is calling, inside the house. Nobody is trusted by address.

The gateway authenticates the caller and passes on a token that it signs, for one method of one
part, that lives seconds; the services verify it with the public keys they were given. Services that
call each other sign for themselves, and such a token never carries more than the role viewer.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from drey_core.errors import Unauthenticated
from drey_core.permissions import VIEWER
from drey_core.principal import LimitedRole, Principal

__all__ = [
    "AHEAD_S",
    "GATEWAY",
    "LIFETIME_S",
    "REQUEST_METADATA",
    "SKEW_S",
    "TOKEN_METADATA",
    "Authenticator",
    "Metadata",
    "Principal",
    "TokenSigner",
    "TokenVerifier",
    "current_principal",
    "make_keys",
]

log = logging.getLogger(__name__)

TOKEN_METADATA = "x-drey-token"
REQUEST_METADATA = "x-request-id"
GATEWAY = "gateway"
LIFETIME_S = 10
"""How long a token may begin a call: it is made when the first message of the call is there."""
SKEW_S = 5
"""How far behind ours the clock of who signed may be, beside what a token lives: longer, and what
somebody took from the wire would be of use to them for longer."""
AHEAD_S = 60
"""How far ahead of ours it may be: a token from the future helps nobody."""
_WARN_EVERY_S = 10.0
_CLAIMS = ["iss", "aud", "mth", "sub", "roles", "some", "iat", "exp", "hst"]

Metadata = tuple[tuple[str, str], ...]


current_principal: ContextVar[Principal] = ContextVar("drey_principal")
"""The principal of the call being served; set by the interceptor."""


class Authenticator(Protocol):
    """Finds out who calls."""

    def authenticate_call(self, metadata: Mapping[str, str], method: str, peer: str) -> Principal:
        """Who calls `/package.Service/Method`, from lower-case metadata.

        `peer`: the other end of the connection, as gRPC writes it. Raises `Unauthenticated`.
        """
        ...

    def renew_principal(self, principal: Principal) -> Principal:
        """What a caller who was let in may do by now. Raises `Unauthenticated`: nothing."""
        ...


class TokenSigner:
    """Signs tokens as one service."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey) -> None:
        self._issuer, self._key = issuer, key
        self._host = socket.gethostname()

    @classmethod
    def from_file(cls, issuer: str, path: Path) -> TokenSigner:
        """The signer with the private key in `path` (PEM)."""
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path} is not an Ed25519 private key")
        return cls(issuer, key)

    def sign_token(self, principal: Principal, audience: str, method: str) -> str:
        """A token by which `principal` may begin a call of one method of the part `audience`."""
        now = time.time()
        claims = {
            "iss": self._issuer,
            "aud": audience,
            "mth": method,
            "sub": principal.name,
            "roles": list(principal.roles),
            "some": [
                [grant.role, base64.b64encode(grant.selector).decode()]
                for grant in principal.limited
            ],
            "kid": principal.key_id,
            "rid": principal.request_id,
            "adr": principal.address,
            "iat": now,
            "exp": now + LIFETIME_S,
            "hst": self._host,
        }
        return jwt.encode(claims, self._key, "EdDSA", headers={"kid": self._issuer})

    def token_verifier(self, audience: str) -> TokenVerifier:
        """Verifies for the part `audience` what this signer, or another with its key, signs."""
        return TokenVerifier({self._issuer: _public_pem(self._key)}, audience)

    def own_metadata(self, audience: str, method: str) -> Metadata:
        """Metadata of a call that the service makes for itself, as a viewer."""
        principal = Principal(f"service:{self._issuer}", (VIEWER,))
        return ((TOKEN_METADATA, self.sign_token(principal, audience, method)),)


class TokenVerifier:
    """An `Authenticator` by tokens of trusted issuers, for the part `audience`."""

    def __init__(
        self,
        public_keys: Mapping[str, str],
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = {issuer: _public_key(issuer, pem) for issuer, pem in public_keys.items()}
        self._audience, self._clock = audience, clock
        self._host = socket.gethostname()
        self._warned: dict[str, float] = {}

    @classmethod
    def from_file(cls, path: Path, audience: str) -> TokenVerifier:
        """The verifier with the public keys in `path`: a JSON object of issuer and PEM."""
        return cls(json.loads(path.read_text()), audience)

    def renew_principal(self, principal: Principal) -> Principal:
        """As `Authenticator`: a token begins a call; the gateway cuts what it has let in."""
        return principal

    def authenticate_call(
        self, metadata: Mapping[str, str], method: str, peer: str = ""
    ) -> Principal:
        """As `Authenticator`; from where the call came is in the token."""
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
                audience=self._audience,
                issuer=issuer,
                # times are looked at below, against a clock of ours and with names
                options={"verify_exp": False, "verify_iat": False, "require": _CLAIMS},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from error
        self._require_present(issuer, claims)
        if claims["mth"] != method:
            raise Unauthenticated(f"the token is for {claims['mth']}, not for {method}")
        roles = tuple(map(str, claims["roles"]))
        limited = tuple(
            LimitedRole(str(role), base64.b64decode(selector)) for role, selector in claims["some"]
        )
        if issuer != GATEWAY:
            roles, limited = tuple(role for role in roles if role == VIEWER), ()
        return Principal(
            str(claims["sub"]),
            roles,
            str(claims.get("kid", "")),
            str(claims.get("rid", "")),
            limited,
            str(claims.get("adr", "")),
        )

    def _require_present(self, issuer: str, claims: Mapping[str, Any]) -> None:
        """Refuse a token of another time, and say whose clock may be wrong."""
        now = self._clock()
        ahead, over = float(claims["iat"]) - now, now - float(claims["exp"])
        if ahead <= AHEAD_S and over <= SKEW_S:
            return
        skew_text = f"{ahead:.1f} s ahead of" if ahead > 0 else f"{-ahead:.1f} s behind"
        text = (
            f"clock skew: a token of {issuer} on {claims['hst']} is {skew_text} the clock of"
            f" {self._audience} on {self._host}; {LIFETIME_S + SKEW_S} s behind and {AHEAD_S} s"
            " ahead are tolerated: set both hosts' clocks by NTP"
        )
        if now - self._warned.get(issuer, 0.0) > _WARN_EVERY_S:
            self._warned[issuer] = now
            log.warning("%s", text)
        raise Unauthenticated(text, metadata={"issuer": issuer, "skew_s": f"{ahead:.1f}"})


def _public_key(issuer: str, pem: str) -> Ed25519PublicKey:
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"the key of {issuer} is not an Ed25519 public key")
    return key


def _public_pem(key: Any) -> str:
    """The public key of a private one."""
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


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
        public[issuer] = _public_pem(loaded)
    (folder / "trusted.json").write_text(json.dumps(public, indent=1))
