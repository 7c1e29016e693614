"""What a monitor says of its IOCs, on the bus."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drey.events.v1.instances_pb2 import InstanceReport
from drey_core.values import State
from drey_testing.ca.ioc import Ioc
from drey_testing.ca.proxy import Proxy
from drey_testing.fixtures_monitor import CHANNELS, LIVING, MonitorRig, eventually

OTHER = """
record(ao,"OTHER:A"){field(VAL,"2") field(PINI,"YES")}
record(ao,"OTHER:B"){field(VAL,"2") field(PINI,"YES")}
record(ao,"B"){field(VAL,"2") field(PINI,"YES")}
"""


class Reports:
    """The reports of one service, as they come."""

    def __init__(self, rig: MonitorRig) -> None:
        self._rig = rig
        self.every: list[InstanceReport] = []

    async def listen(self, service: str) -> None:
        await self._rig.bus.subscribe_handler(
            self._rig.bus.full_subject("instances", service), self._on_report
        )

    async def _on_report(self, message) -> None:
        self.every.append(InstanceReport.FromString(message.data))

    def ioc(self, port: int):
        """The last word on the IOC of a port, or an empty one."""
        for report in reversed(self.every):
            for ioc in report.iocs:
                if ioc.address.endswith(f":{port}"):
                    return ioc
        return InstanceReport().iocs.add()


@pytest.fixture
async def reports(rig: MonitorRig) -> AsyncIterator[Reports]:
    made = Reports(rig)
    await made.listen("monitor")
    yield made


async def test_each_ioc_is_told_with_its_channels_and_its_echo(rig, ioc, reports, tmp_path):
    with Ioc(tmp_path, OTHER) as other:
        rig.directory.set([*CHANNELS.items(), (266, "OTHER:A"), (267, "OTHER:B")])
        monitor = rig.start_monitor()
        await rig.wait_settled()

        async def told():
            first, second = reports.ioc(ioc.port), reports.ioc(other.port)
            return (
                (first.channels, first.connected) == (10, 10)
                and (second.channels, second.connected) == (2, 2)
                and first.echo_ns > 0
                and second.echo_ns > 0
            )

        await eventually(told, "both IOCs with an echo")
        last = reports.every[-1]
        assert last.instance.endswith(f":{monitor.pid}") and last.version and last.serving
        assert last.ioc_count == 2
        assert [q.name for q in last.queues] == ["batches of shard 0"] and last.queues[0].bound
        assert reports.ioc(ioc.port).timeouts == 0
        other.kill()

        async def down():
            found = reports.ioc(other.port)
            return (found.channels, found.connected) == (2, 0)

        await eventually(down, "one of them is down")
        assert reports.ioc(ioc.port).connected == 10


async def test_an_ioc_that_stands_still_is_silent_and_speaks_again(rig, ioc, reports, tmp_path):
    """Before libca gives its connection up; until then its PVs look quiet."""
    with Ioc(tmp_path, OTHER) as other:
        rig.directory.set([*CHANNELS.items(), (266, "OTHER:A"), (267, "OTHER:B")])
        # libca would disconnect after this
        os.environ["EPICS_CA_CONN_TMO"], before = "60", os.environ["EPICS_CA_CONN_TMO"]
        try:
            rig.start_monitor()
        finally:
            os.environ["EPICS_CA_CONN_TMO"] = before
        await rig.wait_settled()

        async def answers():
            return reports.ioc(other.port).echo_ns > 0

        await eventually(answers, "an echo")
        os.kill(other.pid, signal.SIGSTOP)
        try:

            async def silent():
                return reports.ioc(other.port).silent_since_ns > 0

            await eventually(silent, "it is silent")
            found = reports.ioc(other.port)
            assert found.connected == 2 and found.timeouts >= 1
            assert reports.ioc(ioc.port).silent_since_ns == 0
        finally:
            os.kill(other.pid, signal.SIGCONT)

        async def speaks():
            return reports.ioc(other.port).silent_since_ns == 0

        await eventually(speaks, "it answers again")
        assert reports.ioc(ioc.port).timeouts == 0


async def test_a_pv_at_two_iocs_is_told(rig, ioc, reports, tmp_path):
    with Ioc(tmp_path, OTHER) as other:
        rig.directory.set([*CHANNELS.items(), (265, "B")])
        rig.start_monitor()

        async def told():
            return bool(reports.every and reports.every[-1].served_twice)

        await eventually(told, "the double name")
        (double,) = reports.every[-1].served_twice
        assert double.name == "B" and double.since_ns > 0
        named = {double.taken.rpartition(":")[2], double.ignored.rpartition(":")[2]}
        assert named == {str(ioc.port), str(other.port)}


async def test_who_is_found_and_takes_no_connection_and_who_is_not_found_hold_up_nobody(
    rig: MonitorRig, ioc: Ioc, reports: Reports, tmp_path: Path
) -> None:
    """An IOC behind a firewall that lets searches through, and 2,000 names that nobody serves."""
    far = "".join(f'record(ao,"FAR:{n}"){{field(VAL,"{n}") field(PINI,"YES")}}\n' for n in range(9))
    names = [f"FAR:{n}" for n in range(9)]
    with (
        Ioc(tmp_path, far, hidden=True) as hidden,
        Proxy(hidden.port, names) as firewall,
    ):
        firewall.refuse()
        rig.directory.set((1024 + n, name) for n, name in enumerate(names))
        rig.directory.set((2048 + n, f"GONE:{n}") for n in range(2000))
        rig.start_monitor()
        await rig.wait_settled()
        await rig.wait_states(LIVING, State.CONNECTED)

        async def refused() -> bool:
            (beat,) = await rig.image.read_heartbeats(1)
            return firewall.accepted > 0 and beat is not None and beat.never_connected == 2010

        await eventually(refused, "they are counted as never connected")
        assert (await rig.read(range(1024, 1033))).state.tolist() == [State.NEVER_CONNECTED] * 9
        # an address that never took a connection is none of the IOCs that are told
        assert not reports.ioc(firewall.port).connected
        firewall.refuse(False)
        await rig.wait_states(range(1024, 1033), State.CONNECTED)

        async def counted() -> bool:
            (beat,) = await rig.image.read_heartbeats(1)
            return beat is not None and beat.never_connected == 2001

        await eventually(counted, "what is left is what nobody serves")
