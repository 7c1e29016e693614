"""The IOC's records, and the file of PVs that goes with them."""

import csv
import io

from bench.ioc import split
from bench.names import catalog_csv, readbacks, setpoints
from bench.softioc import database


def _names(text: str) -> set[str]:
    return {line.split('"')[1] for line in text.splitlines()}


def test_every_channel_of_the_catalog_has_a_record() -> None:
    rows = list(csv.DictReader(io.StringIO(catalog_csv(30).decode())))
    served = _names(database(30, 2, 0, True))
    assert {row["Setpoint"] for row in rows} == set(setpoints(30)) <= served
    assert {row["Readback"] for row in rows} == set(readbacks(30)) <= served


def test_a_catalog_of_readbacks_has_no_setpoints() -> None:
    rows = list(csv.DictReader(io.StringIO(catalog_csv(3, both=False).decode())))
    assert [row["Setpoint"] for row in rows] == [""] * 3
    assert [row["Readback"] for row in rows] == readbacks(3)


def test_moving_records_are_spread_evenly_over_the_groups() -> None:
    text = database(100, 10, 50, False)
    for group in range(10):
        assert text.count(f'field(EVNT,"G{group}")') == 5 + 1  # and the mark at its end
    assert text.count("BENCH:MARK") == 10


def test_the_processes_of_an_ioc_have_every_record_once() -> None:
    parts = split(95, 45, of_one=40)
    assert [(own, moving) for _, own, moving in parts] == [(40, 40), (40, 5), (15, 0)]
    texts = [database(own, 2, moving, True, first) for first, own, moving in parts]
    served = [name for text in texts for name in _names(text) if not name.startswith("BENCH:")]
    assert sorted(served) == sorted([*setpoints(95), *readbacks(95)])
    assert split(40, 0, of_one=40) == [(0, 40, 0)]
