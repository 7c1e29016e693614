"""Large changes of the catalog go to the database in statements of a bounded size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from drey_snapshot.catalog.adapters import writing
from drey_snapshot.catalog.domain.draft import Draft
from tests.unit.catalog.test_edit import Memory

PVS = 11
MOST = 4


class Recorder:
    """A connection that keeps what it was given: lines by table, numbers of an `UPDATE`."""

    def __init__(self) -> None:
        self.lines: dict[str, list[int]] = {}
        self.ranges: list[tuple[int, int]] = []
        self.numbers: list[list[int]] = []

    async def copy_to_table(self, table: str, *, source: AsyncIterator[bytes], **_: Any) -> None:
        text = b"".join([chunk async for chunk in source]).decode()
        self.lines.setdefault(table, []).append(text.count("\n"))

    async def execute(self, statement: str, *arguments: Any) -> None:
        if "BETWEEN" in statement:
            self.ranges.append((arguments[0], arguments[1]))
        elif "retire_time_ns" in statement:
            self.numbers.append(list(arguments[0]))


@pytest.mark.parametrize("pvs", [1, MOST, PVS])
async def test_no_statement_grows_with_the_number_of_pvs(monkeypatch, pvs: int) -> None:
    monkeypatch.setattr(writing, "_STATEMENT_ROWS", MOST)
    monkeypatch.setattr(writing, "_LINES", 2)
    memory = Memory()

    edit = memory.edit()
    for i in range(pvs):
        edit.create_pv(Draft(name=f"P{i}", setpoint_address=f"S{i}", readback_address=f"R{i}"), [])
    added: Any = Recorder()
    await writing.write_changes(added, memory.commit(edit))
    assert max(map(max, added.lines.values())) <= MOST
    assert (sum(added.lines["pv"]), sum(added.lines["channel"])) == (pvs, 2 * pvs)

    edit = memory.edit()
    for draft in edit.at_rows(range(pvs)):
        edit.delete_pv(draft)
    deleted: Any = Recorder()
    await writing.write_changes(deleted, memory.commit(edit))
    assert max(deleted.lines["pv_new"]) <= MOST and sum(deleted.lines["pv_new"]) == pvs
    assert max(map(len, deleted.numbers)) <= MOST
    assert sum(map(len, deleted.numbers)) == 2 * pvs
    numbers = sorted(memory.rows)
    assert all(numbers.index(b) - numbers.index(a) < MOST for a, b in deleted.ranges)
    covered = [n for a, b in deleted.ranges for n in numbers if a <= n <= b]
    assert sorted(covered) == sorted(2 * numbers), "each in both statements, once"
