"""Rows encoded once, and never served as newer than they are."""

from __future__ import annotations

import numpy as np
import pytest

from drey_core.directory import Directory
from drey_core.values import Columns, Kind, State
from drey_gateway.domain.image import LiveImage
from drey_gateway.domain.rows import RowCache
from drey_gateway.domain.watch import Fields
from drey_testing.fixtures_gateway import catalog_pages, setpoint

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
    cache.watch(rows)
    image.fold(enums(0), 1, 1)
    before = cache.rows(rows, NONE)
    image.fold(enums(1), 1, 2)
    broken = True
    with pytest.raises(RuntimeError):
        cache.rows(rows, NONE)
    with pytest.raises(RuntimeError):
        cache.rows(rows[:1], NONE)
    broken = False
    after = cache.rows(rows, NONE)
    assert b"one" in after[0] and b"one" in after[1]
    assert before != after
