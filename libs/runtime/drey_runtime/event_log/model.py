"""An event, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Resource(StrEnum):
    """What an event is about; the values are those of the table."""

    PV = "pv"
    TAG_GROUP = "tag_group"
    TAG = "tag"
    SCOPE = "scope"
    SNAPSHOT = "snapshot"
    GOLDEN = "golden"
    PLAN = "plan"
    RESTORE = "restore"
    JOB = "job"
    KEY = "key"
    POLICY = "policy"
    UNKNOWN = ""
    """One that only a later version knows."""

    @classmethod
    def _missing_(cls, value: object) -> Resource:
        return cls.UNKNOWN


class EventKind(StrEnum):
    """What became of it; the values are those of the table."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNDELETED = "undeleted"
    STATE_CHANGED = "state_changed"
    UNKNOWN = ""
    """One that only a later version knows."""

    @classmethod
    def _missing_(cls, value: object) -> EventKind:
        return cls.UNKNOWN


class Position(NamedTuple):
    """A place in the log of one timeline: after this number of this transaction."""

    transaction: int
    number: int


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One change to tell of. An empty `id`: of several, counted by what became of them.

    `name` is what people know it by, `state` the name of the state that it has now, both empty
    where it has none. Golden marks have the id of the snapshot, and their label as name.
    """

    resource: Resource
    kind: EventKind
    id: str = ""
    name: str = ""
    state: str = ""
    etag: str = ""
    created: int = 0
    updated: int = 0
    deleted: int = 0
    undeleted: int = 0


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A change as it was read; `time_ns` nanoseconds since 1970 UTC, by its writer's clock."""

    position: Position
    time_ns: int
    principal: str
    role: str
    change: ResourceChange
