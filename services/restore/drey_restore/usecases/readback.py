"""Reading readbacks past any subscription, and comparing them with where they were."""

from __future__ import annotations

from drey_core.compare import compare
from drey_core.values import I8, U1, Columns
from drey_restore.domain.items import scatter_rows
from drey_restore.usecases.course import Course


async def read_readbacks(course: Course, rows: I8) -> U1:
    """Classes of the comparison of the stored readbacks of rows with what they show now."""
    reading = await course.channels.table.read_values(
        course.readback_slots(rows), course.limits.read_s
    )
    return note_readbacks(course, rows, reading.values)


def note_readbacks(course: Course, rows: I8, values: Columns) -> U1:
    """As `read_readbacks`, of values that were read."""
    items = course.items
    course.readback = scatter_rows(course.readback, rows, values)
    return compare(
        items.stored_readback.take_rows(rows),
        values,
        items.readback_absolute[rows],
        items.readback_relative[rows],
    ).cls
