"""Spreads the shards over the monitors, and hands over what this one gives away.

The owner of a shard decides, by `domain.balance`, and offers the shard to another in its report.
Who is offered a shard connects its channels and says that it is prepared; then the owner lets go,
and the other, which waits for the lease as always, has it and publishes at once. All others leave
a shard that is offered alone. Reports are hints, no more: who owns is decided by the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from drey.events.v1.instances_pb2 import InstanceReport
from drey_core.errors import Malformed
from drey_monitor.domain.balance import Move, ShardLoad, SteadyNeed, plan_moves
from drey_monitor.loops.epochs import EpochListener
from drey_monitor.owned import Shards
from drey_runtime.bus import Bus
from drey_runtime.edge import decode_instance, note
from drey_runtime.instances import InstanceReports, instance_name
from drey_runtime.nats_client import Msg

log = logging.getLogger(__name__)

_STEP_S = 0.1
_LIVES_S = 3.5
"""A monitor that gave no report for so long is no taker; it gives one a second."""
_BEATS_S = 2.5
_STEADY_S = 1.0
"""For so long something has to be planned to move before the first is moved."""
_LOOK_FIRST_S = 3.0
_PREPARE_S = 15.0
_GIVEN_S = 3.0
"""After an owner let go the others leave the shard alone for so long."""
_MOST_OFFERS = 4
_LEAVE_S = 8.0


@dataclass(slots=True)
class _Member:
    """Another monitor."""

    report: InstanceReport
    heard_at: float

    @property
    def offers(self) -> dict[int, str]:
        return {offer.shard: offer.to for offer in self.report.offers}


@dataclass(slots=True)
class _Offer:
    """One shard that this monitor hands over."""

    taker: str
    made_at: float
    given_at: float | None = None


class Balancer:
    """One for each monitor. Where NATS is away nothing is moved."""

    def __init__(
        self, shards: Shards, epochs: EpochListener, bus: Bus, shard_count: int, enabled: bool
    ) -> None:
        self._shards, self._epochs, self._bus = shards, epochs, bus
        self._shard_count, self._enabled = shard_count, enabled
        self._me = instance_name()
        self._members: dict[str, _Member] = {}
        self._offers: dict[int, _Offer] = {}
        self._need = SteadyNeed(_STEADY_S)
        self._leaving = False
        self.reports: InstanceReports | None = None

    async def on_report(self, message: Msg) -> None:
        """An `InstanceReport` of a monitor came, possibly our own."""
        try:
            report = decode_instance(message.data)
        except Malformed as error:
            note(error, "reports of instances")
            return
        if report.instance != self._me:
            if report.instance not in self._members:
                log.info("another monitor is there: %s", report.instance)
            self._members[report.instance] = _Member(report, time.monotonic())

    def describe(self, report: InstanceReport) -> None:
        """What the others have to know of this monitor."""
        report.leaving = self._leaving or self._shards.released.is_set()
        report.full = self._shards.full
        for shard, offer in self._offers.items():
            report.offers.add(shard=shard, to=offer.taker)
        report.prepared.extend(s for s in range(self._shard_count) if self._shards.turn(s).prepared)

    async def run(self) -> None:
        """Look ten times a second."""
        begun = time.monotonic()
        while True:
            now = time.monotonic()
            before = self._state()
            self._forget_silent(now)
            self._follow_offers(now)
            if self._leaving or (self._enabled and now - begun > _LOOK_FIRST_S):
                self._make_offers(now)
            self._tell_turns()
            if self._state() != before:
                self._report()
            await asyncio.sleep(_STEP_S)

    async def leave(self) -> None:
        """Hand everything over to others, as far as there are any; takes eight seconds at most."""
        if not self._bus.connected or not self._takers():
            return
        self._leaving = True
        self._report()
        end = time.monotonic() + _LEAVE_S
        while self._shards.holds_leases and time.monotonic() < end and self._takers():
            await asyncio.sleep(_STEP_S / 2)
        # whoever was last given one is to be heard before this process is not
        log.info("left with %d shards", len(self._shards))

    # --- inside ---

    def _report(self) -> None:
        if self.reports is not None:
            self.reports.hurry()

    def _state(self) -> object:
        prepared = [s for s in range(self._shard_count) if self._shards.turn(s).prepared]
        offers = {s: (o.taker, o.given_at) for s, o in self._offers.items()}
        return prepared, offers, self._shards.full

    def _takers(self) -> list[str]:
        """Other monitors that may take one more."""
        now = time.monotonic()
        return [
            name
            for name, member in self._members.items()
            if now - member.heard_at <= _LIVES_S
            and not (member.report.leaving or member.report.full)
        ]

    def _forget_silent(self, now: float) -> None:
        self._members = {n: m for n, m in self._members.items() if now - m.heard_at <= _LIVES_S}

    def _follow_offers(self, now: float) -> None:
        """Let go of what the taker is prepared for; take back what nobody prepares."""
        for shard, offer in list(self._offers.items()):
            taker = self._members.get(offer.taker)
            if offer.given_at is not None:
                if now - offer.given_at > _GIVEN_S:
                    del self._offers[shard]
            elif taker is None or now - offer.made_at > _PREPARE_S:
                del self._offers[shard]
            elif shard in taker.report.prepared:
                offer.given_at = now
                # before it is free: this process waits for it too
                self._shards.turn(shard).set_free(False)
                owned = self._shards.get(shard)
                if owned is not None:
                    log.info("shard %d: %s is prepared, handing over", shard, offer.taker)
                    owned.given.set()

    def _make_offers(self, now: float) -> None:
        planned = self._plan_moves(now)
        lasting = self._need.observe(bool(planned), self._takers(), now)
        moves = self._mine_of(planned)
        if not moves or not (lasting or self._leaving):
            return
        most = self._shard_count if self._leaving else _MOST_OFFERS
        for move in moves[: max(most - len(self._offers), 0)]:
            log.info("shard %d: offered to %s", move.shard, move.taker)
            self._offers[move.shard] = _Offer(move.taker, now)
        self._need.restart()

    def _mine_of(self, moves: list[Move]) -> list[Move]:
        return [
            move
            for move in moves
            if move.giver == self._me
            and move.shard not in self._offers
            and self._shards.get(move.shard) is not None
        ]

    def _plan_moves(self, now: float) -> list[Move]:
        """Nothing while some shard has no owner that is heard: a fail-over comes first."""
        beats = {s: beat for s, beat in self._epochs.beats.items() if s < self._shard_count}
        heard = {s for s, beat in beats.items() if now - beat.heard_at <= _BEATS_S}
        if len(heard) < self._shard_count and not self._leaving:
            return []
        owners = {shard: beat.owner for shard, beat in beats.items()}
        for member in self._members.values():
            owners.update(member.offers)
        owners.update((shard, offer.taker) for shard, offer in self._offers.items())
        takers = self._takers()
        if not self._leaving and not self._shards.released.is_set():
            takers.append(self._me)
        loads = {s: ShardLoad(b.channels, b.updates_per_s) for s, b in beats.items()}
        return plan_moves(owners, loads, takers, [self._me] if self._leaving else [])

    def _tell_turns(self) -> None:
        """Which shards are offered to this process, and which to others."""
        offered: dict[int, str] = {}
        for member in self._members.values():
            offered.update(member.offers)
        for shard in range(self._shard_count):
            turn = self._shards.turn(shard)
            mine = self._offers.get(shard)
            to = offered.get(shard)
            turn.set_wanted(to == self._me and not self._leaving)
            given_away = self._leaving or (mine is not None and mine.given_at is not None)
            turn.set_free(not given_away and (to is None or to == self._me))
