"""Values larger than a message, through everything that reads a snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from drey.common.v1 import errors_pb2, form_pb2, selector_pb2, value_pb2
from drey.compare.v1 import compare_pb2
from drey.snapshot.v1 import snapshot_service_pb2 as rpc
from drey_core.values import ARRAY, STRING_ARRAY, Columns, Kind, decode_value, pack_strings
from drey_restore.adapters.snapshots import SnapshotClient
from drey_runtime.auth import TokenSigner
from drey_runtime.signed import SignedChannel

WAVEFORM = np.arange(1_300_000, dtype=np.float64)  # 10.4 MB
TEXT = "é" * 2_500_000  # 5 MB
WORDS = [b"short", b"w" * 2_000_000]
MESSAGE = 4 << 20


@pytest.fixture
async def large(site):
    """A waveform, its twin as a readback, a text, and an array with one string too large."""
    await site.add_pvs(5)
    await site.fill()
    setpoints = site.monitor.directory.setpoint_channel
    readbacks = site.monitor.directory.readback_channel
    heaps = [
        (setpoints[0], Kind.FLOAT64 | ARRAY, WAVEFORM.tobytes()),
        (readbacks[0], Kind.FLOAT64 | ARRAY, WAVEFORM.tobytes()),
        (setpoints[1], Kind.STRING, TEXT.encode()),
        (setpoints[2], STRING_ARRAY, pack_strings(WORDS)),
    ]
    for channel, kind, raw in heaps:
        one = site.monitor.floats(np.array([channel]), np.zeros(1))
        one.kind[:], one.data[:] = kind, len(raw) << 32
        await site.monitor.publish(replace(one, heap=raw))
    return site


def whole(values: list[value_pb2.Value]) -> list[Any]:
    """The elements of a value from its parts."""
    return [element for value in values for element in value.float64_array.elements]


async def test_they_are_stored_read_compared_and_found_again(large) -> None:
    snapshot = await large.take()
    assert snapshot.counts.connected == 10
    request = rpc.ReadSnapshotRequest(id=snapshot.id, form=form_pb2.VALUE_FORM_ROWS)
    rows: dict[str, list[value_pb2.PvRow]] = {}
    async for part in large.snapshots.ReadSnapshot(request):
        assert part.ByteSize() < MESSAGE
        for row in part.rows.rows:
            rows.setdefault(row.name, []).append(row)
    assert sorted(rows) == [f"Q{i}:SP" for i in range(5)]
    assert len(rows["Q3:SP"]) == len(rows["Q4:SP"]) == 1
    assert np.array_equal(whole([r.setpoint for r in rows["Q0:SP"]]), WAVEFORM)
    assert np.array_equal(whole([r.readback for r in rows["Q0:SP"]]), WAVEFORM)
    assert "".join(r.setpoint.string_value for r in rows["Q1:SP"]) == TEXT
    (unsent,) = rows["Q2:SP"]
    assert unsent.setpoint.unsent.reason == errors_pb2.ERROR_REASON_VALUE_TOO_LARGE
    assert "Q2:SP" in unsent.setpoint.unsent.message
    assert unsent.readback.WhichOneof("data") == "float64_value"

    answer = await large.snapshots.VerifySnapshot(rpc.VerifySnapshotRequest(id=snapshot.id))
    assert answer.intact, answer.findings

    changed = WAVEFORM.copy()
    changed[7] += 1
    channel = large.monitor.directory.setpoint_channel[:1]
    one = large.monitor.floats(channel, np.zeros(1))
    one.kind[:], one.data[:] = Kind.FLOAT64 | ARRAY, changed.nbytes << 32
    await large.monitor.publish(replace(one, heap=changed.tobytes()))
    other = await large.take()
    for against in (other.id, None):
        summary, differences = await large.compare(snapshot.id, against)
        assert (summary.pvs_different, [d.name for d in differences]) == (1, ["Q0:SP"])
        assert differences[0].cells[0].setpoint.delta == 1
        assert all(d.ByteSize() < MESSAGE for d in differences)
        every = [compare_pb2.DIFFERENCE_CLASS_EQUAL]
        _, differences = await large.compare(snapshot.id, against, classes=every)
        assert len(differences) == 5

    history = rpc.GetPvHistoryRequest(name="Q0:SP")
    found: dict[str, list[value_pb2.Value]] = {}
    async for message in large.snapshots.GetPvHistory(history):
        assert message.ByteSize() < MESSAGE
        for point in message.points:
            found.setdefault(point.snapshot_id, []).append(point.row.setpoint)
    assert list(found) == [other.id, snapshot.id]
    assert np.array_equal(whole(found[snapshot.id]), WAVEFORM)
    assert np.array_equal(whole(found[other.id]), changed)


async def test_a_plan_gets_them_whole(large) -> None:
    """The source stream of a plan: columns, bit for bit, whatever is too large for a row."""
    snapshot = await large.take()
    signer = TokenSigner.from_file("snapshot", large.keys.folder / "snapshot.pem")
    async with grpc.aio.insecure_channel(large.settings.listen) as channel:
        client = SnapshotClient(
            SignedChannel.channel_signed_by(channel, signer, "snapshot"), timeout_s=60
        )
        stored = await client.values(snapshot.id, selector_pb2.Selector(all=True))
    assert len(stored.number) == 5
    assert np.array_equal(value(stored.setpoint, 0), WAVEFORM)
    assert np.array_equal(value(stored.readback, 0), WAVEFORM)
    assert value(stored.setpoint, 1) == TEXT.encode()
    assert value(stored.setpoint, 2) == WORDS


def value(columns: Columns, row: int):
    return decode_value(int(columns.kind[row]), int(columns.data[row]), columns.heap)
