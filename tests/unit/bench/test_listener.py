"""What the listener counts of the batches that a monitor publishes."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench.listener import BusCounter
from drey_core.values import Columns, Kind, State
from drey_runtime.batches import encode_batches


def _message(
    channels: list[int], sequence: int, *, merged: int = 0, state: State = State.CONNECTED
) -> Any:
    rows = Columns.empty_columns(len(channels))
    rows.kind[:] = Kind.FLOAT64
    rows.state[:] = state
    rows.source_time[:] = 1_000_000_000
    rows.merged[:] = merged
    (raw,) = encode_batches(
        rows.with_key(np.array(channels, np.int64)),
        shard=0,
        epoch=1,
        sequence=sequence,
        time_ns=1_050_000_000,
        directory_version=1,
    )
    return cast(Any, SimpleNamespace(data=raw))


async def test_updates_are_rows_and_what_they_merged() -> None:
    listener = BusCounter()
    await listener.on_batch(_message([256, 257], 1, merged=4))
    assert (listener.rows, listener.merged, listener.updates) == (2, 8, 10)


async def test_a_missing_sequence_is_a_gap() -> None:
    listener = BusCounter()
    for sequence in (1, 2, 4, 5):
        await listener.on_batch(_message([256], sequence))
    assert listener.gaps == 1


async def test_ages_are_from_the_source_to_the_batch() -> None:
    listener = BusCounter()
    await listener.on_batch(_message([256], 1))
    assert listener.ages_ms.tolist() == [50.0]


async def test_it_waits_for_every_wanted_channel_with_a_live_value() -> None:
    listener = BusCounter()
    listener.watch_for(np.array([256, 258], np.int64))
    await listener.on_batch(_message([256, 257], 1))
    await listener.on_batch(_message([258], 2, state=State.DISCONNECTED))
    with pytest.raises(TimeoutError):
        await listener.wait_all(0.0)
    await listener.on_batch(_message([258], 3))
    await listener.wait_all(0.0)
