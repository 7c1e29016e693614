"""Shards go to another monitor without a gap: when one is stopped, and when one comes."""

from __future__ import annotations

import signal
from itertools import dropwhile

import numpy as np
import pytest

from drey_core.values import State
from drey_testing.ca.ioc import use_loopback
from drey_testing.fixtures_monitor import CHANNELS, LIVING, MonitorRig, eventually

use_loopback()


@pytest.fixture
async def wide(tmp_path, database_url: str, ioc):
    """Four shards that have the same channels each."""
    async with MonitorRig(tmp_path, database_url, shards=4) as running:
        running.directory.set((c + 512 * n, CHANNELS[c]) for n in range(4) for c in LIVING)
        yield running
        for monitor in running.monitors:
            print(monitor.log.read_text())


async def owners_of(rig: MonitorRig) -> list[int]:
    """Process that owns each shard, by its heartbeat; 0: nobody."""
    beats = await rig.image.read_heartbeats(rig.shards)
    return [int(beat.owner.rpartition(":")[2]) if beat else 0 for beat in beats]


def values_of(rig: MonitorRig, channel: int) -> list[tuple[int, float]]:
    """(epoch, value) of each row of a channel so far, in order, from the first value on.

    When a channel connects for the first time it may be told before it has a value.
    """
    rows = [
        (batch.epoch, columns.value(row))
        for batch, columns, row in rig.listener.rows_of(channel)
        if columns.state[row] == State.CONNECTED
    ]
    return list(dropwhile(lambda each: each[1] is None, rows))


def order_of_events(log: str, *texts: str) -> list[int]:
    return [log.index(text) for text in texts]


async def test_one_that_is_stopped_hands_over_and_nothing_is_missed(rig, ioc):
    first = rig.start_monitor()
    await rig.wait_settled()
    second = rig.start_monitor()

    async def known() -> bool:
        return f":{second.pid}" in first.log.read_text()

    await eventually(known, "the standby is heard of")
    assert await owners_of(rig) == [first.pid]
    epoch = rig.listener.batches[-1][0].epoch
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0

    async def goes_on() -> bool:
        values = values_of(rig, 700)
        return len([v for e, v in values if e > epoch]) > 5

    await eventually(goes_on, "values of the successor")
    log = first.log.read_text()
    # it ends as soon as it has none: what else it says of the shard may come too late for its log
    offered, prepared, left = order_of_events(log, "offered to", "is prepared", "left with 0")
    assert offered < prepared < left
    values = values_of(rig, 700)
    epochs = [e for e, _ in values]
    assert epochs == sorted(epochs) and len(set(epochs)) == 2
    # a counter: it only grows, also over the hand-over, and its last value is what comes next
    numbers = [v for _, v in values]
    assert numbers == sorted(numbers)
    columns = await rig.read(LIVING)
    assert (columns.state == State.CONNECTED).all()
    # nobody was told that anything had been lost
    for _, batch in rig.listener.batches:
        alive = np.isin(batch.key, LIVING)
        assert (batch.state[alive] != State.DISCONNECTED).all()


async def test_one_that_comes_takes_its_share_and_then_nothing_moves(wide, ioc):
    first = wide.start_monitor()
    await wide.wait_settled()
    assert await owners_of(wide) == [first.pid] * 4
    second = wide.start_monitor()

    async def shared() -> bool:
        owners = await owners_of(wide)
        return sorted((owners.count(first.pid), owners.count(second.pid))) == [2, 2]

    await eventually(shared, "two shards each")
    await wide.wait_settled()
    beats = await wide.image.read_heartbeats(4)
    seen = len(wide.listener.beats)

    async def longer() -> bool:
        return len(wide.listener.beats) > seen + 200

    # ten seconds of signs of life and more
    await eventually(longer, "it goes on")
    assert [b.epoch for b in await wide.image.read_heartbeats(4)] == [b.epoch for b in beats]
    # each epoch had one owner, and values go on everywhere
    owners: dict[tuple[int, int], set[str]] = {}
    for beat in wide.listener.beats:
        owners.setdefault((beat.shard, beat.epoch), set()).add(beat.owner)
    assert all(len(found) == 1 for found in owners.values())
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0

    async def back() -> bool:
        return await owners_of(wide) == [first.pid] * 4

    await eventually(back, "all of them are with the first again")


async def test_one_that_is_stopped_alone_does_not_wait_for_anybody(rig, ioc):
    only = rig.start_monitor()
    await rig.wait_settled()
    only.signal(signal.SIGTERM)
    assert await only.ended() == 0
    assert "offered to" not in only.log.read_text()
