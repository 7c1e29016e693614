"""From a record to the image and the bus, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from drey_core.values import ARRAY, Kind, Origin, State
from drey_testing.fixtures_monitor import CHANNELS, LIVING, eventually


async def test_values_reach_the_image_bit_for_bit(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    await rig.wait_states(LIVING, State.CONNECTED)
    columns = await rig.read(CHANNELS)
    row = {name: i for i, name in enumerate(CHANNELS.values())}
    assert columns.data[row["MINUS"]] == 1 << 63
    assert np.isnan(columns.value(row["NAN"]))
    assert columns.value(row["INF"]) == np.inf
    assert columns.value(row["LONG"]) == -(2**31)
    assert columns.kind[row["LONG"]] == Kind.INT32
    assert columns.kind[row["DOUBLES"]] == Kind.FLOAT64 | ARRAY
    assert columns.value(row["STRING"]) == b"caf\xe9"
    assert columns.value(row["ENUM"]) == 1
    assert columns.severity[row["ALARM"]] == 2
    assert columns.state[row["NOBODY:SERVES:THIS"]] == State.NEVER_CONNECTED
    assert columns.kind[row["NOBODY:SERVES:THIS"]] == Kind.NONE
    assert (columns.origin[:-1] == Origin.MONITOR).all()


async def test_the_bus_says_what_the_image_says(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    last = {}
    for _, columns in rig.listener.batches:
        for i, channel in enumerate(columns.key.tolist()):
            last[channel] = (columns.kind[i], columns.state[i], columns.source_time[i])
    image = await rig.read(CHANNELS)
    for i, channel in enumerate(CHANNELS):
        if channel != 700:
            assert last[channel] == (image.kind[i], image.state[i], image.source_time[i])
    sequences = [b.sequence for b, _ in rig.listener.batches]
    assert sequences == sorted(set(sequences)) == list(range(1, len(sequences) + 1))


async def test_metadata_reach_the_directory(rig, ioc):
    rig.start_monitor()

    async def known():
        pages = await rig.image.metadata_pages([1])
        if not pages:
            return False
        page = pages[0]
        return page.units[7] == b"mA" and page.precision[7] == 3 and bool(page.labels)

    await eventually(known, "metadata")
    (page,) = await rig.image.metadata_pages([1])
    assert page.labels == {6: (b"off", b"\xe9t\xe9")}
    assert page.writable[7]
    (version,) = await rig.image.directory_versions(1)
    assert list(version.pages) == [1, 2, 3]
    assert version.catalog_version == rig.directory.version


@pytest.mark.parametrize("channel_access", ["aioca", "native"])
async def test_heartbeats_count(rig, ioc, channel_access):
    rig.start_monitor(CHANNEL_ACCESS=channel_access)
    await rig.wait_settled()
    (beat,) = await rig.image.read_heartbeats(1)
    assert (beat.channels, beat.connected, beat.never_connected) == (11, 10, 1)
    assert beat.in_alarm >= 1
    assert beat.shard_count == 1
    assert beat.epoch >= 1
    assert beat.tick_ms == 100
    assert beat.channel_access == channel_access
    assert beat.owner.endswith(f":{rig.monitors[0].pid}")
    assert not beat.image_failing


async def test_a_protocol_that_is_not_spoken_is_unsupported(rig, ioc):
    rig.directory.set([(1000, "SOME:PVA")], protocol=2)
    rig.directory.set([(1001, "no channel has blanks")])
    rig.start_monitor()
    await rig.wait_settled()
    columns = await rig.read([1000, 1001])
    assert columns.state.tolist() == [State.UNSUPPORTED, State.NEVER_CONNECTED]
    (beat,) = await rig.image.read_heartbeats(1)
    assert (beat.unsupported, beat.never_connected, beat.disconnected) == (
        1,
        2,
        0,
    )  # one of the IOC's own
