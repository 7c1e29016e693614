"""What a specification asks for, and orders that wait in the queue from one version to the next."""

from __future__ import annotations

import pytest

from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_core.errors import InvalidArgument, Unimplemented
from drey_core.selector import Selector
from drey_snapshot.snapshots.domain.gates import MissingPv, MissingReason
from drey_snapshot.snapshots.domain.order import Gates
from drey_snapshot.snapshots.domain.records import Source
from drey_snapshot.snapshots.mapping import (
    queued_order,
    queued_payload,
    refusal_chunks,
    refusal_detail,
    take_order,
)

REQUEST_ID = "0190a5b2-6f00-7000-8000-000000000001"
# made by the first edition of the contracts, and never to be changed
FIRST_EDITION = bytes.fromhex(
    "0a02080110021a130a02083c108080808080202202513122025132220e6265666f7265207b72756e7d20372a0163"
    "3201613a0208034a2430313930613562322d366630302d373030302d383030302d303030303030303030303031"
)
FIRST_EDITION_ANY = bytes.fromhex("0a04120251311a0410031801220178")


def spec(**fields: object) -> snapshot_pb2.SnapshotSpec:
    return snapshot_pb2.SnapshotSpec(**{"selector": {"all": True}, **fields})


def test_an_order_of_the_first_edition_is_read_as_it_was_meant() -> None:
    order, request_id = queued_order(FIRST_EDITION)
    assert request_id == REQUEST_ID
    assert (order.selector, order.source) == (Selector(all=True), Source.READ)
    # more than 32 bits hold means as many as they hold, and not what is left of it
    required = Selector(names=("Q1", "Q2"))
    assert order.gates == Gates(60_000_000_000, 2**31 - 1, required)
    assert (order.comment, order.labels, order.read_timeout_s) == ("c", ("a",), 3.0)
    assert order.title_template == "before {{run}} 7"  # a title was no template
    order, request_id = queued_order(FIRST_EDITION_ANY)
    assert (order.selector, request_id) == (Selector(names=("Q1",)), "")
    assert (order.gates.max_missing, order.gates.required) == (None, None)


def test_an_order_goes_through_the_queue_as_it_is() -> None:
    gates = snapshot_pb2.Gates(max_missing=3, required={"globs": ["B*"]})
    request = snapshot_service_pb2.TakeSnapshotRequest(
        spec=spec(gates=gates, title_template="{time}"), wait={"seconds": 3}, request_id=REQUEST_ID
    )
    assert queued_order(queued_payload(request)) == (take_order(request.spec), REQUEST_ID)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ({}, Gates()),
        ({"max_missing": 0}, Gates(max_missing=0)),
        ({"any_missing": {}}, Gates(max_missing=None)),
        ({"required": {"all": True}}, Gates(required=Selector(all=True))),
        ({"max_age": {"nanos": 5}}, Gates(max_age_ns=5)),
    ],
)
def test_gates(gates: dict[str, object], expected: Gates) -> None:
    assert take_order(spec(gates=gates)).gates == expected


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"gates": {"max_missing": -1}}, "spec.gates.max_missing"),
        ({"gates": {"required": {}}}, "spec.gates.required"),
        ({"gates": {"max_age": {"seconds": -1}}}, "spec.gates.max_age"),
        ({"title_template": "{shift}"}, "spec.title_template"),
        ({"labels": ["a", " "]}, "spec.labels[1]"),
        ({"source": 77}, "spec.source"),
        ({"read_timeout": {"seconds": 301}}, "spec.read_timeout"),
        ({"selector": {}}, "spec.selector"),
    ],
)
def test_a_refusal_names_the_field_of_the_specification(
    fields: dict[str, object], path: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        take_order(spec(**fields))
    assert caught.value.field == path


def test_a_past_instant_is_not_built() -> None:
    with pytest.raises(Unimplemented, match="past instant"):
        take_order(spec(instant_ns=0))


def test_a_status_names_some_of_what_is_missing_and_a_stream_all() -> None:
    missing = [
        MissingPv(n, f"Q{n}:" + "x" * 400, n == 2, MissingReason.NO_VALUE, 0)
        for n in range(1, 40_001)
    ]
    detail = refusal_detail(missing, REQUEST_ID)
    assert detail.missing_count == 40_000 and detail.ByteSize() < 2_100
    assert [pv.number for pv in detail.first_missing] == [1, 2, 3, 4]
    assert [pv.required for pv in detail.first_missing] == [False, True, False, False]
    chunks = list(refusal_chunks(missing))
    assert all(chunk.ByteSize() < 2 << 20 for chunk in chunks)
    assert [pv.number for chunk in chunks for pv in chunk.missing] == list(range(1, 40_001))
    (channel,) = chunks[0].missing[0].channels
    assert channel.reason == snapshot_pb2.MISSING_REASON_NO_VALUE
