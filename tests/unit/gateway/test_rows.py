"""Rows encoded once, and never served as newer than they are."""

from __future__ import annotations

import numpy as np
import pytest

from drey.common.v1 import value_pb2
from drey.snapshot.v1.snapshot_service_pb2 import RowChunk
from drey_core.directory import Directory
from drey_core.values import ARRAY, Columns, Kind, State
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.rows import RowCache
from drey_gateway.domain.watch import (
    BOTH,
    READBACK,
    SETPOINT,
    Fields,
    WatchDiff,
    WatchSelection,
    WatchState,
)
from drey_testing.fixtures_gateway import catalog_pages, floats, readback, setpoint

NONE: frozenset[int] = frozenset()


def enums(value: int) -> Columns:
    channels = [setpoint(pv) for pv in (1, 2)]
    out = Columns.from_values(np.array(channels, np.int64), [value] * 2, [int(Kind.ENUM)] * 2)
    out.state[:] = State.CONNECTED
    return out


def test_what_could_not_be_encoded_is_not_served_as_it_was() -> None:
    pages = catalog_pages(2)
    image, directory = LiveImage(), Directory.from_pages(1, pages)
    image.add_pages(np.array([page.number for page in pages]))
    broken = False

    def labels(_channel: int) -> tuple[bytes, ...]:
        if broken:
            raise RuntimeError("no labels")
        return (b"zero", b"one")

    cache = RowCache(directory, image, labels, Fields.SETPOINT, 1)
    rows = np.arange(2)
    cache.watch_rows(rows)
    image.apply_batch(enums(0), 1, 1)
    both = np.full(2, BOTH)
    before = cache.rows(rows, both, NONE)
    image.apply_batch(enums(1), 1, 2)
    broken = True
    with pytest.raises(RuntimeError):
        cache.rows(rows, both, NONE)
    with pytest.raises(RuntimeError):
        cache.rows(rows[:1], both[:1], NONE)
    broken = False
    after = cache.rows(rows, both, NONE)
    assert b"one" in after[0] and b"one" in after[1]
    assert before != after


def test_a_setpoints_change_encodes_and_sends_no_readback() -> None:
    pages = catalog_pages(2)
    image, directory = LiveImage(), Directory.from_pages(1, pages)
    image.add_pages(np.array([page.number for page in pages]))
    cache = RowCache(directory, image, lambda _: (), Fields.BOTH, 1)
    rows = np.arange(2)
    cache.watch_rows(rows)
    kind = int(Kind.FLOAT64 | ARRAY)
    waves = Columns.from_values(
        np.array([readback(1), readback(2)], np.int64), [np.zeros(1000)] * 2, [kind] * 2
    )
    waves.state[:] = State.CONNECTED
    image.apply_batch(waves, 1, 1)
    image.apply_batch(floats([setpoint(1), setpoint(2)], [1.0, 1.0]), 1, 2)
    state = WatchState(WatchSelection.select_watched(rows, directory, image, Fields.BOTH, 1))

    def sent(change: WatchDiff) -> list[value_pb2.PvRow]:
        found = cache.rows(rows[change.at], change.channels, NONE)
        return list(RowChunk.FromString(b"".join(found)).rows)

    for row in sent(state.baseline_diff(image)):
        assert row.HasField("setpoint") and len(row.readback.float64_array.elements) == 1000
    image.apply_batch(floats([setpoint(1)], [2.0]), 1, 3)
    change = state.next_diff(image)
    assert change.channels.tolist() == [SETPOINT]
    (row,) = sent(change)
    assert row.setpoint.float64_value == 2.0 and not row.HasField("readback")
    assert row.ByteSize() < 100
    image.apply_batch(waves.take_rows(np.array([0])), 1, 4)
    image.apply_batch(floats([setpoint(2)], [3.0]), 1, 5)
    image.apply_batch(waves.take_rows(np.array([1])), 1, 6)
    change = state.next_diff(image)
    assert change.channels.tolist() == [READBACK, BOTH]
    one, two = sent(change)
    assert not one.HasField("setpoint") and two.setpoint.float64_value == 3.0
    assert all(len(row.readback.float64_array.elements) == 1000 for row in (one, two))
