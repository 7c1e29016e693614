"""API keys: their form, and whom one lets in. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from drey_core.errors import Reason, Unauthenticated, Unavailable
from drey_core.principal import LimitedRole

_FORM = re.compile(r"drey_([A-Za-z0-9]{8})_([A-Za-z0-9_-]{20,100})")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SECRET_BYTES = 40


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times in nanoseconds since 1970 UTC, 0: not."""

    id: str
    name: str
    roles: tuple[str, ...]
    prefix: str
    secret_sha256: bytes
    create_time_ns: int
    expire_time_ns: int
    revoke_time_ns: int
    created_by: str
    limited: tuple[LimitedRole, ...] = ()

    def is_alive(self, now_ns: int) -> bool:
        """Whether it lets anybody in."""
        expired = self.expire_time_ns and self.expire_time_ns <= now_ns
        return not self.revoke_time_ns and not expired

    def require_alive(self, now_ns: int) -> None:
        """Raise `Unauthenticated` (KEY_REVOKED, KEY_EXPIRED) when it is dead."""
        over = self.expire_time_ns and self.expire_time_ns <= now_ns
        if self.revoke_time_ns and not (over and self.expire_time_ns < self.revoke_time_ns):
            raise Unauthenticated(
                f"the key {self.prefix}… of {self.name} was revoked; ask an administrator for one",
                reason=Reason.KEY_REVOKED,
            )
        if over:
            raise Unauthenticated(
                f"the key {self.prefix}… of {self.name} has expired; ask an administrator for one",
                reason=Reason.KEY_EXPIRED,
            )


def make_secret(random_bytes: bytes) -> tuple[str, str, bytes]:
    """(the key as its holder has it, its prefix, its hash) from `SECRET_BYTES` random bytes."""
    if len(random_bytes) != SECRET_BYTES:
        raise ValueError(f"{SECRET_BYTES} random bytes are needed")
    text = "".join(_ALPHABET[b % len(_ALPHABET)] for b in random_bytes)
    prefix = text[:8]
    whole = f"drey_{prefix}_{text[8:]}"
    return whole, prefix, hash_secret(whole)


def hash_secret(secret: str) -> bytes:
    """What is stored of a key: it is random enough for a plain hash."""
    return hashlib.sha256(secret.encode()).digest()


class KeyRing:
    """All keys in memory."""

    def __init__(self) -> None:
        self.loaded = False
        self._by_prefix: dict[str, list[Key]] = {}
        self._by_id: dict[str, Key] = {}

    def load_keys(self, keys: Iterable[Key]) -> None:
        """Replace all keys."""
        by_prefix: dict[str, list[Key]] = {}
        by_id: dict[str, Key] = {}
        for key in keys:
            by_prefix.setdefault(key.prefix, []).append(key)
            by_id[key.id] = key
        self._by_prefix, self._by_id, self.loaded = by_prefix, by_id, True

    def find(self, secret: str, now_ns: int) -> Key:
        """The key, alive. Raises `Unauthenticated`, or `Unavailable` before the first load."""
        if not self.loaded:
            raise Unavailable(
                "the gateway has not been able to read the keys yet; try again in a moment",
                reason=Reason.DATABASE_UNAVAILABLE,
            )
        match = _FORM.fullmatch(secret)
        candidates = self._by_prefix.get(match[1], []) if match else []
        digest = hash_secret(secret)
        for key in candidates:
            if hmac.compare_digest(key.secret_sha256, digest):
                key.require_alive(now_ns)
                return key
        raise Unauthenticated("the key is not known here")

    def next_expiry(self, now_ns: int) -> int:
        """When the next of the keys that live expires, in nanoseconds; 0: none does."""
        ends = (k.expire_time_ns for k in self._by_id.values() if k.is_alive(now_ns))
        return min((end for end in ends if end), default=0)

    def require_alive(self, key_id: str, now_ns: int) -> Key:
        """The key. Raises when it has died since it let its holder in."""
        key = self._by_id.get(key_id)
        if key is None:
            raise Unauthenticated("the key is not known any more", reason=Reason.KEY_REVOKED)
        key.require_alive(now_ns)
        return key

    def find_key(self, key_id: str) -> Key | None:
        return self._by_id.get(key_id)
