"""The part of a change of the catalog that is about tag groups, tags, and who carries them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from drey_core.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from drey_core.pv_columns import group_problem
from drey_snapshot.catalog.domain.changes import CatalogState, Changes, Counters, name_taken
from drey_snapshot.catalog.domain.draft import Draft, copy_of
from drey_snapshot.catalog.domain.tags import (
    Tag,
    TagGroup,
    TagTombstone,
    tags_ordered,
)


class TagEdit(ABC):
    """Gives out numbers of tags and keeps names unique, case ignored. See `Edit`."""

    def __init__(
        self, state: CatalogState, counters: Counters, now_ns: int, new_id: Callable[[], str]
    ) -> None:
        self.state = state
        self.now_ns = now_ns
        self.version = state.version + 1
        self._new_id = new_id
        self._next_tag = counters.tag
        self._changes = Changes(self.version, counters, now_ns)
        self._groups: dict[str, TagGroup] = {g.id: g for g in state.tags.groups}
        self._group_ids = {name: g.id for name, g in state.tags.group_by_name.items()}
        self._tag_numbers = dict(state.tags.by_name)
        self._changed_groups: set[str] = set()

    @abstractmethod
    def at_rows(self, rows: Sequence[int]) -> list[Draft]:
        """The PVs of some rows of the state, as they are now."""

    @abstractmethod
    def update_pv(self, before: Draft, after: Draft) -> list[str]:
        """Change a PV; names of the fields that differ."""

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
        """The group of a name, made where it is not there. Raises `InvalidArgument`."""
        id = self._group_ids.get(name.casefold())
        if id is not None:
            return self._groups[id]
        _require_column(name, "tags")
        return self._add_group(name, "")

    def create_group(self, name: str, description: str, tags: Iterable[str]) -> TagGroup:
        """Add a group with tags. Raises `AlreadyExists`."""
        _require_column(name, "tag_group.name")
        self._refuse_group(name, "")
        folded = [tag.casefold() for tag in tags]
        for i, tag in enumerate(folded):
            if tag in folded[:i]:
                raise name_taken("tag", tag, f"tag_group.tags[{i}].name")
        group = self._add_group(name, description)
        for tag in tags:
            self._add_tag(group, tag)
        return self._groups[group.id]

    def update_group(self, group: TagGroup, name: str, description: str) -> TagGroup:
        """Rename or describe a group."""
        if name != group.name:
            _require_column(name, "tag_group.name")
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
        for tag in group.tags:
            self._refuse_with_policy(group, tag)
        carriers = self._pvs_of({tag.number for tag in group.tags})
        carrying = self._strip_tags(carriers.keys(), force, group.name)
        self._bury_tag(group.id, group.id, 0, group.name, group.description)
        for tag in group.tags:
            self._bury_tag(tag.id, group.id, tag.number, tag.name, "", carriers.get(tag.number, ()))
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
        self._refuse_with_policy(group, tag)
        pvs = self._pvs_of({tag.number}).get(tag.number, [])
        carrying = self._strip_tags({tag.number}, force, f"{group.name}/{tag.name}")
        self._bury_tag(tag.id, group.id, tag.number, tag.name, "", pvs)
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
            self.update_pv(draft, after)
        return {int(self.state.table.number[row]) for row in rows}

    def _bury_tag(
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
        self._refuse_with_policy(group, tag)
        count = 0
        for draft in self.at_rows(self._tag_carriers({tag.number})):
            after = copy_of(draft)
            after.tags = tuple(sorted({into.number if n == tag.number else n for n in draft.tags}))
            count += bool(self.update_pv(draft, after))
        self.delete_tag(group, tag, force=True)
        return count

    def group(self, id: str, path: str = "id") -> TagGroup:
        """The group of an id. Raises `NotFound`."""
        group = self._groups.get(id)
        if group is None:
            raise NotFound(
                f"no tag group has the id {id}",
                field=path,
                metadata={"resource": "tag_group", "id": id},
            )
        return group

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
            raise name_taken("tag_group", name, "tag_group.name")

    def _refuse_tag(self, group: TagGroup, name: str, number: int) -> None:
        key = (group.name.casefold(), name.casefold())
        if self._tag_numbers.get(key, number) != number:
            raise name_taken("tag", f"{group.name}/{name}", "name")

    def _pvs_of(self, numbers: Collection[int]) -> dict[int, list[int]]:
        """Numbers of the living PVs that carry each of some tags, by number of the tag."""
        pvs_of_tag: dict[int, list[int]] = {}
        table = self.state.table
        for row in self._tag_carriers(numbers):
            for number in table.tags[row]:
                if number in numbers:
                    pvs_of_tag.setdefault(number, []).append(int(table.number[row]))
        return pvs_of_tag

    def _tag_carriers(self, numbers: Collection[int]) -> list[int]:
        wanted = frozenset(numbers)
        return [r for r, tags in enumerate(self.state.table.tags) if not wanted.isdisjoint(tags)]

    def _refuse_with_policy(self, group: TagGroup, tag: Tag) -> None:
        """IN_USE: how PVs are restored does not change as a side effect, not even by force."""
        if tag.number in self.state.policies.by_tag:
            raise FailedPrecondition(
                f"{group.name}/{tag.name} has a restore policy: delete that first",
                reason=Reason.IN_USE,
                metadata={"uses": "1"},
            )

    def _strip_tags(self, numbers: Collection[int], force: bool, what: str) -> int:
        rows = self._tag_carriers(numbers)
        if rows and not force:
            raise FailedPrecondition(
                f"{what} is carried by {len(rows)} PVs: delete it with force, or take it off first",
                reason=Reason.IN_USE,
                metadata={"uses": str(len(rows))},
            )
        for draft in self.at_rows(rows):
            after = copy_of(draft)
            after.tags = tuple(n for n in draft.tags if n not in numbers)
            self.update_pv(draft, after)
        return len(rows)


def _require_column(group: str, field: str) -> None:
    """A group that no file of PVs can have would let none be exported."""
    if problem := group_problem(group):
        raise InvalidArgument(
            f"{field}: a tag group cannot be called {group!r}: it {problem}",
            field=field,
            metadata={"field": field},
        )
