"""AccessService."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

import grpc

from drey.access.v1 import access_service_pb2 as pb
from drey_core import errors
from drey_core.permissions import LIMITABLE, ROLES, known_roles
from drey_core.principal import LimitedRole
from drey_core.token import decode_page_token, query_hash
from drey_gateway import mapping
from drey_gateway.access import KeyStore
from drey_gateway.domain.keys import SECRET_BYTES, Key, make_secret
from drey_runtime.auth import current_principal
from drey_runtime.clock import new_id, now_ns
from drey_runtime.mapping.selector import selector_from_proto
from drey_runtime.paging import check_page_size, cut_page

Context = grpc.aio.ServicerContext[Any, Any]
_MAX_LIFETIME_NS = 100 * 366 * 24 * 3600 * 10**9
_MAX_SELECTOR_BYTES = 2_000
"""Of all grants of a key: they travel in the headers of each call within the house."""


class AccessServicer:
    """Who may do what."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        """See the contract."""
        principal, now = current_principal.get(), now_ns()
        expire = 0
        if request.HasField("lifetime"):
            lifetime = request.lifetime.ToNanoseconds()
            if not 0 < lifetime <= _MAX_LIFETIME_NS:
                raise errors.InvalidArgument(
                    "lifetime: is to be above 0 and at most 100 years", field="lifetime"
                )
            expire = now + lifetime
        roles, limited = _grants_of_request(request)
        secret, prefix, digest = make_secret(os.urandom(SECRET_BYTES))
        key = Key(
            id=new_id(),
            name=request.name,
            roles=roles,
            limited=limited,
            prefix=prefix,
            secret_sha256=digest,
            create_time_ns=now,
            expire_time_ns=expire,
            revoke_time_ns=0,
            created_by=principal.name,
        )
        made, first = await self._store.create_key(
            key, principal, request.request_id, request.SerializeToString(deterministic=True)
        )
        return pb.CreateKeyResponse(key=mapping.key(made), secret=secret if first else "")

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """See the contract."""
        query = query_hash(request.include_dead)
        position = decode_page_token("keys", query, request.page_token, (str, UUID))
        after = (str(position[0]), str(position[1])) if position else ("", "")
        size = check_page_size(request.page_size)
        keys = await self._store.list_page(after, size + 1, request.include_dead)
        page, token = cut_page("keys", query, keys, size, mapping.key, lambda k: [k.name, k.id])
        return pb.ListKeysResponse(keys=page, next_page_token=token)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        """See the contract."""
        key = await self._store.revoke_key(request.id, current_principal.get())
        return pb.RevokeKeyResponse(key=mapping.key(key))

    async def ListRoles(
        self, request: pb.ListRolesRequest, context: Context
    ) -> pb.ListRolesResponse:
        """See the contract."""
        return pb.ListRolesResponse(roles=[mapping.role(role) for role in ROLES.values()])

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """See the contract."""
        principal = current_principal.get()
        key = self._store.ring.find_key(principal.key_id)
        return pb.WhoAmIResponse(
            principal=principal.name,
            roles=principal.role_names,
            grants=mapping.grant_messages(principal.roles, principal.limited),
            permissions=sorted(principal.permissions),
            expire_time=mapping.time_or_none(key.expire_time_ns if key else 0),
        )


def _grants_of_request(
    request: pb.CreateKeyRequest,
) -> tuple[tuple[str, ...], tuple[LimitedRole, ...]]:
    """(roles for all PVs, roles for some)."""
    names = known_roles((grant.role for grant in request.grants), "grants")
    limited: dict[LimitedRole, None] = {}
    whole = set()
    for index, grant in enumerate(request.grants):
        if not grant.HasField("selector"):
            whole.add(grant.role)
            continue
        path = f"grants[{index}].selector"
        if grant.role not in LIMITABLE:
            raise errors.InvalidArgument(
                f"{path}: the role {grant.role} cannot be limited to some PVs (looking is for all,"
                f" and the rest of it names none); those that can are {', '.join(LIMITABLE)}",
                field=path,
                metadata={"field": path},
            )
        selector_from_proto(grant.selector, path).validate_selector(path)
        encoded = grant.selector.SerializeToString(deterministic=True)
        limited[LimitedRole(grant.role, encoded)] = None
    size = sum(len(grant.selector) for grant in limited)
    if size > _MAX_SELECTOR_BYTES:
        raise errors.InvalidArgument(
            f"grants: their selectors take {size} bytes, and {_MAX_SELECTOR_BYTES} are the most;"
            " tag the PVs, and choose them by tag, device or glob",
            reason=errors.Reason.TOO_MANY,
            field="grants",
            metadata={"field": "grants", "limit": str(_MAX_SELECTOR_BYTES)},
        )
    kept = tuple(grant for grant in limited if grant.role not in whole)
    return tuple(name for name in names if name in whole), kept
