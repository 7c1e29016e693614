"""Who acts, and how much they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """As `drey.common.v1.Role`; a role includes those before it."""

    UNSPECIFIED = 0
    VIEWER = 1
    OPERATOR = 2
    RESTORER = 3
    ADMIN = 4

    @property
    def label(self) -> str:
        """The one way to write it for people, in the audit and in error metadata: `admin`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts. `name` is what the audit records."""

    name: str
    role: Role
    key_id: str = ""
    request_id: str = ""
