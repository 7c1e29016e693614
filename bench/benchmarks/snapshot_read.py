"""A snapshot by forced read of every channel, RPC to durable, beside the bare read of the table."""

from __future__ import annotations

import time
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from bench.live import PEER, LiveSite, live, ours
from bench.names import readbacks, setpoints
from bench.report import Result, in_turn
from bench.site import EVERYTHING
from bench.tables import connected, read_s
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_ca import open_table


async def _time_take(site: LiveSite) -> float:
    """Seconds from the RPC to the durable snapshot; RuntimeError where a channel is missing."""
    begin = time.perf_counter()
    response = await site.site.snapshots.TakeSnapshot(
        snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING,
                source=snapshot_pb2.SNAPSHOT_SOURCE_READ,
                read_timeout=Duration(seconds=60),
            ),
            wait=Duration(seconds=90),
            request_id=str(uuid4()),
        ),
        **site.site.call,
    )
    seconds = time.perf_counter() - begin
    counts = response.snapshot.counts
    if counts.connected != counts.channels or counts.channels == 0:
        raise RuntimeError(f"not a whole snapshot: {response}")
    return seconds


async def run(pvs: int, runs: int) -> Result:
    """Setpoint and readback of each PV; the first snapshot, which connects, is not counted."""
    result = Result("snapshot_read", pvs)
    mine, names = await ours(), setpoints(pvs) + readbacks(pvs)
    result.notes.append(f"channel access: {mine}; 2 channels a PV, connected beforehand")
    async with live(pvs, mine, both=True) as site:
        first = await _time_take(site)
        async with open_table(mine) as table:
            slots = await connected(table, names)
            total, channels = await in_turn(
                runs, lambda: _time_take(site), lambda: read_s(table, slots), warm=1
            )
        async with open_table(PEER) as other:
            theirs = await connected(other, names)
            (peer,) = await in_turn(runs, lambda: read_s(other, theirs), warm=0)
    result.figure("total_s", total, 0.3)
    result.figure("channels_s", channels, 0.1 * 2 * pvs / 40_000)
    result.figure("first_s", [first], None)
    result.peer("aioca table", "channels_s", peer)
    return result
