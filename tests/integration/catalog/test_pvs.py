from __future__ import annotations

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc


async def test_a_pv_is_created_and_found(service) -> None:
    pv = catalog_pb2.Pv(setpoint_address="A:SP", readback_address="A:RB", device="magnet")
    made = (await service.catalog.CreatePv(rpc.CreatePvRequest(pv=pv))).pv
    assert made.name == "A:SP"
    by_name = (await service.catalog.GetPv(rpc.GetPvRequest(name="A:SP"))).pv
    by_id = (await service.catalog.GetPv(rpc.GetPvRequest(id=made.id))).pv
    assert made == by_name == by_id
