"""What a PV's addresses say of its protocol."""

from __future__ import annotations

import pytest

from drey.catalog.v1 import catalog_pb2
from drey_core.errors import InvalidArgument
from drey_snapshot.catalog.mapping import apply_mask, pv_from_proto


def pv(setpoint: str = "", readback: str = "", protocol: int = 0) -> catalog_pb2.Pv:
    return catalog_pb2.Pv(
        setpoint_address=setpoint,
        readback_address=readback,
        protocol=protocol,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("given", "addresses", "protocol"),
    [
        (pv("A", "B"), ("A", "B"), 1),
        (pv("ca://A", "B"), ("A", "B"), 1),
        (pv("A", "PVA://B"), ("A", "B"), 2),
        (pv("pva://A", "pva://B", 2), ("A", "B"), 2),
        (pv("http://A"), ("http://A", ""), 1),
    ],
)
def test_the_protocol_is_taken_off(
    given: catalog_pb2.Pv, addresses: tuple[str, str], protocol: int
) -> None:
    draft = pv_from_proto(given)
    assert (draft.setpoint_address, draft.readback_address) == addresses
    assert draft.protocol == protocol


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (pv("ca://A", "pva://B"), "pv.readback_address"),
        (pv("ca://A", protocol=2), "pv.setpoint_address"),
        (pv("pva://"), "pv.setpoint_address"),
    ],
)
def test_one_protocol_for_both_channels(given: catalog_pb2.Pv, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        pv_from_proto(given)
    assert refused.value.field == field


def test_an_address_that_is_changed_brings_its_protocol() -> None:
    before = pv_from_proto(pv("A", "B"))
    after, _ = apply_mask(before, pv("pva://C"), ["setpoint_address"])
    assert (after.setpoint_address, after.readback_address, after.protocol) == ("C", "B", 2)
    after, _ = apply_mask(before, pv("C"), ["setpoint_address"])
    assert after.protocol == 1
