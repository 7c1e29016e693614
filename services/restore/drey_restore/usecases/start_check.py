"""Before the first write: the channels are there, and the machine is as the plan saw it."""

from __future__ import annotations

import numpy as np

from drey_ca.interface import ReadResult
from drey_core.compare import compare
from drey_core.errors import DeadlineExceeded, FailedPrecondition, Reason
from drey_core.values import I8, Columns
from drey_restore.domain.continuing import values_left
from drey_restore.domain.execution import (
    ECA_NORDACCESS,
    ECA_NORMAL,
    all_gone,
    labels_moved,
    too_many_gone,
)
from drey_restore.domain.items import scatter_rows
from drey_restore.domain.judging import SAME
from drey_restore.domain.kinds import Skip, Verdict
from drey_restore.domain.records import HeldWrite
from drey_restore.usecases.course import Course
from drey_restore.usecases.holding import held_error, refuse_held
from drey_restore.usecases.record_check import RecordCheck
from drey_runtime.waiting import run_together


class StartCheck:
    """Looks once. What it refuses has written nothing."""

    def __init__(self, course: Course, records: RecordCheck) -> None:
        self._course, self._records = course, records
        self._items, self._execution = course.items, course.execution
        self._channels, self._limits = course.channels, course.limits
        self._restore = course.restore

    async def run(self) -> None:
        """Connect, read what would be written, and refuse where the machine has moved."""
        rows = self._items.writes
        rows = rows[self._execution.verdict[rows] == Verdict.PENDING]
        self._course.context.report_progress(0, len(rows), "connecting")
        held = await self._course.store.unanswered_writes()
        refuse_held(held, self._items)
        up = await self._connect_rows(rows)
        self._check_start()
        with_readback = up[self._course.with_readback[up]]
        slots = [self._course.slots_of_rows(up), self._course.readback_slots(with_readback)]
        reading, refusing = await run_together(
            self._channels.table.read_values(np.concatenate(slots), self._limits.read_s),
            self._records.refusing_rows(self._items),
        )
        setpoints = np.arange(len(up))
        present = ReadResult(reading.values.take_rows(setpoints), reading.code[setpoints])
        unreadable = present.code == ECA_NORDACCESS
        there = (present.code == ECA_NORMAL) | unreadable
        self._refuse_silent_circuits(up[~there], held)
        lost = np.setdiff1d(rows, up[there])
        self._execution.disconnected(lost)
        most = self._restore.max_unreachable
        why = self._channels.table.why_refused(self._course.slots_of_rows(lost))
        if len(lost) == len(rows):
            raise all_gone(self._items, rows, why)
        if most is not None and len(lost) > most:
            raise too_many_gone(self._items, lost, most, why)
        self._check_writable(up[there], refusing)
        read = present.code == ECA_NORMAL
        now = scatter_rows(self._course.at_start, up[read], present.values.take_rows(read))
        self._check_moved(up[read], present.values.take_rows(read))
        readbacks = scatter_rows(
            Columns.empty_columns(len(self._items)),
            with_readback,
            reading.values.take_rows(np.arange(len(up), len(reading.code))),
        )
        self._course.before = self._course.at_start = now
        if self._course.carried is not None:
            self._course.before, readbacks = self._course.carried.merged_before(now, readbacks)
        self._course.readback_before = readbacks
        await self._course.store.insert_pre_image(self._restore.id, self._course.before, readbacks)
        self._check_start()

    async def _connect_rows(self, rows: I8) -> I8:
        """Those of `rows` whose setpoint is connected; one wait for all channels together."""
        items = self._items
        with_readback = np.array(
            [r for r in items.writes.tolist() if items.readback_addresses[r]], np.int64
        )
        others = np.setdiff1d(np.flatnonzero(np.isin(items.skip, (Skip.NONE, Skip.EQUAL))), rows)
        wanted = np.concatenate(
            [
                self._course.slots_of_rows(rows),
                self._course.readback_slots(with_readback),
                self._course.slots_of_rows(others),
            ]
        )
        left = (self._restore.start_by_ns - self._course.clock()) / 1e9
        timeout = max(0.0, min(self._limits.connect_s, left))
        up = await self._channels.table.wait_connected(wanted, timeout)
        self._course.with_readback[
            with_readback[up[len(rows) : len(rows) + len(with_readback)]]
        ] = True
        return rows[up[: len(rows)]]

    def _refuse_silent_circuits(self, silent: I8, held: list[HeldWrite]) -> None:
        """CHANNELS_HELD where the circuit of a channel is silent, and a write waits on it.

        What waits there would take place before anything that is sent now.
        """
        by_circuit = {write.circuit: write for write in held if write.circuit}
        if not by_circuit or len(silent) == 0:
            return
        hosts = self._channels.table.read_info(self._course.slots_of_rows(silent)).host
        for row, host in zip(silent.tolist(), hosts, strict=True):
            if host in by_circuit:
                raise held_error(by_circuit[host], f"on whose IOC {self._items.names[row]} lies")

    def _check_start(self) -> None:
        if self._course.clock() > self._restore.start_by_ns:
            raise DeadlineExceeded("the start deadline was over before the first write: none is")

    def _check_writable(self, rows: I8, refusing: I8) -> None:
        """MACHINE_MOVED where an IOC would refuse a write that it would not when it was planned."""
        if self._restore.accept_moved:
            return
        writable = self._channels.table.read_info(self._course.slots_of_rows(rows)).writable
        refused = rows[~writable | np.isin(rows, refusing)]
        if len(refused):
            first = self._items.names[int(refused[0])]
            raise FailedPrecondition(
                f"{len(refused)} of the PVs to write do not take a value any more, the first is"
                f" {first}: its record is disabled (.DISP, .DISA), or its IOC has taken the access"
                " away; nothing was written. Make a new plan, or accept the changes",
                reason=Reason.MACHINE_MOVED,
                metadata={"moved": str(len(refused)), "first_moved": first},
            )

    def _check_moved(self, rows: I8, now: Columns) -> None:
        """Raise MACHINE_MOVED or LABELS_MOVED for what has changed since the plan.

        Or since the interrupted restore that this one continues.
        """
        items, carried = self._items, self._course.carried
        stayed = np.zeros(len(rows), bool)
        for values in (
            [items.current]
            if carried is None
            else values_left(items, carried.outcome, self._execution)
        ):
            compared = compare(
                values.take_rows(rows), now, items.absolute[rows], items.relative[rows]
            )
            stayed |= np.isin(compared.cls, SAME)
        self._course.note_connections(rows)
        relabelled = self._course.relabelled_rows(rows)
        if len(relabelled):
            raise labels_moved(items, relabelled, "nothing was written")
        moved = rows[~stayed]
        if self._restore.accept_moved or len(moved) == 0:
            return
        first = items.names[int(moved[0])]
        since = "the plan was made" if carried is None else "the restore was interrupted"
        raise FailedPrecondition(
            f"{len(moved)} of the PVs to write have changed since {since}, the first is"
            f" {first}; nothing was written. Make a new plan, or accept the changes",
            reason=Reason.MACHINE_MOVED,
            metadata={"moved": str(len(moved)), "first_moved": first},
        )
