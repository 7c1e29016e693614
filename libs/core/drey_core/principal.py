"""Who acts, and how much they may do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from drey_core.errors import PermissionDenied
from drey_core.permissions import holders_of, permissions_of


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts. `name` is what the audit records; `roles` are names in the table of roles."""

    name: str
    roles: tuple[str, ...]
    key_id: str = ""
    request_id: str = ""

    @property
    def permissions(self) -> Collection[str]:
        """All that they may do."""
        return permissions_of(self.roles)

    @property
    def roles_text(self) -> str:
        """The one way to write the roles: in the audit and in error metadata: `operator,editor`."""
        return ",".join(self.roles)

    def may(self, permission: str) -> bool:
        """Whether they hold a permission."""
        return permission in self.permissions

    def require(self, permission: str, doing: str) -> None:
        """Raise `PermissionDenied` where they do not hold it; `doing` begins the sentence."""
        if self.may(permission):
            return
        holders = holders_of(permission)
        who = f"the role {' or '.join(holders)}" if holders else "a permission that nobody has"
        raise PermissionDenied(
            f"{doing} needs {who}; {self.name} is {' and '.join(self.roles) or 'nobody'}",
            metadata={"permission": permission, "roles": self.roles_text},
        )
