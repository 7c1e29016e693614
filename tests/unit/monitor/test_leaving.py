"""What has to be so before a monitor lets go of what another takes over."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from drey.events.v1.instances_pb2 import InstanceReport
from drey_core.values import Columns, Kind, State
from drey_monitor.loops.balance import Balancer, BalanceRules
from drey_monitor.loops.epochs import EpochListener, HeardBeat
from drey_monitor.owned import Shards, WarmShard

S = 1_000_000_000


async def test_it_ends_when_its_leases_are_free_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ending takes all of the process's time, and others wait for the lease meanwhile."""
    shards = Shards(0)
    bus = cast(Any, SimpleNamespace(connected=True))
    balancer = Balancer(shards, EpochListener(shards), bus, BalanceRules(1, True))
    monkeypatch.setattr(balancer, "_offer_takers", lambda: ["other"])
    assert shards.claim_shard(0)
    leaving = asyncio.create_task(balancer.leave_members())
    shards.leave_shard(0)
    await asyncio.wait({leaving}, timeout=0.2)
    assert not leaving.done()
    shards.note_given_back(0)
    await leaving


def warm_shard(valued: int) -> WarmShard:
    warm = WarmShard(S)
    warm.follow({0: b""}, np.zeros(0, np.int64))
    warm.added.set()
    rows = Columns.empty_columns(valued).with_key(np.arange(valued))
    rows.state[:] = State.CONNECTED
    rows.kind[:] = Kind.FLOAT64
    warm.fold_columns(rows)
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


def test_a_standby_that_lost_its_iocs_is_none_until_it_has_them_again() -> None:
    warm = warm_shard(20)
    assert warm.is_prepared(0, 20, 20, asking=0) and not warm.falls_behind(20)
    lost = Columns.empty_columns(3).with_key(np.arange(3))
    lost.state[:] = State.DISCONNECTED
    warm.fold_columns(lost)
    assert warm.falls_behind(20)
    # the owner lost them as well: the same for both
    assert not warm.falls_behind(17)
    assert not warm.is_prepared(S, 20, 20, asking=0)


class Member:
    """Another monitor, as its reports tell."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    async def report(self, **fields: Any) -> None:
        report = InstanceReport(service="monitor", instance="other:1", **fields)
        await self._balancer.on_report(cast(Any, SimpleNamespace(data=report.SerializeToString())))


@pytest.fixture
def standing() -> tuple[Shards, EpochListener, Balancer]:
    """A balancer of three shards that "other:1" owns as far as was heard, at a clock of its own."""
    shards = Shards(0)
    epochs = EpochListener(shards)
    bus = cast(Any, SimpleNamespace(connected=True))
    return shards, epochs, Balancer(shards, epochs, bus, BalanceRules(3, True, 1, 4.0))


async def test_a_shard_is_left_to_its_warm_standby_but_not_for_ever(
    standing: tuple[Shards, EpochListener, Balancer],
) -> None:
    shards, epochs, balancer = standing
    now = time.monotonic()
    beat = epochs.beats[0] = HeardBeat("gone:1", 5)
    beat.hear_beat("gone:1", 5, now)

    def may_try(later_s: float) -> list[bool]:
        balancer._tell_turns(now + later_s)
        return [shards.shard_turn(shard).free.is_set() for shard in range(3)]

    other = Member(balancer)
    await other.report(warm_standbys=1, standby_shards=[0, 1], prepared=[0])
    # one that only begins to keep it warm is no better than this process
    assert may_try(0.0) == [False, True, True]
    # its owner died, and its lease has not run out
    assert may_try(6.9) == [False, True, True]
    # somebody could have had it for a while: the standby cannot take it
    assert may_try(7.1) == [True, True, True]
    # two standbys: who is warm itself waits for nobody
    balancer._standing.add(0)
    shards.shard_turn(0).prepared = True
    assert may_try(0.0) == [True, True, True]


async def test_standbys_begin_when_all_is_well_and_end_when_they_are_relieved(
    standing: tuple[Shards, EpochListener, Balancer],
) -> None:
    _, epochs, balancer = standing
    other, now = Member(balancer), time.monotonic()

    def look(at: float) -> set[int]:
        for shard, beat in epochs.beats.items():
            if shard not in silent:
                beat.hear_beat(beat.owner, 5, at)
        for member in balancer._members.values():
            member.heard_at = time.monotonic()
        balancer._plan_standbys(at)
        return balancer._standing

    silent = {1}
    for shard in range(3):
        epochs.beats[shard] = HeardBeat("other:1", 5)
        epochs.beats[shard].hear_beat("other:1", 5, now)
    await other.report(warm_standbys=1)
    # while a shard has no owner that is heard a fail-over comes first
    assert all(not look(now + 3 + 0.5 * n) for n in range(20))
    silent.clear()
    assert not look(now + 20)
    assert look(now + 23.1) == {0, 1, 2}
    # another has it warm too: one of the two is enough, and this one has more
    await other.report(warm_standbys=1)
    epochs.beats[0].owner = "third:1"
    await other.report(warm_standbys=1, standby_shards=[0])
    look(now + 24)
    assert 0 in look(now + 30), "not before the other is warm"
    await other.report(warm_standbys=1, standby_shards=[0], prepared=[0])
    look(now + 31)
    assert look(now + 35) == {1, 2}
