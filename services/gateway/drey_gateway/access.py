"""Keys: made, listed, revoked, and known at every gateway within a second."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from drey.events.v1.changes_pb2 import AccessChanged
from drey_core.errors import Unauthenticated, Unavailable
from drey_gateway import mapping
from drey_gateway.adapters import keys as table
from drey_gateway.domain.callers import Network, caller_address
from drey_gateway.domain.keys import Key, KeyRing
from drey_runtime import audit
from drey_runtime.auth import REQUEST_METADATA, Principal
from drey_runtime.bus import Bus
from drey_runtime.clock import new_id, now_ns
from drey_runtime.database import Connection, Database
from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_runtime.idempotency import run_once
from drey_runtime.nats_client import Msg

log = logging.getLogger(__name__)

_CREATE = "/drey.access.v1.AccessService/CreateKey"
_MAX_REQUEST_ID = 100
_FORWARDED, _PROXY = "x-forwarded-for", "x-drey-proxy"
_EXPIRED_S = 0.01


class KeyAuthenticator:
    """An `Authenticator` by API keys: `authorization: Bearer KEY`, or `x-api-key: KEY`.

    `trusted`: networks of the proxies that are believed whom they speak for; one that sends the
    `proxy_secret` is, wherever it is.
    """

    def __init__(
        self, ring: KeyRing, trusted: Sequence[Network] = (), proxy_secret: str = ""
    ) -> None:
        self._ring, self._trusted, self._proxy_secret = ring, trusted, proxy_secret

    def renew_principal(self, principal: Principal) -> Principal:
        """As `Authenticator`."""
        key = self._ring.require_alive(principal.key_id, now_ns())
        if (key.roles, key.limited) == (principal.roles, principal.limited):
            return principal  # nearly always, and asked for each message of each stream
        return replace(principal, roles=key.roles, limited=key.limited)

    def authenticate_call(self, metadata: Mapping[str, str], method: str, peer: str) -> Principal:
        """As `Authenticator`."""
        secret = _secret_of(metadata)
        key = self._ring.find(secret, now_ns())
        request_id = metadata.get(REQUEST_METADATA, "")
        if not 0 < len(request_id) <= _MAX_REQUEST_ID:
            request_id = new_id()
        address = self.address_of(metadata, peer)
        return Principal(key.name, key.roles, key.id, request_id, key.limited, address)

    def address_of(self, metadata: Mapping[str, str], peer: str) -> str:
        """The host that calls; empty where it is not known."""
        shown = metadata.get(_PROXY, "")
        known_proxy = bool(shown) and secrets.compare_digest(
            shown.encode(), self._proxy_secret.encode()
        )
        return caller_address(peer, metadata.get(_FORWARDED, ""), self._trusted, known_proxy)


def _secret_of(metadata: Mapping[str, str]) -> str:
    header = metadata.get("authorization", "")
    if header:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() == "bearer":
            return secret.strip()
        raise Unauthenticated("the authorization is not of the form `Bearer KEY`")
    if "x-api-key" in metadata:
        return metadata["x-api-key"].strip()
    raise Unauthenticated("the call carries no key: send `authorization: Bearer KEY`")


class KeyStore:
    """Keys in Postgres, with a ring of them in memory."""

    def __init__(self, db: Database, bus: Bus, ring: KeyRing) -> None:
        self._db, self._bus, self.ring = db, bus, ring

    async def load_keys(self) -> None:
        """Read all keys. Raises `Unavailable`."""
        self.ring.load_keys(await self._db.run_reading(table.all_keys))

    async def list_page(self, after: tuple[str, str], limit: int, include_dead: bool) -> list[Key]:
        """Keys by name."""

        async def read_keys(conn: Connection) -> list[Key]:
            return await table.page_of_keys(conn, after, limit, include_dead, now_ns())

        return await self._db.run_reading(read_keys)

    async def create_key(
        self, key: Key, principal: Principal, request_id: str, request: bytes
    ) -> tuple[Key, bool]:
        """(the key, whether it was made now): a repeat of `request_id` gives the first one."""
        first, made = True, key.id
        async with (
            self._db.begin_transaction() as conn,
            run_once(conn, _CREATE, principal.name, request_id, request) as slot,
        ):
            if slot.seen is None:
                await table.insert_key(conn, key)
                slot.response = key.id.encode()
                await self._record_change(conn, principal, EventKind.CREATED, key, request_id)
            else:
                first, made = False, slot.seen.decode()
        await self._announce_change(made)
        return (key if first else self.ring.find_key(made) or key), first

    async def revoke_key(self, key_id: str, principal: Principal) -> Key:
        """The key as it is now; running watches with it are cut."""
        async with self._db.begin_transaction() as conn:
            key, now = await table.revoke_key(conn, key_id, now_ns())
            if now:
                await self._record_change(conn, principal, EventKind.DELETED, key, "")
        await self._announce_change(key.id)
        return key

    async def _record_change(
        self, conn: Connection, principal: Principal, kind: EventKind, key: Key, request_id: str
    ) -> None:
        action = "access.key.create" if kind is EventKind.CREATED else "access.key.revoke"
        await audit.append_entry(
            conn,
            audit.AuditedAct(
                actor=principal.name,
                role=principal.roles_text,
                action=action,
                object=f"keys/{key.id}",
                after={
                    "name": key.name,
                    "roles": list(key.roles),
                    "prefix": key.prefix,
                    **({"roles_for_some_pvs": mapping.limits_text(key)} if key.limited else {}),
                },
                at_ns=now_ns(),
                request_id=request_id,
            ),
            events=[ResourceChange(Resource.KEY, kind, key.id, key.name)],
        )

    async def _announce_change(self, key_id: str) -> None:
        # the change is made by now, whatever becomes of the news of it
        try:
            await self.load_keys()
            await self._bus.publish(
                self._bus.full_subject("access"), AccessChanged(key_id=key_id).SerializeToString()
            )
        except Unavailable as error:
            log.info("change of a key not announced, the others poll: %s", error.message)


class KeyLoop:
    """Keeps the ring at the present: by event and by poll."""

    def __init__(
        self, store: KeyStore, bus: Bus, poll_s: float, changed: Callable[[], None]
    ) -> None:
        self._store, self._bus, self._poll_s, self._changed = store, bus, poll_s, changed
        self._event = asyncio.Event()

    async def subscribe_to_bus(self) -> None:
        """Begin to listen; may be called while NATS is away."""
        await self._bus.subscribe_handler(self._bus.full_subject("access"), self._on_message)

    async def _on_message(self, _message: Msg) -> None:
        self._event.set()

    async def run(self) -> None:
        """Until cancelled. While Postgres is away the keys last known stay in force."""
        away = False
        while True:
            self._event.clear()
            try:
                await self._store.load_keys()
                away = False
            except Unavailable as error:
                if not away:
                    log.warning("keys cannot be read: %s", error.message)
                away = True
            self._changed()
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._event.wait()
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        """Until the next look: a key that expires is noticed when it does."""
        ring, now = self._store.ring, now_ns()
        pause = self._poll_s if ring.loaded else 0.2
        expiry = ring.next_expiry(now)
        return min(pause, (expiry - now) / 1e9 + _EXPIRED_S) if expiry else pause
