"""A real IOC to measure on: `python -m bench.softioc FIRST PVS GROUPS MOVING both|readbacks`.

A process of its own. It takes one JSON line on stdin for each command, answers with one on stdout,
and ends when stdin does, so that nothing is left when the benchmark is killed.

Moving records count: `calc` with `VAL+1`, in `GROUPS` groups of consecutive PVs, each group an
EPICS event. A thread posts the events evenly over the period; a group whose last pass has not
ended is passed over and counted, so that what is not offered is known. How often each group was
processed is read from a record at its end, without a lock: it is one aligned double.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import tempfile
import threading
import time
from typing import Any

from bench.names import pv_name

_SETPOINT = 'record(ao,"{0}:BDES"){{field(PINI,"YES")field(VAL,"1")field(FLNK,"{0}:BACT")}}\n'
_FOLLOWS = 'record(calc,"{0}:BACT"){{field(INPA,"{0}:BDES")field(CALC,"A")}}\n'
_STILL = 'record(calc,"{0}:BACT"){{field(PINI,"YES")field(CALC,"1")}}\n'
_MOVES = 'record(calc,"{0}:BACT"){{field(SCAN,"Event")field(EVNT,"G{1}")field(CALC,"VAL+1")}}\n'
_MARK = (
    'record(calc,"BENCH:MARK{0}"){{field(SCAN,"Event")field(EVNT,"G{0}")field(PHAS,"1")'
    'field(CALC,"VAL+1")}}\n'
)


def database(pvs: int, groups: int, moving: int, both: bool, first: int = 0) -> str:
    """Records of `pvs` PVs, from number `first` on; the first `moving` of them move.

    `both`: setpoints, which readbacks follow.
    """
    lines = []
    for i in range(pvs):
        name = pv_name(first + i)
        if both:
            lines += [_SETPOINT.format(name), _FOLLOWS.format(name)]
        elif i < moving:
            lines.append(_MOVES.format(name, i * groups // moving))
        else:
            lines.append(_STILL.format(name))
    lines += [_MARK.format(group) for group in range(groups)]
    return "".join(lines)


class Pacer:
    """Posts the groups' events at a rate that can be changed while it runs."""

    def __init__(self, core: Any, groups: int) -> None:
        self._core = core
        self._events = [_find_event(core, f"G{group}") for group in range(groups)]
        self._marks = [_value_of(core, f"BENCH:MARK{group}") for group in range(groups)]
        self._posted = [0] * groups
        self._rate = 0.0
        self._changed = threading.Event()
        self.passed_over = 0
        threading.Thread(target=self._run_pacer, daemon=True).start()

    def set(self, rate: float) -> None:
        """Each moving record is processed `rate` times a second from now on; 0: never."""
        self._rate = rate
        self._changed.set()

    def passes(self) -> int:
        """How often a group was processed, over all groups."""
        return sum(int(mark.value) for mark in self._marks)

    def _run_pacer(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            due, group, rate = time.monotonic(), 0, self._rate
            while rate > 0 and not self._changed.is_set():
                self._post_group(group)
                group = (group + 1) % len(self._events)
                due = max(due + 1 / (rate * len(self._events)), time.monotonic() - 0.1)
                time.sleep(max(due - time.monotonic(), 0))

    def _post_group(self, group: int) -> None:
        if self._marks[group].value < self._posted[group]:
            self.passed_over += 1
            return
        self._posted[group] += 1
        self._core.postEvent(self._events[group])


def _find_event(core: Any, name: str) -> ctypes.c_void_p:
    core.eventNameToHandle.restype = ctypes.c_void_p
    core.eventNameToHandle.argtypes = [ctypes.c_char_p]
    core.postEvent.argtypes = [ctypes.c_void_p]
    return ctypes.c_void_p(core.eventNameToHandle(name.encode()))


def _value_of(core: Any, name: str) -> ctypes.c_double:
    """The field itself: a DBADDR begins with the record's and the field's address."""
    address = (ctypes.c_void_p * 16)()
    if core.dbNameToAddr(name.encode(), ctypes.byref(address)):
        raise RuntimeError(f"no record {name}")
    field = address[1]
    assert field is not None
    return ctypes.c_double.from_address(field)


def main(first: int, pvs: int, groups: int, moving: int, both: bool) -> None:
    """Serve until stdin ends."""
    from epicscorelibs import ioc

    ioc.iocshRegisterCommon()
    # 512 buckets by default: with 40,000 records the search of names takes most of the time.
    buckets = 1 << max(17, (pvs * (1 + both)).bit_length())
    ioc.ioc(f"dbPvdTableSize {buckets}")
    with tempfile.NamedTemporaryFile("w", suffix=".db") as file:
        file.write(database(pvs, groups, moving, both, first))
        file.flush()
        ioc.start_ioc(dbs=[(file.name, "")])
    pacer = Pacer(ioc.dbCore, groups)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "rate" in command:
            pacer.set(command["rate"])
        used = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "processed": pacer.passes() * moving // groups,
            "passed_over": pacer.passed_over,
            "cpu_s": used.ru_utime + used.ru_stime,
            "time_s": time.monotonic(),
        }
        print(json.dumps(answer), flush=True)
    os._exit(0)  # taking the records apart takes longer than making them


if __name__ == "__main__":
    first, pvs, groups, moving = map(int, sys.argv[1:5])
    main(first, pvs, groups, moving, sys.argv[5] == "both")
