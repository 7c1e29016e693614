"""The law of watching: baseline plus diffs is the final state, whatever happens in between.

Owners, an image, gateways and clients are walked through random steps: batches lost, late, twice
or torn, fail-overs, gateways that restart, pages that the image lost. The walks are drawn from
fixed seeds, so a run tells of the code and not of its luck; `DREY_TEST_EXPLORE=20` walks twenty
times as many. A walk that breaks the law is cut down to the steps that matter and shown as a list
that belongs into `CASES`. (Hypothesis draws some ten walks in the time in which these are walked
a hundred times.)
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drey.monitor.v1.watch_pb2 import Diff
from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT, CatalogPage, MetadataPage
from drey_core.page_table import PageTable
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS, shard_of_page
from drey_core.slot_sequences import SlotSequences
from drey_core.values import Columns, Kind
from drey_gateway.domain.deadband import Deadband, DeadbandFilter
from drey_gateway.domain.live import LiveState
from drey_gateway.domain.resume import decode_token, encode_token
from drey_gateway.domain.shard import BusBatch
from drey_gateway.domain.watch import Fields, WatchDiff, WatchSelection, WatchState, check_token
from drey_runtime.mapping.columns import ColumnsReader
from drey_testing.fixtures_gateway import floats

PVS = {1: (257, 513), 2: (769, 514), 3: (1281, 770), 4: (1537, 1025)}
"""Setpoint and readback; with three shards the pages 1 and 2, 3 and 4, 5 and 6 are one's each."""
EARLY = np.array([1, 2, 3, 5])
ENUMS = (514, 770)
"""Readbacks of PV 2 and PV 3: enumerations, whose labels change."""
LABELS = 1000
PAGES = np.array([1, 2, 3, 4, 5, 6])
"""A gateway that does not `learn` knows of the early pages only, and so not of PV 4."""
CHANNELS = sorted(c for pair in PVS.values() for c in pair)
DEPOSED = 1e9
"""What a deposed owner sends after another has taken its shard."""
STEPS = 40
WALKS = 250
CHUNKS = 4

Step = tuple[Any, ...]


def catalog(pages: Any) -> list[CatalogPage]:
    found = {int(n): CatalogPage.empty_page(int(n)) for n in pages}
    for pv, channels in PVS.items():
        for role, channel in zip((ROLE_SETPOINT, ROLE_READBACK), channels, strict=True):
            page = found.get(channel >> PAGE_SHIFT)
            if page is not None:
                slot = channel & PAGE_MASK
                page.pv_number[slot], page.role[slot], page.protocol[slot] = pv, role, 1
                page.names[slot] = page.addresses[slot] = f"PV{pv}"
    return list(found.values())


def metadata(labels: dict[int, int]) -> list[MetadataPage]:
    found: dict[int, MetadataPage] = {}
    for channel, label in labels.items():
        page = found.setdefault(
            channel >> PAGE_SHIFT, MetadataPage.empty_page(channel >> PAGE_SHIFT)
        )
        page.labels[channel & PAGE_MASK] = (b"%d" % label,) * LABELS
    return list(found.values())


def columns_of(channels: list[int], value: float) -> Columns:
    columns = floats(channels, [value] * len(channels), int(value))
    enums = np.isin(columns.key, ENUMS)
    columns.kind[enums], columns.data[enums] = Kind.ENUM, int(value)
    return columns


CATALOGS = {len(pages): catalog(pages) for pages in (EARLY, PAGES)}


class Image:
    """One shard's pages in Redis, as its owner writes them: what changed, all of it or nothing."""

    def __init__(self, numbers: Any) -> None:
        self.table = PageTable(numbers)
        self.epoch = np.zeros(len(numbers), np.uint64)
        self.sequence = np.zeros(len(numbers), np.uint64)
        self.ages = np.zeros((len(numbers), PAGE_SLOTS), np.uint16)
        self.fence = 0

    def write(self, owner: Owner, indices: Any) -> None:
        if owner.epoch < self.fence:
            return
        self.fence = owner.epoch
        places = np.array(indices, np.int64)
        self.table.replace_pages(places, owner.table.take_pages(places))
        self.epoch[indices], self.sequence[indices] = owner.epoch, owner.sequence
        self.ages[indices] = owner.changed.ages_since(
            owner.table.page_numbers[places], owner.sequence
        )


class Owner:
    """One shard's owner under one epoch after the other; its table is the truth."""

    def __init__(self, numbers: Any) -> None:
        self.table = PageTable(numbers)
        self.changed = SlotSequences()
        self.changed.grow_pages(numbers)
        self.epoch, self.sequence = 1, 0
        self.unwritten: set[int] = set()
        self.promised = [(0, 0), (0, 0)]
        """What each gateway was promised by the last sign of life."""
        self.due = [(0, 0), (0, 0)]
        """What each gateway has to have by now, or know that it lacks something."""


class Client:
    """What a user holds: the value of each channel, or one that is not further off than `band`."""

    def __init__(self, band: float = 0.0) -> None:
        self.deadband = Deadband(absolute=band) if band else None
        self.band = band
        self.held: dict[int, float] = {}
        self.labels: dict[int, int] = {}
        self.token = ""
        self.gateway: LiveState | None = None
        self.state: WatchState | None = None

    def connect(self, gateway: LiveState) -> None:
        rows = np.arange(len(gateway.directory))
        count = gateway.shard_count
        manner = self.deadband.manner if self.deadband else b""
        selection = WatchSelection.select_watched(
            rows, gateway.directory, gateway.image, Fields.BOTH, count, manner
        )
        sieve = None
        if self.deadband is not None:
            channels = np.stack([selection.setpoints, selection.readbacks])
            sieve = DeadbandFilter(self.deadband, channels, rows, gateway.directory)
        state = WatchState(selection, sieve)
        change = None
        if self.token:
            token = decode_token(self.token)
            if not check_token(token, selection, gateway.shard_positions()):
                change = state.since_token(gateway.image, token, count)
        if change is None:
            self.held, self.labels = {}, {}
            change = state.baseline_diff(gateway.image)
        self.gateway, self.state = gateway, state
        self._take(change)

    def read(self) -> None:
        if self.state is not None and self.gateway is not None:
            self._take(self.state.next_diff(self.gateway.image))

    def leave(self) -> None:
        self.gateway = self.state = None

    def _take(self, change: WatchDiff) -> None:
        """Fold what is sent: what it does not hold is as it was. Columns say the same as rows."""
        assert self.gateway is not None
        assert self.state is not None
        selection = self.state.selection
        cache = self.gateway.row_cache(Fields.BOTH)
        rows = selection.rows[change.at]
        sent = cache.rows(rows, change.channels, frozenset())
        in_rows: list[tuple[int, int]] = []
        for row in Diff.FromString(b"".join(sent)).rows:
            for field, channel in zip(("setpoint", "readback"), PVS[row.number], strict=True):
                held = getattr(row, field)
                in_rows += [(row.number, channel)] if row.HasField(field) else []
                if held.HasField("enum_value"):
                    label = int(held.enum_value.label)
                    assert label >= self.labels.get(channel, 0), "an older label after a newer"
                    self.labels[channel] = label
                if held.HasField("float64_value") or held.HasField("enum_value"):
                    enum = held.HasField("enum_value")
                    value = held.enum_value.index if enum else held.float64_value
                    assert value >= self.held.get(channel, -1.0), "an older value after a newer"
                    self.held[channel] = value
        in_columns: list[tuple[int, int]] = []
        for chunk in cache.taken_columns(rows, change.channels, frozenset()).iterate_chunks():
            found = ColumnsReader().join_columns(Diff.FromString(chunk).columns)
            assert found is not None
            in_columns += zip(found.pv_numbers.tolist(), found.columns.key.tolist(), strict=True)
            for index in np.flatnonzero(found.columns.kind).tolist():
                assert found.columns.value(index) == self.held[int(found.columns.key[index])]
        assert in_columns == in_rows
        self.token = encode_token(self.gateway.token(selection))
        everything = np.concatenate([selection.setpoints, selection.readbacks])
        self.require_held(dict(values(self.gateway, everything)), "not what the gateway has")

    def require_held(self, truth: dict[int, float], otherwise: str) -> None:
        assert self.held.keys() == truth.keys(), otherwise
        assert all(abs(v - truth[c]) <= self.band for c, v in self.held.items()), otherwise


def values(gateway: LiveState, channels: Any) -> list[tuple[int, float]]:
    columns = gateway.image.columns_of_channels(channels)
    there = np.flatnonzero(columns.kind)
    return [(int(channels[i]), float(columns.value(i))) for i in there.tolist()]


class World:
    """All of it. Values only grow, so an older one after a newer shows."""

    def __init__(self, shards: int) -> None:
        self.shards, self.value = shards, 0.0
        mine = [PAGES[shard_of_page(PAGES, shards) == s] for s in range(shards)]
        self.images = [Image(numbers) for numbers in mine]
        self.owners = [Owner(numbers) for numbers in mine]
        self.truth: dict[int, float] = {}
        self.labels = dict.fromkeys(ENUMS, 0)
        """As the image has them, for all gateways."""
        self.in_flight: dict[tuple[int, int], list[BusBatch]] = {
            (at, shard): [] for at in (0, 1) for shard in range(shards)
        }
        self.gateways = [self._gateway(EARLY), self._gateway(EARLY)]
        self.clients = [Client(), Client(), Client(band=2.5)]
        for shard in range(shards):
            self.tick(shard, CHANNELS, True, (True, True), 1)
            for at in (0, 1):
                self.resync(at, shard)
                self.deliver(at, shard, 1)

    def _gateway(self, pages: Any) -> LiveState:
        found = LiveState(self.shards)
        found.take_directory(CATALOGS[len(pages)], metadata(self.labels), pages, 1)
        return found

    # --- the owner ---

    def tick(
        self, shard: int, channels: list[int], prompt: bool, arrives: tuple[bool, bool], parts: int
    ) -> None:
        """The owner publishes; batches may be lost, the image may lag."""
        owner = self.owners[shard]
        mine = [c for c in channels if shard_of_page(c >> PAGE_SHIFT, self.shards) == shard]
        if not mine:
            return
        self.value += 1.0
        owner.sequence += 1
        columns = columns_of(mine, self.value)
        owner.unwritten.update(owner.table.apply_batch(columns).tolist())
        owner.changed.note_changed(columns.key, owner.sequence)
        self.truth |= dict.fromkeys(mine, self.value)
        if prompt:
            self.write_image(shard)
        rows = np.array_split(np.arange(len(mine)), min(parts, len(mine)))
        for at, arrival in enumerate(arrives):
            for part, chosen in enumerate(rows):
                if arrival or (len(rows) > 1 and part == 0):
                    more = part + 1 < len(rows)
                    part_of = columns.take_rows(chosen)
                    batch = BusBatch(owner.epoch, owner.sequence, part, more, part_of)
                    self.in_flight[at, shard].append(batch)

    def relabel(self, channel: int, prompt: bool, arrives: tuple[bool, bool]) -> None:
        """Labels change while the IOC runs: they are in the image, and the number follows them."""
        self.labels[channel] += 1
        shard = shard_of_page(channel >> PAGE_SHIFT, self.shards)
        owner = self.owners[shard]
        owner.sequence += 1
        columns = owner.table.columns_of_channels(np.array([channel]))
        owner.unwritten.update(owner.table.apply_batch(columns).tolist())
        owner.changed.note_changed(columns.key, owner.sequence)
        if prompt:
            self.write_image(shard)
        for at, arrival in enumerate(arrives):
            if arrival:
                batch = BusBatch(owner.epoch, owner.sequence, 0, False, columns)
                self.in_flight[at, shard].append(batch)

    def read_labels(self, at: int) -> None:
        """As the feed does, before a batch that needs them and after the pages of the image."""
        gateway = self.gateways[at]
        news = [
            page
            for page in metadata(self.labels)
            if gateway.metadata.labels(page.number << PAGE_SHIFT | min(page.labels))
            != page.labels[min(page.labels)]
        ]
        pages = gateway.pages
        gateway.take_directory([], news, pages, 1)

    def write_image(self, shard: int) -> None:
        """Also what the image has lost: the owner looks for it."""
        owner, image = self.owners[shard], self.images[shard]
        lost = np.flatnonzero(image.epoch == 0).tolist()
        image.write(owner, sorted(owner.unwritten.union(lost)))
        owner.unwritten = set()

    def fail_over(self, shard: int, written: bool) -> None:
        """A new owner fences the image, and reads all channels; the old one still sends."""
        owner = self.owners[shard]
        late = floats([CHANNELS[0]], [DEPOSED])
        deposed = BusBatch(owner.epoch, owner.sequence + 1, 0, False, late)
        owner.epoch += 1
        owner.sequence = 0
        owner.changed.begin_epoch()
        # it begins with what the image has, not with what was promised besides
        owner.promised, owner.due = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        self.images[shard].fence = owner.epoch
        owner.unwritten = set(range(len(owner.table.page_numbers)))
        self.tick(shard, CHANNELS, written, (True, True), 1)
        for at in (0, 1):
            self.in_flight[at, shard].append(deposed)

    def beat(self, at: int, shard: int) -> None:
        """A sign of life: what the one before it promised has to be there."""
        owner = self.owners[shard]
        owner.due[at], owner.promised[at] = owner.promised[at], (owner.epoch, owner.sequence)
        self.gateways[at].shards[shard].stream.note_heartbeat(owner.epoch, owner.sequence)

    # --- what goes wrong ---

    def lose_page(self, shard: int, index: int) -> None:
        """Evicted, or torn."""
        image = self.images[shard]
        image.epoch[index % len(image.epoch)] = 0

    def lie(self, at: int, shard: int, sequence: int) -> None:
        """A batch with a number that nobody has come to."""
        batch = BusBatch(
            self.owners[shard].epoch, 2**40 + sequence, 0, False, Columns.empty_columns(0)
        )
        self.in_flight[at, shard].append(batch)

    def duplicate(self, at: int, shard: int) -> None:
        flying = self.in_flight[at, shard]
        if flying:
            flying.insert(0, flying[0])

    # --- gateways and clients ---

    def deliver(self, at: int, shard: int, count: int) -> None:
        flying = self.in_flight[at, shard]
        for batch in flying[:count]:
            if (batch.columns.kind == Kind.ENUM).any():
                self.read_labels(at)
            self.gateways[at].apply_batch(shard, batch)
        del flying[:count]

    def resync(self, at: int, shard: int) -> None:
        """As the feed does, which asks only while the stream is out of step."""
        gateway, image = self.gateways[at], self.images[shard]
        numbers = image.table.page_numbers
        index = np.flatnonzero(np.isin(numbers, gateway.pages_of(shard)))
        stamps = image.epoch[index], image.sequence[index]
        pages, ages = image.table.take_pages(index), image.ages[index]
        self.read_labels(at)
        gateway.resynchronise_shard(shard, pages, *stamps, image.fence, ages)
        stream = gateway.shards[shard].stream
        lacks = stream.known_position < self.owners[shard].due[at]
        assert not (stream.in_sync and lacks), "believes to be complete"

    def learn(self, at: int) -> None:
        """The directory has grown."""
        gateway = self.gateways[at]
        gateway.take_directory(CATALOGS[len(PAGES)], metadata(self.labels), PAGES, 2)
        self._part(gateway)

    def restart(self, at: int) -> None:
        self._part(self.gateways[at])
        self.gateways[at] = self._gateway(self.gateways[at].pages)
        for shard, owner in enumerate(self.owners):
            owner.promised[at] = owner.due[at] = (0, 0)
            self.resync(at, shard)

    def _part(self, gateway: LiveState) -> None:
        for client in self.clients:
            if client.gateway is gateway:
                client.leave()

    def connect(self, who: int, at: int) -> None:
        self.clients[who].connect(self.gateways[at])

    def read(self, who: int) -> None:
        self.clients[who].read()

    # --- the law ---

    def check(self) -> None:
        for gateway in self.gateways:
            found = values(gateway, np.array(CHANNELS))
            assert all(value != DEPOSED for _, value in found), "a value of an older epoch"

    def end(self) -> None:
        """When all is quiet and the image is complete, everybody holds the truth."""
        for at, gateway in enumerate(self.gateways):
            self.learn(at)
            for shard, owner in enumerate(self.owners):
                self.write_image(shard)
                self.deliver(at, shard, len(self.in_flight[at, shard]))
                for _ in range(3):
                    self.beat(at, shard)
                    if not gateway.shards[shard].stream.in_sync:
                        self.resync(at, shard)
                stream = gateway.shards[shard].stream
                assert stream.in_sync, "out of step for ever"
                assert stream.known_position == stream.newest_point == (owner.epoch, owner.sequence)
        for who, client in enumerate(self.clients):
            if client.gateway is None:
                self.connect(who, 0)
            client.read()
            client.require_held(self.truth, "not the truth")
            assert client.labels == self.labels, "not the labels of the machine"


def draw(rng: random.Random, shards: int) -> Step:
    """One step, with its arguments."""
    shard, at, who = rng.randrange(shards), rng.randrange(2), rng.randrange(3)

    def tick() -> Step:
        channels = sorted(rng.sample(CHANNELS, rng.randint(1, 3)))
        return "tick", shard, channels, rng.random() < 0.5, some(), rng.randint(1, 2)

    def some() -> tuple[bool, bool]:
        return rng.random() < 0.7, rng.random() < 0.7

    kinds: list[tuple[int, Callable[[], Step]]] = [
        (8, tick),
        (2, lambda: ("relabel", rng.choice(ENUMS), rng.random() < 0.5, some())),
        (1, lambda: ("read_labels", at)),
        (8, lambda: ("deliver", at, shard, rng.randint(1, 3))),
        (4, lambda: ("resync", at, shard)),
        (4, lambda: ("connect", who, at)),
        (4, lambda: ("read", who)),
        (3, lambda: ("write_image", shard)),
        (3, lambda: ("beat", at, shard)),
        (3, lambda: ("fail_over", shard, rng.random() < 0.5)),
        (2, lambda: ("lose_page", shard, rng.randrange(6))),
        (1, lambda: ("lie", at, shard, rng.randrange(2))),
        (1, lambda: ("duplicate", at, shard)),
        (2, lambda: ("restart", at)),
        (1, lambda: ("learn", at)),
    ]
    (chosen,) = rng.choices([make for _, make in kinds], [weight for weight, _ in kinds])
    return chosen()


def walk(shards: int, steps: list[Step]) -> None:
    """Raises AssertionError where the law is broken."""
    world = World(shards)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        world.check()
    world.end()


def breaks(shards: int, steps: list[Step]) -> bool:
    try:
        walk(shards, steps)
    except AssertionError:
        return True
    return False


def shortest(shards: int, steps: list[Step]) -> list[Step]:
    """Leave out what the breach does not need."""
    index = len(steps) - 1
    while index >= 0:
        fewer = steps[:index] + steps[index + 1 :]
        if breaks(shards, fewer):
            steps = fewer
        index = min(index, len(steps)) - 1
    return steps


CASES: list[tuple[str, list[Step]]] = [
    (
        "what was read ahead of the stream is in the token",
        [
            ("tick", 0, [257], False, (True, False), 1),
            ("fail_over", 0, False),
            ("connect", 0, 1),
            ("fail_over", 0, True),
            ("fail_over", 0, False),
            ("lose_page", 0, 1),
            ("resync", 1, 0),
            ("read", 0),
            ("deliver", 0, 0, 2),
            ("connect", 0, 0),
        ],
    ),
    (
        "a gateway that restarts is not told what the fence excludes",
        [
            ("fail_over", 0, False),
            ("fail_over", 0, False),
            ("deliver", 0, 0, 1),
            ("restart", 0),
            ("deliver", 0, 0, 1),
        ],
    ),
    (
        "what a sign of life promised and the image lacks is not complete",
        [
            ("tick", 0, [257], False, (False, False), 1),
            ("beat", 0, 0),
            ("beat", 0, 0),
            ("resync", 0, 0),
        ],
    ),
    (
        "labels that changed while a client was away are told when it goes on",
        [
            ("connect", 0, 0),
            ("relabel", 514, True, (True, True)),
            ("deliver", 0, 0, 1),
            ("connect", 0, 0),
        ],
    ),
    (
        "labels that only the image tells of are told too",
        [("connect", 0, 0), ("relabel", 770, True, (False, False)), ("beat", 0, 0)],
    ),
    (
        "a batch with an absurd number does not wait for ever",
        [("lie", 0, 0, 0), ("lie", 1, 0, 1), ("deliver", 0, 0, 1), ("resync", 0, 0)],
    ),
    (
        "what came before its page was known is not taken for read",
        [
            ("tick", 0, [1025], False, (True, True), 1),
            ("deliver", 0, 0, 5),
            ("learn", 0),
            ("connect", 0, 0),
            ("resync", 0, 0),
            ("learn", 1),
            ("connect", 0, 1),
        ],
    ),
]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("case", [pytest.param(steps, id=name) for name, steps in CASES])
def test_cases(shards: int, case: list[Step]) -> None:
    walk(shards, case)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_law(shards: int, chunk: int) -> None:
    walks = WALKS * int(os.environ.get("DREY_TEST_EXPLORE", "1"))
    for seed in range(chunk * walks, (chunk + 1) * walks):
        rng = random.Random(seed)
        steps = [draw(rng, shards) for _ in range(rng.randint(1, STEPS))]
        if breaks(shards, steps):
            found = shortest(shards, steps)
            lines = "".join(f"    {step!r},\n" for step in found)
            print(f"{shards} shards, seed {seed}; keep this in CASES:\n[\n{lines}]")
            walk(shards, found)
