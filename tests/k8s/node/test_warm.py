"""A warm standby beside each owner, asked for by the chart's values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.node.site import COUNTERS, Site, until
from tests.k8s.node.test_deaths import Ownership, wait_owned
from tests.k8s.node.watching import BusListener, Watcher

pytestmark = pytest.mark.node


def standbys(site: Site) -> list[set[str]]:
    """Pods that keep each shard warm."""
    return [
        {name.rpartition(":")[0] for name in _warm_names(shard.get("standbys", []))}
        for shard in sorted(site.shards(), key=lambda shard: shard["state"].get("shard", 0))
    ]


def _warm_names(found: list[dict[str, object]]) -> list[str]:
    return [str(standby["instance"]) for standby in found if standby.get("warm")]


def wait_warm(site: Site) -> None:
    """Wait until each shard has a warm standby that lives."""

    def warm() -> bool:
        living = set(site.pods("monitor"))
        return all(names & living for names in standbys(site))

    until(warm, "each shard has a warm standby")


@pytest.fixture
def with_standbys(site: Site) -> Iterator[int]:
    """The release asks for one a shard during the test; channels at the IOC before."""
    wait_owned(site)
    site.wait_connected()
    before = site.count_circuit_channels()
    try:
        site.upgrade("--set-json", "settings.monitor.warm_standbys=1")
        yield before
    finally:
        site.upgrade()
        site.wait_connected()


def test_a_killed_owner_is_followed_by_its_warm_standby(site: Site, with_standbys: int) -> None:
    before = with_standbys
    wait_warm(site)
    until(
        lambda: site.count_circuit_channels() == before + COUNTERS,
        "the IOC serves one connection more for each channel",
    )
    with Watcher(site) as watcher, BusListener(site) as bus:
        ownership = Ownership(site, bus, watcher)
        stood_by = standbys(site)
        site.kubectl("delete", "pod", ownership.pod, "--force", "--grace-period=0", "--wait=false")
        ownership.wait_followed("owner with a warm standby killed")
        for shard, follower in ownership.followers().items():
            assert follower in stood_by[shard], (follower, stood_by)
        wait_owned(site)
        watcher.check("owner with a warm standby killed")
        bus.check()
    wait_warm(site)
    until(
        lambda: site.count_circuit_channels() == before + COUNTERS,
        "the pod that came stands by, and nobody besides",
    )
