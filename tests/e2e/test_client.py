"""`drey_client` on the running stack, with and without asyncio."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from drey.catalog.v1 import catalog_service_pb2
from drey.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from drey_client import (
    BlockingClient,
    ChannelState,
    Client,
    ClientError,
    EnumState,
    LiveChange,
    choose,
)
from tests.e2e.conftest import PVS, Running


@pytest.fixture
def drey(running: Running):
    with BlockingClient(running.stack.server, running.keys["ADMIN"]) as client:
        yield client


def write(running: Running, values: dict[str, float]) -> None:
    path = running.machine.folder / "values.json"
    path.write_text(json.dumps(values))
    running.do(running.machine.run("write", "--values-from", str(path)))


def test_values_by_name_device_tag_and_address(running: Running, drey: BlockingClient) -> None:
    assert len(drey.get("*")) == PVS
    name = next(pv.name for pv in drey.get("*:BDES") if pv.readback is not None)

    def described() -> bool:
        """What a monitor knows of a channel besides its value comes a moment later."""
        return drey.get(name)[0].units == "A"

    running.pump(described)
    (bend,) = drey.get(name)
    assert bend.setpoint is not None and bend.setpoint.usable
    assert isinstance(bend.setpoint.data, float)
    # a readback's address means its PV, in the catalog as well
    readback = bend.readback_metadata
    assert readback is not None
    (by_address,) = drey.get([readback.address])
    assert by_address.name == bend.name
    assert drey.find(readback.address).number == bend.number
    devices = {pv.name for pv in drey.get("device:BEND")}
    assert devices and all(name.startswith("BEND:") for name in devices)
    assert {pv.name for pv in drey.get(["device:BEND", "not:*:BDES"])} == {
        name for name in devices if not name.endswith(":BDES")
    }


def test_an_import_says_its_plan_and_does_it_whole_or_not(
    drey: BlockingClient, tmp_path: Path
) -> None:
    path = tmp_path / "more.csv"
    path.write_text("Setpoint,Readback,Device\nMORE:1:BDES,MORE:1:BACT,BEND\nMORE:2:BDES,,BEND\n")
    plan = drey.import_pvs(path, dry_run=True)
    assert [row.name for row in plan.rows] == ["MORE:1:BDES", "MORE:2:BDES"]
    assert (plan.summary.added, plan.summary.refused, plan.summary.applied) == (2, 0, False)
    with pytest.raises(ClientError, match="MORE:1:BDES"):
        drey.find("MORE:1:BDES")

    path.write_text("Setpoint,Abs Tolerance\nMORE:3:BDES,\nMORE:4:BDES,wide\n")
    refused = drey.import_pvs(path)
    assert [(row.line, row.column) for row in refused.rows if row.HasField("error")] == [
        (3, "Abs Tolerance")
    ]
    assert (refused.summary.refused, refused.summary.applied) == (1, False)
    with pytest.raises(ClientError, match="MORE:3:BDES"):
        drey.find("MORE:3:BDES")

    path.write_text(f"Setpoint,Description\n{drey.get('*:BDES')[0].name},not so\n")
    kept = drey.import_pvs(path, keep_existing=True)
    assert (kept.summary.unchanged, kept.summary.changed, kept.summary.applied) == (1, 0, True)


def test_errors_are_reasons(running: Running, drey: BlockingClient) -> None:
    with pytest.raises(ClientError, match="NOT_THERE") as unknown:
        drey.get(["NOT_THERE"])
    assert unknown.value.reason == "NOT_FOUND"
    with pytest.raises(ClientError) as nothing:
        drey.find("NOT_THERE")
    assert nothing.value.reason == "NOT_FOUND"
    with pytest.raises(ValueError, match="nothing is chosen"):
        drey.get([])
    with BlockingClient(running.stack.server, "drey_wrong") as stranger:
        with pytest.raises(ClientError) as refused:
            stranger.get("*")
        assert refused.value.reason == "UNAUTHENTICATED"
        with stranger.watch("*") as watch, pytest.raises(ClientError) as ended:
            next(iter(watch))
        assert ended.value.reason == "UNAUTHENTICATED"
    with pytest.raises(ClientError) as bad:
        drey.read_snapshot("no-id")
    assert bad.value.field == "id"


def test_a_snapshot_is_a_table(running: Running, drey: BlockingClient) -> None:
    def labeled() -> bool:
        """A monitor tells the labels of an enumeration a moment after its value."""
        values = [pv.setpoint.data for pv in drey.get("*") if pv.setpoint is not None]
        return any(isinstance(data, EnumState) and data.label for data in values)

    running.pump(labeled)
    snapshot = drey.take_snapshot(title="by drey_client", max_missing=None)
    assert snapshot.title == "by drey_client"
    assert snapshot.id in {each.id for each in drey.snapshots(5)}
    table = drey.read_snapshot(snapshot.id)
    assert table.snapshot.id == snapshot.id
    assert len(set(table["pv"])) == PVS
    live = {pv.name: pv for pv in drey.get("*")}
    for pv, channel, value, state in zip(
        table["pv"], table["channel"], table["value"], table["state"], strict=True
    ):
        now = getattr(live[pv], channel)
        if now.state == ChannelState.CONNECTED and state == "CONNECTED":
            assert type(value) is type(now.data), pv
    assert table["source_time"].dtype == np.dtype("datetime64[ns]")
    states = [value for value in table["value"] if isinstance(value, EnumState)]
    assert any(state.label for state in states)
    with pytest.raises(TypeError, match="compare its label or its index"):
        bool(states[0])
    some = drey.read_snapshot(snapshot.id, "device:BEND")
    assert 0 < len(some) < len(table)

    frame = table.to_pandas()
    assert list(frame["pv"]) == table["pv"] and frame["source_time"].dtype == "datetime64[ns]"
    arrow = table.to_arrow()
    assert arrow.num_rows == len(table)
    # the state of an enumeration is never a number
    texts, numbers = arrow["text"].to_pylist(), arrow["number"].to_pylist()
    for value, text, number in zip(table["value"], texts, numbers, strict=True):
        if isinstance(value, EnumState):
            assert (text, number) == (str(value), None)
        elif isinstance(value, float):
            assert number == pytest.approx(value, nan_ok=True)
    assert table.to_polars().height == len(table)


def test_what_differs_is_a_table(running: Running, drey: BlockingClient) -> None:
    snapshot = drey.take_snapshot("device:BEND", max_missing=None)
    name = next(pv.name for pv in drey.get("device:BEND") if pv.name.endswith(":BDES"))
    write(running, {name: 41.5})
    with drey.watch([name]) as watch:
        for change in watch:
            (pv,) = change.pvs or (None,)
            if pv is not None and pv.setpoint is not None and pv.setpoint.data == 41.5:
                break
    table = drey.compare(snapshot.id)
    row = list(zip(table["pv"], table["channel"], strict=True)).index((name, "setpoint"))
    assert table["difference"][row] == "DIFFERENT"
    assert table["other_value"][row] == 41.5
    assert table["delta"][row] == pytest.approx(41.5 - table["reference_value"][row])
    assert table.header.summaries[0].pvs_different >= 1
    assert len(drey.compare(snapshot.id, everything=True)) > len(table)
    assert len(drey.compare(snapshot.id, snapshot.id)) == 0


def test_a_watch_follows_and_can_be_left(running: Running, drey: BlockingClient) -> None:
    name = next(pv.name for pv in drey.get("device:BEND") if pv.name.endswith(":BDES"))
    with drey.watch("device:BEND") as watch:
        changes = iter(watch)
        first = next(changes)
        assert first.whole and first.live and name in {pv.name for pv in first.pvs}
        write(running, {name: -3.25})
        for change in changes:
            by_name = {pv.name: pv.setpoint for pv in change.pvs}
            setpoint = by_name.get(name)
            if setpoint is not None and setpoint.data == -3.25:
                break
        # closed by another thread it ends, also while it waits
        ended = threading.Event()

        def read_on() -> None:
            for _ in changes:
                pass
            ended.set()

        reader = threading.Thread(target=read_on)
        reader.start()
        watch.close()
        assert ended.wait(120)
        reader.join()


def test_a_pv_that_is_deleted_leaves(running: Running) -> None:
    async def scenario() -> list[LiveChange]:
        changes: list[LiveChange] = []
        purged = False
        async with Client(running.stack.server, running.keys["ADMIN"]) as client:
            stub = CatalogServiceStub(client.channel)
            await client.call(
                stub.CreatePv,
                catalog_service_pb2.CreatePvRequest(
                    pv={"name": "CLIENT:LEAVES", "setpoint": {"address": "CLIENT:LEAVES"}}
                ),
            )
            async for change in client.watch("CLIENT:*"):
                changes.append(change)
                if change.pvs and not purged:
                    purged = True
                    await client.call(
                        stub.PurgePvs,
                        catalog_service_pb2.PurgePvsRequest(selector=choose("CLIENT:LEAVES")),
                    )
                if change.left:
                    return changes
        raise AssertionError("it never left")

    changes = running.do(scenario())
    assert changes[0].whole
    assert {pv.name for change in changes for pv in change.pvs} == {"CLIENT:LEAVES"}
    assert changes[-1].left == ("CLIENT:LEAVES",)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("*", "all", True),
        ("QUAD:LI21:*", "globs", ["QUAD:LI21:*"]),
        ("QUAD:LI21:201:BDES", "names", ["QUAD:LI21:201:BDES"]),
        ("device:QUAD", "devices", ["QUAD"]),
    ],
)
def test_text_becomes_a_selector(text: str, field: str, value: object) -> None:
    chosen = getattr(choose(text), field)
    assert (list(chosen) if isinstance(value, list) else chosen) == value


def test_tags_and_what_is_taken_out() -> None:
    selector = choose(["tag:Area=LI21,LI22", "tag:System", "not:device:BPM"])
    assert [(tag.group, list(tag.tags)) for tag in selector.tags] == [
        ("Area", ["LI21", "LI22"]),
        ("System", []),
    ]
    assert list(selector.excluding.devices) == ["BPM"]
    for nothing in ("tag:", "device:", ""):
        with pytest.raises(ValueError, match=r"nothing"):
            choose(nothing)
