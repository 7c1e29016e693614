"""A warm standby keeps another's channels connected, says nothing, and follows at once."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import numpy as np
import pytest

from drey.events.v1.instances_pb2 import InstanceReport
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import State
from drey_runtime.nats_client import Msg
from drey_stack import free_port
from drey_testing.ca.ioc import use_loopback
from drey_testing.fixtures_monitor import (
    CHANNELS,
    LIVING,
    MonitorProcess,
    MonitorRig,
    eventually,
)
from drey_testing.two_owners import late_batches, wait_epoch_after

use_loopback()
PAGES_APART = 512
COUNTER = 700
"""It only grows."""


class Site:
    """A rig of monitors that stand by for each other, and what they report."""

    def __init__(self, rig: MonitorRig) -> None:
        self.rig = rig
        self._reports: dict[str, InstanceReport] = {}

    async def on_report(self, message: Msg) -> None:
        """A monitor reported."""
        report = InstanceReport.FromString(message.data)
        self._reports[report.instance] = report

    def start(self, count: int = 1, **settings: str) -> MonitorProcess:
        """Start a monitor of a site with `count` warm standbys a shard."""
        return self.rig.start_monitor(WARM_STANDBYS=str(count), **settings)

    async def wait_warm(self, monitor: MonitorProcess, shards: Iterable[int]) -> None:
        """Wait until a monitor reports that it keeps exactly these shards warm."""

        async def warm() -> bool:
            own = [r for r in self._reports.values() if r.instance.endswith(f":{monitor.pid}")]
            return bool(own) and set(own[0].standby_shards) & set(own[0].prepared) == set(shards)

        await eventually(warm, f"{monitor.pid} keeps {shards} warm")

    async def owners(self) -> dict[int, int]:
        """Process that owns each shard, by its heartbeat; 0: nobody."""
        beats = await self.rig.image.read_heartbeats(self.rig.shards)
        return {n: int(b.owner.rpartition(":")[2]) if b else 0 for n, b in enumerate(beats)}

    async def epochs(self) -> list[int]:
        """Of each shard, by its heartbeat."""
        return [b.epoch if b else 0 for b in await self.rig.image.read_heartbeats(self.rig.shards)]

    def first_columns(self, shard: int, after: int):
        """All that the first owner after an epoch said at once: one tick may be several batches."""
        batches = [(b, c) for b, c in self.rig.listener.batches if b.shard == shard]
        mine = [(b, c) for b, c in batches if b.epoch > after]
        first = [c for b, c in mine if b.sequence == mine[0][0].sequence]
        return {int(k): int(c.state[i]) for c in first for i, k in enumerate(c.key)}

    def values_of(self, channel: int) -> list[float]:
        """All values of a channel so far."""
        rows = self.rig.listener.rows_of(channel)
        values = [columns.value(row) for _, columns, row in rows]
        return [value for value in values if value is not None]


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
async def site(tmp_path, database_url: str, ioc, request):
    async with MonitorRig(tmp_path, database_url, shards=request.param) as rig:
        rig.directory.set(
            (c + PAGES_APART * n, address)
            for n in range(request.param)
            for c, address in CHANNELS.items()
            if c in LIVING
        )
        made = Site(rig)
        await rig.bus.subscribe_handler(
            rig.bus.full_subject("instances", "monitor"), made.on_report
        )
        yield made
        for monitor in rig.monitors:
            print(monitor.log.read_text())


def channels_of(shard: int, shards: int) -> set[int]:
    """Those of the site that are in a shard."""
    every = {c + PAGES_APART * n for n in range(shards) for c in LIVING}
    return {c for c in every if shard_of_page(c >> PAGE_SHIFT, shards) == shard}


async def pair(site: Site) -> tuple[MonitorProcess, MonitorProcess]:
    """An owner of all shards, and its warm standby."""
    # so that nothing is moved to the other, which would have some of the shards then
    first = site.start(BALANCE="false")
    await site.rig.wait_settled()
    second = site.start(BALANCE="false")
    await site.wait_warm(second, range(site.rig.shards))
    return first, second


async def test_a_killed_owner_is_followed_with_all_its_values_at_once(site: Site) -> None:
    rig = site.rig
    first, second = await pair(site)
    epochs = await site.epochs()
    # it has all channels, and said nothing: there is one epoch and one owner so far
    assert {(b.epoch, b.owner.rpartition(":")[2]) for b in rig.listener.beats} == {
        (epoch, str(first.pid)) for epoch in epochs
    }
    assert {b.epoch for b, _ in rig.listener.batches} <= set(epochs)
    first.signal(signal.SIGKILL)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    assert set((await site.owners()).values()) == {second.pid}

    async def told() -> bool:
        return all(site.first_columns(shard, epochs[shard]) for shard in range(rig.shards))

    await eventually(told, "batches of the standby")
    for shard in range(rig.shards):
        told_at_first = site.first_columns(shard, epochs[shard])
        alive = {c for c, state in told_at_first.items() if state == State.CONNECTED}
        assert alive >= channels_of(shard, rig.shards), "nothing had to be searched for"
    assert late_batches(rig) == 0
    for n in range(rig.shards):
        values = site.values_of(COUNTER + PAGES_APART * n)
        assert values == sorted(values)


async def test_changes_of_the_catalog_reach_the_standby(site: Site) -> None:
    rig = site.rig
    first, second = await pair(site)
    # one goes, one comes, and one has another address, in each shard
    moved, gone, new = 264, 256, 271
    rig.directory.set(
        (c + PAGES_APART * n, address)
        for n in range(rig.shards)
        for c, address in ((moved, "B"), (gone, None), (new, "LONG"))
    )
    await rig.announce()

    async def followed() -> bool:
        return second.log.read_text().count("2 channels come, 2 go") >= rig.shards

    await eventually(followed, "the standby follows")
    await rig.wait_states([new + PAGES_APART * n for n in range(rig.shards)], State.CONNECTED)
    await site.wait_warm(second, range(rig.shards))
    epochs = await site.epochs()
    first.signal(signal.SIGKILL)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    for n in range(rig.shards):
        base = PAGES_APART * n
        await rig.wait_states([new + base, moved + base], State.CONNECTED)
        columns = await rig.read([moved + base, gone + base, new + base])
        assert columns.value(0) == 2.0 and columns.value(2) == -2147483648
        assert columns.state[1] == State.ABSENT
        assert site.values_of(moved + base)[-1] == 2.0


async def test_a_standby_that_stood_still_begins_anew_and_tells_nothing_old(site: Site) -> None:
    rig = site.rig
    first, second = await pair(site)
    second.signal(signal.SIGSTOP)
    seen = len(rig.listener.beats)

    async def for_long() -> bool:
        return len(rig.listener.beats) > seen + 20 * rig.shards

    await eventually(for_long, "four seconds of signs of life")
    epochs = await site.epochs()
    second.signal(signal.SIGCONT)
    first.signal(signal.SIGKILL)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    await rig.wait_settled()
    for n in range(rig.shards):
        await rig.wait_states([c + PAGES_APART * n for c in LIVING], State.CONNECTED)
        values = site.values_of(COUNTER + PAGES_APART * n)
        assert values == sorted(values)
    assert "stood still" in second.log.read_text()


async def test_standbys_move_as_monitors_come_and_go_and_owners_never_meet(site: Site) -> None:
    rig = site.rig
    first, second = await pair(site)
    every = range(rig.shards)
    third = site.start(BALANCE="false")
    if rig.shards > 1:  # they are spread over the two that have none

        async def spread() -> bool:
            log = third.log.read_text()
            return "kept warm" in log and "not kept warm" in second.log.read_text()

        await eventually(spread, "the third has its share")
    second.signal(signal.SIGKILL)
    await site.wait_warm(third, every)
    # a standby ends in order: it offers nothing, for it owns nothing
    fourth = site.start(BALANCE="false")
    third.signal(signal.SIGTERM)
    assert await third.ended() == 0
    await site.wait_warm(fourth, every)
    epochs = await site.epochs()
    assert set((await site.owners()).values()) == {first.pid}
    first.signal(signal.SIGKILL)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    assert set((await site.owners()).values()) == {fourth.pid}
    owners: dict[tuple[int, int], set[str]] = {}
    for beat in rig.listener.beats:
        owners.setdefault((beat.shard, beat.epoch), set()).add(beat.owner)
    assert all(len(found) == 1 for found in owners.values())
    assert late_batches(rig) == 0


async def test_a_standby_that_cannot_have_the_lease_holds_nobody_up(site: Site) -> None:
    rig = site.rig
    first = site.start(BALANCE="false")
    await rig.wait_settled()
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    second = site.start(BALANCE="false", urls={"POSTGRES": nowhere})
    await site.wait_warm(second, range(rig.shards))
    third = rig.start_monitor(BALANCE="false")

    async def known() -> bool:
        return f":{second.pid}" in third.log.read_text()

    await eventually(known, "the third knows of the standby")
    epochs = await site.epochs()
    first.signal(signal.SIGKILL)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    assert set((await site.owners()).values()) == {third.pid}


async def test_an_ioc_is_counted_once_though_two_watch_it(site: Site) -> None:
    first, second = await pair(site)
    await site.wait_warm(second, range(site.rig.shards))

    def channels(monitor: MonitorProcess) -> int:
        own = [r for n, r in site._reports.items() if n.endswith(f":{monitor.pid}")]
        return sum(ioc.channels for ioc in own[0].iocs)

    async def counted() -> bool:
        return channels(first) == len(LIVING) * site.rig.shards

    await eventually(counted, "the owner counts all")
    assert channels(second) == 0
    assert np.all([b.warm_standbys == 1 for b in site._reports.values()])
