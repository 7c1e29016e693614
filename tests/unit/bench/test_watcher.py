"""Latencies of a watcher, from the bytes that it kept."""

from bench.watcher import Watcher, latencies_ms
from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2, watch_pb2


def _diff(*stamps: int) -> bytes:
    rows = [value_pb2.PvRow(readback=value_pb2.Value(source_time_ns=stamp)) for stamp in stamps]
    return monitor_service_pb2.WatchPvsResponse(diff=watch_pb2.Diff(rows=rows)).SerializeToString()


def test_every_row_of_a_diff_counts_and_nothing_else() -> None:
    watcher = Watcher()
    checkpoint = monitor_service_pb2.WatchPvsResponse(checkpoint=watch_pb2.Checkpoint())
    watcher.messages.append((9_000_000, _diff(1_000_000, 4_000_000)))
    watcher.messages.append((9_000_000, checkpoint.SerializeToString()))
    assert latencies_ms(watcher.messages).tolist() == [8.0, 5.0]


def test_the_newest_channel_of_a_row_is_its_time() -> None:
    watcher = Watcher()
    row = value_pb2.PvRow(
        setpoint=value_pb2.Value(source_time_ns=1_000_000),
        readback=value_pb2.Value(source_time_ns=3_000_000),
    )
    message = monitor_service_pb2.WatchPvsResponse(diff=watch_pb2.Diff(rows=[row]))
    watcher.messages.append((5_000_000, message.SerializeToString()))
    assert latencies_ms(watcher.messages).tolist() == [2.0]
