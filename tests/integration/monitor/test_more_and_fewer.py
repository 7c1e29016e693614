"""Monitors 1, 3 and 1 under load: a watcher counts what it sees of counters, and what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from drey_core.values import State
from drey_testing.ca.ioc import Ioc, use_loopback
from drey_testing.fixtures_monitor import MonitorProcess, MonitorRig, eventually
from drey_testing.two_owners import late_batches

use_loopback()
SHARDS, COUNTERS = 3, 300
WAIT_S = 240.0
DATABASE = 'record(bo,"HALT"){}\n' + "".join(
    f'record(calc,"COUNT:{n}"){{field(CALC,"VAL+1") field(SCAN,".1 second") field(SDIS,"HALT")}}\n'
    for n in range(COUNTERS)
)
READ = """import asyncio, json, sys, aioca
print(json.dumps([float(v) for v in asyncio.run(aioca.caget(sys.argv[1:], timeout=60))]))
"""


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ioc]:
    with Ioc(tmp_path_factory.mktemp("counting"), DATABASE) as running:
        yield running


def channel_of(number: int) -> int:
    """Pages go to shards in turn, so each has as many counters."""
    return 256 * (number % SHARDS + 1) + number // SHARDS


def read_counters(ioc: Ioc) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """As a client reads them that has nothing to do with Drey."""
    names = [f"COUNT:{number}" for number in range(COUNTERS)]
    way = {"EPICS_CA_ADDR_LIST": f"127.0.0.1:{ioc.port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *names],
        env={**os.environ, **way},
        capture_output=True,
        text=True,
        check=True,
    )
    return np.array(json.loads(done.stdout))


class Tally:
    """Of everything that was published, in the order in which it came."""

    def __init__(self, rig: MonitorRig) -> None:
        self.last, first = np.zeros(COUNTERS), np.zeros(COUNTERS)
        self.seen = self.merged = self.wrong = 0
        number_of = {channel_of(number): number for number in range(COUNTERS)}
        for _, columns in rig.listener.batches:
            values = columns.data.view(np.float64)
            for row in np.flatnonzero(columns.state == State.CONNECTED):
                number, value = number_of[int(columns.key[row])], float(values[row])
                if not first[number]:
                    first[number] = value
                elif value < self.last[number]:
                    self.wrong += 1
                elif value > self.last[number]:
                    self.seen += 1
                    self.merged += int(columns.merged[row])
                self.last[number] = max(value, self.last[number])
        self.expected = int((self.last - first).sum())

    def __str__(self) -> str:
        unheard = self.expected - self.seen - self.merged
        return (
            f"updates expected {self.expected}, seen {self.seen}, merged {self.merged}, between"
            f" two owners {unheard}, wrong {self.wrong}"
        )


async def shares(rig: MonitorRig) -> list[int]:
    """How many shards each monitor that lives has, by its own signs of life."""
    beats = await rig.image.read_heartbeats(rig.shards)
    owners = [int(beat.owner.rpartition(":")[2]) for beat in beats if beat is not None]
    living = [monitor for monitor in rig.monitors if monitor.process.poll() is None]
    return sorted(owners.count(monitor.pid) for monitor in living)


async def test_more_and_fewer_monitors_lose_nothing(
    tmp_path: Path, database_url: str, counting: Ioc
) -> None:
    async with MonitorRig(tmp_path, database_url, shards=SHARDS) as rig:
        rig.directory.set((channel_of(n), f"COUNT:{n}") for n in range(COUNTERS))

        async def have(*expected: int) -> None:
            async def shared() -> bool:
                return await shares(rig) == list(expected)

            await eventually(shared, f"shares {expected}", WAIT_S)
            await rig.wait_settled(WAIT_S)
            await counted()

        async def counted() -> None:
            before = Tally(rig).last

            async def all_counted() -> bool:
                return bool((Tally(rig).last > before).all())

            await eventually(all_counted, "every counter goes on", WAIT_S)

        rig.start_monitor()
        await have(3)
        others: list[MonitorProcess] = [rig.start_monitor() for _ in range(2)]
        await have(1, 1, 1)
        others[0].signal(signal.SIGTERM)
        assert await others[0].ended(WAIT_S) == 0
        await have(1, 2)
        # one leaves in order, one does not
        others[1].signal(signal.SIGKILL)
        await others[1].ended(WAIT_S)
        await have(3)
        counting.shell("dbpf HALT 1")
        there = read_counters(counting)

        async def all_there() -> bool:
            return bool((Tally(rig).last == there).all())

        await eventually(all_there, "the last values of all counters", WAIT_S)
        image = await rig.read([channel_of(n) for n in range(COUNTERS)])
        assert (image.data.view(np.float64) == there).all()
        assert (image.state == State.CONNECTED).all()
        tally = Tally(rig)
        print(tally)
        assert tally.wrong == 0
        assert tally.expected >= tally.seen + tally.merged > 0
        assert late_batches(rig) == 0
