"""What those who follow changes are told of a change of the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drey_runtime.event_log import EventKind, Resource, ResourceChange
from drey_snapshot.catalog.domain.changes import CatalogState, Changes
from drey_snapshot.catalog.domain.tags import TagBook

_Kinds = dict[str, tuple[EventKind, str]]
"""What became of a resource, and its name, by its id."""


def events_of(changes: Changes, before: CatalogState) -> list[ResourceChange]:
    """An event for PVs, for groups and for tags, where any changed."""
    return [
        *_of_pvs(changes, before),
        *_of_tags(changes, before.tags),
        *_of_policies(changes, before),
    ]


def _of_pvs(changes: Changes, before: CatalogState) -> Iterator[ResourceChange]:
    # the state has the living ones alone: one that changes and is not there was a tombstone
    kinds: _Kinds = {
        draft.id: (
            _kind_of(draft.id not in before.row_by_id, bool(draft.delete_time_ns)),
            draft.name,
        )
        for draft in changes.updated
    }
    kinds |= {draft.id: (EventKind.CREATED, draft.name) for draft in changes.inserted}
    etags = {draft.id: draft.etag for draft in (*changes.updated, *changes.inserted)}
    added = changes.added
    if len(added) == 1:
        kinds[added.id[0]] = (EventKind.CREATED, added.name[0])
        etags[added.id[0]] = f"{int(added.version[0]):x}"
    yield from _of_several(Resource.PV, kinds, etags, len(added) if len(added) > 1 else 0)


def _kind_of(deleted_before: bool, deleted_now: bool) -> EventKind:
    if deleted_before == deleted_now:
        return EventKind.UPDATED
    return EventKind.DELETED if deleted_now else EventKind.UNDELETED


def _of_tags(changes: Changes, tags: TagBook) -> Iterator[ResourceChange]:
    """A group is told of where it is itself another, a tag wherever it is."""
    before = {group.id: group for group in tags.groups}
    undeleted = frozenset(changes.undeleted_tags)
    groups: _Kinds = {}
    for group in changes.groups:
        old = before.get(group.id)
        if old is None:
            kind = EventKind.UNDELETED if group.id in undeleted else EventKind.CREATED
            groups[group.id] = (kind, group.name)
        elif (old.name, old.description) != (group.name, group.description):
            groups[group.id] = (EventKind.UPDATED, group.name)
    groups |= {id: (EventKind.DELETED, before[id].name) for id in changes.dropped_groups}
    yield from _of_several(Resource.TAG_GROUP, groups, {})
    changed_tags: _Kinds = {
        tag.id: (EventKind.UNDELETED if tag.id in undeleted else EventKind.CREATED, tag.name)
        for _, tag in changes.new_tags
    }
    changed_tags |= {tag.id: (EventKind.UPDATED, tag.name) for tag in changes.renamed_tags}
    changed_tags |= {t.id: (EventKind.DELETED, t.name) for t in changes.tag_tombstones if t.number}
    yield from _of_several(Resource.TAG, changed_tags, {})


def _of_policies(changes: Changes, before: CatalogState) -> Iterator[ResourceChange]:
    """Known by its device, or by group and tag."""
    policies_before = before.policies.by_id
    changed = [
        (each, EventKind.UPDATED if each.id in policies_before else EventKind.CREATED)
        for each in changes.policies
    ]
    changed += [(each, EventKind.DELETED) for each in changes.dropped_policies]
    for each, kind in changed:
        yield ResourceChange(
            Resource.POLICY, kind, each.id, each.subject_name(before.tags), etag=each.etag
        )


def _of_several(
    resource: Resource, kinds: _Kinds, etags: Mapping[str, str], created: int = 0
) -> Iterator[ResourceChange]:
    """One event: with an id where it is of one, else with counts."""
    if len(kinds) + created == 0:
        return
    if len(kinds) + created == 1:
        ((id, (kind, name)),) = kinds.items()
        yield ResourceChange(resource, kind, id, name, etag=etags.get(id, ""))
        return
    counts = dict.fromkeys(EventKind, 0)
    for kind, _ in kinds.values():
        counts[kind] += 1
    counts[EventKind.CREATED] += created
    present = [kind for kind in EventKind if counts[kind]]
    yield ResourceChange(
        resource,
        present[0] if len(present) == 1 else EventKind.UPDATED,
        created=counts[EventKind.CREATED],
        updated=counts[EventKind.UPDATED],
        deleted=counts[EventKind.DELETED],
        undeleted=counts[EventKind.UNDELETED],
    )
