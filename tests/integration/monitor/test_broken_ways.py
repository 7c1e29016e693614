"""An owner by the lock of Postgres that is cut off from one part after the other, and followed."""

from __future__ import annotations

import asyncpg
import pytest

from drey_core.values import State
from drey_testing.ca.ioc import Ioc, use_loopback
from drey_testing.fixtures_monitor import LIVING, MonitorRig, eventually
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
MOST_LATE = 10
"""Batches until it hears of its successor: a tick makes one at most."""


async def end_sessions_of_owners(url: str) -> None:
    """As the server does to a client that does not answer any more."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    await connection.close()


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        *(("POSTGRES", f) for f in FAULTS),
        ("NATS", "stalled"),
        ("NATS", "cut"),
        ("REDIS", "stalled"),
    ],
)
async def test_an_owner_that_is_cut_off_is_followed_and_never_believed_again(
    rig: MonitorRig, database_url: str, ioc: Ioc, part: str, fault: str
) -> None:
    urls = {"POSTGRES": database_url, "NATS": rig.nats.url, "REDIS": rig.valkey.url}
    async with Ways(urls) as ways:
        first = rig.start_monitor(urls=ways.urls)
        await rig.wait_settled()
        epoch = rig.listener.batches[-1][0].epoch
        second = rig.start_monitor()

        async def waits() -> bool:
            return "is up" in second.log.read_text()

        await eventually(waits, "the standby")
        async with ImageWatch.watching(rig.image):
            ways.break_off(part, fault)
            # with a lock that it can take again nobody follows
            ways.break_off("POSTGRES", fault)
            await end_sessions_of_owners(database_url)
            followed = await wait_epoch_after(rig, epoch)
            # by the other way, where one of the two is broken
            await wait_stopped(first)
            await wait_values(rig)
            ways.mend()
            await wait_values(rig)
            await rig.wait_states(LIVING, State.CONNECTED)
            # what was held up has come by now
            assert max(batch.epoch for batch, _ in rig.listener.batches) >= followed
        assert late_batches(rig) <= MOST_LATE


async def test_an_owner_whose_ways_are_slow_goes_on_or_is_followed(
    rig: MonitorRig, database_url: str, ioc: Ioc
) -> None:
    urls = {"POSTGRES": database_url, "NATS": rig.nats.url, "REDIS": rig.valkey.url}
    async with Ways(urls) as ways:
        rig.start_monitor(urls=ways.urls)
        await rig.wait_settled()
        rig.start_monitor()
        async with ImageWatch.watching(rig.image):
            for name in urls:
                ways.slow_down(name, 0.4)
                await wait_values(rig)
                ways.slow_down(name, 0.0)
            await rig.wait_states(LIVING, State.CONNECTED)
        assert late_batches(rig) <= MOST_LATE
