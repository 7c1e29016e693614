"""Leases of a real API server."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from drey_runtime.lease import Lease, LeaseLost
from drey_runtime.lease_kubernetes import KubernetesLease, open_kubernetes
from drey_testing.cluster.api_server import ApiServer, Refused
from drey_testing.lease import HoldingProgram, LeaseSuite, holding, until

DURATION_S = 4
NAMES = ("shard-0", "shard-1")
PROGRAM = f"""
import asyncio, sys
from pathlib import Path
from drey_runtime.lease_kubernetes import open_kubernetes
from drey_testing.lease import say_whether_valid
async def main():
    async with open_kubernetes(namespace=sys.argv[1], identity="child", prefix="drey-",
                               duration_s={DURATION_S}, kubeconfig=Path(sys.argv[2])) as lease:
        await say_whether_valid(lease, sys.argv[3])
asyncio.run(main())
"""


class KubernetesSite:
    """One namespace with the Leases of two shards."""

    stopped_is_followed = True

    def __init__(self, server: ApiServer, leases: dict[str, KubernetesLease]) -> None:
        self.server = server
        self.namespace = f"t{uuid.uuid4().hex[:12]}"
        self._leases = leases
        self.kubeconfig = server.kubeconfig()

    @property
    def path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        metadata = {"name": self.namespace}
        await self.server.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        await self.make_leases()
        async with AsyncExitStack() as stack:
            for owner in ("a", "b", "x", "w0", "w1", "w2", "w3", "standby", "other"):
                self._leases[owner] = await stack.enter_async_context(
                    open_kubernetes(
                        namespace=self.namespace,
                        identity=owner,
                        prefix="drey-",
                        duration_s=DURATION_S,
                        kubeconfig=self.kubeconfig,
                    )
                )
            yield

    async def make_leases(self, *names: str) -> None:
        for name in names or NAMES:
            await self.server.call("POST", self.path, {"metadata": {"name": f"drey-{name}"}})

    def lease(self, owner: str) -> Lease:
        return self._leases[owner]

    def program(self, name: str) -> Sequence[str]:
        return [sys.executable, "-c", PROGRAM, self.namespace, str(self.kubeconfig), name]

    async def wipe(self) -> None:
        for name in NAMES:
            await self.server.call("DELETE", f"{self.path}/drey-{name}")
        await self.make_leases()

    async def take_from(self, name: str) -> None:
        await self.server.call(
            "PATCH",
            f"{self.path}/drey-{name}",
            {
                "metadata": {"annotations": {"drey.dev/epoch": str(2**41)}},
                "spec": {"holderIdentity": "intruder", "leaseDurationSeconds": 2},
            },
        )

    async def away(self) -> None:
        self.server.stand_still()

    async def back(self) -> None:
        self.server.go_on()


@pytest.fixture
async def site(api_server: ApiServer) -> AsyncIterator[KubernetesSite]:
    made = KubernetesSite(api_server, {})
    async with made.open():
        yield made
        api_server.go_on()


class TestKubernetesLease(LeaseSuite):
    pass


async def test_a_deleted_lease_ends_the_ownership_and_waits_to_be_made_again(
    site: KubernetesSite,
) -> None:
    lost = asyncio.Event()
    epochs: list[int] = []

    async def own(owner: str) -> None:
        while True:
            try:
                async with site.lease(owner).held("shard-0") as term:
                    epochs.append(term.epoch)
                    await asyncio.Event().wait()
            except LeaseLost:
                lost.set()

    task = asyncio.create_task(own("a"))
    await until(lambda: len(epochs) == 1)
    await site.server.call("DELETE", f"{site.path}/drey-shard-0")
    await asyncio.wait_for(lost.wait(), 60)
    await asyncio.sleep(DURATION_S)
    assert len(epochs) == 1
    await site.make_leases("shard-0")
    await until(lambda: len(epochs) == 2)
    task.cancel()
    await asyncio.wait({task})


async def test_a_holder_with_a_shorter_duration_is_followed(site: KubernetesSite) -> None:
    """`leaseDuration` was raised, and a former owner died: it is looked at as often as it needs."""
    dead = {"spec": {"holderIdentity": "dead", "leaseDurationSeconds": 1}}
    await site.server.call("PATCH", f"{site.path}/drey-shard-0", dead)
    opened = open_kubernetes(
        namespace=site.namespace,
        identity="patient",
        prefix="drey-",
        duration_s=120,
        kubeconfig=site.kubeconfig,
    )
    async with opened as lease, holding(lease, "shard-0") as term:
        assert term.still_valid


async def test_what_is_given_back_is_taken_soon_however_long_the_lease(
    site: KubernetesSite,
) -> None:
    free = {"spec": {"leaseDurationSeconds": 1}}
    await site.server.call("PATCH", f"{site.path}/drey-shard-0", free)
    opened = open_kubernetes(
        namespace=site.namespace,
        identity="patient",
        prefix="drey-",
        duration_s=4800,  # an eighth of it is ten times what the test waits
        kubeconfig=site.kubeconfig,
    )
    async with opened as lease:
        async with holding(lease, "shard-0") as term:
            first = term.epoch
        async with holding(lease, "shard-0") as term:
            assert term.epoch > first
        giver = asyncio.Event()

        async def give() -> None:
            async with holding(lease, "shard-0"):
                giver.set()
                await asyncio.sleep(1)  # the other has looked, and waits for its next look

        task = asyncio.create_task(give())
        await asyncio.wait_for(giver.wait(), 60)
        async with holding(lease, "shard-0"):
            await task


@pytest.mark.parametrize("copied", [False, True])
async def test_a_lease_without_a_holder_is_held_unless_it_says_who_gave_it_back(
    site: KubernetesSite, copied: bool
) -> None:
    """Cleared by hand under its owner, or put back from a copy that was free: nobody follows yet.

    The owner renews after half a minute only, so it has not heard of it.
    """
    path = f"{site.path}/drey-shard-0"
    async with holding(site.lease("b"), "shard-0"):
        pass
    given_back = await site.server.call("GET", path)
    opened = open_kubernetes(
        namespace=site.namespace,
        identity="patient",
        prefix="drey-",
        duration_s=120,
        kubeconfig=site.kubeconfig,
    )
    async with opened as lease, holding(lease, "shard-0") as term:
        if copied:
            await site.server.call("DELETE", path)
            annotations = given_back["metadata"]["annotations"]
            metadata = {"name": "drey-shard-0", "annotations": annotations}
            body = {"metadata": metadata, "spec": {"leaseDurationSeconds": 120}}
            await site.server.call("POST", site.path, body)
        else:
            await site.server.call("PATCH", path, {"spec": {"holderIdentity": None}})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3), site.lease("b").held("shard-0"):
                pass
        assert term.still_valid


@pytest.mark.parametrize("in_the_midst", [False, True])
async def test_an_owner_that_is_cancelled_gives_back(
    site: KubernetesSite, in_the_midst: bool
) -> None:
    """As all owners are that a process has when it ends, some while they give it back already."""
    held, let_go = asyncio.Event(), asyncio.Event()

    async def own() -> None:
        async with site.lease("a").held("shard-0"):
            held.set()
            await let_go.wait()

    task = asyncio.create_task(own())
    await asyncio.wait_for(held.wait(), 60)
    if in_the_midst:
        let_go.set()
        async with asyncio.timeout(60):
            while not any("give back" in each.get_name() for each in asyncio.all_tasks()):
                await asyncio.sleep(0)  # each turn: it takes some milliseconds only
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    lease = await site.server.call("GET", f"{site.path}/drey-shard-0")
    assert not lease["spec"].get("holderIdentity")
    assert lease["metadata"]["annotations"]["drey.dev/given-back"]


async def test_a_hand_on_the_labels_takes_nothing_away(site: KubernetesSite) -> None:
    async with holding(site.lease("a"), "shard-0") as term:
        for number in range(5):
            labels = {"metadata": {"labels": {"touched": str(number)}}}
            await site.server.call("PATCH", f"{site.path}/drey-shard-0", labels)
            await asyncio.sleep(DURATION_S / 4)
        assert term.still_valid and not term.lost.is_set()


async def test_an_owner_that_cannot_renew_falls_silent_before_anybody_follows(
    site: KubernetesSite,
) -> None:
    """The server stands still: nobody may follow, and nobody may publish."""
    async with holding(site.lease("a"), "shard-0") as term:
        epoch = term.epoch
        await site.away()
        await until(lambda: not term.still_valid)
        assert not term.lost.is_set()
        await site.back()
        async with asyncio.timeout(60):
            await term.changed.wait()
        # nobody else had it meanwhile
        assert term.still_valid and term.epoch == epoch


async def test_a_blocked_loop_is_not_valid_when_it_goes_on(site: KubernetesSite) -> None:
    async with holding(site.lease("a"), "shard-0") as term:
        until_then = term.until
        while term._clock() < until_then:  # a loop that does not get on
            pass
        assert not term.still_valid
        await until(lambda: term.still_valid)


async def test_the_same_pod_twice_waits_for_its_own_former_process(site: KubernetesSite) -> None:
    async with HoldingProgram.started(site, "shard-0") as program:
        first = int(await program.line())
        async with HoldingProgram.started(site, "shard-0") as second:
            await asyncio.sleep(0.5)
            assert await program.is_valid()
            program.send(signal.SIGKILL)
            assert int(await second.line()) > first


async def test_without_the_right_it_says_which_is_missing(
    site: KubernetesSite, caplog: pytest.LogCaptureFixture
) -> None:
    account = {"metadata": {"name": "monitor"}}
    path = f"/api/v1/namespaces/{site.namespace}/serviceaccounts"
    await site.server.call("POST", path, account)
    answer = await site.server.call("POST", f"{path}/monitor/token", {"spec": {}})
    token = answer["status"]["token"]
    with pytest.raises(Refused):
        await site.server.call("GET", f"{site.path}/drey-shard-0", token=token)
    async with open_kubernetes(
        namespace=site.namespace,
        identity="poor",
        prefix="drey-",
        duration_s=DURATION_S,
        kubeconfig=site.server.kubeconfig(token),
    ) as lease:
        task = asyncio.create_task(_enter(lease))
        await until(lambda: "give its Role" in str([r.__dict__ for r in caplog.records]))
        task.cancel()
        await asyncio.wait({task})


async def _enter(lease: Lease) -> None:
    async with lease.held("shard-0"):
        pass
