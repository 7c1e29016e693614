"""Groups of tags and their tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag; `number` is what PVs carry. Only lists with deleted ones have a `delete_time_ns`."""

    number: int
    id: str
    name: str
    delete_time_ns: int = 0


@dataclass(frozen=True, slots=True)
class TagGroup:
    """A group with its tags, ordered by name without case. `delete_time_ns` as of tags."""

    id: str
    name: str
    description: str
    version: int
    tags: tuple[Tag, ...] = ()
    delete_time_ns: int = 0


@dataclass(frozen=True, slots=True)
class TagTombstone:
    """A deleted group (`number` 0, `group_id` its own) or tag, and the PVs that carried it."""

    id: str
    group_id: str
    number: int
    name: str
    description: str
    pvs: tuple[int, ...]
    delete_time_ns: int


@dataclass(frozen=True)
class TagBook:
    """All groups, ordered by name without case. Immutable."""

    version: int = 0
    groups: tuple[TagGroup, ...] = field(default=())

    @cached_property
    def by_number(self) -> dict[int, tuple[TagGroup, Tag]]:
        """Group and tag by the tag's number."""
        return {tag.number: (group, tag) for group in self.groups for tag in group.tags}

    @cached_property
    def by_name(self) -> dict[tuple[str, str], int]:
        """Number of a tag by (group, tag), both case folded."""
        return {
            (group.name.casefold(), tag.name.casefold()): tag.number
            for group in self.groups
            for tag in group.tags
        }

    @cached_property
    def group_by_name(self) -> dict[str, TagGroup]:
        """Groups by case-folded name."""
        return {group.name.casefold(): group for group in self.groups}

    def names(self, numbers: Iterable[int]) -> list[tuple[str, str]]:
        """(group, tag) names, ordered without case; numbers of tags that went are left out."""
        known_tags = [self.by_number[n] for n in numbers if n in self.by_number]
        return sorted(
            ((group.name, tag.name) for group, tag in known_tags),
            key=lambda pair: (pair[0].casefold(), pair[1].casefold()),
        )


def order_groups(groups: Iterable[TagGroup]) -> tuple[TagGroup, ...]:
    """Groups by name without case."""
    return tuple(sorted(groups, key=lambda group: (group.name.casefold(), group.id)))


def tags_ordered(tags: Sequence[Tag]) -> tuple[Tag, ...]:
    """Tags by name without case."""
    return tuple(sorted(tags, key=lambda tag: tag.name.casefold()))


def with_deleted(
    groups: Iterable[TagGroup], tombstones: Iterable[TagTombstone]
) -> tuple[TagGroup, ...]:
    """Groups with the deleted ones, and with the deleted tags of each."""
    group_of = {group.id: group for group in groups}
    dead = list(tombstones)
    for t in dead:
        if not t.number:
            group_of[t.id] = TagGroup(t.id, t.name, t.description, 0, (), t.delete_time_ns)
    gone: dict[str, list[Tag]] = {}
    for t in dead:
        if t.number:
            gone.setdefault(t.group_id, []).append(Tag(t.number, t.id, t.name, t.delete_time_ns))
    return order_groups(
        replace(group, tags=tags_ordered([*group.tags, *gone.get(group.id, ())]))
        for group in group_of.values()
    )
