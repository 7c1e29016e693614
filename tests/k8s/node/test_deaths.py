"""Something dies under a watch: nothing wrong is seen, and it goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.k8s.node.site import Site, until
from tests.k8s.node.watching import BusListener, Watcher

pytestmark = pytest.mark.node
LEASE_S = 4
"""The chart's `leaseDuration`."""
MONITORS = 2
API_AWAY_S = 60


def owner_of_all(site: Site) -> dict[str, list[int]]:
    """The shards that each pod holds."""
    found: dict[str, list[int]] = {}
    for shard in range(3):
        found.setdefault(site.holder(shard), []).append(shard)
    return found


def owns_its_share(site: Site, share: int) -> bool:
    """Whether each of the monitors that own anything owns so many shards."""
    return {len(shards) for shards in owner_of_all(site).values()} == {share}


def wait_owned(site: Site) -> None:
    """Wait until every Lease is held by a pod that lives."""
    until(
        lambda: set(owner_of_all(site)) <= set(site.pods("monitor")),
        "each Lease is held by a living pod",
    )


class Ownership:
    """What the pod with the most shards held at one time, and how long others take to follow.

    A shard that it hands over meanwhile, as to a pod that has just come, counts as followed.
    """

    def __init__(self, site: Site, bus: BusListener, watcher: Watcher) -> None:
        held: dict[str, dict[int, int]] = {}
        for shard in range(3):
            pod, epoch = site.holder_and_epoch(shard)
            held.setdefault(pod, {})[shard] = epoch
        held.pop("", None)
        self.pod, self._epochs = max(held.items(), key=lambda found: len(found[1]))
        self._bus, self._watcher = bus, watcher
        self._begun = time.monotonic()

    def followers(self) -> dict[int, str]:
        """The pod that followed in each shard, once one did."""
        return {s: self._bus.owner_after(s, epoch) for s, epoch in self._epochs.items()}

    def wait_followed(self, what: str) -> None:
        """Wait for a greater epoch of each shard, and for updates of all counters under it."""
        until(
            lambda: all(self._bus.epoch(shard) > epoch for shard, epoch in self._epochs.items()),
            "another owner of each shard",
        )
        owned = time.monotonic() - self._begun
        self._watcher.wait_updates(what)
        took = time.monotonic() - self._begun
        print(
            f"{what} (shards {list(self._epochs)}): the next after {owned:.1f} s, updates from it"
            f" after {took:.1f} s"
        )


@pytest.fixture(autouse=True)
def settled(site: Site) -> None:
    wait_owned(site)
    site.wait_connected()


def test_a_killed_owner_is_followed(site: Site) -> None:
    with Watcher(site) as watcher, BusListener(site) as bus:
        ownership = Ownership(site, bus, watcher)
        site.kubectl("delete", "pod", ownership.pod, "--force", "--grace-period=0", "--wait=false")
        ownership.wait_followed("owner killed")
        wait_owned(site)
        watcher.check("owner killed")
        bus.check()


def test_a_stopped_owner_is_followed_and_silent_when_it_goes_on(site: Site) -> None:
    with Watcher(site) as watcher, BusListener(site) as bus:
        ownership = Ownership(site, bus, watcher)
        processes = site.processes(ownership.pod)
        assert processes
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            ownership.wait_followed("owner stopped")
            # longer than the Lease in any case
            time.sleep(LEASE_S)
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)
        watcher.wait_updates("the stopped one went on")
        wait_owned(site)
        watcher.check("owner stopped, then going on")
        bus.check()


def test_monitors_come_and_go_under_load(site: Site) -> None:
    with Watcher(site) as watcher, BusListener(site) as bus:
        for replicas in (1, 3, 1):
            site.scale("monitor", replicas)
            wait_owned(site)
            until(
                lambda: owns_its_share(site, 3 // replicas),  # noqa: B023
                f"each of {replicas} monitors has its share",
            )
            watcher.wait_updates(f"{replicas} monitors")
        site.scale("monitor", MONITORS)
        watcher.check("monitors 1, 3, 1")
        bus.check()
        print(f"told that values are not fresh {watcher.told_stale} times")
        assert not watcher.count.ended, watcher.count.ended


def test_all_fall_silent_without_the_api_server_and_go_on(site: Site) -> None:
    with Watcher(site) as watcher, BusListener(site) as bus:
        site.node.api.stand_still()
        try:
            until(lambda: not watcher.fresh, "the watcher is told that values are stale")
            time.sleep(API_AWAY_S)
            assert not watcher.fresh
        finally:
            site.node.api.go_on()
        took = watcher.wait_updates("the API server was back")
        until(lambda: watcher.fresh, "the watcher is told that values are fresh")
        print(f"API server stopped for {API_AWAY_S} s: updates {took:.1f} s after it went on")
        wait_owned(site)
        watcher.check("API server stopped")
        bus.check()


@pytest.mark.parametrize("part", ["postgres", "nats", "redis"])
def test_a_part_dies_and_comes_back(site: Site, part: str) -> None:
    with Watcher(site) as watcher:
        site.kubectl("delete", "pod", f"parts-{part}-0", "--force", "--grace-period=0")
        site.kubectl("rollout", "status", f"statefulset/parts-{part}", "--timeout=2m")
        took = watcher.wait_updates(f"{part} was deleted")
        print(f"{part} deleted and back: updates {took:.1f} s after")
        until(lambda: take_snapshot(site), "a snapshot can be taken")
        watcher.check(f"{part} deleted")
    restarts = site.restarts()
    assert not any(restarts.values()), f"no pod is restarted for what it depends on: {restarts}"


def take_snapshot(site: Site) -> bool:
    return bool(site.drey("snapshot", "take", "--all", "--allow-missing")["snapshot"]["id"])
