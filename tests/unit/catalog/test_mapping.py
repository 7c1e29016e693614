"""What a request says of a PV's channels."""

from __future__ import annotations

import pytest

from drey.catalog.v1 import catalog_pb2
from drey_core.errors import InvalidArgument, Unimplemented
from drey_snapshot.catalog.domain.tags import TagBook
from drey_snapshot.catalog.mapping import apply_mask, pv_from_proto, pv_to_proto

CA, PVA, LIVE = 1, 2, 3


def pv(
    setpoint: str = "", readback: str = "", protocol: int = 0, protocols: tuple[int, int] = (0, 0)
) -> catalog_pb2.Pv:
    return catalog_pb2.Pv(
        setpoint={"address": setpoint, "channel_protocol": protocols[0] or protocol},
        readback={"address": readback, "channel_protocol": protocols[1] or protocol},
    )


@pytest.mark.parametrize(
    ("given", "addresses", "protocol"),
    [
        (pv("A", "B"), ("A", "B"), CA),
        (pv("ca://A", "B"), ("A", "B"), CA),
        (pv("", "PVA://B"), ("", "B"), PVA),
        (pv("pva://A", "pva://B"), ("A", "B"), PVA),
        (pv("pva://A", "B", PVA), ("A", "B"), PVA),
        (pv("http://A"), ("http://A", ""), CA),
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
        (pv("ca://A", protocol=PVA), "pv.setpoint.address"),
        (pv("A", "pva://"), "pv.readback.address"),
        (catalog_pb2.Pv(readback={"tolerance": {"absolute": 1}}), "pv.readback.address"),
    ],
)
def test_a_channel_that_contradicts_itself(given: catalog_pb2.Pv, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        pv_from_proto(given)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (pv("ca://A", "pva://B"), "pv.readback.channel_protocol"),
        (pv("pva://A", "B"), "pv.readback.channel_protocol"),
        (pv("A", protocol=LIVE), "pv.setpoint.channel_protocol"),
        (catalog_pb2.Pv(setpoint={"address": "A", "field": "value.x"}), "pv.setpoint.field"),
        (catalog_pb2.Pv(readback={"address": "A", "monitor": {}}), "pv.readback.monitor"),
        (catalog_pb2.Pv(setpoint={"address": "A"}, done={"address": "A.DMOV"}), "pv.done"),
        (catalog_pb2.Pv(setpoint={"address": "A"}, config={}), "pv.config"),
    ],
)
def test_what_channels_cannot_have_yet(given: catalog_pb2.Pv, field: str) -> None:
    with pytest.raises(Unimplemented) as refused:
        pv_from_proto(given)
    assert refused.value.field == field
    with pytest.raises(Unimplemented):
        apply_mask(pv_from_proto(pv("X")), given, ["setpoint", "readback", "done", "config"])


def test_an_address_that_is_changed_brings_its_protocol() -> None:
    before = pv_from_proto(pv("A"))
    after, _ = apply_mask(before, pv("pva://C"), ["setpoint.address"])
    assert (after.setpoint_address, after.protocol) == ("C", PVA)
    after, _ = apply_mask(before, pv("C"), ["setpoint.address"])
    assert after.protocol == CA
    both = pv_from_proto(pv("A", "B"))
    with pytest.raises(Unimplemented):
        apply_mask(both, pv("pva://C"), ["setpoint.address"])
    paths = ["setpoint.channel_protocol", "readback.channel_protocol"]
    after, _ = apply_mask(both, pv("C", "C", PVA), paths)
    assert (after.setpoint_address, after.readback_address, after.protocol) == ("A", "B", PVA)


def test_a_mask_names_a_channel_or_a_part_of_it() -> None:
    given = pv("A", "B")
    given.setpoint.tolerance.absolute, given.readback.tolerance.relative = 0.5, 0.25
    before = pv_from_proto(given)
    assert pv_to_proto(before, TagBook()).setpoint.tolerance.absolute == 0.5
    wanted = pv("C", "D")
    wanted.readback.tolerance.absolute = 2.0
    after, _ = apply_mask(before, wanted, ["readback.tolerance"])
    assert (after.readback_address, after.readback_absolute, after.readback_relative) == ("B", 2, 0)
    after, _ = apply_mask(before, wanted, ["setpoint"])
    assert (after.setpoint_address, after.setpoint_absolute) == ("C", 0)
    assert (after.readback_address, after.readback_relative) == ("B", 0.25)


def test_a_channel_that_goes_takes_its_tolerance_along() -> None:
    given = pv("A", "B")
    given.readback.tolerance.absolute = 1.0
    before = pv_from_proto(given)
    for paths in (["readback"], ["readback.address"]):
        after, _ = apply_mask(before, catalog_pb2.Pv(), paths)
        assert (after.readback_address, after.readback_absolute) == ("", 0)
        assert not pv_to_proto(after, TagBook()).HasField("readback")
    with pytest.raises(InvalidArgument) as refused:
        apply_mask(pv_from_proto(pv("A")), given, ["readback.tolerance"])
    assert refused.value.field == "pv.readback.address"
