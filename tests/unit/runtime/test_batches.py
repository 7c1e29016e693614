import numpy as np
import pytest

from drey.events.v1.values_pb2 import ValueBatch
from drey_core.errors import Internal
from drey_core.values import ARRAY, Columns, Kind
from drey_runtime import batches

STAMPS = {"shard": 1, "epoch": 2, "sequence": 3, "time_ns": 4, "directory_version": 5}


def columns(values: list[object], kinds: list[int]) -> Columns:
    return Columns.from_values(np.arange(256, 256 + len(values)), values, kinds)


def test_a_batch_comes_back_bit_for_bit() -> None:
    sent = columns(
        [-0.0, float("nan"), -(2**63), b"\xff\xfe", [1.5, 2.5], []],
        [
            Kind.FLOAT64,
            Kind.FLOAT64,
            Kind.INT64,
            Kind.STRING,
            Kind.FLOAT64 | ARRAY,
            Kind.INT32 | ARRAY,
        ],
    )
    (raw,) = batches.encode_batches(sent, **STAMPS)
    batch, got = batches.decode_batch(raw)
    assert (batch.shard, batch.epoch, batch.sequence, batch.more) == (1, 2, 3, False)
    for name in ("key", "kind", "state", "data", "source_time", "merged"):
        assert np.array_equal(getattr(got, name), getattr(sent, name)), name
    assert got.heap == sent.heap


def test_a_large_batch_is_cut_and_nothing_is_lost() -> None:
    values = [np.full(4000, float(i)) for i in range(100)]
    raws = batches.encode_batches(columns(list(values), [Kind.FLOAT64 | ARRAY] * 100), **STAMPS)
    assert len(raws) > 1
    assert all(len(r) < 1 << 20 for r in raws)
    parts = [batches.decode_batch(r) for r in raws]
    assert [b.part for b, _ in parts] == list(range(len(parts)))
    assert [b.more for b, _ in parts] == [True] * (len(parts) - 1) + [False]
    got = Columns.concat_columns([c for _, c in parts])
    assert [got.value(i)[0] for i in range(100)] == [float(i) for i in range(100)]


def test_a_value_too_large_for_the_bus_names_its_page() -> None:
    big = np.zeros(200_000)
    raws = batches.encode_batches(
        columns([1.0, big, 2.0], [Kind.FLOAT64, Kind.FLOAT64 | ARRAY, Kind.FLOAT64]), **STAMPS
    )
    batch, got = batches.decode_batch(raws[-1])
    assert batches.large_pages(batch).tolist() == [1]
    assert got.key.tolist() == [256, 258]


def test_no_change_is_a_batch_too() -> None:
    (raw,) = batches.encode_batches(Columns.empty_columns(), **STAMPS)
    assert len(batches.decode_batch(raw)[1]) == 0


def test_a_torn_batch_is_refused() -> None:
    batch = ValueBatch(epoch=1, sequence=1, channels=bytes(16), kinds=bytes(1))
    with pytest.raises(Internal, match="differ in length"):
        batches.decode_batch(batch.SerializeToString())
