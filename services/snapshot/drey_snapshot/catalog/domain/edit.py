"""A change of the catalog in the making: everything is decided here, nothing is written.

An `Edit` begins from a view that is exactly the state of the database, because the transaction
holds the catalog's lock. It gives out numbers, keeps names unique and remembers what is to be
written; an operation that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.errors import AlreadyExists, NotFound
from drey_snapshot.catalog.domain.changes import (
    CatalogState,
    Changes,
    Counters,
    NewChannel,
)
from drey_snapshot.catalog.domain.draft import (
    Draft,
    check_draft,
    copy_of,
    differing_fields,
    draft_of,
    drafts_of,
)
from drey_snapshot.catalog.domain.edit_policies import PolicyEdit
from drey_snapshot.catalog.domain.edit_tags import TagEdit
from drey_snapshot.catalog.domain.pages import channel_numbers
from drey_snapshot.catalog.domain.table import I8, PvTable
from drey_snapshot.catalog.domain.tags import (
    TagBook,
    order_groups,
)


class Edit(TagEdit, PolicyEdit):
    """See the module. `new_id` makes an id, `new_ids` many; times in nanoseconds."""

    def __init__(
        self,
        state: CatalogState,
        counters: Counters,
        now_ns: int,
        new_id: Callable[[], str],
        new_ids: Callable[[int], list[str]] | None = None,
    ) -> None:
        super().__init__(state, counters, now_ns, new_id)
        self._new_ids = new_ids or (lambda n: [new_id() for _ in range(n)])
        self._next_pv = counters.pv
        self._next_channel = {ROLE_SETPOINT: counters.setpoint, ROLE_READBACK: counters.readback}
        self._touched: dict[int, Draft] = {}
        self._inserted: dict[int, Draft] = {}
        self._channels: dict[int, NewChannel] = {}
        self._names: dict[str, int] = {}
        self._freed: set[str] = set()
        self._discarded = False

    # --- looking ---

    def by_id(self, id: str, path: str = "id") -> Draft:
        """A copy of the living PV of an id. Raises `NotFound`."""
        for made in self._inserted.values():
            if made.id == id:
                return copy_of(made)
        row = self.state.row_by_id.get(id, -1)
        draft = self.at_row(row) if row >= 0 else None
        if draft is None or draft.delete_time_ns:
            raise NotFound(
                f"no PV has the id {id}", field=path, metadata={"resource": "pv", "id": id}
            )
        return draft

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
        return TagBook(self.version, order_groups(self._groups.values()))

    # --- PVs ---

    def create_pv(
        self, draft: Draft, tags: Sequence[tuple[str, str]] = (), path: str = "pv"
    ) -> Draft:
        """Add a PV: its content is taken, numbers, id and times are made.

        `tags` are (group, tag) names beside those that the draft has; they are made where they
        are not there.
        """
        draft.name = draft.name or draft.setpoint_address or draft.readback_address
        check_draft(draft, path)
        self._refusenamename_taken(draft.name, 0, path)
        draft.tags = self._with_tags(draft.tags, tags)
        draft.number, self._next_pv = self._next_pv, self._next_pv + 1
        draft.id = self._new_id()
        draft.version = self.version
        draft.create_time_ns = draft.update_time_ns = self.now_ns
        draft.delete_time_ns = 0
        draft.setpoint_channel = self._assign_channel(draft, ROLE_SETPOINT, draft.setpoint_address)
        draft.readback_channel = self._assign_channel(draft, ROLE_READBACK, draft.readback_address)
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
        more = PvTable.table_of_columns(
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
        self._changes.added = self._changes.added.merge_changed(more)

    def update_pv(
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
        check_draft(after, path)
        if after.name != before.name:
            self._refusenamename_taken(after.name, after.number, path)
        if tags is not None:
            after.tags = self._with_tags((), tags)
        changed = differing_fields(before, after)
        if not changed:
            return []
        moved = after.protocol != before.protocol
        for role, name in ((ROLE_SETPOINT, "setpoint"), (ROLE_READBACK, "readback")):
            address = getattr(after, f"{name}_address")
            if moved or address != getattr(before, f"{name}_address"):
                self._retire_channel(getattr(before, f"{name}_channel"))
                setattr(after, f"{name}_channel", self._assign_channel(after, role, address))
        if after.name != before.name:
            self._freed.add(before.name)
            self._names.pop(before.name, None)
            self._names[after.name] = after.number
        after.version, after.update_time_ns = self.version, self.now_ns
        self._keep_draft(after)
        return changed

    def delete_pv(self, draft: Draft) -> Draft:
        """Make a tombstone of a living PV."""
        draft.delete_time_ns = draft.update_time_ns = self.now_ns
        draft.version = self.version
        for channel in (draft.setpoint_channel, draft.readback_channel):
            self._retire_channel(channel)
        self._names.pop(draft.name, None)
        self._freed.add(draft.name)
        self._keep_draft(draft)
        return draft

    def undelete_pv(self, draft: Draft, path: str = "id") -> Draft:
        """Bring a tombstone back, under its number and its channels' numbers."""
        self._refusenamename_taken(draft.name, draft.number, path)
        draft.delete_time_ns = 0
        draft.update_time_ns, draft.version = self.now_ns, self.version
        draft.tags = tuple(n for n in draft.tags if n in self.state.tags.by_number)
        self._changes.revived += [c for c in (draft.setpoint_channel, draft.readback_channel) if c]
        self._names[draft.name] = draft.number
        self._keep_draft(draft)
        return draft

    def _keep_draft(self, draft: Draft) -> None:
        if draft.number in self._inserted:
            self._inserted[draft.number] = draft
        else:
            self._touched[draft.number] = draft

    def _refusenamename_taken(self, name: str, number: int, path: str) -> None:
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

    def _assign_channel(self, draft: Draft, role: int, address: str) -> int:
        if not address:
            return 0
        number = int(self._channels_of(role, [address])[0])
        self._channels[number] = NewChannel(number, draft.number, role, address, draft.protocol)
        return number

    def _retire_channel(self, channel: int) -> None:
        if not channel:
            return
        # one given out in this very transaction never was anybody's
        if self._channels.pop(channel, None) is None:
            self._changes.retired.append(channel)

    # --- the end ---

    def discard_changes(self) -> None:
        """Forget everything: `changes` will have nothing to write."""
        self._discarded = True

    def made_changes(self) -> Changes:
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
