"""Monitors that own by a Lease: what they publish when one of them stands still."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from drey_core.values import State
from drey_testing.ca.ioc import Ioc, use_loopback
from drey_testing.cluster.api_server import ApiServer
from drey_testing.fixtures_monitor import (
    CHANNELS,
    DATABASE,
    LIVING,
    MonitorProcess,
    MonitorRig,
    eventually,
)
from drey_testing.two_owners import (
    FAULTS,
    ImageWatch,
    Ways,
    late_batches,
    wait_epoch_after,
    wait_stopped,
    wait_values,
)

use_loopback()
WAIT_S = 90.0
SHORTLY = {"leaseDurationSeconds": 1}
NO_POSTGRES = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture(scope="module")
def ioc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ioc]:
    with Ioc(tmp_path_factory.mktemp("ioc"), DATABASE) as running:
        yield running


class LeasedRig:
    """A rig whose monitors own by Leases; there is no Postgres."""

    def __init__(self, rig: MonitorRig, server: ApiServer) -> None:
        self.rig, self._server = rig, server
        self.namespace = f"t{uuid.uuid4().hex[:12]}"
        self.kubeconfig = server.kubeconfig()

    async def make_leases(self) -> None:
        metadata = {"name": self.namespace}
        await self._server.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        for shard in range(self.rig.shards):
            # for so long a new object counts as held
            lease = {"metadata": {"name": f"drey-shard-{shard}"}, "spec": SHORTLY}
            await self._server.call("POST", path, lease)

    def start_monitor(
        self,
        duration_s: int = 2,
        kubeconfig: Path | None = None,
        urls: Mapping[str, str] = MappingProxyType({}),
        directory: str = "",
        **settings: str,
    ) -> MonitorProcess:
        return self.rig.start_monitor(
            urls=urls,
            directory=directory,
            **settings,
            LEASE="kubernetes",
            LEASE_NAMESPACE=self.namespace,
            LEASE_IDENTITY=f"monitor-{len(self.rig.monitors)}",
            LEASE_DURATION=str(duration_s),
            LEASE_KUBECONFIG=str(kubeconfig or self.kubeconfig),
        )

    async def epoch(self) -> int:
        (beat,) = await self.rig.image.read_heartbeats(1)
        return beat.epoch if beat is not None else 0

    async def wait_owner_after(self, epoch: int) -> int:
        """Wait for one with a greater epoch, who has published under it."""

        async def followed() -> bool:
            now = await self.epoch()
            return now > epoch and any(b.epoch == now for b, _ in self.rig.listener.batches)

        await eventually(followed, f"an owner after epoch {epoch}", WAIT_S)
        return await self.epoch()

    async def wait_fresh(self) -> None:
        """Wait until a changing channel changes in the image."""
        before = (await self.rig.read([700])).value(0)

        async def changed() -> bool:
            return bool((await self.rig.read([700])).value(0) != before)

        await eventually(changed, "values go on", WAIT_S)

    def check_batches(self) -> None:
        """Nobody can believe two: one owner an epoch, each number once, and in order."""
        late = late_batches(self.rig)
        # one may have lain in the client's buffer when the process was stopped
        assert late <= 1, f"{late} batches of a former owner after those of its successor"

    async def shares(self) -> list[int]:
        """How many shards each monitor that lives has, by its own signs of life."""
        beats = await self.rig.image.read_heartbeats(self.rig.shards)
        owners = [int(beat.owner.rpartition(":")[2]) for beat in beats if beat is not None]
        living = [monitor for monitor in self.rig.monitors if monitor.process.poll() is None]
        return sorted(owners.count(monitor.pid) for monitor in living)


@pytest.fixture
async def leased(tmp_path, ioc: Ioc, api_server: ApiServer) -> AsyncIterator[LeasedRig]:
    async with MonitorRig(tmp_path, NO_POSTGRES) as rig:
        rig.directory.set(CHANNELS.items())
        made = LeasedRig(rig, api_server)
        await made.make_leases()
        try:
            yield made
        finally:
            api_server.go_on()
            for monitor in rig.monitors:
                print(monitor.log.read_text())


@pytest.fixture
async def balanced(tmp_path, ioc: Ioc, api_server: ApiServer) -> AsyncIterator[LeasedRig]:
    """Three shards that have the same channels each."""
    async with MonitorRig(tmp_path, NO_POSTGRES, shards=3) as rig:
        rig.directory.set((c + 512 * n, CHANNELS[c]) for n in range(3) for c in LIVING)
        made = LeasedRig(rig, api_server)
        await made.make_leases()
        try:
            yield made
        finally:
            for monitor in rig.monitors:
                print(monitor.log.read_text())


async def test_a_stopped_owner_is_followed_and_says_nothing_when_it_goes_on(
    leased: LeasedRig,
) -> None:
    first = leased.start_monitor()
    await leased.rig.wait_settled(WAIT_S)
    epoch = await leased.epoch()
    leased.start_monitor()
    first.signal(signal.SIGSTOP)
    second = await leased.wait_owner_after(epoch)
    first.signal(signal.SIGCONT)

    async def noticed() -> bool:
        log = first.log.read_text()
        return "was lost" in log or "newer owner" in log

    await eventually(noticed, "the stopped owner learns of it", WAIT_S)
    await leased.wait_fresh()
    await leased.rig.wait_states(LIVING, State.CONNECTED, WAIT_S)
    assert await leased.epoch() == second
    leased.check_batches()


@pytest.mark.parametrize("part", ["SNAPSHOT", "REDIS", "NATS"])
async def test_an_owner_is_followed_by_one_that_starts_while_a_part_does_not_answer(
    leased: LeasedRig, api_server: ApiServer, part: str
) -> None:
    """Nothing that takes connections and says nothing is waited for before a Lease is taken."""
    rig = leased.rig
    first = leased.start_monitor()
    await rig.wait_settled(WAIT_S)
    epoch = await leased.epoch()
    urls = {
        "NATS": rig.nats.url,
        "REDIS": rig.valkey.url,
        "SNAPSHOT": f"grpc://127.0.0.1:{rig.directory_port}",
    }
    async with Ways(urls) as ways:
        by_ways = ways.urls
        ways.break_off(part, "stalled")
        directory = by_ways.pop("SNAPSHOT").removeprefix("grpc://")
        second = leased.start_monitor(urls=by_ways, directory=directory)
        first.signal(signal.SIGSTOP)

        async def followed() -> bool:
            told = (await rig.image.read_heartbeats(1))[0]
            beats = [*rig.listener.beats, *([told] if told else [])]
            return any(beat.epoch > epoch for beat in beats)

        await eventually(followed, "another owner", WAIT_S)
        assert "the catalog cannot be followed" not in second.log.read_text(), "nor is a deadline"
        ways.mend()
        await leased.wait_fresh()
        first.signal(signal.SIGCONT)
        await wait_stopped(first)
    leased.check_batches()


async def test_a_killed_owner_is_followed_and_one_that_ends_hands_over(leased: LeasedRig) -> None:
    first = leased.start_monitor()
    await leased.rig.wait_settled(WAIT_S)
    epoch = await leased.epoch()
    second = leased.start_monitor()
    first.signal(signal.SIGKILL)
    epoch = await leased.wait_owner_after(epoch)
    leased.start_monitor()
    second.signal(signal.SIGTERM)
    assert await second.ended(WAIT_S) == 0
    await leased.wait_owner_after(epoch)
    await leased.wait_fresh()
    leased.check_batches()


async def test_all_fall_silent_while_the_api_server_is_away_and_go_on(
    leased: LeasedRig, api_server: ApiServer
) -> None:
    leased.start_monitor()
    await leased.rig.wait_settled(WAIT_S)
    epoch = await leased.epoch()
    api_server.stand_still()
    seen = -1

    async def silent() -> bool:
        nonlocal seen
        before, seen = seen, len(leased.rig.listener.batches) + len(leased.rig.listener.beats)
        await asyncio.sleep(0.6)
        return before == seen

    await eventually(silent, "nothing is published", WAIT_S)
    api_server.go_on()
    await leased.wait_fresh()
    # its channels stayed connected, and nobody else had it
    assert await leased.epoch() == epoch
    leased.check_batches()


@asynccontextmanager
async def first_by_ways(
    leased: LeasedRig, server: ApiServer, folder: Path
) -> AsyncIterator[tuple[Ways, MonitorProcess]]:
    """An owner whose ways can be broken; nobody waits beside it yet."""
    urls = {"API": server.url, "NATS": leased.rig.nats.url, "REDIS": leased.rig.valkey.url}
    async with Ways(urls) as ways:
        by_ways = ways.urls
        kubeconfig = folder / "kubeconfig-by-ways"
        text = leased.kubeconfig.read_text()
        kubeconfig.write_text(text.replace(server.url, by_ways.pop("API")))
        first = leased.start_monitor(kubeconfig=kubeconfig, urls=by_ways)
        await leased.rig.wait_settled()
        yield ways, first


@pytest.mark.parametrize(
    ("part", "fault"),
    [*(("API", f) for f in FAULTS), ("NATS", "stalled"), ("REDIS", "stalled")],
)
async def test_an_owner_that_is_cut_off_is_followed_and_never_believed_again(
    leased: LeasedRig, api_server: ApiServer, tmp_path: Path, part: str, fault: str
) -> None:
    rig = leased.rig
    async with first_by_ways(leased, api_server, tmp_path) as (ways, first):
        epoch = await leased.epoch()
        leased.start_monitor()
        async with ImageWatch.watching(rig.image):
            ways.break_off(part, fault)
            # who renews is not followed
            ways.break_off("API", fault)
            followed = await wait_epoch_after(rig, epoch)
            late = late_batches(rig)
            ways.mend()
            await wait_stopped(first)
            await wait_values(rig)
            await rig.wait_states(LIVING, State.CONNECTED)
            assert await leased.epoch() == followed
        assert late == 0
        assert late_batches(rig) == 0 or part == "NATS", "only the broken way can hold some up"


async def test_the_clock_alone_silences_an_owner_that_hears_of_nobody(
    leased: LeasedRig, api_server: ApiServer, tmp_path: Path
) -> None:
    """What it says goes out; its successor, the image and the API server do not reach it."""
    rig = leased.rig
    async with first_by_ways(leased, api_server, tmp_path) as (ways, first):
        epoch = await leased.epoch()
        leased.start_monitor()
        for part in ("API", "REDIS"):
            ways.break_off(part, "stalled")
        ways.deafen("NATS")
        await wait_epoch_after(rig, epoch)
        await wait_values(rig)
        assert late_batches(rig) == 0
        ways.mend()
        await wait_stopped(first)


LONG_LEASE_S = 120
"""Nobody waits for one to run out: what changes hands has been given back."""


async def test_each_monitor_takes_its_share_and_hands_it_back(balanced: LeasedRig) -> None:
    """1, 3 and 1 monitors: no Lease runs out, so nothing stands still for as long as it takes."""

    async def have(*shares: int) -> None:
        async def shared() -> bool:
            return await balanced.shares() == list(shares)

        await eventually(shared, f"shares {shares}", WAIT_S)
        await balanced.rig.wait_settled(WAIT_S)

    balanced.start_monitor(LONG_LEASE_S)
    await have(3)
    others = [balanced.start_monitor(LONG_LEASE_S) for _ in range(2)]
    await have(1, 1, 1)
    for monitor in others:
        monitor.signal(signal.SIGTERM)
        assert await monitor.ended(WAIT_S) == 0
    await have(3)
    balanced.check_batches()
    for monitor in balanced.rig.monitors:
        assert "lease lost" not in monitor.log.read_text()


async def test_a_killed_owner_is_followed_by_its_warm_standby_and_not_by_a_cold_one(
    balanced: LeasedRig,
) -> None:
    rig = balanced.rig
    first = balanced.start_monitor(WARM_STANDBYS="1", BALANCE="false")
    await rig.wait_settled(WAIT_S)
    second = balanced.start_monitor(WARM_STANDBYS="1", BALANCE="false")

    async def warm() -> bool:
        return second.log.read_text().count(" channels come, 0 go") == rig.shards

    await eventually(warm, "the standby has its channels", WAIT_S)
    third = balanced.start_monitor(BALANCE="false")

    async def known() -> bool:
        return f":{second.pid}" in third.log.read_text()

    await eventually(known, "the third knows of the standby", WAIT_S)
    epochs = [beat.epoch for beat in await rig.image.read_heartbeats(rig.shards) if beat]
    published = {(batch.shard, batch.epoch) for batch, _ in rig.listener.batches}
    assert published == set(enumerate(epochs)), "a standby says nothing"
    first.signal(signal.SIGSTOP)
    for shard, epoch in enumerate(epochs):
        await wait_epoch_after(rig, epoch, shard)
    assert await balanced.shares() == [0, 0, rig.shards]
    assert "owning shard" not in third.log.read_text()
    first.signal(signal.SIGCONT)
    await wait_stopped(first)
    balanced.check_batches()
