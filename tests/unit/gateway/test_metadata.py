"""Metadata as it is sent: whole, and what was kept of it no longer than it is so."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import NoReturn

import numpy as np

from drey.common.v1.selector_pb2 import Selector
from drey.common.v1.value_pb2 import ChannelMetadata, Range, ValueType
from drey.monitor.v1 import watch_pb2
from drey.monitor.v1.monitor_service_pb2 import WatchPvsResponse
from drey.monitor.v1.watch_pb2 import MetadataRow
from drey_core.directory import Directory, MetadataIndex, MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT
from drey_core.values import ARRAY, Kind
from drey_gateway.context import WatchContext, WatcherLimit
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.watch import Fields
from drey_gateway.mapping_asked import read_wanted
from drey_gateway.mapping_metadata import MetadataEncoder
from drey_gateway.watching import Watch
from drey_runtime.waiting import ChangeSignal
from drey_testing.fixtures_gateway import WatchClient, catalog_pages, readback, setpoint

PVS = 700


def _directory() -> Directory:
    return Directory.from_pages(1, catalog_pages(PVS))


def _decode_rows(
    encoder: MetadataEncoder, directory: Directory, index: MetadataIndex, wanted: Fields
) -> list[MetadataRow]:
    messages = encoder.encode_rows(np.arange(PVS), directory, index, wanted)
    return [MetadataRow.FromString(row) for rows in messages for row in rows]


def _page_of(channel: int, units: bytes) -> MetadataPage:
    page, slot = MetadataPage.empty_page(channel >> PAGE_SHIFT), channel & PAGE_MASK
    page.kind[slot], page.count[slot], page.readable[slot] = Kind.FLOAT64, 1, 1
    page.limits[:, slot] = [-1, 1, math.nan, math.nan, -math.inf, math.inf, 0, 0]
    page.units[slot], page.hosts[slot], page.precision[slot] = units, "größe.example.org:1", 0
    return page


def test_each_channel_has_its_own_metadata() -> None:
    directory, encoder = _directory(), MetadataEncoder()
    channel = readback(2)
    page, slot = _page_of(channel, b"\xb5A \xff"), setpoint(3) & PAGE_MASK
    page.kind[slot], page.count[slot], page.writable[slot] = Kind.ENUM | ARRAY, 70_000, 1
    page.labels[slot] = (b"Off", "Geöffnet".encode())
    rows = _decode_rows(encoder, directory, MetadataIndex([page]), Fields.BOTH)
    assert [row.number for row in rows] == directory.pv_number.tolist()
    assert [row.name for row in rows] == directory.names
    assert [row.setpoint.address for row in rows] == directory.setpoint_address
    assert [row.readback.address for row in rows] == directory.readback_address
    by_number = {row.number: row for row in rows}
    assert by_number[2].readback == ChannelMetadata(
        address=by_number[2].readback.address,
        native_type=ValueType.VALUE_TYPE_FLOAT64,
        element_count=1,
        units="�A �",
        precision=0,
        display=Range(low=-1, high=1),
        alarm=Range(low=-math.inf, high=math.inf),
        control=Range(),
        readable=True,
        host="größe.example.org:1",
    )
    assert by_number[3].setpoint == ChannelMetadata(
        address=by_number[3].setpoint.address,
        native_type=ValueType.VALUE_TYPE_ENUM,
        element_count=70_000,
        enum_labels=["Off", "Geöffnet"],
        writable=True,
    )
    never = by_number[2].setpoint
    assert never == ChannelMetadata(address=never.address)


def test_only_what_is_wanted_is_told() -> None:
    directory, encoder = _directory(), MetadataEncoder()
    rows = _decode_rows(encoder, directory, MetadataIndex(), Fields.READBACK)
    assert all(row.HasField("readback") and not row.HasField("setpoint") for row in rows)


def test_a_newer_page_is_told_at_once() -> None:
    directory, encoder = _directory(), MetadataEncoder()
    channel = readback(5)
    index = MetadataIndex([_page_of(channel, b"A")])
    for units in ("A", "mA"):
        index.replace_page(_page_of(channel, units.encode()))
        rows = _decode_rows(encoder, directory, index, Fields.BOTH)
        assert {row.readback.units for row in rows if row.number == 5} == {units}


class _NoResolver:
    async def resolve_selector(self, selector: object, allow_unknown: bool) -> NoReturn:
        raise AssertionError("everything that is watched is known by name")


def _watch_all(live: LiveState) -> Watch:
    spec = watch_pb2.WatchSpec(selector=Selector(all=True), with_metadata=True)
    context = WatchContext(live, ChangeSignal(), WatcherLimit(1), _NoResolver(), dict, lambda: True)
    return Watch(context, read_wanted(spec))


def _live() -> LiveState:
    live, pages = LiveState(1), catalog_pages(PVS)
    numbers = np.array([page.number for page in pages])
    live.take_directory(pages, [], numbers, 1)
    return live


async def test_what_comes_while_a_baseline_is_sent_is_told_after_it() -> None:
    """Whichever message of the baseline it follows, and whichever PV it is of."""
    total = len([message async for message in await _begun(_watch_all(_live()))])
    told_late = 0
    for count in range(1, total + 1):
        for pv in (1, PVS):
            live = _live()
            watch, client = _watch_all(live), WatchClient()
            seen = 0
            async for message in await _begun(watch):
                client.take(WatchPvsResponse.FromString(message))
                seen += 1
                if seen == count:
                    page = _page_of(readback(pv), b"mA")
                    live.take_directory([], [page], live.pages, 1)
            told_late += client.metadata[pv].readback.units != "mA"
            async for message in watch.next_turn():
                client.take(WatchPvsResponse.FromString(message))
            assert client.metadata[pv].readback.units == "mA", (count, pv)
            assert [m async for m in watch.next_turn()] == []
            watch.leave_rows()
    assert told_late, "it never came too late for the baseline"


async def _begun(watch: Watch) -> AsyncGenerator[bytes, None]:
    await watch.choose_rows()
    return watch.begin_baseline()
