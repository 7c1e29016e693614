"""A change of the catalog in the making: everything is decided here, nothing is written.

An `Edit` begins from a view that is exactly the state of the database, because the transaction
holds the catalog's lock. It gives out numbers, keeps names unique and remembers what is to be
written; an operation that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, Reason
from drey_snapshot.catalog.domain.draft import Draft, check, copy_of, differing, draft_of, drafts_of
from drey_snapshot.catalog.domain.numbering import channel_numbers
from drey_snapshot.catalog.domain.table import I8, PvTable
from drey_snapshot.catalog.domain.tags import (
    Tag,
    TagBook,
    TagGroup,
    TagTombstone,
    ordered,
    tags_ordered,
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
    added: PvTable = field(default_factory=PvTable.empty)
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

    @property
    def any(self) -> bool:
        """Whether there is anything to write."""
        return bool(len(self.added) or self.inserted or self.updated or self.tags_changed)

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


class State:
    """The part of a view that an edit looks at."""

    def __init__(
        self,
        version: int,
        table: PvTable,
        tags: TagBook,
        row_by_name: Mapping[str, int],
        row_by_id: Mapping[str, int],
    ) -> None:
        self.version, self.table, self.tags = version, table, tags
        self.row_by_name, self.row_by_id = row_by_name, row_by_id


class Edit:
    """See the module. `new_id` makes an id, `new_ids` many; times in nanoseconds."""

    def __init__(
        self,
        state: State,
        counters: Counters,
        now_ns: int,
        new_id: Callable[[], str],
        new_ids: Callable[[int], list[str]] | None = None,
    ) -> None:
        self.state = state
        self.now_ns = now_ns
        self.version = state.version + 1
        self._new_id = new_id
        self._new_ids = new_ids or (lambda n: [new_id() for _ in range(n)])
        self._next_pv = counters.pv
        self._next_channel = {ROLE_SETPOINT: counters.setpoint, ROLE_READBACK: counters.readback}
        self._next_tag = counters.tag
        self._changes = Changes(self.version, counters, now_ns)
        self._touched: dict[int, Draft] = {}
        self._inserted: dict[int, Draft] = {}
        self._channels: dict[int, NewChannel] = {}
        self._names: dict[str, int] = {}
        self._freed: set[str] = set()
        self._groups: dict[str, TagGroup] = {g.id: g for g in state.tags.groups}
        self._group_ids = {name: g.id for name, g in state.tags.group_by_name.items()}
        self._tag_numbers = dict(state.tags.by_name)
        self._changed_groups: set[str] = set()
        self._discarded = False

    # --- looking ---

    def by_id(self, id: str, path: str = "id") -> Draft:
        """A copy of the living PV of an id. Raises `NotFound`."""
        for made in self._inserted.values():
            if made.id == id:
                return copy_of(made)
        row = self.state.row_by_id.get(id, -1)
        found = self.at_row(row) if row >= 0 else None
        if found is None or found.delete_time_ns:
            raise NotFound(
                f"no PV has the id {id}", field=path, metadata={"resource": "pv", "id": id}
            )
        return found

    def at_row(self, row: int) -> Draft:
        """A copy of the PV of a row of the state, as it is after what was done so far."""
        number = int(self.state.table.number[row])
        touched = self._touched.get(number)
        return copy_of(touched) if touched is not None else draft_of(self.state.table, row)

    def at_rows(self, rows: Sequence[int]) -> list[Draft]:
        """The same for many rows, in their order."""
        drafts = list(drafts_of(self.state.table, rows))
        if not self._touched:
            return drafts
        return [copy_of(self._touched.get(draft.number, draft)) for draft in drafts]

    def number_of_name(self, name: str) -> int:
        """Number of the living PV that has a name now; 0 where none has."""
        if name in self._names:
            return self._names[name]
        if name in self._freed:
            return 0
        row = self.state.row_by_name.get(name, -1)
        return int(self.state.table.number[row]) if row >= 0 else 0

    @property
    def tags(self) -> TagBook:
        """Groups and tags as they are after what was done so far."""
        return TagBook(self.version, ordered(self._groups.values()))

    # --- PVs ---

    def create(self, draft: Draft, tags: Sequence[tuple[str, str]] = (), path: str = "pv") -> Draft:
        """Add a PV: its content is taken, numbers, id and times are made.

        `tags` are (group, tag) names beside those that the draft has; they are made where they
        are not there.
        """
        draft.name = draft.name or draft.setpoint_address or draft.readback_address
        check(draft, path)
        self._refuse_taken(draft.name, 0, path)
        draft.tags = self._with_tags(draft.tags, tags)
        draft.number, self._next_pv = self._next_pv, self._next_pv + 1
        draft.id = self._new_id()
        draft.version = self.version
        draft.create_time_ns = draft.update_time_ns = self.now_ns
        draft.delete_time_ns = 0
        draft.setpoint_channel = self._channel(draft, ROLE_SETPOINT, draft.setpoint_address)
        draft.readback_channel = self._channel(draft, ROLE_READBACK, draft.readback_address)
        self._names[draft.name] = draft.number
        self._inserted[draft.number] = draft
        return draft

    def create_many(self, content: Mapping[str, Sequence[Any]]) -> None:
        """Add n PVs whose content, columns of `CONTENT`, was checked: the way for many.

        Names have to be new, and each once. Nothing further can be done to these PVs in this edit.
        """
        n = len(content["name"])
        number = np.arange(self._next_pv, self._next_pv + n)
        self._next_pv += n
        now = np.full(n, self.now_ns)
        more = PvTable.of(
            {
                **content,
                "number": number,
                "id": self._new_ids(n),
                "setpoint_channel": self._channels_of(ROLE_SETPOINT, content["setpoint_address"]),
                "readback_channel": self._channels_of(ROLE_READBACK, content["readback_address"]),
                "version": np.full(n, self.version),
                "create_time_ns": now,
                "update_time_ns": now,
                "delete_time_ns": np.zeros(n, np.int64),
            }
        )
        self._names.update(zip(content["name"], number.tolist(), strict=True))
        self._changes.added = self._changes.added.merged(more)

    def update(
        self,
        before: Draft,
        after: Draft,
        tags: Sequence[tuple[str, str]] | None = None,
        path: str = "pv",
    ) -> list[str]:
        """Put `after` in the place of `before` (from `by_id` or `at_row`).

        `tags`, where given, take the place of those it has. Returns the names of the fields that
        differ; nothing happens when none does.
        """
        check(after, path)
        if after.name != before.name:
            self._refuse_taken(after.name, after.number, path)
        if tags is not None:
            after.tags = self._with_tags((), tags)
        changed = differing(before, after)
        if not changed:
            return []
        moved = after.protocol != before.protocol
        for role, name in ((ROLE_SETPOINT, "setpoint"), (ROLE_READBACK, "readback")):
            address = getattr(after, f"{name}_address")
            if moved or address != getattr(before, f"{name}_address"):
                self._retire(getattr(before, f"{name}_channel"))
                setattr(after, f"{name}_channel", self._channel(after, role, address))
        if after.name != before.name:
            self._freed.add(before.name)
            self._names.pop(before.name, None)
            self._names[after.name] = after.number
        after.version, after.update_time_ns = self.version, self.now_ns
        self._keep(after)
        return changed

    def delete(self, draft: Draft) -> Draft:
        """Make a tombstone of a living PV."""
        draft.delete_time_ns = draft.update_time_ns = self.now_ns
        draft.version = self.version
        for channel in (draft.setpoint_channel, draft.readback_channel):
            self._retire(channel)
        self._names.pop(draft.name, None)
        self._freed.add(draft.name)
        self._keep(draft)
        return draft

    def undelete(self, draft: Draft, path: str = "id") -> Draft:
        """Bring a tombstone back, under its number and its channels' numbers."""
        self._refuse_taken(draft.name, draft.number, path)
        draft.delete_time_ns = 0
        draft.update_time_ns, draft.version = self.now_ns, self.version
        draft.tags = tuple(n for n in draft.tags if n in self.state.tags.by_number)
        self._changes.revived += [c for c in (draft.setpoint_channel, draft.readback_channel) if c]
        self._names[draft.name] = draft.number
        self._keep(draft)
        return draft

    def _keep(self, draft: Draft) -> None:
        if draft.number in self._inserted:
            self._inserted[draft.number] = draft
        else:
            self._touched[draft.number] = draft

    def _refuse_taken(self, name: str, number: int, path: str) -> None:
        holder = self.number_of_name(name)
        if holder not in (0, number):
            raise AlreadyExists(
                f"a PV called {name} is in the catalog already: change that one, or choose"
                " another name",
                field=path if path in {"id", "selector"} else f"{path}.name",
                metadata={"resource": "pv", "name": name},
            )

    def _channels_of(self, role: int, addresses: Sequence[str]) -> I8:
        """The next channels of a role, for those addresses that are not empty; 0 for the others."""
        has = np.array([bool(address) for address in addresses], bool)
        first, used = self._next_channel[role], int(has.sum())
        self._next_channel[role] += used
        channels = np.zeros(len(has), np.int64)
        channels[has] = channel_numbers(role, np.arange(first, first + used))
        return channels

    def _channel(self, draft: Draft, role: int, address: str) -> int:
        if not address:
            return 0
        number = int(self._channels_of(role, [address])[0])
        self._channels[number] = NewChannel(number, draft.number, role, address, draft.protocol)
        return number

    def _retire(self, channel: int) -> None:
        if not channel:
            return
        # one given out in this very transaction never was anybody's
        if self._channels.pop(channel, None) is None:
            self._changes.retired.append(channel)

    # --- tags ---

    def _with_tags(
        self, numbers: tuple[int, ...], names: Sequence[tuple[str, str]]
    ) -> tuple[int, ...]:
        if not names:
            return numbers
        more = {self.tag_number(group, tag) for group, tag in names}
        return tuple(sorted(more.union(numbers)))

    def tag_number(self, group: str, tag: str) -> int:
        """Number of a tag by names, case ignored; group and tag are made where they are not."""
        key = (group.casefold(), tag.casefold())
        number = self._tag_numbers.get(key)
        if number is None:
            number = self._add_tag(self.ensure_group(group), tag).number
        return number

    def known_tag(self, group: str, tag: str) -> int | None:
        """Number of a tag by names, case ignored; None where it is not there."""
        return self._tag_numbers.get((group.casefold(), tag.casefold()))

    def ensure_group(self, name: str) -> TagGroup:
        """The group of a name, made where it is not there."""
        id = self._group_ids.get(name.casefold())
        return self._groups[id] if id is not None else self._add_group(name, "")

    def create_group(self, name: str, description: str, tags: Iterable[str]) -> TagGroup:
        """Add a group with tags. Raises `AlreadyExists`."""
        self._refuse_group(name, "")
        folded = [tag.casefold() for tag in tags]
        for i, tag in enumerate(folded):
            if tag in folded[:i]:
                raise _taken("tag", tag, f"tag_group.tags[{i}].name")
        group = self._add_group(name, description)
        for tag in tags:
            self._add_tag(group, tag)
        return self._groups[group.id]

    def update_group(self, group: TagGroup, name: str, description: str) -> TagGroup:
        """Rename or describe a group."""
        self._refuse_group(name, group.id)
        changed = replace(group, name=name, description=description, version=self.version)
        if (name, description) == (group.name, group.description):
            return group
        del self._group_ids[group.name.casefold()]
        self._group_ids[name.casefold()] = group.id
        for key in [k for k in self._tag_numbers if k[0] == group.name.casefold()]:
            number = self._tag_numbers.pop(key)
            self._tag_numbers[(name.casefold(), key[1])] = number
        self._set_group(changed)
        return changed

    def delete_group(self, group: TagGroup, force: bool) -> int:
        """Delete a group and its tags; returns how many PVs lost one. Raises IN_USE."""
        carriers = self._pvs_of({tag.number for tag in group.tags})
        carrying = self._strip(carriers.keys(), force, group.name)
        self._bury(group.id, group.id, 0, group.name, group.description)
        for tag in group.tags:
            self._bury(tag.id, group.id, tag.number, tag.name, "", carriers.get(tag.number, ()))
        del self._groups[group.id]
        del self._group_ids[group.name.casefold()]
        for tag in group.tags:
            self._tag_numbers.pop((group.name.casefold(), tag.name.casefold()), None)
        self._changed_groups.discard(group.id)
        self._changes.dropped_groups.append(group.id)
        self._changes.tags_changed = True
        return carrying

    def create_tag(self, group: TagGroup, name: str) -> Tag:
        """Add a tag to a group. Raises `AlreadyExists`."""
        self._refuse_tag(group, name, 0)
        return self._add_tag(group, name)

    def rename_tag(self, group: TagGroup, tag: Tag, name: str) -> Tag:
        """Rename a tag. Raises `AlreadyExists`."""
        self._refuse_tag(group, name, tag.number)
        if name == tag.name:
            return tag
        changed = replace(tag, name=name)
        others = [t for t in group.tags if t.number != tag.number]
        del self._tag_numbers[(group.name.casefold(), tag.name.casefold())]
        self._tag_numbers[(group.name.casefold(), name.casefold())] = tag.number
        self._changes.renamed_tags.append(changed)
        self._set_group(replace(group, tags=tags_ordered([*others, changed]), version=self.version))
        return changed

    def delete_tag(self, group: TagGroup, tag: Tag, force: bool) -> int:
        """Delete a tag; returns how many PVs lost it. Raises IN_USE."""
        pvs = self._pvs_of({tag.number}).get(tag.number, [])
        carrying = self._strip({tag.number}, force, f"{group.name}/{tag.name}")
        self._bury(tag.id, group.id, tag.number, tag.name, "", pvs)
        del self._tag_numbers[(group.name.casefold(), tag.name.casefold())]
        rest = tuple(t for t in group.tags if t.number != tag.number)
        self._changes.dropped_tags.append(tag.number)
        self._set_group(replace(group, tags=rest, version=self.version))
        return carrying

    def undelete_group(self, tombstones: Sequence[TagTombstone], id: str) -> tuple[TagGroup, int]:
        """Bring back a group with the tags that went with it; how many PVs have one again.

        `tombstones` are its own and those of its tags. Raises `NotFound`, `AlreadyExists`.
        """
        own = next((t for t in tombstones if t.id == id and not t.number), None)
        if own is None:
            return self.group(id), 0
        self._refuse_group(own.name, "")
        self._group_ids[own.name.casefold()] = id
        self._set_group(TagGroup(id, own.name, own.description, self.version))
        self._changes.undeleted_tags.append(id)
        changed = {
            number
            for t in tombstones
            if t.number and t.delete_time_ns == own.delete_time_ns
            for number in self._revive_tag(t)
        }
        return self._groups[id], len(changed)

    def undelete_tag(self, tombstones: Sequence[TagTombstone], id: str) -> tuple[Tag, int]:
        """Bring back a tag of a living group; how many PVs have it again. Raises as for groups."""
        own = next((t for t in tombstones if t.id == id and t.number), None)
        if own is None:
            return self.tag(id)[1], 0
        group = self._groups.get(own.group_id)
        if group is None:
            raise NotFound(
                f"the group of tag {own.name} is deleted: bring the group back, which brings back"
                " the tags that were deleted with it",
                field="id",
                metadata={"resource": "tag_group", "id": own.group_id},
            )
        self._refuse_tag(group, own.name, 0)
        changed = self._revive_tag(own)
        return Tag(own.number, own.id, own.name), len(changed)

    def _revive_tag(self, tombstone: TagTombstone) -> set[int]:
        """Put a tag back into its group and on its PVs; the numbers of these."""
        self._put_tag(
            self._groups[tombstone.group_id], Tag(tombstone.number, tombstone.id, tombstone.name)
        )
        self._changes.undeleted_tags.append(tombstone.id)
        rows = np.flatnonzero(np.isin(self.state.table.number, tombstone.pvs)).tolist()
        for draft in self.at_rows(rows):
            after = copy_of(draft)
            after.tags = tuple(sorted({*draft.tags, tombstone.number}))
            self.update(draft, after)
        return {int(self.state.table.number[row]) for row in rows}

    def _bury(
        self,
        id: str,
        group_id: str,
        number: int,
        name: str,
        description: str,
        pvs: Sequence[int] = (),
    ) -> None:
        self._changes.tag_tombstones.append(
            TagTombstone(id, group_id, number, name, description, tuple(pvs), self.now_ns)
        )

    def merge_tags(self, source: tuple[TagGroup, Tag], into: Tag) -> int:
        """Put `into` in the place of a tag on all PVs and delete that; returns how many PVs."""
        group, tag = source
        count = 0
        for draft in self.at_rows(self._carriers({tag.number})):
            after = copy_of(draft)
            after.tags = tuple(sorted({into.number if n == tag.number else n for n in draft.tags}))
            count += bool(self.update(draft, after))
        self.delete_tag(group, tag, force=True)
        return count

    def group(self, id: str, path: str = "id") -> TagGroup:
        """The group of an id. Raises `NotFound`."""
        found = self._groups.get(id)
        if found is None:
            raise NotFound(
                f"no tag group has the id {id}",
                field=path,
                metadata={"resource": "tag_group", "id": id},
            )
        return found

    def tag(self, id: str, path: str = "id") -> tuple[TagGroup, Tag]:
        """Group and tag of a tag's id. Raises `NotFound`."""
        for group in self._groups.values():
            for tag in group.tags:
                if tag.id == id:
                    return group, tag
        raise NotFound(
            f"no tag has the id {id}", field=path, metadata={"resource": "tag", "id": id}
        )

    def _add_group(self, name: str, description: str) -> TagGroup:
        group = TagGroup(self._new_id(), name, description, self.version)
        self._group_ids[name.casefold()] = group.id
        self._set_group(group)
        return group

    def _add_tag(self, group: TagGroup, name: str) -> Tag:
        tag = Tag(self._next_tag, self._new_id(), name)
        self._next_tag += 1
        return self._put_tag(group, tag)

    def _put_tag(self, group: TagGroup, tag: Tag) -> Tag:
        self._tag_numbers[(group.name.casefold(), tag.name.casefold())] = tag.number
        self._changes.new_tags.append((group.id, tag))
        latest = self._groups[group.id]
        self._set_group(
            replace(latest, tags=tags_ordered([*latest.tags, tag]), version=self.version)
        )
        return tag

    def _set_group(self, group: TagGroup) -> None:
        self._groups[group.id] = group
        self._changed_groups.add(group.id)
        self._changes.tags_changed = True

    def _refuse_group(self, name: str, id: str) -> None:
        if self._group_ids.get(name.casefold(), id) != id:
            raise _taken("tag_group", name, "tag_group.name")

    def _refuse_tag(self, group: TagGroup, name: str, number: int) -> None:
        key = (group.name.casefold(), name.casefold())
        if self._tag_numbers.get(key, number) != number:
            raise _taken("tag", f"{group.name}/{name}", "name")

    def _pvs_of(self, numbers: Collection[int]) -> dict[int, list[int]]:
        """Numbers of the living PVs that carry each of some tags, by number of the tag."""
        found: dict[int, list[int]] = {}
        table = self.state.table
        for row in self._carriers(numbers):
            for number in table.tags[row]:
                if number in numbers:
                    found.setdefault(number, []).append(int(table.number[row]))
        return found

    def _carriers(self, numbers: Collection[int]) -> list[int]:
        wanted = frozenset(numbers)
        return [r for r, tags in enumerate(self.state.table.tags) if not wanted.isdisjoint(tags)]

    def _strip(self, numbers: Collection[int], force: bool, what: str) -> int:
        rows = self._carriers(numbers)
        if rows and not force:
            raise FailedPrecondition(
                f"{what} is carried by {len(rows)} PVs: delete it with force, or take it off first",
                reason=Reason.IN_USE,
                metadata={"uses": str(len(rows))},
            )
        for draft in self.at_rows(rows):
            after = copy_of(draft)
            after.tags = tuple(n for n in draft.tags if n not in numbers)
            self.update(draft, after)
        return len(rows)

    # --- the end ---

    def discard(self) -> None:
        """Forget everything: `changes` will have nothing to write."""
        self._discarded = True

    def changes(self) -> Changes:
        """What is to be written."""
        changes = self._changes
        if self._discarded:
            return Changes(self.version, changes.counters, self.now_ns)
        setpoint, readback = (self._next_channel[r] for r in (ROLE_SETPOINT, ROLE_READBACK))
        changes.counters = Counters(self._next_pv, setpoint, readback, self._next_tag)
        changes.channels = list(self._channels.values())
        changes.inserted = list(self._inserted.values())
        changes.updated = list(self._touched.values())
        changes.groups = [self._groups[id] for id in self._changed_groups]
        return changes


def check_etag(given: str, current: str, path: str) -> None:
    """Refuse an etag that is not the current one; empty means whatever it is."""
    if given and given != current:
        raise Aborted(
            "somebody changed it since the etag was read: read it again and repeat the change",
            field=path,
            metadata={"etag": current},
        )


def _taken(resource: str, name: str, field: str) -> AlreadyExists:
    return AlreadyExists(
        f"{name} is there already, case ignored: choose another name",
        field=field,
        metadata={"resource": resource, "name": name},
    )
