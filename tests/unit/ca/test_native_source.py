"""What the native table's source may not do."""

from __future__ import annotations

import re
from pathlib import Path

import drey_ca

SOURCE = Path(drey_ca.__file__).parent / "_native"


def test_nothing_of_python_under_the_mutex():
    """Every `lock` stands where the compiler refuses Python: a nogil function or block."""
    seen = 0
    for path in sorted(SOURCE.glob("*.p[yx]*")):
        inside: list[tuple[int, bool]] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = line.strip()
            if not text:
                continue
            depth = len(line) - len(line.lstrip())
            while inside and depth <= inside[-1][0]:
                inside.pop()
            if text.endswith(":") and re.match(r"(cdef|def|with nogil)\b", text):
                free = "nogil" in text or any(it for _, it in inside)
                inside.append((depth, free))
            elif re.match(r"lock\(", text):
                seen += 1
                assert any(free for _, free in inside), f"{path.name}:{number} {text}"
    assert seen > 40


def test_intervals_are_measured_on_a_clock_that_only_goes_on():
    """`now` is the wall clock: for times that are kept, and nothing else."""
    used = {
        line.strip()
        for path in SOURCE.glob("*.p*")
        for line in path.read_text().splitlines()
        if re.search(r"(?<![\w.])now\(\)", line) and "cdef inline" not in line
    }
    assert used == {"cdef int64_t when = now()", "fresh.receive_time = now()"}
