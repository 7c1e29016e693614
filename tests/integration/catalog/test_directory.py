from __future__ import annotations

import asyncio

import grpc
import numpy as np
from grpc import StatusCode

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey.common.v1 import selector_pb2, value_pb2
from drey.internal.directory.v1 import directory_service_pb2 as drpc
from drey.internal.directory.v1.directory_service_pb2_grpc import DirectoryServiceStub
from drey_core.directory import Directory, MetadataPage
from drey_runtime.directory_codec import decode_catalog, encode_metadata
from drey_runtime.image import Image
from drey_runtime.migrate import apply_migrations
from drey_snapshot.app import main
from drey_stack import Postgres
from drey_testing.fixtures_catalog import running, until_serving
from tests.integration.catalog.conftest import connect, make_settings
from tests.integration.catalog.helpers import create, import_, names, refused, update


async def pages(service, since: int = 0):
    """(version, pages by number) that changed since a version."""
    version, found = 0, {}
    async for answer in service.directory.GetCatalogPages(
        drpc.GetCatalogPagesRequest(since_version=since)
    ):
        version = answer.version
        found |= {p.number: p for p in map(decode_catalog, answer.pages)}
    return version, found


async def test_pages_say_what_each_channel_is(service) -> None:
    made = await create(
        service,
        "A:SP",
        "A:RB",
        name="A",
        device="d",
        read_only=True,
        readback_tolerance=value_pb2.Tolerance(absolute=0.5, relative=0.25),
    )
    _, found = await pages(service)
    directory = Directory.from_pages(1, list(found.values()))
    assert directory.pv_number.tolist() == [made.number]
    assert directory.setpoint_channel.tolist() == [256]
    assert directory.readback_channel.tolist() == [512]
    assert (directory.setpoint_address, directory.readback_address) == (["A:SP"], ["A:RB"])
    assert (directory.names, directory.devices) == (["A"], ["d"])
    assert directory.read_only.tolist() == [True]
    assert [c.tolist() for c in directory.readback_tolerance] == [[0.5], [0.25]]
    assert [c.tolist() for c in directory.setpoint_tolerance] == [[0.0], [0.0]]


async def test_only_pages_that_changed_come_and_emptied_ones_do(service) -> None:
    content = "Setpoint\n" + "".join(f"P:{i}\n" for i in range(600))
    await import_(service, content.encode())
    version, found = await pages(service)
    assert sorted(found) == [1, 3, 5]
    assert await pages(service, version) == (version, {})
    last = [f"P:{i}" for i in range(512, 600)]
    await service.catalog.PurgePvs(rpc.PurgePvsRequest(selector=selector_pb2.Selector(names=last)))
    later, found = await pages(service, version)
    assert later == version + 1
    assert list(found) == [5]
    assert not found[5].pv_number.any()
    await create(service, "P:new")
    _, found = await pages(service, later)
    assert np.flatnonzero(found[5].pv_number).tolist() == [600 - 512]


async def test_what_pages_do_not_hold_changes_no_page(service) -> None:
    made = await create(service, "A")
    version, _ = await pages(service)
    await update(service, catalog_pb2.Pv(id=made.id, description="new"), "description")
    later, found = await pages(service, version)
    assert (later, found) == (version + 1, {})


async def test_channels_of_a_selector(service) -> None:
    one = await create(service, "A:SP", "A:RB")
    two = await create(service, readback="B:RB")

    async def resolve(allow_unknown: bool, **fields):
        request = drpc.ResolveChannelsRequest(
            selector=selector_pb2.Selector(**fields), allow_unknown=allow_unknown
        )
        return [answer async for answer in service.directory.ResolveChannels(request)]

    (answer,) = await resolve(True, names=["B:RB", "A:RB", "nobody"])
    assert list(answer.pv_numbers) == [one.number, two.number]
    assert list(answer.setpoint_channels) == [256, 0]
    assert list(answer.readback_channels) == [512, 513]
    assert list(answer.not_found) == ["nobody"]
    with refused(StatusCode.NOT_FOUND, "NOT_FOUND"):
        await resolve(False, names=["nobody"])
    with refused(StatusCode.INVALID_ARGUMENT, "EMPTY_SELECTOR"):
        await resolve(False)


async def test_metadata_comes_from_the_image(service, parts) -> None:
    await create(service, "A:SP", "A:RB")
    page = MetadataPage.empty_page(2)
    page.kind[0], page.count[0], page.writable[0] = 11, 1, 1
    page.limits[6:8, 0] = (-5, 5)
    page.units[0] = b"\xb5A"
    async with Image.open_image(parts.valkey.url, service.settings.namespace) as image:
        await image._redis.set(image._shard_key("metadata", 2), encode_metadata(page))
    answer = await service.catalog.GetPv(rpc.GetPvRequest(name="A:SP"))
    assert not answer.HasField("setpoint_metadata")
    found = answer.readback_metadata
    assert (found.address, found.native_type) == ("A:RB", value_pb2.VALUE_TYPE_FLOAT64)
    assert (found.control.low, found.control.high, found.units) == (-5, 5, "�A")
    assert not found.HasField("display")
    assert found.writable


async def test_two_replicas_read_what_either_wrote(service, keys, parts) -> None:
    settings = make_settings(
        parts,
        keys,
        service.settings.postgres_url.get_secret_value(),
        namespace=service.settings.namespace,
    )
    async with running(main, settings), connect(settings, keys) as channel:
        await until_serving(channel)
        other = CatalogServiceStub(channel)
        for i in range(20):
            pv = catalog_pb2.Pv(setpoint={"address": f"P:{i}"})
            writer, reader = (service.catalog, other) if i % 2 else (other, service.catalog)
            await writer.CreatePv(rpc.CreatePvRequest(pv=pv))
            assert (await reader.GetPv(rpc.GetPvRequest(name=f"P:{i}"))).pv.number == i + 1


async def test_concurrent_changes_take_their_turn(service) -> None:
    await asyncio.gather(*(create(service, f"P:{i}", f"R:{i}") for i in range(30)))
    _, found = await pages(service)
    directory = Directory.from_pages(1, list(found.values()))
    assert directory.pv_number.tolist() == list(range(1, 31))
    assert directory.channels.tolist() == [*range(256, 286), *range(512, 542)]


async def test_reads_go_on_while_postgres_is_away(parts, keys, tmp_path) -> None:
    async with Postgres(tmp_path / "pg", fsync=False) as postgres:
        await apply_migrations(postgres.url, ["drey_runtime", "drey_snapshot"])
        settings = make_settings(parts, keys, postgres.url)
        async with running(main, settings), connect(settings, keys) as channel:
            await until_serving(channel)
            catalog = CatalogServiceStub(channel)
            pv = catalog_pb2.Pv(setpoint={"address": "A"})
            made = (await catalog.CreatePv(rpc.CreatePvRequest(pv=pv))).pv
            assert (await catalog.GetPv(rpc.GetPvRequest(name="A"))).pv == made
            await postgres.kill()
            assert (await catalog.GetPv(rpc.GetPvRequest(name="A"))).pv == made
            with refused(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                await catalog.CreatePv(
                    rpc.CreatePvRequest(pv=catalog_pb2.Pv(setpoint={"address": "B"}))
                )
            directory = DirectoryServiceStub(channel)
            answers = [a async for a in directory.GetCatalogPages(drpc.GetCatalogPagesRequest())]
            assert sum(len(a.pages) for a in answers) == 1
            await postgres.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        request = rpc.CreatePvRequest(pv=catalog_pb2.Pv(setpoint={"address": "C"}))
                        await catalog.CreatePv(request)
                        break
                    except grpc.aio.AioRpcError as error:
                        assert error.code() == StatusCode.UNAVAILABLE
                        await asyncio.sleep(0.05)


async def test_a_viewer_may_look_but_not_change(service, keys) -> None:
    async with connect(service.settings, keys, ("viewer",)) as channel:
        viewer = CatalogServiceStub(channel)
        assert (await viewer.ListPvs(rpc.ListPvsRequest())).total_size == 0
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"):
            await viewer.CreatePv(rpc.CreatePvRequest(pv=catalog_pb2.Pv(setpoint={"address": "A"})))
    assert await names(service) == []


async def test_policies_of_those_that_say_something_are_told(service) -> None:
    plain = await create(service, "P:1", name="P1")
    policy = catalog_pb2.RestorePolicy(ramp_rate=0.5, stage=3)
    ramped = await create(service, "P:2", name="P2", restore_policy=policy)
    indexes: dict[int, int] = {}
    policies: list[catalog_pb2.RestorePolicy] = []
    async for part in service.directory.GetRestorePolicies(drpc.GetRestorePoliciesRequest()):
        indexes |= zip(part.pv_numbers, part.policy_indexes, strict=True)
        policies += [said.policy for said in part.policies]
    assert plain.number not in indexes
    assert {number: policies[index] for number, index in indexes.items()} == {ramped.number: policy}
