"""Laws of the catalog in memory: stepwise changes give what a fresh load would."""

from __future__ import annotations

import contextlib
import itertools
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey_core.directory import Directory
from drey_core.errors import AlreadyExists, DreyError
from drey_snapshot.catalog.domain.changes import CatalogState, Changes, Counters
from drey_snapshot.catalog.domain.draft import Draft, copy_of, draft_of
from drey_snapshot.catalog.domain.edit import Edit
from drey_snapshot.catalog.domain.pages import build_pages, pages_of
from drey_snapshot.catalog.domain.table import COLUMNS, PvTable
from drey_snapshot.catalog.view import CatalogView


def table_of(drafts: list[Draft]) -> PvTable:
    drafts = sorted(drafts, key=lambda draft: draft.number)
    return PvTable.table_of_columns({name: [getattr(d, name) for d in drafts] for name in COLUMNS})


class Memory:
    """A catalog without a database: applies what edits would write."""

    def __init__(self) -> None:
        self.view = CatalogView.empty_view()
        self.counters = Counters(1, 0, 0, 1)
        self.rows: dict[int, Draft] = {}
        self.channels: set[int] = set()
        self._ids = itertools.count(1)

    def edit(self) -> Edit:
        view = self.view
        state = CatalogState(view.version, view.table, view.tags, view.row_by_name, view.row_by_id)
        return Edit(state, self.counters, 1000, lambda: str(uuid.UUID(int=next(self._ids))))

    def commit(self, edit: Edit) -> Changes:
        changes = edit.made_changes()
        new = {channel.number for channel in changes.channels}
        assert not new & self.channels
        self.channels |= new
        changed = [*changes.inserted, *changes.updated]
        self.rows |= {draft.number: copy_of(draft) for draft in changed}
        self.counters = changes.counters
        tags = edit.tags if changes.tags_changed else self.view.tags
        self.view = self.view.advance_view(changes.version, table_of(changed), tags)
        return changes


NAMES = st.sampled_from([f"P:{i}" for i in range(12)])
ADDRESSES = st.sampled_from(["", *(f"A:{i}" for i in range(6))])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "delete", "tag", "commit"]),
        NAMES,
        NAMES,
        ADDRESSES,
        ADDRESSES,
    ),
    max_size=40,
)


def do(edit: Edit, memory: Memory, step: tuple[str, str, str, str, str]) -> None:
    kind, name, other, setpoint, readback = step
    if kind == "create":
        draft = Draft(name=name, setpoint_address=setpoint, readback_address=readback)
        edit.create_pv(draft, [("Group", other)])
        return
    row = memory.view.row_by_name.get(name, -1)
    if row < 0:
        return
    before = edit.at_row(row)
    if before.delete_time_ns:
        return
    after = copy_of(before)
    if kind == "delete":
        edit.delete_pv(before)
    elif kind == "tag":
        edit.update_pv(before, after, [("Group", other), ("other", name)])
    else:
        after.name, after.setpoint_address, after.readback_address = other, setpoint, readback
        edit.update_pv(before, after)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_steps_and_a_fresh_load_give_the_same(steps: list[tuple[str, str, str, str, str]]) -> None:
    memory = Memory()
    edit = memory.edit()
    for step in steps:
        if step[0] == "commit":
            memory.commit(edit)
            edit = memory.edit()
            continue
        with contextlib.suppress(DreyError):
            do(edit, memory, step)
    memory.commit(edit)
    view = memory.view
    living = [draft for draft in memory.rows.values() if not draft.delete_time_ns]
    fresh = CatalogView.empty_view().advance_view(view.version, table_of(living), view.tags)
    assert [draft_of(view.table, i) for i in range(len(view.table))] == [
        draft_of(fresh.table, i) for i in range(len(fresh.table))
    ]
    assert len(set(view.table.name)) == len(view.table)
    for number, raw in view.stored_pages.items():
        empty = not view.directory.pages[number].pv_number.any()
        assert empty or raw == fresh.stored_pages[number]
    assert set(fresh.stored_pages) <= set(view.stored_pages)
    again = Directory.from_pages(view.version, list(view.directory.pages.values()))
    for name in ("pv_number", "setpoint_channel", "readback_channel", "read_only"):
        assert np.array_equal(getattr(again, name), getattr(view.directory, name))
    assert again.names == view.directory.names
    assert again.setpoint_address == view.directory.setpoint_address
    assert again.readback_address == view.directory.readback_address


def test_an_operation_that_is_refused_has_changed_nothing() -> None:
    memory = Memory()
    edit = memory.edit()
    edit.create_pv(Draft(setpoint_address="A"))
    with pytest.raises(AlreadyExists):
        edit.create_pv(Draft(setpoint_address="A", readback_address="B"), [("G", "t")])
    changes = edit.made_changes()
    assert [c.address for c in changes.channels] == ["A"]
    assert not changes.tags_changed
    assert changes.counters == Counters(2, 1, 0, 1)


def test_a_channel_that_never_was_anybodys_is_not_written() -> None:
    memory = Memory()
    edit = memory.edit()
    edit.create_pv(Draft(setpoint_address="A"))
    memory.commit(edit)
    edit = memory.edit()
    before = edit.at_row(0)
    for address in ("B", "C"):
        after = copy_of(before)
        after.setpoint_address = address
        edit.update_pv(before, after)
        before = after
    changes = memory.commit(edit)
    assert [c.address for c in changes.channels] == ["C"]
    assert changes.retired == [256]


def test_a_discarded_edit_writes_nothing() -> None:
    edit = Memory().edit()
    edit.create_pv(Draft(setpoint_address="A"), [("G", "t")])
    edit.discard_changes()
    assert not edit.made_changes().any


def test_setpoints_and_readbacks_have_pages_of_their_own() -> None:
    memory = Memory()
    edit = memory.edit()
    for i in range(300):
        edit.create_pv(Draft(setpoint_address=f"S:{i}", readback_address=f"R:{i}"))
    memory.commit(edit)
    table = memory.view.table
    assert (table.readback_channel - table.setpoint_channel == 256).all()
    assert pages_of(table).tolist() == [1, 2, 3, 4]
    built = build_pages(table, [3, 4, 9])
    assert built[3].addresses[:2] == ["S:256", "S:257"]
    assert built[4].addresses[:2] == ["R:256", "R:257"]
    assert not built[9].pv_number.any()
