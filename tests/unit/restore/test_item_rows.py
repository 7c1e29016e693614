"""Items as the contract's messages: what is encoded in columns reads back item by item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from drey.catalog.v1 import catalog_pb2
from drey.restore.v1 import restore_pb2
from drey.restore.v1 import restore_service_pb2 as pb
from drey_ca import eca
from drey_client.parts import whole_rows
from drey_core.directory import MetadataPage
from drey_core.pv_table import CompletionMode, Policy
from drey_core.values import ARRAY, Columns, Kind, State
from drey_restore import item_rows
from drey_restore.adapters.live import ChannelMetadata
from drey_restore.domain.items import Outcome, PlanItems
from drey_restore.domain.kinds import Skip, Verdict
from drey_restore.domain.policy import DEFAULT, DEFAULT_SOURCES, PartSource, PolicyOrigin

N = 6


def values(*listed: object) -> Columns:
    filled = [0.0 if value is None else value for value in listed]
    out = Columns.from_values(np.arange(len(listed)), filled, [None] * len(listed))
    out.state[:] = State.CONNECTED
    out.kind[[v is None for v in listed]] = Kind.NONE
    return out


def plan() -> PlanItems:
    nan = float("nan")
    return PlanItems(
        number=np.arange(1, N + 1),
        names=["f", "e", "d", "c", "b", "ä"],
        addresses=[f"SP:{i}" for i in range(N)],
        readback_addresses=[""] * N,
        current=values(1.0, 2, b"\xff\x00", np.arange(3.0), None, b"x"),
        stored=values(2.0, 3, b"text", np.arange(3.0) + 1, 4.0, None),
        target=values(2.0, 3, b"text", np.arange(3.0) + 1, None, None),
        stored_readback=Columns.empty_columns(N),
        absolute=np.zeros(N),
        relative=np.zeros(N),
        readback_absolute=np.zeros(N),
        readback_relative=np.zeros(N),
        delta=np.array([1.0, 1.0, nan, 1.0, nan, nan]),
        deviation=np.array([np.inf, 2.0, nan, 0.5, nan, nan]),
        stage=np.array([300, 0, 0, 0, 0, 0], np.int32),
        policy_of=np.array([1, 0, 0, 0, 0, 0], np.int32),
        skip=np.array([0, 0, 0, 0, Skip.DISCONNECTED, Skip.EQUAL], np.uint8),
        label_of=np.full(N, -1, np.int32),
        stored_label_of=np.full(N, -1, np.int32),
        policies=[DEFAULT, Policy(CompletionMode.READBACK, 1.5, stage=0, allowed_low=-1.0)],
        policy_sources=[
            DEFAULT_SOURCES,
            (
                PartSource("completion", PolicyOrigin.TAG, "weak", "Magnets"),
                PartSource("timeout", PolicyOrigin.DEVICE, "PS"),
            ),
        ],
        records={3: "REAL"},
        warnings={1: ("one", "two")},
    )


def read_plan(items: PlanItems, **how: object) -> list[restore_pb2.PlanItem]:
    options = {"writes_only": False, "skips": [], **how}
    chunks = item_rows.plan_chunks(items, **options)
    return [item for raw in chunks for item in pb.ReadPlanResponse.FromString(raw).items]


def test_items_of_a_plan() -> None:
    found = read_plan(plan())
    assert [item.name for item in found] == ["c", "d", "e", "f", "b", "ä"]
    c, d, e, f, b, _ = found
    assert (f.number, f.address, f.stage, f.skip) == (1, "SP:0", 300, 0)
    assert (f.policy.completion, f.policy.timeout.ToMilliseconds()) == (3, 1500)
    assert (f.policy.HasField("stage"), f.policy.HasField("settle")) == (True, False)
    assert (f.policy.allowed.low, f.policy.allowed.high) == (-1.0, np.inf)
    assert e.policy == catalog_pb2.RestorePolicy(completion=catalog_pb2.COMPLETION_PUT_CALLBACK)
    assert (b.stored.float64_value, b.HasField("target")) == (4.0, False)
    assert (f.current.float64_value, f.target.float64_value) == (1.0, 2.0)
    assert (f.delta, f.deviation) == (1.0, np.inf)
    assert list(e.warnings) == ["one", "two"]
    assert e.target.int64_value == 3
    assert d.current.raw_string_value == b"\xff\x00"
    assert not d.HasField("delta")
    assert list(c.target.float64_array.elements) == [1.0, 2.0, 3.0]
    assert not b.HasField("current")
    assert int(b.skip) == Skip.DISCONNECTED


def test_parts_of_a_plan() -> None:
    assert [i.name for i in read_plan(plan(), writes_only=True)] == ["c", "d", "e", "f"]
    assert [i.name for i in read_plan(plan(), skips=[Skip.EQUAL])] == ["ä"]


def test_items_of_a_restore() -> None:
    items = plan()
    verdict = np.array([4, 6, 3, 4, Verdict.SKIPPED, Verdict.EQUAL_ALREADY], np.uint8)
    outcome = Outcome.fresh_outcome(items, verdict)
    outcome.code[:] = [1, 80, 1, 1, 0, 0]
    outcome.readback_reached[:] = [1, 0, -1, -1, -1, -1]
    outcome.sent_time[:] = 2**61
    outcome = replace(outcome, seen=items.target)
    chunks = item_rows.restore_chunks(items, outcome, verdicts=[])
    found = [i for raw in chunks for i in pb.ReadRestoreResponse.FromString(raw).items]
    by_name = {item.name: item for item in found}
    assert list(by_name) == sorted(by_name)
    f, e, b = by_name["f"], by_name["e"], by_name["b"]
    assert (f.verdict, f.skip, f.send_time.ToNanoseconds(), f.stage) == (4, 0, 2**61, 300)
    assert (f.before.float64_value, f.target.float64_value, f.seen.float64_value) == (1.0, 2.0, 2.0)
    assert (f.readback_reached, e.readback_reached) == (True, False)
    assert not by_name["d"].HasField("complete_time")
    assert not by_name["d"].HasField("readback_reached")
    assert e.epics_status == eca.name(80)
    assert (int(b.skip), b.epics_status) == (Skip.DISCONNECTED, "")
    only = item_rows.restore_chunks(items, outcome, verdicts=[Verdict.REFUSED])
    assert [i.name for r in only for i in pb.ReadRestoreResponse.FromString(r).items] == ["e"]


def test_a_large_value_goes_in_parts_and_is_whole_again() -> None:
    wave, text = np.arange(1_300_000.0), "µ".encode() * 700_000
    items = replace(plan(), current=values(1.0, 2, text, wave, None, None))
    items = replace(items, target=items.current, stored=values(2.0, 3, b"", wave + 1, 4.0, None))
    chunks = list(item_rows.plan_chunks(items, writes_only=False, skips=[]))
    assert max(map(len, chunks)) < 4 << 20
    read = [item for raw in chunks for item in pb.ReadPlanResponse.FromString(raw).items]
    assert len(read) > N
    whole = list(whole_rows(read))
    assert [item.name for item in whole] == ["c", "d", "e", "f", "b", "ä"]
    c, d = whole[:2]
    assert np.array_equal(c.current.float64_array.elements, wave)
    assert np.array_equal(c.stored.float64_array.elements, wave + 1)
    assert d.target.string_value.encode() == text
    assert not (c.current.HasField("part") or d.target.HasField("part"))

    outcome = replace(Outcome.fresh_outcome(items, np.full(N, 4, np.uint8)), seen=items.target)
    chunks = list(item_rows.restore_chunks(items, outcome, verdicts=[]))
    assert max(map(len, chunks)) < 4 << 20
    read_items = [i for raw in chunks for i in pb.ReadRestoreResponse.FromString(raw).items]
    by_name = {item.name: item for item in whole_rows(read_items)}
    assert np.array_equal(by_name["c"].seen.float64_array.elements, wave)


def test_metadata_of_channels_in_columns() -> None:
    pages = {number: MetadataPage.empty_page(number) for number in (2, 7)}
    pages[7].count[5], pages[7].writable[5] = 9, 1
    pages[7].limits[6:, 5] = 1.0, 2.0
    pages[7].kind[5] = Kind.ENUM | ARRAY
    pages[7].labels[5] = (b"on", b"\xff")
    metadata = ChannelMetadata(pages)
    channels = np.array([7 * 256 + 5, 2 * 256 + 5, 3 * 256 + 5, 9 * 256 + 5, 0])
    rows = metadata.rows(channels)
    assert metadata.count(rows).tolist() == [9, 0, 0, 0, 0]
    assert metadata.writable(rows).tolist() == [True, False, False, False, False]
    low, high = metadata.control_limits(rows)
    assert (low[0], high[0]) == (1.0, 2.0)
    assert np.isnan(low[1:]).all()
    assert metadata.labels(7 * 256 + 5) == (b"on", "\N{REPLACEMENT CHARACTER}".encode())
    assert metadata.labels(1) == ()
    assert ChannelMetadata({}).count(ChannelMetadata({}).rows(channels)).tolist() == [0] * 5
