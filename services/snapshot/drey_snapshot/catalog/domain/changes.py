"""What a change of the catalog begins from, and what it has to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from drey_core.errors import Aborted, AlreadyExists
from drey_snapshot.catalog.domain.default_policies import (
    NO_POLICIES,
    DefaultPolicy,
    PolicyBook,
)
from drey_snapshot.catalog.domain.draft import Draft
from drey_snapshot.catalog.domain.table import I8, PvTable
from drey_snapshot.catalog.domain.tags import (
    Tag,
    TagBook,
    TagGroup,
    TagTombstone,
)


@dataclass(frozen=True, slots=True)
class Counters:
    """The next number of each kind; of setpoint and readback channels the next ordinal."""

    pv: int
    setpoint: int
    readback: int
    tag: int


class NewChannel(NamedTuple):
    """A channel number given out for the first time."""

    number: int
    pv_number: int
    role: int
    address: str
    protocol: int


@dataclass(slots=True)
class Changes:
    """What a transaction has to write."""

    version: int
    counters: Counters
    now_ns: int
    added: PvTable = field(default_factory=PvTable.empty_table)
    """PVs that came in bulk, with channels given out for the first time."""
    inserted: list[Draft] = field(default_factory=list)
    updated: list[Draft] = field(default_factory=list)
    channels: list[NewChannel] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    revived: list[int] = field(default_factory=list)
    groups: list[TagGroup] = field(default_factory=list)
    """Groups that are new or changed, with their tags."""
    new_tags: list[tuple[str, Tag]] = field(default_factory=list)
    """(id of the group, tag)."""
    renamed_tags: list[Tag] = field(default_factory=list)
    dropped_groups: list[str] = field(default_factory=list)
    dropped_tags: list[int] = field(default_factory=list)
    tag_tombstones: list[TagTombstone] = field(default_factory=list)
    undeleted_tags: list[str] = field(default_factory=list)
    """Ids of groups and tags that are no tombstones any more."""
    tags_changed: bool = False
    policies: list[DefaultPolicy] = field(default_factory=list)
    """Policies by device or tag that are new or changed."""
    dropped_policies: list[DefaultPolicy] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is anything to write."""
        pvs_changed = bool(len(self.added) or self.inserted or self.updated)
        return pvs_changed or self.tags_changed or self.policies_changed

    @property
    def policies_changed(self) -> bool:
        """Whether a policy by device or tag is new, changed or dropped."""
        return bool(self.policies or self.dropped_policies)

    @property
    def only_adds(self) -> bool:
        """Whether `added` is all that happens to PVs."""
        return bool(len(self.added)) and not self.inserted and not self.updated

    @property
    def added_channels(self) -> tuple[I8, I8]:
        """(channel numbers of `added`, ascending, and for each 2·row, or 2·row + 1: readback)."""
        both = np.stack([self.added.setpoint_channel, self.added.readback_channel], axis=1).ravel()
        places = np.flatnonzero(both)
        places = places[np.argsort(both[places])]
        return both[places], places


class CatalogState:
    """The part of a view that an edit looks at."""

    def __init__(
        self,
        version: int,
        table: PvTable,
        tags: TagBook,
        row_by_name: Mapping[str, int],
        row_by_id: Mapping[str, int],
        policies: PolicyBook = NO_POLICIES,
    ) -> None:
        self.version, self.table, self.tags = version, table, tags
        self.policies = policies
        self.row_by_name, self.row_by_id = row_by_name, row_by_id


def check_etag(given: str, current: str, path: str) -> None:
    """Refuse an etag that is not the current one; empty means whatever it is."""
    if given and given != current:
        raise Aborted(
            "somebody changed it since the etag was read: read it again and repeat the change",
            field=path,
            metadata={"etag": current},
        )


def name_taken(resource: str, name: str, field: str) -> AlreadyExists:
    return AlreadyExists(
        f"{name} is there already, case ignored: choose another name",
        field=field,
        metadata={"resource": resource, "name": name},
    )
