"""The law of drift: baseline plus changes is what a comparison of everything says, at each instant,
whatever comes in between; and what is compared is told apart, shared and bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drey.monitor.v1 import monitor_service_pb2 as pb
from drey_core.compare import DifferenceClass, compare, summarise_classes
from drey_core.directory import (
    ROLE_READBACK,
    ROLE_SETPOINT,
    CatalogPage,
    Directory,
    MetadataIndex,
    MetadataPage,
)
from drey_core.errors import InvalidArgument, Unimplemented
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, Pages, shard_of_page
from drey_core.values import ARRAY, Columns, Kind, Origin, State
from drey_gateway.domain.drift import (
    DriftPosition,
    DriftTable,
    DriftTolerances,
    Reference,
)
from drey_gateway.domain.drift_rows import LARGE_BYTES
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.resume import decode_token, encode_token
from drey_gateway.domain.shard import BusBatch
from drey_gateway.domain.watch import WatchSelection, check_token
from drey_gateway.mapping_drift import baseline_messages, change_messages, read_drift, summary_of

PVS = {1: (257, 513), 2: (769, 514), 3: (1281, 770), 4: (1537, 1025), 5: (258, 0), 6: (0, 1538)}
"""Setpoint and readback, 0: none; with three shards the pages 1 to 6 are divided among them."""
PAGES = np.arange(1, 7)
VALUES: list[tuple[Any, Any]] = [
    (0.0, Kind.FLOAT64),
    (0.6, Kind.FLOAT64),
    (0.9, Kind.FLOAT64),
    (-1.0, Kind.FLOAT64),
    (1.5, Kind.FLOAT64),
    (float("nan"), Kind.FLOAT64),
    (float("inf"), Kind.FLOAT64),
    (1, Kind.INT32),
    (b"text", Kind.STRING),
    (0, Kind.ENUM),
    (1, Kind.ENUM),
    ([0.0, 0.9], Kind.FLOAT64 | ARRAY),
    ([0.0, 7.0], Kind.FLOAT64 | ARRAY),
    ("disconnected", None),
    ("never", None),
]
LABELS = [(b"off", b"on"), (b"on", b"off"), ()]


def catalog(variant: int) -> list[CatalogPage]:
    """0: as of the reference; 1: without PV 3; 2: wider tolerances; 3: PV 1 has another name."""
    found = {int(n): CatalogPage.empty_page(int(n)) for n in PAGES}
    for pv, channels in PVS.items():
        for role, channel in zip((ROLE_SETPOINT, ROLE_READBACK), channels, strict=True):
            if channel == 0 or (variant == 1 and pv == 3):
                continue
            page, slot = found[channel >> PAGE_SHIFT], channel & PAGE_MASK
            page.pv_number[slot], page.role[slot], page.protocol[slot] = pv, role, 1
            page.absolute[slot] = 2.0 if variant == 2 else 1.0
            page.names[slot] = f"PV{pv}{'NEW' if variant == 3 and pv == 1 else ''}"
            page.addresses[slot] = f"PV{pv}:{role}"
    return list(found.values())


def one_value(channel: int, index: int, time_ns: int) -> Columns:
    value, kind = VALUES[index]
    if isinstance(value, str):
        columns = Columns.from_values(np.array([channel]), [0.0], [int(Kind.FLOAT64)])
        lost = value == "disconnected"
        columns.state[:] = State.DISCONNECTED if lost else State.NEVER_CONNECTED
    else:
        columns = Columns.from_values(np.array([channel]), [value], [int(kind)])
        columns.state[:] = State.CONNECTED
    columns.origin[:] = Origin.MONITOR
    columns.source_time[:] = columns.receive_time[:] = time_ns
    return columns


def stored(values: dict[int, int]) -> Reference:
    """A state of index of the value by channel; those not in it are absent."""
    channels = [c for pair in PVS.values() for c in pair if c in values]
    role_of = {c: (pv, role + 1) for pv, pair in PVS.items() for role, c in enumerate(pair)}
    columns = Columns.concat_columns([one_value(c, values[c], 5) for c in channels])
    return Reference.of_columns(
        "0197-a-snapshot",
        5,
        Directory.from_pages(0, catalog(0)),
        MetadataIndex([labels_page(0, channel) for channel in (257,)]),
        np.array([role_of[c][0] for c in channels], np.int64),
        np.array([role_of[c][1] for c in channels], np.uint8),
        columns,
    )


def labels_page(variant: int, channel: int) -> MetadataPage:
    page = MetadataPage.empty_page(channel >> PAGE_SHIFT)
    if LABELS[variant]:
        page.labels[channel & PAGE_MASK] = LABELS[variant]
    page.kind[channel & PAGE_MASK] = Kind.ENUM
    return page


def machine(shards: int) -> LiveState:
    """All pages there, of channels that never connected."""
    live = LiveState(shards)
    live.take_directory(catalog(0), [labels_page(0, 257)], PAGES, 1)
    for shard in range(shards):
        mine = live.pages_of(shard)
        ones = np.ones(len(mine), np.uint64)
        ages = np.zeros((len(mine), PAGE_SLOTS), np.uint16)
        live.resynchronise_shard(shard, Pages.empty_pages(mine), ones, ones, 1, ages)
    return live


class Scratch:
    """What a table has to say: everything compared anew at each look, channel by channel."""

    def __init__(self, table: DriftTable, live: LiveState) -> None:
        self.table, self.live = table, live
        self.over: set[tuple[int, int]] = set()
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.told: dict[int, list[int]] = {}

    def look(self) -> None:
        table, live = self.table, self.live
        reference, directory = table.reference, live.directory
        rows = directory.rows_of(reference.numbers)
        found, columns = [], []
        sides = (
            (reference.setpoint, "setpoint"),
            (reference.readback, "readback"),
        )
        for side, name in sides:
            channels = np.where(rows >= 0, getattr(directory, f"{name}_channel")[rows], 0)
            now = live.image.columns_of_channels(channels)
            where = reference.directory
            if table.tolerances is DriftTolerances.CATALOG:
                where = directory
            at = where.rows_of(reference.numbers)
            limits = [np.where(at >= 0, c[at], 0.0) for c in getattr(where, f"{name}_tolerance")]
            then = side.key
            found.append(
                compare(
                    side,
                    now,
                    *limits,
                    reference_labels=lambda i, then=then: reference.metadata.labels(int(then[i])),
                    other_labels=lambda i, ch=channels: live.metadata.labels(int(ch[i])),
                )
            )
            columns.append(now)
        self.rows, self.told = {}, {}
        for index, number in enumerate(reference.numbers.tolist()):
            told = []
            for role in (0, 1):
                cls = int(found[role].cls[index])
                deviation = float(found[role].deviation[index])
                key = (number, role)
                if cls == DifferenceClass.DIFFERENT:
                    self.over.add(key)
                elif cls == DifferenceClass.EQUAL or (
                    cls == DifferenceClass.WITHIN_TOLERANCE
                    and (table.hysteresis == 1 or deviation < table.hysteresis)
                ):
                    self.over.discard(key)
                held = key in self.over and cls == DifferenceClass.WITHIN_TOLERANCE
                told.append(int(DifferenceClass.DIFFERENT) if held else cls)
            self.told[number] = told
            if max(told) > DifferenceClass.WITHIN_TOLERANCE:
                classes = tuple(int(f.cls[index]) for f in found)
                deviations = [float(f.deviation[index]) for f in found]
                known = [d for d in deviations if not np.isnan(d)]
                name = directory.names[rows[index]] if rows[index] >= 0 else f"PV{number}"
                values = tuple(_plain(c, index) for c in columns)
                different = int(DifferenceClass.DIFFERENT) in told
                self.rows[number] = (
                    *(name, classes, different, max(known, default=None)),
                    values,
                )


def _plain(columns: Columns, index: int) -> float | None:
    """A number of a channel that is connected; None for all else."""
    if columns.kind[index] != Kind.FLOAT64 or columns.state[index] != State.CONNECTED:
        return None
    return _same_nan(float(columns.value(index)))


def _same_nan(value: float) -> Any:
    return "NaN" if np.isnan(value) else value


def _told_row(row: pb.DriftRow) -> tuple[Any, ...]:
    values = tuple(
        _same_nan(value.float64_value)
        if value.WhichOneof("data") == "float64_value" and value.state == int(State.CONNECTED)
        else None
        for value in (row.live.setpoint, row.live.readback)
    )
    assert row.stored.number == row.live.number
    deviation = row.deviation if row.HasField("deviation") else None
    classes = (row.setpoint_class, row.readback_class)
    return (row.live.name, classes, row.different, deviation, values)


@dataclass
class Screen:
    """A client, by the contract's words alone."""

    rows: list[int] | None = None
    held: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    token: str = ""
    table: DriftTable | None = None
    selection: WatchSelection | None = None
    position: DriftPosition = field(default_factory=DriftPosition)

    def connect(self, table: DriftTable, live: LiveState) -> None:
        self.table, self.position = table, DriftPosition()
        self.selection = table.select_rows(
            None if self.rows is None else np.array(self.rows, np.int64)
        )
        token = decode_token(self.token) if self.token else None
        if token is not None and not check_token(token, self.selection, live.shard_positions()):
            step = table.since_token(self.selection, self.position, token)
            self.take(change_messages(table.row_bytes(step.rows), step.left, 0))
        else:
            self.held = {}
            rows = table.row_bytes(table.baseline_rows(self.selection, self.position))
            self.take(list(baseline_messages(rows)))
        self.token = encode_token(table.token(self.selection))

    def read(self) -> None:
        table = self.table
        assert table is not None and self.selection is not None
        step = table.next_step(self.selection, self.position)
        self.take(change_messages(table.row_bytes(step.rows), step.left, step.merged))
        if self.selection.manner is not table.manner:
            chosen = self.selection.rows if self.rows is not None else None
            self.selection = table.select_rows(chosen)
        self.token = encode_token(table.token(self.selection))

    def choose(self, rows: list[int]) -> None:
        """As a tag that is given to other PVs: what is watched changes while it lives."""
        table, old = self.table, self.selection
        self.rows = rows
        if table is None or old is None:
            self.token = ""
            return
        self.read()
        self.selection = table.select_rows(np.array(rows, np.int64))
        step = table.reselect_rows(old, self.selection, self.position)
        self.take(change_messages(table.row_bytes(step.rows), step.left, 0))
        self.token = encode_token(table.token(self.selection))

    def take(self, messages: list[bytes]) -> None:
        for raw in messages:
            message = pb.WatchDriftResponse.FromString(raw)
            part = getattr(message, message.WhichOneof("part"))
            for number in getattr(part, "left", ()):
                self.held.pop(number, None)
            for row in part.rows:
                self.held[row.live.number] = _told_row(row)


class World:
    """Two gateways that are fed the same batches, each at its pace, and screens at them."""

    def __init__(self, shards: int, reference: Reference, hysteresis: float, rule: int) -> None:
        self.shards, self.reference = shards, reference
        self.hysteresis, self.rule = hysteresis, DriftTolerances(rule)
        self.gateways = [machine(shards), machine(shards)]
        self.stale: list[set[int]] = [set(), set()]
        self.waiting: list[list[tuple[int, BusBatch]]] = [[], []]
        self.sequences = dict.fromkeys(range(shards), 1)
        self.time = 10
        self.tables: list[DriftTable] = []
        self.scratch: list[Scratch] = []
        for live in self.gateways:
            table = DriftTable(reference, live, self.rule, hysteresis)
            self.tables.append(table)
            self.scratch.append(Scratch(table, live))
        self.screens = [Screen(), Screen(rows=[0, 1]), Screen()]
        for gateway in (0, 1):
            self.look(gateway)
        for index, screen in enumerate(self.screens):
            screen.connect(self.tables[index % 2], self.gateways[index % 2])

    def look(self, gateway: int) -> None:
        self.tables[gateway].advance_classes(frozenset(self.stale[gateway]))
        self.scratch[gateway].look()

    def write(self, pv: int, role: int, value: int) -> None:
        channel = PVS[pv][role]
        if channel == 0:
            return
        self.time += 1
        shard = int(shard_of_page(np.array([channel >> PAGE_SHIFT]), self.shards)[0])
        self.sequences[shard] += 1
        columns = one_value(channel, value, self.time)
        for waiting in self.waiting:
            waiting.append((shard, BusBatch(1, self.sequences[shard], 0, False, columns)))

    def deliver(self, gateway: int) -> None:
        for shard, batch in self.waiting[gateway]:
            self.gateways[gateway].apply_batch(shard, batch)
        self.waiting[gateway].clear()

    def restart(self, gateway: int) -> None:
        """Its last watcher left, and another one came: what it knew of the past is gone."""
        live = self.gateways[gateway]
        for screen in self.screens:
            if screen.table is self.tables[gateway]:
                screen.table = None
        self.tables[gateway] = DriftTable(self.reference, live, self.rule, self.hysteresis)
        self.scratch[gateway] = Scratch(self.tables[gateway], live)
        self.look(gateway)

    def change_catalog(self, gateway: int, variant: int) -> None:
        self.gateways[gateway].take_directory(catalog(variant), [], PAGES, 2)

    def change_labels(self, gateway: int, variant: int) -> None:
        live = self.gateways[gateway]
        live.take_directory([], [labels_page(variant, 257)], PAGES, 2)

    def turn_stale(self, gateway: int, shard: int) -> None:
        self.stale[gateway] ^= {shard % self.shards}

    def move(self, screen: int, gateway: int) -> None:
        self.look(gateway)
        self.screens[screen].connect(self.tables[gateway], self.gateways[gateway])
        self.check(screen)

    def read(self, screen: int) -> None:
        if self.screens[screen].table is not None:
            self.screens[screen].read()
            self.check(screen)

    def choose(self, screen: int, rows: list[int]) -> None:
        chosen = sorted({row for row in rows if row < len(self.reference)})
        self.screens[screen].choose(chosen)
        if self.screens[screen].table is not None:
            self.check(screen)

    def check(self, screen: int) -> None:
        one = self.screens[screen]
        table = one.table
        assert table is not None and one.selection is not None
        scratch = self.scratch[self.tables.index(table)]
        numbers = set(one.selection.numbers.tolist())
        wanted = {n: row for n, row in scratch.rows.items() if n in numbers}
        assert one.held == wanted
        told = np.array([scratch.told[n] for n in sorted(numbers)], np.uint8).reshape(-1, 2)
        every = np.ones(len(told), bool)
        summary = summarise_classes(told[:, 0], every, told[:, 1], every)
        assert table.counts(one.selection).summary == summary


GATEWAY, SCREEN = st.integers(0, 1), st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(
        st.just("write"),
        st.sampled_from(sorted(PVS)),
        st.integers(0, 1),
        st.integers(0, len(VALUES) - 1),
    ),
    st.tuples(st.just("deliver"), GATEWAY),
    st.tuples(st.just("look"), GATEWAY),
    st.tuples(st.just("read"), SCREEN),
    st.tuples(st.just("move"), SCREEN, GATEWAY),
    st.tuples(st.just("restart"), GATEWAY),
    st.tuples(st.just("change_catalog"), GATEWAY, st.integers(0, 3)),
    st.tuples(st.just("change_labels"), GATEWAY, st.integers(0, len(LABELS) - 1)),
    st.tuples(st.just("turn_stale"), GATEWAY, st.integers(0, 2)),
    st.tuples(st.just("choose"), SCREEN, st.lists(st.integers(0, 5), max_size=4)),
)
CHANNELS = [c for pair in PVS.values() for c in pair if c]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([1, 3]),
    st.dictionaries(st.sampled_from(CHANNELS), st.integers(0, len(VALUES) - 1), min_size=3),
    st.sampled_from([1.0, 0.8]),
    st.sampled_from([1, 2]),
    st.lists(STEPS, max_size=60),
)
def test_law(
    shards: int,
    values: dict[int, int],
    hysteresis: float,
    rule: int,
    steps: list[tuple[Any, ...]],
) -> None:
    world = World(shards, stored(values), hysteresis, rule)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    for gateway in (0, 1):
        world.deliver(gateway)
        world.look(gateway)
    for screen in range(len(world.screens)):
        world.read(screen)
        world.move(screen, screen % 2)
        world.move(screen, (screen + 1) % 2)


def world_of(**options: Any) -> World:
    """All stored as 0.0, and all the same in the machine."""
    world = World(1, stored(dict.fromkeys(CHANNELS, 0)), options.get("hysteresis", 1.0), 1)
    for pv in PVS:
        for role in (0, 1):
            world.write(pv, role, 0)
    run(world)
    return world


def run(world: World) -> None:
    for gateway in (0, 1):
        world.deliver(gateway)
        world.look(gateway)
    for screen in range(len(world.screens)):
        world.read(screen)


def test_what_is_not_known_is_never_counted_as_the_same() -> None:
    world = world_of()
    table, every = world.tables[0], world.screens[0].selection
    assert every is not None
    summary = table.counts(every).summary
    assert (summary.pvs, summary.pvs_same) == (6, 6)
    world.write(1, 0, VALUES.index(("disconnected", None)))
    world.write(2, 0, VALUES.index(("never", None)))
    world.write(3, 0, VALUES.index((b"text", Kind.STRING)))
    world.write(4, 0, VALUES.index((1.5, Kind.FLOAT64)))
    run(world)
    told = summary_of(table.counts(every))
    assert (told.different, told.unknown, told.same, told.compared) == (1, 3, 2, 6)
    assert not world.screens[0].held[1][2] and world.screens[0].held[4][2]
    # stale is said beside, of each as it was last known
    world.turn_stale(0, 0)
    run(world)
    told = summary_of(table.counts(every))
    assert (told.stale, told.same, told.unknown) == (6, 2, 3)
    # gone from the catalog, and not the same either
    world.turn_stale(0, 0)
    world.change_catalog(0, 1)
    run(world)
    only = int(DifferenceClass.ONLY_IN_REFERENCE)
    assert world.screens[0].held[3][1] == (only, only)


def test_a_value_at_the_edge_does_not_come_and_go() -> None:
    world = world_of(hysteresis=0.8)
    held = world.screens[0].held
    for value, listed in ((0.9, False), (1.5, True), (0.9, True), (0.6, False), (0.9, False)):
        world.write(1, 0, VALUES.index((value, Kind.FLOAT64)))
        run(world)
        assert (1 in held) is listed, value
    # one that goes away meanwhile and comes back has not been below
    for entry in ((1.5, Kind.FLOAT64), ("disconnected", None), (0.9, Kind.FLOAT64)):
        world.write(1, 0, VALUES.index(entry))
        run(world)
        assert 1 in held, entry


def test_what_another_gateway_has_seen_otherwise_is_told_anew() -> None:
    """One has seen it differ and holds it; the other only saw it afterwards, at the edge."""
    world = world_of(hysteresis=0.8)
    for value in (1.5, 0.9):
        world.write(1, 0, VALUES.index((value, Kind.FLOAT64)))
        world.deliver(0)
        world.look(0)
        world.read(0)
    assert 1 in world.screens[0].held
    world.deliver(1)
    world.look(1)
    world.move(0, 1)
    assert 1 not in world.screens[0].held
    world.move(0, 0)
    assert 1 in world.screens[0].held


def test_rows_are_compared_and_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred screens at the price of one, and nothing for what has not changed."""
    world = world_of()
    table = world.tables[0]
    seen: list[int] = []
    encode = table._rows.encode_rows

    def counted(rows: Any, *more: Any) -> None:
        seen.append(len(rows))
        encode(rows, *more)

    monkeypatch.setattr(table._rows, "encode_rows", counted)
    world.write(4, 0, VALUES.index((1.5, Kind.FLOAT64)))
    run(world)
    for _ in range(200):
        screen = Screen()
        screen.connect(table, world.gateways[0])
        assert set(screen.held) == {4}
    run(world)
    assert seen == [1]
    # one that left takes no memory
    world.write(4, 0, 0)
    run(world)
    assert all(raw == b"" for raw in table._rows._bytes.tolist())


def test_a_value_that_is_too_large_is_left_out_and_told() -> None:
    world = world_of()
    channel = PVS[1][0]
    size = LARGE_BYTES // 8
    columns = Columns.from_values(np.array([channel]), [np.ones(size)], [int(Kind.FLOAT64 | ARRAY)])
    columns.state[:] = State.CONNECTED
    for live in world.gateways:
        live.image.apply_batch(columns, 1, 100)
    table = world.tables[0]
    table.advance_classes(frozenset())
    rows = table.row_bytes(table.baseline_rows(table.select_rows(None), DriftPosition()))
    (message,) = [pb.WatchDriftResponse.FromString(raw) for raw in baseline_messages(rows)]
    (row,) = message.baseline.rows
    assert row.too_large and row.live.name == row.stored.name == "PV1"
    assert not row.live.HasField("setpoint") and not row.stored.HasField("setpoint")
    assert row.setpoint_class == int(DifferenceClass.TYPE_CHANGED)


def test_who_left_and_who_changed_is_told_in_few_messages() -> None:
    assert change_messages([], np.zeros(0, np.int64), 0) == []
    left = np.arange(1, 50_001)
    messages = [pb.WatchDriftResponse.FromString(raw) for raw in change_messages([], left, 3)]
    assert [n for m in messages for n in m.changed.left] == left.tolist()
    assert [m.changed.merged for m in messages] == [3, 0, 0]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"hysteresis": 1.5}, InvalidArgument),
        ({"tolerance_source": "TOLERANCE_SOURCE_GIVEN"}, InvalidArgument),
        ({"selector": {}}, InvalidArgument),
        ({"form": "VALUE_FORM_COLUMNS"}, Unimplemented),
        ({"min_interval": {"seconds": 7200}}, InvalidArgument),
    ],
)
def test_what_cannot_be_watched_is_refused_by_field(spec: Any, error: Any) -> None:
    with pytest.raises(error) as caught:
        read_drift(pb.WatchDriftRequest(spec={"reference": {"snapshot_id": "x"}, **spec}))
    assert next(iter(spec)) in caught.value.message
