"""The law of watching: baseline plus diffs is the final state, whatever happens in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drey_core.pages import PageTable
from drey_core.values import Columns
from drey_gateway.domain.live import Live
from drey_gateway.domain.resume import Token, decode_token, encode_token
from drey_gateway.domain.shard import Batch
from drey_gateway.domain.watch import Fields, Selection, WatchState, honourable
from drey_testing.fixtures_gateway import catalog_pages, floats, readback, setpoint

PVS = 130
"""Two pages."""
CHOSEN = (1, 2, 126, 130)
"""PVs that change; both pages have some."""
CHANNELS = [c for pv in CHOSEN for c in (setpoint(pv), readback(pv))]


class Redis:
    """The image, as an owner writes it: changed pages, stamped as a whole."""

    def __init__(self) -> None:
        self.table = PageTable(np.array([1, 2]))
        self.epoch = np.zeros(2, np.uint64)
        self.sequence = np.zeros(2, np.uint64)

    def write(self, columns: Columns, epoch: int, sequence: int) -> None:
        if epoch < int(self.epoch.max()):
            return
        touched = self.table.apply(columns)
        self.epoch[touched], self.sequence[touched] = epoch, sequence

    def write_all(self, table: PageTable, epoch: int, sequence: int) -> None:
        for index in range(2):
            self.table.replace_page(index, table.taken(np.array([index])))
        self.epoch[:], self.sequence[:] = epoch, sequence


class Client:
    """What a user holds: the value of each channel."""

    def __init__(self) -> None:
        self.held: dict[int, float] = {}
        self.token = ""
        self.gateway: Live | None = None
        self.state: WatchState | None = None
        self.merged = 0

    def connect(self, gateway: Live) -> None:
        rows = np.arange(PVS)
        selection = Selection.of(rows, gateway.directory, gateway.image, Fields.BOTH, 1)
        state = WatchState(selection)
        change = None
        if self.token:
            token = decode_token(self.token)
            if not honourable(token, selection, gateway.positions()):
                change = state.since_token(gateway.image, token, 1)
        if change is None:
            self.held = {}
            change = state.everything(gateway.image)
        self.gateway, self.state = gateway, state
        self._take(change.at)

    def _take(self, at: Any) -> None:
        assert self.gateway is not None and self.state is not None
        selection = self.state.selection
        for channels in (selection.setpoints[at], selection.readbacks[at]):
            columns = self.gateway.image.columns(channels)
            for row, channel in enumerate(channels.tolist()):
                if columns.kind[row]:
                    new = float(columns.value(row))
                    assert new >= self.held.get(channel, -1.0), "an older value after a newer"
                    self.held[channel] = new
        mine = self.gateway.positions()
        self.token = encode_token(Token(selection.digest, {0: mine[0]}))

    def read(self) -> None:
        if self.state is not None and self.gateway is not None:
            change = self.state.diff(self.gateway.image)
            self.merged += change.merged
            self._take(change.at)


class Law(RuleBasedStateMachine):
    """Values only grow, so an older one after a newer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = Redis()
        self.owner = PageTable(np.array([1, 2]))
        self.truth: dict[int, float] = {}
        self.epoch, self.sequence, self.value = 1, 0, 0.0
        self.in_flight: list[list[Batch]] = [[], []]
        self.behind: list[tuple[Columns, int, int]] = []
        self.gateways = [self._gateway(), self._gateway()]
        self.clients = [Client(), Client()]

    def _gateway(self) -> Live:
        found = Live(1)
        found.take_directory(catalog_pages(PVS), [], np.array([1, 2]), 1)
        return found

    @initialize()
    def begin(self) -> None:
        self.tick(CHANNELS, True, [True, True], 1)
        for at in (0, 1):
            self.resync(at)

    @rule(
        channels=st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True),
        prompt=st.booleans(),
        arrives=st.lists(st.booleans(), min_size=2, max_size=2),
        parts=st.integers(1, 2),
    )
    def tick(self, channels: list[int], prompt: bool, arrives: list[bool], parts: int) -> None:
        """The owner publishes; batches may be lost, the image may lag."""
        self.value += 1.0
        self.sequence += 1
        columns = floats(channels, [self.value] * len(channels), int(self.value))
        self.owner.apply(columns)
        self.truth |= dict.fromkeys(channels, self.value)
        self.behind.append((columns, self.epoch, self.sequence))
        if prompt:
            self.write_image()
        rows = np.array_split(np.arange(len(channels)), min(parts, len(channels)))
        for at, arrival in enumerate(arrives):
            for part, chosen in enumerate(rows):
                if arrival or (len(rows) > 1 and part == 0):
                    more = part + 1 < len(rows)
                    batch = Batch(self.epoch, self.sequence, part, more, columns.take(chosen))
                    self.in_flight[at].append(batch)

    @rule()
    def write_image(self) -> None:
        for item in self.behind:
            self.redis.write(*item)
        self.behind = []

    @rule(at=st.integers(0, 1), count=st.integers(1, 5))
    def deliver(self, at: int, count: int) -> None:
        for batch in self.in_flight[at][:count]:
            self.gateways[at].take(0, batch)
        del self.in_flight[at][:count]

    @rule(at=st.integers(0, 1))
    def duplicate(self, at: int) -> None:
        if self.in_flight[at]:
            self.in_flight[at].insert(0, self.in_flight[at][0])

    @precondition(lambda self: self.epoch < 6)
    @rule(written=st.booleans())
    def fail_over(self, written: bool) -> None:
        """A new owner reads all channels; what the old one still sends is of an older epoch."""
        late = [Batch(self.epoch, self.sequence + 1, 0, False, floats([CHANNELS[0]], [1e9]))]
        self.epoch += 1
        self.sequence = 0
        if written:
            self.write_image()
        self.behind = []
        self.tick(CHANNELS, written, [True, True], 1)
        for at in (0, 1):
            self.in_flight[at] += late

    @rule(at=st.integers(0, 1))
    def resync(self, at: int) -> None:
        """As the feed does: only when the stream asks, or a directory made it look."""
        pages = self.redis.table.taken(np.arange(2))
        gateway = self.gateways[at]
        gateway.resynchronise(0, pages, self.redis.epoch.copy(), self.redis.sequence.copy())

    @rule(at=st.integers(0, 1), index=st.integers(0, 1))
    def read_one_page(self, at: int, index: int) -> None:
        """A directory change reads single pages, ahead of the stream."""
        pages = self.redis.table.taken(np.array([index]))
        self.gateways[at].take_pages(pages, self.redis.epoch[[index]], self.redis.sequence[[index]])

    @rule(at=st.integers(0, 1))
    def restart_gateway(self, at: int) -> None:
        old = self.gateways[at]
        self.gateways[at] = self._gateway()
        self.resync(at)
        for client in self.clients:
            if client.gateway is old:
                client.gateway = client.state = None

    @rule(who=st.integers(0, 1), at=st.integers(0, 1))
    def connect(self, who: int, at: int) -> None:
        self.clients[who].connect(self.gateways[at])

    @rule(who=st.integers(0, 1))
    def read(self, who: int) -> None:
        self.clients[who].read()
        self._agrees(self.clients[who])

    def _agrees(self, client: Client) -> None:
        """At a checkpoint the client holds what the gateway does."""
        if client.gateway is None:
            return
        columns = client.gateway.image.columns(np.array(CHANNELS))
        for row, channel in enumerate(CHANNELS):
            if columns.kind[row]:
                assert client.held[channel] >= columns.value(row)

    @invariant()
    def never_of_an_older_epoch(self) -> None:
        for gateway in self.gateways:
            columns = gateway.image.columns(np.array(CHANNELS))
            assert all(columns.value(r) != 1e9 for r in range(len(CHANNELS)) if columns.kind[r])

    def teardown(self) -> None:
        """When all is quiet and the image is complete, everybody holds the truth."""
        if not self.truth:
            return
        self.redis.write_all(self.owner, self.epoch, self.sequence)
        for at, gateway in enumerate(self.gateways):
            self.deliver(at, len(self.in_flight[at]))
            gateway.shards[0].stream.heard(self.epoch, self.sequence)
            if not gateway.shards[0].stream.in_sync:
                self.resync(at)
            assert gateway.shards[0].stream.in_sync
            assert gateway.shards[0].stream.position == (self.epoch, self.sequence)
        for client in self.clients:
            if client.gateway is None:
                client.connect(self.gateways[0])
            client.read()
            assert {c: client.held[c] for c in CHANNELS} == self.truth


Law.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLaw = Law.TestCase
