"""What has to be so before a monitor lets go of what another takes over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from drey_core.values import Columns, Kind, State
from drey_monitor.loops.balance import Balancer
from drey_monitor.loops.epochs import EpochListener
from drey_monitor.owned import Shards, WarmShard

S = 1_000_000_000


async def test_it_ends_when_its_leases_are_free_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ending takes all of the process's time, and others wait for the lease meanwhile."""
    shards = Shards(0)
    bus = cast(Any, SimpleNamespace(connected=True))
    balancer = Balancer(shards, EpochListener(shards), bus, 1, True)
    monkeypatch.setattr(balancer, "_takers", lambda: ["other"])
    assert shards.claim(0)
    leaving = asyncio.create_task(balancer.leave())
    shards.leave(0)
    await asyncio.wait({leaving}, timeout=0.2)
    assert not leaving.done()
    shards.note_given_back(0)
    await leaving


def warm_shard(valued: int) -> WarmShard:
    warm = WarmShard(S)
    warm.added.set()
    rows = Columns.empty(valued).with_key(np.arange(valued))
    rows.state[:] = State.CONNECTED
    rows.kind[:] = Kind.FLOAT64
    warm.fold(rows)
    return warm


def test_a_successor_is_prepared_when_iocs_are_done_with_its_subscriptions() -> None:
    warm = warm_shard(3)
    assert not warm.is_prepared(0, 3, 3, asking=7)
    assert not warm.is_prepared(S // 2, 3, 3, asking=6)
    assert warm.is_prepared(S // 2, 3, 3, asking=0)


def test_it_does_not_wait_for_ever_for_an_ioc_that_is_busy() -> None:
    """Longer than the owner waits would be no hand-over at all."""
    warm = warm_shard(3)
    asking = [not warm.is_prepared(n * S // 2, 3, 3, asking=100 - n) for n in range(11)]
    assert asking == [True] * 10 + [False]


def test_nor_for_channels_that_do_not_come() -> None:
    warm = warm_shard(2)
    looks = [warm.is_prepared(n * S // 2, 4, 3, asking=0) for n in range(6)]
    assert looks[0] is False and looks[-1] is True
