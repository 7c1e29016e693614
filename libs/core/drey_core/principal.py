"""Who acts, and how much they may do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from drey_core.errors import PermissionDenied
from drey_core.permissions import holders_of, limited_permissions_of, permissions_of


@dataclass(frozen=True, slots=True)
class LimitedRole:
    """A role that holds for some PVs only: those of a `drey.common.v1.Selector`, encoded."""

    role: str
    selector: bytes


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts. `name` is what the audit records; `roles` are names in the table of roles.

    `roles` hold for all PVs; those in `limited` only for some, a role perhaps several times.
    """

    name: str
    roles: tuple[str, ...]
    key_id: str = ""
    request_id: str = ""
    limited: tuple[LimitedRole, ...] = ()
    address: str = ""
    """Of the host from which they called the gateway; empty: not known."""

    @property
    def holder(self) -> str:
        """Whose share of a limited number of places it is that they take."""
        return self.key_id or self.name

    @property
    def permissions(self) -> Collection[str]:
        """All that they may do, with some PVs at least."""
        everywhere = permissions_of(self.roles)
        if not self.limited:  # asked for each message of each stream
            return everywhere
        return everywhere | limited_permissions_of(tuple(grant.role for grant in self.limited))

    @property
    def role_names(self) -> tuple[str, ...]:
        """Every role that they hold, those for some PVs only last."""
        return tuple(dict.fromkeys([*self.roles, *(grant.role for grant in self.limited)]))

    @property
    def roles_text(self) -> str:
        """The one way to write the roles: in the audit and in error metadata: `operator,editor`."""
        return ",".join(self.role_names)

    def has_permission(self, permission: str) -> bool:
        """Whether they hold a permission."""
        return permission in self.permissions

    def selectors_for(self, permission: str) -> tuple[bytes, ...] | None:
        """The selectors, encoded, of the PVs with which they may do it; None: with any.

        Empty where they may not do it at all.
        """
        if permission in permissions_of(self.roles):
            return None
        return tuple(
            grant.selector
            for grant in self.limited
            if permission in limited_permissions_of((grant.role,))
        )

    def require_permission(self, permission: str, doing: str) -> None:
        """Raise `PermissionDenied` where they do not hold it; `doing` begins the sentence."""
        if self.has_permission(permission):
            return
        holders = holders_of(permission)
        who = f"the role {' or '.join(holders)}" if holders else "a permission that nobody has"
        raise PermissionDenied(
            f"{doing} needs {who}; {self.name} is {self._token_text()}",
            metadata={"permission": permission, "roles": self.roles_text},
        )

    def refuse_pvs(self, doing: str, outside: Sequence[str]) -> PermissionDenied:
        """The refusal of an act with PVs that no grant covers; `doing` begins the sentence."""
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        return PermissionDenied(
            f"{doing} is granted to {self.name} for some PVs only, and {outside[0]}{more} is not"
            " among them; leave it out, or ask an admin for a key whose grant covers it",
            metadata={"roles": self.roles_text, "pv": outside[0], "pvs": str(len(outside))},
        )

    def _token_text(self) -> str:
        if not self.limited:
            return " and ".join(self.roles) or "nobody"
        some = " and ".join(dict.fromkeys(grant.role for grant in self.limited))
        whole = f"{' and '.join(self.roles)}, and " if self.roles else ""
        return f"{whole}{some} for some PVs only"
