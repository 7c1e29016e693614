"""Reading readbacks past any subscription, and comparing them with where they were."""

from __future__ import annotations

from drey_core.compare import compare
from drey_core.values import I8, U1
from drey_restore.domain.items import scatter
from drey_restore.usecases.course import Course


async def read_readbacks(course: Course, rows: I8) -> U1:
    """Classes of the comparison of the stored readbacks of rows with what they show now."""
    items = course.items
    reading = await course.channels.table.read(course.readback_slots(rows), course.limits.read_s)
    course.readback = scatter(course.readback, rows, reading.values)
    return compare(
        items.stored_readback.take(rows),
        reading.values,
        items.readback_absolute[rows],
        items.readback_relative[rows],
    ).cls
